//! What several targets need.

/// The input as it may arrive: whole, byte by byte, and cut in two, three and more places that
/// depend on the input itself (so that a finding can be repeated from its bytes alone).
pub fn arrivals(input: &[u8]) -> Vec<Vec<&[u8]>> {
    let mut arrivals = vec![vec![input], input.chunks(1).collect()];
    if !input.is_empty() {
        // FNV-1a: any function of the bytes will do.
        let hash = input.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let len = input.len() as u64;
        let place = |n: u64| usize::try_from(n % (len + 1)).unwrap_or(0);
        let (start, end) = input.split_at(place(hash));
        arrivals.push(vec![start, end]);
        arrivals.push(vec![start, b"", end]);
        arrivals.push(input.chunks(place(hash >> 32).max(1)).collect());
    }
    arrivals
}

/// Checks that `run` says the same of every arrival of the input; gives what it says of the whole.
pub fn same_however_it_arrives<T: PartialEq + std::fmt::Debug>(
    input: &[u8],
    run: impl Fn(&[&[u8]]) -> T,
) -> T {
    let mut arrivals = arrivals(input).into_iter();
    let whole = run(&arrivals.next().unwrap_or_default());
    for pieces in arrivals {
        let lens: Vec<usize> = pieces.iter().map(|piece| piece.len()).collect();
        assert_eq!(run(&pieces), whole, "in pieces of {lens:?}");
    }
    whole
}

/// Checks that no field could end a line or a string early.
pub fn check_fields(fields: &forebay_fields::Fields) {
    for field in fields {
        assert!(forebay_fields::is_token(field.name), "{field:?}");
        assert!(
            !field.value.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)),
            "{field:?}"
        );
        assert_eq!(
            forebay_fields::Known::of(field.name),
            field.known,
            "{field:?}"
        );
        assert!(fields.get(field.name).is_some(), "{field:?}");
    }
}

/// Each field as name and value, for comparing.
pub fn pairs(fields: &forebay_fields::Fields) -> Vec<(Vec<u8>, Vec<u8>)> {
    fields
        .iter()
        .map(|field| (field.name.to_vec(), field.value.to_vec()))
        .collect()
}
