//! `access_log`: a line for each exchange.

use std::path::Path;
use std::sync::Arc;

use forebay_config::{Arg, Call, Code, Directive, Opt, Report, Template, Type, Vars, When};

use crate::access::{Format, Log, Target};
use crate::control::build::{Builder, looks_at_response};
use crate::exchange::{Exchange, Flow, Step};
use crate::explain::{Notes, Told};

pub static DIRECTIVE: Directive = Directive::filter(
    "access_log",
    "Writes a line for each exchange, when it is over: to the end of a file, to standard output or \
     to standard error. Several may follow one another. A `when` with `status` looks at the \
     response. Bytes from clients are escaped, and the values of parameters that `server { redact \
     = … }` names are masked.",
)
.args(&[Arg::required(
    "TO",
    Type::Or(&[
        Type::OneOf(&["stdout", "stderr"]),
        Type::Path,
        Type::Function,
    ]),
)])
.options(&[Opt::new(
    "format",
    Type::Or(&[
        Type::OneOf(&["combined", "json"]),
        Type::Template(Vars::Response),
    ]),
    "How a line looks: as Apache and nginx write it, as a JSON object, or as written here.",
)
.default(r#""combined""#)])
.when(When::Response)
.check(check)
.stateless()
.example(r#"access_log "stdout" { format = "json", when = status { "4xx", "5xx" } }"#);

fn check(call: &Call, report: &mut Report) {
    let Some(node) = call.node("format") else {
        return;
    };
    // A slip in a word would else be a template: the same line for every exchange.
    if let Some(template) = node.as_a::<&Template>()
        && let Some(text) = template.as_literal()
    {
        let message = format!("access_log: `format` cannot be \"{}\"", text.escape_debug());
        let help =
            "expected \"combined\", \"json\", or a template with variables, as \"$status $uri\"";
        report.mistake(node.place, Code::BadValue, message, help);
    }
}

fn target_of(call: &Call) -> Option<Target> {
    let node = call.node("TO")?;
    match node.as_a::<&str>() {
        Some("stdout") => Some(Target::Stdout),
        Some("stderr") => Some(Target::Stderr),
        _ => Some(Target::Path(node.as_a::<&Path>()?.to_owned())),
    }
}

fn format_of(call: &Call) -> Format {
    let node = call.node("format");
    let template = node.and_then(|node| node.as_a::<&Template>());
    match (template, node.and_then(|node| node.as_a::<&str>())) {
        (Some(template), _) => Format::Template(template.clone()),
        (None, Some("json")) => Format::Json,
        _ => Format::Combined,
    }
}

/// Has the exchange logged.
struct AccessLog {
    log: Arc<Log>,
}

pub fn build(call: &Call, builder: &mut Builder<'_>) -> Option<Box<dyn Step>> {
    let target = target_of(call)?;
    if let Err(why) = target.check() {
        let path = match &target {
            Target::Path(path) => path.display().to_string(),
            Target::Stdout | Target::Stderr => String::new(),
        };
        let message = format!("access_log: \"{path}\" cannot be written");
        builder
            .report
            .mistake(call.place_of("TO"), Code::NotFound, message, why);
        return None;
    }
    let own = looks_at_response(&call.when);
    Some(Box::new(AccessLog {
        log: Arc::new(Log {
            sink: builder.sink(target),
            format: format_of(call),
            when: if own {
                builder.condition(&call.when)
            } else {
                None
            },
            redact: builder.redact.clone(),
        }),
    }))
}

impl Step for AccessLog {
    fn name(&self) -> &'static str {
        DIRECTIVE.name
    }

    fn on_request(&self, exchange: &mut Exchange) -> Flow {
        // A pipeline that is run aside, as that of an error's page, may come here a second time.
        if !exchange.logs.iter().any(|log| Arc::ptr_eq(log, &self.log)) {
            exchange.logs.push(self.log.clone());
        }
        Flow::Next
    }

    fn explain(&self, _: &mut Exchange, notes: &mut Notes<'_>) -> Told {
        let text = match self.log.when {
            Some(_) => "a line when it is over, if its `when` holds for the response",
            None => "a line when it is over",
        };
        notes.add("log", text);
        Told::Runs
    }
}
