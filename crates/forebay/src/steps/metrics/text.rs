//! The two text formats of metrics: that of Prometheus (0.0.4) and OpenMetrics (1.0).

use std::fmt::{Display, Write as _};

use forebay_fields::{Fields, Known};

/// A format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// What every scraper and every person reads.
    Prometheus,
    /// For who asks for it.
    OpenMetrics,
}

impl Dialect {
    /// The one that a request's `Accept` asks for.
    pub fn of(fields: &Fields) -> Dialect {
        if !fields.contains(Known::Accept) {
            return Dialect::Prometheus;
        }
        let wants = fields.list(Known::Accept).any(|item| {
            let mut parts = item.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
            let is_it = parts
                .next()
                .is_some_and(|kind| kind.eq_ignore_ascii_case(b"application/openmetrics-text"));
            is_it && !parts.any(|part| matches!(part, b"q=0" | b"q=0.0" | b"q=0.00" | b"q=0.000"))
        });
        if wants {
            Dialect::OpenMetrics
        } else {
            Dialect::Prometheus
        }
    }

    /// Its media type.
    pub fn kind(self) -> &'static str {
        match self {
            Dialect::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Dialect::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// What a family of samples is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Samples, family by family.
pub struct Text {
    out: String,
    dialect: Dialect,
}

impl Text {
    /// No samples yet.
    pub fn new(dialect: Dialect) -> Text {
        Text {
            out: String::with_capacity(32 * 1024),
            dialect,
        }
    }

    /// All of it.
    pub fn finish(mut self) -> String {
        if self.dialect == Dialect::OpenMetrics {
            self.out.push_str("# EOF\n");
        }
        self.out
    }

    /// Begins a family. A counter's name is given without `_total`, the formats differ in whether
    /// it belongs to the family's name.
    pub fn family(&mut self, kind: Kind, name: &str, help: &str) -> Family<'_> {
        let word = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let suffix = match (kind, self.dialect) {
            (Kind::Counter, Dialect::Prometheus) => "_total",
            _ => "",
        };
        // Writing into a `String` cannot fail, here and below.
        let _ = writeln!(
            self.out,
            "# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {word}"
        );
        Family {
            suffix: if kind == Kind::Counter { "_total" } else { "" },
            name: name.to_owned(),
            out: &mut self.out,
        }
    }

    /// A family with one sample.
    pub fn single(&mut self, kind: Kind, name: &str, help: &str, value: impl Display) {
        self.family(kind, name, help).sample(&[], value);
    }
}

/// The samples of a family.
pub struct Family<'a> {
    name: String,
    suffix: &'static str,
    out: &'a mut String,
}

impl Family<'_> {
    /// Adds a sample with these labels.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        let suffix = self.suffix;
        self.sample_of(suffix, labels, value);
    }

    /// The same of a part of the family, as `_sum`.
    pub fn sample_of(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        self.out.push_str(&self.name);
        self.out.push_str(suffix);
        for (at, (name, value)) in labels.iter().enumerate() {
            self.out.push(if at == 0 { '{' } else { ',' });
            self.out.push_str(name);
            self.out.push_str("=\"");
            for char in value.chars() {
                match char {
                    '\\' => self.out.push_str("\\\\"),
                    '"' => self.out.push_str("\\\""),
                    '\n' => self.out.push_str("\\n"),
                    char => self.out.push(char),
                }
            }
            self.out.push('"');
        }
        if !labels.is_empty() {
            self.out.push('}');
        }
        let _ = writeln!(self.out, " {value}");
    }
}

/// Microseconds as seconds: exact, and never without a point.
pub struct Seconds(pub u64);

impl Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = format!("{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000);
        let short = text.trim_end_matches('0');
        f.write_str(short)?;
        if short.ends_with('.') {
            f.write_str("0")?;
        }
        Ok(())
    }
}
