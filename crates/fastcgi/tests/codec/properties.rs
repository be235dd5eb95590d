//! What holds for any input.

use forebay_fastcgi::Limits;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::common::{begin, client_in, record, server_in};

const SMALL: Limits = Limits {
    max_requests: 2,
    max_params_bytes: 24,
    max_params: 3,
    max_name: 6,
    max_value: 10,
    max_management: 40,
};

/// Records with mistakes here and there.
fn records() -> impl Strategy<Value = Vec<u8>> {
    let content = prop_oneof![
        3 => Just(vec![]),
        3 => "[a-z]{1,20}".prop_map(String::into_bytes),
        2 => Just(b"\x01\x01ab\x01\0c".to_vec()),
        1 => Just(b"\x0e\0FCGI_MAX_CONNS".to_vec()),
        1 => (0..5_u8).prop_map(|status| vec![0, 0, 0, 0, status, 0, 0, 0]),
    ];
    let odd = (0..13_u8, 0..4_u8, content.clone(), 0..9_u8).prop_map(|(kind, id, content, pad)| {
        let mut record = record(kind, id, &content);
        record[6] = pad;
        record.resize(record.len() + usize::from(pad), 7);
        record
    });
    let one = prop_oneof![
        2 => odd,
        4 => (1..3_u8, 1..4_u8, 0..2_u8).prop_map(|(id, role, flags)| begin(id, role, flags)),
        4 => (4..8_u8, 1..3_u8, content).prop_map(|(kind, id, content)| record(kind, id, &content)),
        1 => vec(any::<u8>(), 0..10),
    ];
    vec(one, 0..12).prop_map(|records| records.concat())
}

proptest! {
    #[test]
    fn cuts_do_not_matter_to_the_application(input in records(), most in 1..9_usize) {
        for limits in [Limits::default(), SMALL] {
            let whole = server_in(&[&input], limits, usize::MAX);
            let bytes: Vec<&[u8]> = input.chunks(1).collect();
            prop_assert_eq!(&server_in(&bytes, limits, most), &whole);
            for at in 0..input.len() {
                let (a, b) = input.split_at(at);
                prop_assert_eq!(&server_in(&[a, b], limits, most), &whole);
            }
        }
    }

    #[test]
    fn cuts_do_not_matter_to_the_web_server(input in records(), most in 1..9_usize) {
        let whole = client_in(&[&input], 2, usize::MAX);
        let bytes: Vec<&[u8]> = input.chunks(1).collect();
        prop_assert_eq!(&client_in(&bytes, 2, most), &whole);
        for at in 0..input.len() {
            let (a, b) = input.split_at(at);
            prop_assert_eq!(&client_in(&[a, b], 2, most), &whole);
        }
    }
}
