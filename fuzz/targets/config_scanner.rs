//! Sources of configurations: whatever they hold, spans lie within them, and the marked code is
//! the source with something in between, line by line.
#![no_main]

use libfuzzer_sys::fuzz_target;

use crate::scan::{Scan, scan};

// The scanner alone: with its crate, Lua would be built with coverage, too, which takes minutes.
#[allow(dead_code, unreachable_pub, unused_imports)]
#[path = "../../crates/config/src/scan/mod.rs"]
mod scan;

fuzz_target!(|input: &[u8]| {
    let found = scan(input, 0);
    check_spans(input, &found);
    if let Some(code) = &found.code {
        check_code(input, code);
    } else {
        assert!(found.sites.is_empty() && found.parts.is_empty());
    }
    // The numbers of the sites change the marks and nothing else.
    let moved = scan(input, 1_000_000);
    assert_eq!(moved.sites, found.sites);
    assert_eq!(moved.parts, found.parts);
    assert_eq!(moved.code.is_some(), found.code.is_some());
});

fn check_spans(input: &[u8], found: &Scan) {
    let within = |(start, end): (u32, u32)| {
        assert!(start <= end && usize::try_from(end).is_ok_and(|end| end <= input.len()));
    };
    let parts = u32::try_from(found.parts.len()).expect("fewer parts than bytes");
    for site in &found.sites {
        within(site.span);
        site.called.into_iter().for_each(within);
        assert!(site.first + site.count <= parts);
    }
    for part in &found.parts {
        within(part.key_span);
        within(part.value_span);
    }
}

/// Every byte of the source is in the code, in order, and no line has moved.
fn check_code(input: &[u8], code: &[u8]) {
    let mut rest = code.iter();
    assert!(input.iter().all(|byte| rest.any(|other| other == byte)));
    let lines = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count();
    assert_eq!(lines(code), lines(input));
}
