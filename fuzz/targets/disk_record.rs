//! Records of the cache's segments: what is read is what would be written, and nothing is believed.
//!
//! A checksum that does not fit ends most inputs early, so each is also tried with the right ones.
#![no_main]

use bytes::Bytes;
use forebay_store::disk::record::{
    self, HEADER_BYTES, Head, Header, Kind, REF_BYTES, Ref, SEGMENT_HEADER_BYTES,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    record(input);
    if input.len() >= HEADER_BYTES {
        let mut right = input.to_vec();
        let payload = crc32c::crc32c(&right[HEADER_BYTES..]);
        let len = u32::try_from(right.len() - HEADER_BYTES).unwrap();
        right[..4].copy_from_slice(b"FbRc");
        right[12..16].copy_from_slice(&len.to_le_bytes());
        right[24..28].copy_from_slice(&payload.to_le_bytes());
        let header = crc32c::crc32c(&right[8..HEADER_BYTES]);
        right[4..8].copy_from_slice(&header.to_le_bytes());
        record(&right);
    }
    head(input);
    place(input);
    segment(input);
});

fn record(input: &[u8]) {
    let Some(header) = Header::parse(input) else {
        assert!(record::whole(Bytes::copy_from_slice(input)).is_none());
        return;
    };
    assert_eq!(header.to_bytes()[..], input[..HEADER_BYTES]);
    assert!(header.record_bytes() >= HEADER_BYTES as u64);
    if let Some((same, payload)) = record::whole(Bytes::copy_from_slice(input)) {
        assert_eq!(same, header);
        assert_eq!(payload.len(), usize::try_from(header.payload_bytes).unwrap());
        let ids = (header.id, header.tag, header.number);
        let again = Header::of(header.kind, header.generation, ids, &[&payload]);
        assert_eq!(again, header);
        let mut written = Vec::new();
        record::write(&mut written, &header, &[&payload]);
        assert_eq!(written.len() as u64, header.record_bytes());
        if header.kind == Kind::Head {
            head(&payload);
        }
    }
}

fn head(payload: &[u8]) {
    if let Some(head) = Head::parse(&Bytes::copy_from_slice(payload)) {
        assert_eq!(head.payload_bytes(), payload.len());
        let mut written = head.fixed();
        for part in [&head.key, &head.meta, &head.body] {
            written.extend_from_slice(part);
        }
        assert_eq!(written, payload);
    }
}

fn place(input: &[u8]) {
    if let Some(place) = Ref::parse(input, 7, 9) {
        assert_eq!(place.to_bytes(7, 9)[..], input[..REF_BYTES]);
        assert_eq!(Ref::parse(input, 8, 9), None);
        assert_eq!(Ref::parse(input, 7, 10), None);
    }
}

fn segment(input: &[u8]) {
    if let Some((store, generation)) = record::parse_segment_header(input) {
        let written = record::segment_header(store, generation);
        assert_eq!(record::parse_segment_header(&written), Some((store, generation)));
        assert!(input.len() >= SEGMENT_HEADER_BYTES);
    }
}
