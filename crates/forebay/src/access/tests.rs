use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::batch::{Batch, Run};
use super::line::{push_escaped, push_json};
use super::writer::Job;
use super::{Redact, Sink, Target, Writer};
use crate::steps::testing::{Ask, Bench, mistakes};

fn text(push: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    push(&mut out);
    String::from_utf8(out).expect("a text")
}

#[test]
fn bytes_of_clients_stay_in_their_place() {
    for (bytes, line, json) in [
        (&b"plain ~!"[..], "plain ~!", "plain ~!"),
        (b"a\"b\\c", "a\\x22b\\x5Cc", "a\\\"b\\\\c"),
        (
            b"\r\n\x1b[2J\0",
            "\\x0D\\x0A\\x1B[2J\\x00",
            "\\u000d\\u000a\\u001b[2J\\u0000",
        ),
        (b"\x7f", "\\x7F", "\\u007f"),
        (
            "ä😀".as_bytes(),
            "\\xC3\\xA4\\xF0\\x9F\\x98\\x80",
            "\\u00e4\\ud83d\\ude00",
        ),
        // Turns the direction of what follows.
        ("\u{202e}x".as_bytes(), "\\xE2\\x80\\xAEx", "\\u202ex"),
        (b"a\xffb\xc3", "a\\xFFb\\xC3", "a\\\\xFFb\\\\xC3"),
    ] {
        assert_eq!(text(|out| push_escaped(out, bytes)), line);
        assert_eq!(text(|out| push_json(out, bytes)), json);
    }
}

proptest::proptest! {
    #[test]
    fn every_json_text_is_one(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..60)) {
        let inside = text(|out| push_json(out, &bytes));
        assert!(inside.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
        let value: String = serde_json::from_str(&format!("\"{inside}\"")).expect("JSON");
        if let Ok(sent) = std::str::from_utf8(&bytes) {
            assert_eq!(value, sent);
        }
        let line = text(|out| push_escaped(out, &bytes));
        assert!(line.bytes().all(|byte| (0x20..0x7f).contains(&byte) && byte != b'"'));
    }
}

#[test]
fn secrets_are_masked_by_name() {
    let redact = Redact::usual();
    for (url, expected) in [
        ("/a/token=x", "/a/token=x"),
        ("/?a=1&token=s3&b=2", "/?a=1&token=***&b=2"),
        (
            "/?TOKEN=s3&access_token=s3#code=s3",
            "/?TOKEN=***&access_token=***#code=***",
        ),
        // Where a `;` ends nothing, it is a part of the secret; so is a `?`.
        ("/?%74oken=s3;s4?s5&b=2;key=s3", "/?%74oken=***&b=2;key=***"),
        ("/?a=1;client_secret=s3#x", "/?a=1;client_secret=***#x"),
        ("/?to=/x?token=s3&b=2", "/?to=/x?token=***&b=2"),
        (
            "/?user[password]=s3&user[name]=n",
            "/?user[password]=***&user[name]=n",
        ),
        (
            "/?token&key=&tokens=1&monkey=2",
            "/?token&key=***&tokens=1&monkey=2",
        ),
        ("https://h/x?sig=a=b", "https://h/x?sig=***"),
        ("/?X-Amz-Signature=s3&&=x", "/?X-Amz-Signature=***&&=x"),
    ] {
        let got = text(|out| redact.push_url(url.as_bytes(), out, push_escaped));
        assert_eq!(got, expected);
    }
    let none = Redact::default();
    assert_eq!(
        text(|out| none.push_url(b"/?token=a", out, push_escaped)),
        "/?token=a"
    );
}

/// What is logged for a request to a site with these steps, which was answered with this status.
fn logged(steps: &str, ask: impl FnOnce(&Bench) -> Ask<'_>, status: u16) -> String {
    let bench = Bench::new(&format!(
        "site {{ \"a.test\", \"*\", {steps}, respond(200) }}"
    ));
    let mut got = ask(&bench).run();
    got.exchange.outcome.status = status;
    got.exchange.outcome.bytes = 7;
    drop(got);
    bench.worker.book.text()
}

