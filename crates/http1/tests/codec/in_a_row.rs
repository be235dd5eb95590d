//! Heads that come one after the other into the same `RequestHead`: none knows anything of the last.

use bytes::BytesMut;
use forebay_http1::{HeadError, HeadParser, Limits, Progress, RequestHead};

use crate::common::show_request;

fn parse(head: &mut RequestHead, text: &str) -> Result<String, HeadError> {
    let mut buf = BytesMut::from(text);
    let parsed = HeadParser::new().request(&mut buf, &Limits::default(), head)?;
    assert_eq!(parsed, Progress::Complete);
    Ok(show_request(head, &buf))
}

#[test]
fn a_host_that_was_said_before_is_what_it_would_be_alone() {
    let hosts = [
        "a.example",
        "a.example",
        "A.example",
        "a.example:80",
        "a.example:",
        "a.example",
        "a.exampl",
        "a.example.",
        "[::1]",
        "[::1]",
        "[::1]:80",
        "",
        "a.example,",
        "a.example",
        "",
        "b",
    ];
    let mut head = RequestHead::new();
    for host in hosts {
        let text = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let alone = parse(&mut RequestHead::new(), &text);
        assert_eq!(parse(&mut head, &text), alone, "{host}");
        // Whoever takes the names leaves room that may hold anything.
        let (mut target, mut name) = ("/old?".to_owned(), "a.example".to_owned());
        head.swap_names(&mut target, &mut name);
        assert!(head.target().is_empty() && head.host().is_none());
        if let Ok(alone) = alone {
            assert_eq!(target, "/");
            assert!(alone.contains(&format!("host={name} ")), "{alone}");
        }
    }
}

#[test]
fn an_absolute_target_is_compared_with_a_host_that_was_said_before() {
    let mut head = RequestHead::new();
    let asked = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: a.example\r\n\r\n");
    for _ in 0..2 {
        let shown = parse(&mut head, &asked("http://a.example?b?c")).unwrap();
        assert!(shown.starts_with("GET /?b?c HTTP/1.1 host=a.example"));
        let other = parse(&mut head, &asked("http://b.example/"));
        assert_eq!(other, Err(HeadError::HostDiffers));
    }
}
