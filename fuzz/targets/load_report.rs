//! Reports of load, from datagrams and fields: what is taken is within its bounds, is read again as
//! what it was when it is written down, and stays so whatever else is said behind it.
#![no_main]

use std::fmt::Write as _;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;

use crate::parse::{LoadReport, MAX_REPORT};

// The parser alone: it is part of the binary.
#[allow(dead_code, unreachable_pub)]
#[path = "../../crates/forebay/src/upstream/report/parse.rs"]
mod parse;

fuzz_target!(|input: &[u8]| {
    let Some(report) = LoadReport::parse(input) else {
        return;
    };
    assert!(input.len() <= MAX_REPORT);
    for part in [report.load.cpu, report.load.memory, report.load.io] {
        assert!((0.0..=100.0).contains(&part), "{part}");
    }
    let (least, most) = (Duration::from_secs(1), Duration::from_secs(60));
    assert!((least..=most).contains(&report.period), "{:?}", report.period);

    // Numbers have three decimals at most (RFC 9651 §3.3.2).
    let mut written = String::new();
    let load = &report.load;
    let _ = write!(
        written,
        "cpu={:.3}, memory={:.3}, io={:.3}, period={:.3}",
        load.cpu,
        load.memory,
        load.io,
        report.period.as_secs_f64()
    );
    if let Some(peer) = &report.peer {
        assert!(peer.len() <= input.len());
        let peer = peer.replace('\\', r"\\").replace('"', "\\\"");
        let _ = write!(written, ", peer=\"{peer}\"");
    }
    if written.len() <= MAX_REPORT {
        assert_eq!(LoadReport::parse(written.as_bytes()).as_ref(), Some(&report), "{written}");
    }

    // There may be more to say one day.
    let more = [input, b", later=(1 \"two\");three, four".as_slice()].concat();
    if more.len() <= MAX_REPORT {
        assert_eq!(LoadReport::parse(&more), Some(report));
    }
    // And nothing that is cut off is worse than none.
    for end in 0..input.len() {
        let _ = LoadReport::parse(&input[..end]);
    }
});