#[test]
fn the_combined_format() {
    let line = logged(
        "access_log \"stdout\"",
        |bench| {
            bench
                .get("/a%20b?q=1&key=s3")
                .field("Referer", "http://r/?code=s3")
                .field("User-Agent", "x\"y")
        },
        404,
    );
    let (before, rest) = line.split_once(" [").expect("a time");
    let (time, after) = rest.split_once("] ").expect("a time");
    assert_eq!(before, "127.0.0.1 - -");
    assert_eq!(
        after,
        "\"GET /a%20b?q=1&key=*** HTTP/1.1\" 404 7 \"http://r/?code=***\" \"x\\x22y\"\n"
    );
    // 21/Nov/2026:03:04:05 +0000
    let shape: String = time
        .chars()
        .map(|char| match char {
            '0'..='9' => '0',
            'a'..='z' | 'A'..='Z' => 'a',
            other => other,
        })
        .collect();
    assert_eq!(shape, "00/aaa/0000:00:00:00 +0000");
    let unknown = logged(
        "access_log \"stdout\"",
        |bench| bench.get("/").from("0.0.0.0"),
        200,
    );
    assert!(unknown.starts_with("- - - ["), "{unknown}");
    let bare = logged("access_log \"stdout\"", |bench| bench.get("/"), 200);
    assert!(
        bare.ends_with("\"GET / HTTP/1.1\" 200 7 \"-\" \"-\"\n"),
        "{bare}"
    );
}

#[test]
fn the_json_format() {
    let line = logged(
        "access_log \"stdout\" { format = \"json\" }",
        |bench| bench.get("/?token=s3").field("User-Agent", "ä\n".trim()),
        200,
    );
    let value: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    let time = value["time"].as_str().expect("a time");
    assert_eq!((time.len(), &time[10..11], &time[19..]), (20, "T", "Z"));
    for (name, expected) in [
        ("client_ip", "127.0.0.1"),
        ("method", "GET"),
        ("host", "test"),
        ("uri", "/?token=***"),
        ("protocol", "HTTP/1.1"),
        ("site", "a.test"),
        ("user_agent", "ä"),
    ] {
        assert_eq!(value[name], expected, "{line}");
    }
    assert_eq!(
        (&value["status"], &value["bytes"]),
        (&200.into(), &7.into())
    );
    assert!(
        value["duration"].is_f64() && value.get("referer").is_none(),
        "{line}"
    );
}

#[test]
fn a_template() {
    let line = logged(
        r#"access_log "stdout" { format = "$time|$status|$bytes|$site|$uri|$query.pwd|$query.q|$headers.x_a|$query_string|$peer" }"#,
        |bench| bench.get("/x?pwd=a&q=%0A%22").field("X-A", "\"b"),
        201,
    );
    let (time, rest) = line.split_once('|').expect("a time");
    assert!(time.ends_with('Z'), "{line}");
    assert_eq!(
        rest,
        "201|7|a.test|/x?pwd=***&q=%0A%22|***|\\x0A\\x22|\\x22b|pwd=***&q=%0A%22|\n"
    );
}

#[test]
fn several_each_by_its_condition() {
    let steps = r#"access_log "stdout" { format = "all $status" },
        access_log "stderr" { format = "bad $status", when = status "4xx" },
        access_log "stdout" { format = "x $path", when = path "/x" },
        access_log "stdout" { format = "both $path", when = all { path "/x", status(404) } },
        route "/r/*" { access_log "stdout" { format = "in $rest" }, respond(200) }"#;
    let lines = |target: &str, status| logged(steps, |bench| bench.get(target), status);
    assert_eq!(lines("/", 200), "all 200\n");
    assert_eq!(lines("/x", 404), "all 404\nbad 404\nx /x\nboth /x\n");
    assert_eq!(lines("/r/a", 200), "all 200\nin a\n");
    let none = r#"access_log "stdout" { when = path "/x" }"#;
    assert_eq!(logged(none, |bench| bench.get("/"), 200), "");
}

