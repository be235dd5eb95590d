//! `metrics`: what is counted, for Prometheus.

mod gather;
mod text;

use forebay_config::{Call, Directive};
use forebay_fields::Known;
use forebay_http1::Method;

use crate::control::build::Builder;
use crate::exchange::{Exchange, Flow, Local, Reason, Response, Step};
use crate::explain::{Notes, Told};

pub use gather::render;
pub use text::Dialect;

pub static DIRECTIVE: Directive = Directive::handler(
    "metrics",
    "Answers with what the server has counted, over all workers, in the text format of \
     Prometheus, or as OpenMetrics for who asks for it in `Accept`. Put an `allow` before it.",
)
.example(r#"allow "private", metrics"#);

/// With more sites than this, making the text takes longer than a turn may: another thread does it.
const SITES_AT_ONCE: usize = 500;

/// Answers with the counters.
struct Metrics;

pub fn build(_: &Call, _: &mut Builder<'_>) -> Option<Box<dyn Step>> {
    Some(Box::new(Metrics))
}

impl Step for Metrics {
    fn name(&self) -> &'static str {
        DIRECTIVE.name
    }

    fn on_request(&self, exchange: &mut Exchange) -> Flow {
        if !matches!(exchange.request.method, Method::Get | Method::Head) {
            exchange.allowed_methods = Some("GET, HEAD");
            return Flow::Fail(Reason::MethodRefused.into());
        }
        let snapshot = exchange.worker.snapshot().clone();
        if snapshot.sites.len() > SITES_AT_ONCE {
            return Flow::Wait;
        }
        let dialect = Dialect::of(&exchange.request.fields);
        let text = render(&exchange.worker.process, &snapshot, dialect);
        Flow::Answer(answer(exchange, dialect, text))
    }

    fn wait<'a>(&'a self, exchange: &'a mut Exchange) -> Local<'a, Flow> {
        Box::pin(async {
            let dialect = Dialect::of(&exchange.request.fields);
            let snapshot = exchange.worker.snapshot().clone();
            let process = exchange.worker.process.clone();
            let made = tokio::task::spawn_blocking(move || render(&process, &snapshot, dialect));
            match made.await {
                Ok(text) => Flow::Answer(answer(exchange, dialect, text)),
                Err(_) => Flow::Fail(Reason::Internal.into()),
            }
        })
    }

    fn explain(&self, exchange: &mut Exchange, notes: &mut Notes<'_>) -> Told {
        notes.add("form", Dialect::of(&exchange.request.fields).kind());
        Told::RunsAndWaits
    }
}

fn answer(exchange: &mut Exchange, dialect: Dialect, text: String) -> Response {
    let mut response = Response::text(exchange, 200, dialect.kind(), text);
    response.set(Known::CacheControl, b"no-store");
    response.set(Known::Vary, b"Accept");
    response
}

#[cfg(test)]
mod tests {
    use crate::exchange::Reason;
    use crate::steps::testing::Bench;

