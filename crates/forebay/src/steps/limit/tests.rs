use crate::exchange::DEFAULT_MAX_BODY;
use crate::steps::testing::{Bench, build_after, built, mistakes};

#[test]
fn a_body_that_is_announced_too_long_is_refused_at_once() {
    let bench = Bench::new(
        r#"site { "*", limit { body = "10B" }, route "/x" { limit { body = "5B" }, respond(200) }, respond(200) }"#,
    );
    for (path, len, status) in [
        ("/", 10, 200),
        ("/", 11, 413),
        ("/x", 5, 200),
        ("/x", 6, 413),
    ] {
        let got = bench.request("POST", path).body(vec![b'x'; len]).run();
        assert_eq!(got.status(), status, "{len} bytes to {path}");
    }
}

#[test]
fn the_lowest_limit_counts_and_the_first_may_exceed_the_default() {
    let limit = |config: &str| {
        let bench = Bench::new(&format!("site {{ \"*\", {config}, respond(200) }}"));
        let got = bench.get("/").run();
        got.exchange.max_body_bytes.unwrap_or(DEFAULT_MAX_BODY)
    };
    assert_eq!(limit(r#"limit { body = "2GB" }"#), 2 << 30);
    assert_eq!(
        limit(r#"limit { body = "2KB" }, limit { body = "3KB" }"#),
        2 << 10
    );
    assert_eq!(
        limit(r#"limit { body = "3KB" }, limit { body = "2KB" }"#),
        2 << 10
    );
    assert_eq!(
        limit(r#"limit { body = "1GB" }, limit { body = "2GB" }"#),
        1 << 30
    );
    assert_eq!(limit(r#"set("a", "b")"#), 1 << 30);
    assert_eq!(limit(r#"limit { rate = "1/s" }"#), 1 << 30);
}

#[test]
fn what_limits_nothing_is_a_mistake() {
    let said = |limit: &str| mistakes(&format!("site {{ \"*\", {limit}, respond(200) }}"));
    for (limit, expected) in [
        ("limit", "limit: it limits nothing"),
        (r#"limit { wait = "1s" }"#, "limit: it limits nothing"),
        (
            r#"limit { body = "1B", burst = 2 }"#,
            "`burst` changes nothing",
        ),
        (
            r#"limit { concurrency = 1, count = status "4xx" }"#,
            "`count` changes nothing",
        ),
        (
            r#"limit { rate = "1/s", after = "1B" }"#,
            "`after` changes nothing",
        ),
        (
            r#"limit { body = "1B", wait = "1s" }"#,
            "`wait` changes nothing",
        ),
        (r#"limit { body = "1B", by = "x" }"#, "`by` changes nothing"),
        (
            r#"limit { body = "1B", status = 503 }"#,
            "`status` changes nothing",
        ),
        (
            r#"limit { rate = "1/s", burst = 0 }"#,
            "`burst` cannot be 0",
        ),
    ] {
        let said = said(limit);
        assert!(said.contains(expected), "{limit}: {said}");
    }
}

/// The statuses of so many requests from each of these addresses, in turn.
fn statuses(bench: &Bench, from: &[&str], count: usize) -> Vec<Vec<u16>> {
    let ask = |from: &&str| {
        (0..count)
            .map(|_| bench.get("/").from(from).run().status())
            .collect()
    };
    from.iter().map(ask).collect()
}

#[test]
fn each_client_has_its_own_rate() {
    let bench = Bench::new(r#"site { "*", limit { rate = "2/h" }, respond(200) }"#);
    let from = [
        "10.0.0.1",
        "10.0.0.2",
        "2001:db8::1",
        // The same network as the last one, and another one.
        "2001:db8::2",
        "2001:db8:0:1::1",
    ];
    let passed = vec![200, 200, 429];
    assert_eq!(
        statuses(&bench, &from, 3),
        [
            passed.clone(),
            passed.clone(),
            passed.clone(),
            vec![429; 3],
            passed
        ]
    );
    let refused = bench.get("/").from("10.0.0.1").run();
    let seconds: u64 = refused.field("retry-after").unwrap().parse().unwrap();
    assert!((1790..=1800).contains(&seconds), "{seconds}");
    assert!(refused.text().contains("asks for more than it may"));
    let limited = crate::exchange::Reason::Limited;
    assert_eq!(refused.response.fault.as_ref().unwrap().reason, limited);
}

#[test]
fn the_burst_the_status_and_what_it_goes_by() {
    let bench = Bench::new(
        r#"site { "*", limit { rate = "1/h", burst = 3, status = 503, by = "$headers.x_key" }, respond(200) }"#,
    );
    let ask = |key: &str| bench.get("/").field("X-Key", key).run().status();
    assert_eq!([(); 4].map(|()| ask("a")), [200, 200, 200, 503]);
    assert_eq!(ask("b"), 200);
    // A text without variables is one for all.
    let bench = Bench::new(r#"site { "*", limit { rate = "2/h", by = "all" }, respond(200) }"#);
    assert_eq!(
        statuses(&bench, &["10.0.0.1", "10.0.0.2", "10.0.0.3"], 1),
        [[200], [200], [429]]
    );
}

#[test]
fn only_responses_that_count_use_up_the_rate() {
    let bench = Bench::new(
        r#"site { "*", limit { rate = "2/h", count = status "4xx" },
             route "/no" { respond(403) }, respond(200) }"#,
    );
    let ask = |path: &str| bench.get(path).run().status();
    assert_eq!([(); 5].map(|()| ask("/")), [200; 5]);
    assert_eq!([ask("/no"), ask("/"), ask("/no")], [403, 200, 403]);
    // Now it is used up, for everything; and a refusal does not count itself.
    assert_eq!([ask("/no"), ask("/")], [429, 429]);
}

#[test]
fn a_condition_on_the_response_is_refused_elsewhere() {
    let said =
        mistakes(r#"site { "*", limit { rate = "1/s" } { when = status "4xx" }, respond(200) }"#);
    assert!(said.contains("status"), "{said}");
}

#[test]
fn who_waits_comes_through_in_time() {
    let bench = Bench::new(
        r#"site { "*", limit { rate = "5/s", burst = 1, wait = "10s" }, respond(200) }"#,
    );
    let start = std::time::Instant::now();
    for number in 0..3 {
        let got = bench.get("/").run();
        assert_eq!(got.status(), 200);
        // Unless this thread was kept from asking before it was allowed again.
        let is_late = start.elapsed().as_millis() >= 200 * (number + 1);
        assert!(got.waited == (number > 0) || is_late, "{number}");
    }
    let took = start.elapsed().as_millis();
    assert!(took >= 399, "{took} ms");
    // Nobody is held for longer than `wait`.
    let bench = Bench::new(r#"site { "*", limit { rate = "1/h", wait = "1m" }, respond(200) }"#);
    assert_eq!(bench.get("/").run().status(), 200);
    let refused = bench.get("/").run();
    assert_eq!((refused.status(), refused.waited), (429, false));
}

#[test]
fn so_many_exchanges_at_once_until_they_end() {
    let bench = Bench::new(r#"site { "*", limit { concurrency = 2 }, respond(200) }"#);
    let first = bench.get("/").run();
    let _second = bench.get("/").run();
    let third = bench.get("/").run();
    assert_eq!([first.status(), third.status()], [200, 429]);
    assert_eq!(third.field("retry-after"), Some("1"));
    drop(third);
    assert_eq!(bench.get("/").from("10.0.0.9").run().status(), 200);
    // The response has been made, but the exchange has not ended: its body may still be sent.
    assert_eq!(bench.get("/").run().status(), 429);
    drop(first);
    assert_eq!(bench.get("/").run().status(), 200);
}

#[test]
fn what_is_counted_outlives_a_reload_that_leaves_the_definition_as_it_is() {
    let config = |rate: &str, more: &str| {
        format!("site {{ \"a.test\", {more} limit {{ rate = \"{rate}\" }}, respond(200) }}")
    };
    let status = |built: crate::control::build::Built| {
        let bench = Bench::of(built);
        let status = bench.get("/").host("a.test").run().status();
        (status, bench.built)
    };
    let first = built(&config("1/h", ""));
    let (passed, first) = status(first);
    assert_eq!(passed, 200);
    let again = |config: &str, before| build_after(config, Some(before)).0.expect("it is right");
    let (refused, second) = status(again(&config("1/h", r#"set("x", "y"),"#), &first));
    assert_eq!(refused, 429);
    let (anew, _) = status(again(&config("2/h", ""), &second));
    assert_eq!(anew, 200);
}

#[test]
fn equal_limits_count_for_themselves_and_one_in_two_places_for_both() {
    let ask = |bench: &Bench, hosts: [&str; 2]| {
        hosts.map(|host| bench.get("/").host(host).run().status())
    };
    let bench = Bench::new(
        r#"site { "a.test", limit { rate = "1/h" }, respond(200) }
           site { "b.test", limit { rate = "1/h" }, respond(200) }"#,
    );
    assert_eq!(ask(&bench, ["a.test", "b.test"]), [200, 200]);
    assert_eq!(ask(&bench, ["a.test", "b.test"]), [429, 429]);
    let bench = Bench::new(
        r#"local one = limit { rate = "1/h" }
           site { "a.test", one, respond(200) } site { "b.test", one, respond(201) }"#,
    );
    assert_eq!(ask(&bench, ["a.test", "b.test"]), [200, 429]);
}

#[test]
fn a_response_without_much_to_send_is_left_as_it_is() {
    use crate::exchange::Body;
    let bench = Bench::new(
        r#"site { "*", limit { bandwidth = "1KB/s", after = "4B" }, route "/long" { respond(200, "12345") }, respond(200, "1234") }"#,
    );
    assert_eq!(bench.get("/").run().text(), "1234");
    let long = bench.get("/long").run();
    assert!(matches!(long.response.body, Body::Stream(_)));
    assert_eq!(long.response.body.len_bytes(), Some(5));
}
