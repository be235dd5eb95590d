//! What a request asks of a file: preconditions and ranges.

use super::*;

#[test]
fn preconditions_by_rfc9110_13_2_2() {
    let server = site();
    set_time(&server, "www/a.txt");
    let mut conn = server.client().connect();
    let etag = conn
        .get("/a.txt")
        .field("etag")
        .expect("an ETag")
        .to_owned();
    let mut check = |what: &str, method: &str, fields: &[(&str, &str)], status: u16| {
        let mut request = Request::new(method, "/a.txt");
        for (name, value) in fields {
            request = request.field(name, value);
        }
        let response = conn.exchange(&request);
        assert_eq!(response.status(), status, "{what}: {method} {fields:?}");
        response
    };
    let list = format!("\"x\", {etag}, \"y\"");
    let weak = format!("W/{etag}");
    for method in ["GET", "HEAD"] {
        // 1. If-Match, by strong comparison.
        let _ = check("the same", method, &[("If-Match", &etag)], 200);
        let _ = check("one of a list", method, &[("If-Match", &list)], 200);
        let _ = check("any", method, &[("If-Match", "*")], 200);
        let _ = check("another", method, &[("If-Match", "\"x\"")], 412);
        let _ = check("a weak one", method, &[("If-Match", &weak)], 412);
        // 2. If-Unmodified-Since, only without If-Match.
        let _ = check(
            "same time",
            method,
            &[("If-Unmodified-Since", STAMP.1)],
            200,
        );
        let _ = check("later", method, &[("If-Unmodified-Since", LATER)], 200);
        let _ = check("before", method, &[("If-Unmodified-Since", BEFORE)], 412);
        let _ = check(
            "no date",
            method,
            &[("If-Unmodified-Since", "yesterday")],
            200,
        );
        let both = [("If-Match", etag.as_str()), ("If-Unmodified-Since", BEFORE)];
        let _ = check("If-Match decides", method, &both, 200);
        // 3. If-None-Match, by weak comparison.
        let _ = check("the same", method, &[("If-None-Match", &etag)], 304);
        let _ = check("a weak one", method, &[("If-None-Match", &weak)], 304);
        let _ = check("one of a list", method, &[("If-None-Match", &list)], 304);
        let _ = check("any", method, &[("If-None-Match", "*")], 304);
        let _ = check("another", method, &[("If-None-Match", "\"x\"")], 200);
        // 4. If-Modified-Since, only without If-None-Match.
        let _ = check("same time", method, &[("If-Modified-Since", STAMP.1)], 304);
        let _ = check("later", method, &[("If-Modified-Since", LATER)], 304);
        let _ = check("before", method, &[("If-Modified-Since", BEFORE)], 200);
        let _ = check("no date", method, &[("If-Modified-Since", "never")], 200);
        let both = [("If-None-Match", "\"x\""), ("If-Modified-Since", LATER)];
        let _ = check("If-None-Match decides", method, &both, 200);
        // The first that fails decides.
        let both = [("If-Match", "\"x\""), ("If-None-Match", etag.as_str())];
        let _ = check("If-Match first", method, &both, 412);
    }
    // Obsolete forms of dates (RFC 9110 section 5.6.7) have to be understood.
    for date in ["Sunday, 02-Feb-20 02:02:02 GMT", "Sun Feb  2 02:02:02 2020"] {
        let _ = check("an old form", "GET", &[("If-Modified-Since", date)], 304);
    }
    let same = check("304", "GET", &[("If-None-Match", &etag)], 304);
    assert_eq!(
        same.field("etag"),
        Some(etag.as_str()),
        "RFC 9110 section 15.4.5"
    );
    assert_eq!(same.field("content-type"), None);
    // Two lines are one list.
    let two = [("If-None-Match", "\"x\""), ("If-None-Match", etag.as_str())];
    let _ = check("two lines", "GET", &two, 304);
}

#[test]
fn ranges() {
    let server = site();
    let mut conn = server.client().connect();
    let mut ask = |range: &str| conn.exchange(&Request::get("/a.txt").field("Range", range));
    for (range, body, content_range) in [
        ("bytes=0-0", "0", "bytes 0-0/10"),
        ("bytes=2-4", "234", "bytes 2-4/10"),
        ("bytes=5-", "56789", "bytes 5-9/10"),
        ("bytes=5-100", "56789", "bytes 5-9/10"),
        ("bytes=-3", "789", "bytes 7-9/10"),
        ("bytes=-100", "0123456789", "bytes 0-9/10"),
        ("bytes=9-9", "9", "bytes 9-9/10"),
        ("bytes=0-18446744073709551615", "0123456789", "bytes 0-9/10"),
        ("Bytes=2-4", "234", "bytes 2-4/10"),
    ] {
        let response = ask(range);
        assert_eq!((response.status(), response.text()), (206, body), "{range}");
        assert_eq!(
            response.field("content-range"),
            Some(content_range),
            "{range}"
        );
        assert!(response.field("etag").is_some(), "{range}");
    }
    for range in ["bytes=10-", "bytes=10-20", "bytes=-0", "bytes=99999999999-"] {
        let response = ask(range).expect(416);
        assert_eq!(
            response.field("content-range"),
            Some("bytes */10"),
            "{range}"
        );
    }
    // What is not understood is as if it were not there (RFC 9110 section 14.2).
    for range in [
        "bytes=4-2",
        "bytes=a-b",
        "bytes",
        "bytes=",
        "lines=1-2",
        "bytes=1-2x",
        "bytes=--1",
    ] {
        assert_eq!(ask(range).expect(200).text(), "0123456789", "{range}");
    }
}