    #[test]
    fn counters_of_all_workers_are_summed() {
        let bench = Bench::new(r#"site { "*", metrics }"#);
        let other = bench.another_worker();
        other.counters.status(204);
        other.counters.fault(Reason::Loop);
        other.counters.sent_bytes.add(7);
        bench.worker.counters.status(201);
        bench.worker.counters.sent_bytes.add(5);
        let got = bench.get("/").run();
        assert_eq!(
            got.field("content-type"),
            Some("text/plain; version=0.0.4; charset=utf-8")
        );
        let text = got.text();
        for line in [
            "# TYPE forebay_sent_bytes_total counter",
            "forebay_sent_bytes_total 12",
            "forebay_responses_total{class=\"2xx\"} 2",
            "forebay_faults_total{reason=\"loop\",by=\"client\"} 1",
            "forebay_faults_total{reason=\"not_found\",by=\"client\"} 0",
            "# TYPE forebay_connections_open gauge",
            "forebay_connections_open 0",
            "forebay_config_generation 1",
            "forebay_workers 2",
            "forebay_requests_total 1",
        ] {
            assert!(text.lines().any(|l| l == line), "no {line:?} in\n{text}");
        }
        // Every line is a comment or a sample, every family is announced once.
        let mut families: Vec<&str> = text.lines().filter(|l| l.starts_with("# TYPE")).collect();
        let count = families.len();
        families.dedup();
        assert_eq!(families.len(), count);
        assert!(text.lines().all(|l| {
            ["# ", "forebay_", "process_"]
                .iter()
                .any(|begin| l.starts_with(begin))
        }));
    }

    #[test]
    fn openmetrics_for_who_asks_for_it() {
        let bench = Bench::new(r#"site { "*", metrics }"#);
        let ask = |accept: &str| bench.get("/").field("Accept", accept).run();
        let got = ask("text/html, application/openmetrics-text;version=1.0.0;q=0.7");
        assert_eq!(
            got.field("content-type"),
            Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
        );
        let text = got.text();
        assert!(text.ends_with("\n# EOF\n"), "{text}");
        assert!(text.contains("# TYPE forebay_requests counter\n"), "{text}");
        assert!(text.contains("\nforebay_requests_total 1\n"), "{text}");
        for accept in ["*/*", "application/openmetrics-text;q=0", "text/plain"] {
            let kind = ask(accept).field("content-type").map(str::to_owned);
            assert!(
                kind.is_some_and(|kind| kind.starts_with("text/plain")),
                "{accept}"
            );
        }
    }

    #[test]
    fn sites_and_durations() {
        let bench = Bench::new(r#"site { "a.test", respond(404, "abc") } site { "*", metrics }"#);
        for bytes in [3, 4] {
            let mut got = bench.get("/").host("a.test").run();
            got.exchange.outcome.status = 404;
            got.exchange.outcome.bytes = bytes;
        }
        let text = bench.get("/").run().text();
        for line in [
            "forebay_site_requests_total{site=\"a.test\",class=\"4xx\"} 2",
            "forebay_site_body_bytes_total{site=\"a.test\"} 7",
            "forebay_request_duration_seconds_bucket{listener=\":80\",le=\"+Inf\"} 2",
            "forebay_request_duration_seconds_bucket{listener=\":80\",le=\"1.048576\"} 2",
            "forebay_request_duration_seconds_count{listener=\":80\"} 2",
            "forebay_exchanges 1",
        ] {
            assert!(text.lines().any(|l| l == line), "no {line:?} in\n{text}");
        }
        // A site that nobody has asked for is not listed, nor a kind of step that has not waited.
        assert!(!text.contains("site=\"*\""), "{text}");
        assert!(!text.contains("{step="), "{text}");
    }

    #[test]
    fn steps_that_wait_are_counted_each_by_its_kind() {
        let bench = Bench::new(
            r#"site { "a.test", limit { rate = "50/s", burst = 1, wait = "5s", by = "x" },
                 limit { rate = "50/s", burst = 1, wait = "5s", by = "y" },
                 respond(404) { file = "/nowhere" } }
               site { "*", metrics }"#,
        );
        for _ in 0..3 {
            assert_eq!(bench.get("/").host("a.test").run().status(), 404);
        }
        let text = bench.get("/").run().text();
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let value = line.unwrap_or_else(|| panic!("no {name} in\n{text}"));
            value.trim().parse::<f64>().expect("a number")
        };
        // Two of the first limit, which lets them through so that the second has no need to wait.
        assert!(value("forebay_step_wait_seconds_count{step=\"limit\"}") >= 2.0);
        let waited = value("forebay_step_wait_seconds_sum{step=\"limit\"}");
        assert!((0.02..5.0).contains(&waited), "{waited}");
        let whole = value("forebay_request_duration_seconds_sum{listener=\":80\"}");
        assert!(whole + 1e-3 >= waited, "{whole} {waited}");
    }

    #[test]
    fn of_many_sites_another_thread_tells() {
        let many = r#"for i = 1, 600 do site { "h" .. i .. ".test", respond(200) } end site { "*", metrics }"#;
        let got = Bench::new(many).get("/").run();
        assert!(got.waited && got.text().contains("forebay_requests_total 1"));
    }

    #[test]
    fn only_get_and_head() {
        let bench = Bench::new(r#"site { "*", metrics }"#);
        let got = bench.request("POST", "/").run();
        assert_eq!((got.status(), got.field("allow")), (405, Some("GET, HEAD")));
    }
}