#[test]
fn mistakes_are_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path().display();
    let check = |call: &str, expected: &str| {
        let said = mistakes(&format!("site {{ \"*\", {call}, respond(200) }}"));
        assert!(said.contains(expected), "{call}\n{said}");
    };
    check(
        &format!("access_log \"{dir}/none/a.log\""),
        &format!("there is no directory {dir}/none"),
    );
    check(&format!("access_log \"{dir}\""), "it is a directory");
    check(
        r#"access_log "stdout" { format = "combind" }"#,
        "`format` cannot be \"combind\"",
    );
    check(
        r#"access_log "stdout" { format = "$stauts" }"#,
        "did you mean `$status`?",
    );
    check(
        "access_log(function(entry) end)",
        "functions are not built yet",
    );
    check("access_log", "is missing");
}

#[test]
fn a_place_is_one_for_all_who_write_to_it_and_stays_over_reloads() {
    use crate::steps::testing::{build_after, built};
    let config = r#"site { "a.test", access_log "stdout", respond(200) }
        site { "b.test", access_log "stdout" { format = "json" }, access_log "stderr", respond(200) }"#;
    let first = built(config);
    assert_eq!(first.snapshot.sinks.len(), 2);
    let (second, _) = build_after(config, Some(&first));
    let second = second.expect("it is right");
    for sink in &second.snapshot.sinks {
        assert!(
            first
                .snapshot
                .sinks
                .iter()
                .any(|old| Arc::ptr_eq(old, sink))
        );
    }
}

fn batch(sink: &Arc<Sink>, len: usize) -> Batch {
    Batch {
        bytes: vec![b'x'; len],
        runs: vec![Run {
            sink: sink.clone(),
            end: len,
            lines: 3,
        }],
    }
}

#[test]
fn what_waits_is_bounded_and_what_is_over_is_counted() {
    let writer = Writer::default();
    let sink = Arc::new(Sink::new(Target::Stdout));
    let (jobs, told) = std::sync::mpsc::channel();
    // Nobody takes anything, as when a disk stalls.
    let taken = (0..20)
        .filter(|_| {
            writer
                .hand_over(Some(&jobs), batch(&sink, 1 << 20))
                .is_none()
        })
        .count();
    assert_eq!(taken, 7, "the lists of what goes where count, too");
    assert_eq!(writer.dropped_lines.load(Relaxed), 3 * 13);
    assert!(writer.is_behind());
    assert_eq!(
        told.try_iter()
            .filter(|job| matches!(job, Job::Batch(_)))
            .count(),
        7
    );
}

#[test]
fn every_byte_is_seen_wherever_it_stands() {
    for byte in 0..=u8::MAX {
        let is_plain = (b' '..b'\x7f').contains(&byte) && byte != b'"' && byte != b'\\';
        for place in 0..19 {
            let mut bytes = [b'a'; 19];
            bytes[place] = byte;
            let expected = match is_plain {
                true => String::from_utf8(bytes.into()).expect("a text"),
                false => format!(
                    "{}\\x{byte:02X}{}",
                    "a".repeat(place),
                    "a".repeat(18 - place)
                ),
            };
            assert_eq!(text(|out| push_escaped(out, &bytes)), expected);
        }
    }
}

#[test]
fn lines_come_to_their_files_in_order() {
    let dir = tempfile::tempdir().expect("a directory");
    let sinks = ["a", "b"].map(|name| Arc::new(Sink::new(Target::Path(dir.path().join(name)))));
    for sink in &sinks {
        sink.open().expect("it can be opened");
    }
    let writer = Arc::new(Writer::default());
    writer.start(&sinks).expect("a thread");
    let bench = Bench::new("site { \"*\", respond(200) }");
    let book = super::Book::new(&bench.worker.wheel);
    for round in 0..30_000 {
        let sink = &sinks[usize::from(round % 3 == 0)];
        book.append(&bench.worker, sink, |out| {
            out.extend_from_slice(format!("{round}\n").as_bytes());
        });
        if round % 100 == 0 {
            book.hand_over(&writer);
        }
    }
    book.close(&writer);
    bench.block_on(writer.finish(std::time::Duration::from_secs(20)));
    for (at, name) in ["a", "b"].iter().enumerate() {
        let expected: String = (0..30_000)
            .filter(|round| usize::from(round % 3 == 0) == at)
            .map(|round| format!("{round}\n"))
            .collect();
        let written = std::fs::read_to_string(dir.path().join(name)).expect("a file");
        assert!(written == expected, "{name}: {} bytes", written.len());
    }
    assert_eq!(writer.failed_lines.load(Relaxed), 0);
}
