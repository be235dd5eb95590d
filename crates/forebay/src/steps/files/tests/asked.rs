//! What a request asks of a file: preconditions and ranges.

use super::*;

#[test]
fn rfc9110_13_2_2_preconditions() {
    each_way("", |way, bench| {
        let etag = bench.get("/a.txt").run().field("etag").unwrap().to_owned();
        let weak = format!("W/{etag}");
        let check = |name: &str, value: &str, status: u16| {
            for method in ["GET", "HEAD"] {
                let got = bench.request(method, "/a.txt").field(name, value).run();
                assert_eq!(got.status(), status, "{way}: {method} {name}: {value}");
            }
        };
        check("If-Match", &etag, 200);
        check("If-Match", &weak, 412);
        check("If-None-Match", &weak, 304);
        check("If-None-Match", "*", 304);
        check("If-None-Match", "\"x\"", 200);
        check("If-Modified-Since", SAME, 304);
        check("If-Modified-Since", BEFORE, 200);
        check("If-Unmodified-Since", BEFORE, 412);
        let same = bench.get("/a.txt").field("If-None-Match", &etag).run();
        assert_eq!(same.field("etag"), Some(etag.as_str()), "RFC 9110 §15.4.5");
        assert_eq!(
            (same.field("content-type"), same.field("last-modified")),
            (None, None)
        );
        assert!(matches!(same.response.body, Body::Empty));
    });
}

#[test]
fn rfc9110_14_ranges() {
    each_way("", |way, bench| {
        let ask = |range: &str| bench.get("/a.txt").field("Range", range).run();
        for (range, text, content_range) in [
            ("bytes=2-4", "234", "bytes 2-4/10"),
            ("bytes=5-", "56789", "bytes 5-9/10"),
            ("bytes=-3", "789", "bytes 7-9/10"),
            ("bytes=0-1,50-60", "01", "bytes 0-1/10"),
        ] {
            let got = ask(range);
            assert_eq!(
                (got.status(), got.text().as_str()),
                (206, text),
                "{way}: {range}"
            );
            assert_eq!(got.field("content-range"), Some(content_range));
            assert!(got.field("etag").is_some() && got.field("content-type").is_some());
        }
        let got = ask("bytes=10-");
        assert_eq!(
            (got.status(), got.field("content-range")),
            (416, Some("bytes */10")),
            "{way}"
        );
        assert_eq!(got.field("etag"), None);
        let got = ask("bytes=0-1, 4-5,-1");
        let kind = got.field("content-type").unwrap().to_owned();
        let boundary = kind
            .strip_prefix("multipart/byteranges; boundary=")
            .expect("parts");
        let part = |range: &str, text: &str| {
            format!(
                "--{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Range: bytes {range}/10\r\n\r\n{text}\r\n"
            )
        };
        let whole = part("0-1", "01") + &part("4-5", "45") + &part("9-9", "9");
        assert_eq!((got.status(), got.field("content-range")), (206, None));
        let len = got.response.body.len_bytes();
        assert_eq!(
            got.pulled(bench),
            format!("{whole}--{boundary}--\r\n").as_bytes(),
            "{way}"
        );
        assert_eq!(len, Some(whole.len() as u64 + boundary.len() as u64 + 6));
        // Overlapping ones, and what is no range, are as if they were not there.
        for range in ["bytes=0-4,3-6", "lines=1-2"] {
            let got = ask(range);
            assert_eq!(
                (got.status(), got.text().as_str()),
                (200, DIGITS),
                "{way}: {range}"
            );
            assert_eq!(got.field("content-range"), None);
        }
        let head = bench
            .request("HEAD", "/a.txt")
            .field("Range", "bytes=0-1")
            .run();
        assert_eq!(
            (head.status(), head.response.announced_len),
            (200, Some(10)),
            "{way}"
        );
    });
}
