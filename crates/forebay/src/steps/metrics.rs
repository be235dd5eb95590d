//! `metrics`: what is counted, for Prometheus.

use std::fmt::Write as _;

use forebay_config::{Call, Directive};
use forebay_fields::Known;
use forebay_http1::Method;

use crate::control::build::Builder;
use crate::counters::Counters;
use crate::exchange::{Exchange, Flow, Reason, Response, Step};
use crate::snapshot::Snapshot;
use crate::worker::Process;

pub static DIRECTIVE: Directive = Directive::handler(
    "metrics",
    "Answers with what the server has counted, over all workers, in the text format of \
     Prometheus. Put an `allow` before it.",
)
.example(r#"allow "private", metrics"#);

/// The exposition format, version 0.0.4: what every scraper reads.
const KIND: &str = "text/plain; version=0.0.4; charset=utf-8";

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
        let text = render(&exchange.worker.process, &exchange.worker.snapshot());
        let mut response = Response::text(exchange, 200, KIND, text);
        response.set(Known::CacheControl, b"no-store");
        Flow::Answer(response)
    }
}

/// All counters in the text format of Prometheus.
///
/// Workers go on counting while they are read, so numbers that belong together may differ by what
/// came in between; none of them ever goes back.
pub fn render(process: &Process, snapshot: &Snapshot) -> String {
    let all = process.all.lock();
    let sum = |pick: &dyn Fn(&Counters) -> u64| -> u64 {
        all.iter()
            .fold(0, |sum, counters| sum.wrapping_add(pick(counters)))
    };
    let mut out = String::with_capacity(8 * 1024);
    family(&mut out, "gauge", "build_info", "The version that runs.");
    line(
        &mut out,
        "build_info",
        &format!("version=\"{}\"", env!("CARGO_PKG_VERSION")),
        1,
    );
    family(
        &mut out,
        "gauge",
        "config_generation",
        "Configurations put into service so far.",
    );
    line(
        &mut out,
        "config_generation",
        "",
        snapshot.generation.number,
    );
    family(&mut out, "gauge", "workers", "Workers that serve.");
    line(&mut out, "workers", "", all.len() as u64);
    let plain = all
        .first()
        .map(|counters| counters.each())
        .unwrap_or_default();
    for (at, (kind, name, help, _)) in plain.into_iter().enumerate() {
        let value = sum(&|counters| counters.each().get(at).map_or(0, |counter| counter.3));
        let name = if kind == "counter" {
            format!("{name}_total")
        } else {
            name.to_owned()
        };
        family(&mut out, kind, &name, help);
        line(&mut out, &name, "", value);
    }
    family(
        &mut out,
        "counter",
        "responses_total",
        "Responses, by the hundreds of their status.",
    );
    for class in 0..5 {
        let label = format!("class=\"{}xx\"", class + 1);
        line(
            &mut out,
            "responses_total",
            &label,
            sum(&|counters| counters.classes[class].get()),
        );
    }
    family(
        &mut out,
        "counter",
        "faults_total",
        "Failures, by reason and whose fault it was.",
    );
    for (at, reason) in Reason::ALL.iter().enumerate() {
        let label = format!("reason=\"{}\",by=\"{}\"", reason.name(), reason.by().name());
        line(
            &mut out,
            "faults_total",
            &label,
            sum(&|counters| counters.faults[at].get()),
        );
    }
    out
}

// Writing into a `String` cannot fail.

fn family(out: &mut String, kind: &str, name: &str, help: &str) {
    let _ = writeln!(
        out,
        "# HELP forebay_{name} {help}\n# TYPE forebay_{name} {kind}"
    );
}

fn line(out: &mut String, name: &str, labels: &str, value: u64) {
    let _ = match labels {
        "" => writeln!(out, "forebay_{name} {value}"),
        labels => writeln!(out, "forebay_{name}{{{labels}}} {value}"),
    };
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
        assert_eq!(got.field("content-type"), Some(super::KIND));
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
        assert!(
            text.lines()
                .all(|l| l.starts_with("# ") || l.starts_with("forebay_"))
        );
    }

    #[test]
    fn only_get_and_head() {
        let bench = Bench::new(r#"site { "*", metrics }"#);
        let got = bench.request("POST", "/").run();
        assert_eq!((got.status(), got.field("allow")), (405, Some("GET, HEAD")));
    }
}
