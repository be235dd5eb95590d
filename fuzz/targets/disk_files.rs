//! The cache's files beside its segments: whose a directory is, what was purged, the saved index.
//!
//! A checksum that does not fit ends most inputs early, so each is also tried with the right one.
#![no_main]

use forebay_store::disk::checkpoint::{parse_chunk, parse_start, start_bytes};
use forebay_store::disk::identity::Identity;
use forebay_store::disk::rule_log;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    all(input);
    if input.len() < 16 {
        return;
    }
    for magic in [b"FbStore\0", b"FbRules\0", b"FbIndex\0"] {
        let mut right = input.to_vec();
        right[..8].copy_from_slice(magic);
        right[12..16].copy_from_slice(&1_u32.to_le_bytes());
        let len = match magic {
            b"FbRules\0" => 48,
            b"FbIndex\0" => start_bytes(&right).unwrap_or(0),
            _ => right.len(),
        };
        if len >= 16 && len <= right.len() {
            let crc = crc32c::crc32c(&right[12..len]);
            right[8..12].copy_from_slice(&crc.to_le_bytes());
            all(&right);
        }
    }
});

fn all(input: &[u8]) {
    if let Ok(identity) = Identity::parse(input) {
        assert_eq!(Identity::parse(&identity.to_bytes()), Ok(identity));
    }
    if let Some(start) = parse_start(input) {
        assert!(start_bytes(input).is_some_and(|len| len <= input.len()));
        assert!(start.segments.len() * 16 <= input.len());
    }
    if let Some((entries, len)) = parse_chunk(input) {
        assert_eq!(8 + entries.len() * 24, len);
        assert!(len <= input.len());
    }
    if let Some(log) = rule_log::parse(input) {
        assert!(log.len_bytes <= input.len());
        let mut written = Vec::new();
        for one in &log.rules {
            assert!(log.newest >= one.number);
            rule_log::write(&mut written, one.number, &one.rule, one.soft);
        }
        assert_eq!(written, input[log.len_bytes - written.len()..log.len_bytes]);
    }
}