/// The parts of a `multipart/byteranges` body: (Content-Range, bytes).
fn parts(response: &Response) -> Vec<(String, Vec<u8>)> {
    let boundary = kind(response)
        .strip_prefix("multipart/byteranges; boundary=")
        .expect("several parts");
    let delimiter = format!("--{boundary}");
    let mut rest = &response.body[..];
    let mut parts = Vec::new();
    loop {
        rest = rest
            .strip_prefix(delimiter.as_bytes())
            .expect("a delimiter");
        if rest == b"--\r\n" {
            return parts;
        }
        let head_end = find(rest, b"\r\n\r\n").expect("a head");
        let head = String::from_utf8_lossy(&rest[2..head_end]).into_owned();
        let range = head.split_once("Content-Range: ").expect("a range").1;
        rest = &rest[head_end + 4..];
        let end = find(rest, format!("\r\n{delimiter}").as_bytes()).expect("an end");
        parts.push((range.to_owned(), rest[..end].to_vec()));
        rest = &rest[end + 2..];
    }
}

#[test]
fn rfc9110_14_6_several_ranges_are_parts_of_one_body() {
    let server = site();
    let big = pattern::bytes(1_000_000);
    server.file("www/big.bin", &big);
    set_time(&server, "www/a.txt");
    let mut conn = server.client().connect();
    let mut ask = |target: &str, range: &str| {
        conn.exchange(&Request::get(target).field("Range", &format!("bytes={range}")))
    };
    let response = ask("/a.txt", "0-1,4-5, -1").expect(206);
    let part = |range: &str, body: &str| (format!("bytes {range}/10"), body.as_bytes().to_vec());
    assert_eq!(
        parts(&response),
        [part("0-1", "01"), part("4-5", "45"), part("9-9", "9")]
    );
    assert_eq!(response.field("content-range"), None);
    assert!(response.field("etag").is_some());
    assert_eq!(
        response.framing,
        Framing::Length(response.body.len() as u64)
    );
    // Of a long file, out of order.
    let response = ask("/big.bin", "700000-999999,0-299999").expect(206);
    let got = parts(&response);
    assert_eq!(got[0].0, "bytes 700000-999999/1000000");
    assert!(got[0].1 == big[700_000..] && got[1].1 == big[..300_000]);
    // Of several, those that cannot be satisfied are left out.
    let response = ask("/a.txt", "0-1,50-60").expect(206);
    assert_eq!(response.field("content-range"), Some("bytes 0-1/10"));
    let eight: Vec<String> = (0..9).map(|i| format!("{i}-{i}")).collect();
    assert_eq!(parts(&ask("/a.txt", &eight[..8].join(","))).len(), 8);
    // More than 8, and overlapping ones, are ignored.
    let huge = vec!["0-0"; 10_000].join(",");
    for range in [&eight.join(","), "0-4,3-6", "0-,0-", "0-1,-9", &huge] {
        assert_eq!(
            ask("/a.txt", range).expect(200).text(),
            "0123456789",
            "{range}"
        );
    }
    // By If-Range: the whole, unless it still is the same.
    let etag = response.field("etag").expect("an ETag").to_owned();
    for (tag, status) in [(etag.as_str(), 206), ("\"x\"", 200)] {
        let request = Request::get("/a.txt").field("Range", "bytes=0-1,4-5");
        let _ = conn
            .exchange(&request.field("If-Range", tag))
            .expect(status);
    }
}

#[test]
fn if_range_by_rfc9110_13_1_5() {
    let server = site();
    set_time(&server, "www/a.txt");
    let mut conn = server.client().connect();
    let etag = conn
        .get("/a.txt")
        .field("etag")
        .expect("an ETag")
        .to_owned();
    let mut ask = |condition: &str| {
        let request = Request::get("/a.txt").field("Range", "bytes=0-1");
        conn.exchange(&request.field("If-Range", condition))
            .status()
    };
    assert_eq!(ask(&etag), 206);
    assert_eq!(ask("\"x\""), 200);
    assert_eq!(
        ask(&format!("W/{etag}")),
        200,
        "a weak validator may not join pieces"
    );
    assert_eq!(ask(STAMP.1), 206);
    assert_eq!(ask(BEFORE), 200);
    assert_eq!(ask(LATER), 200, "not the exact date");
    // A precondition comes before the range.
    let request = Request::get("/a.txt")
        .field("Range", "bytes=0-1")
        .field("If-None-Match", &etag);
    let _ = conn.exchange(&request).expect(304);
    // A range is for GET alone.
    let head = conn
        .exchange(&Request::head("/a.txt").field("Range", "bytes=0-1"))
        .expect(200);
    assert_eq!(head.field("content-length"), Some("10"));
}
