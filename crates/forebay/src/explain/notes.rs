//! What steps say of themselves and their decisions.

use std::collections::BTreeMap;
use std::sync::Arc;

use forebay_config::{Call, Node, Part, Sources, Status, Template, Value, show_duration};
use forebay_route::{Captures, Miss, Pattern};
use rustc_hash::FxHashMap;
use serde::Serialize;

use crate::exchange::{Condition, Exchange, Fault, Flow, Response, Test};

/// How far a step may be run to find out what it does, given that nothing is sent.
pub enum Told {
    /// What [`on_request`](crate::exchange::Step::on_request) says; if that waits, the rest is not
    /// known.
    Runs,
    /// That, and what it waits for: nothing but files of this machine.
    RunsAndWaits,
    /// It has been decided while it was told.
    Does(Flow),
    /// No answer can be given.
    Fails(Fault),
    /// Another server makes the answer.
    Asks,
    /// Another server says whether the request goes on.
    AsksLeave,
}

/// Where something is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct At {
    /// The file, as it was named.
    pub file: String,
    /// From 1.
    pub line: u32,
}

/// One fact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Note {
    /// What it is about: a word of a closed list for each step.
    pub about: &'static str,
    /// What is so.
    pub text: String,
}

/// A condition, and whether it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tested {
    /// As it is written, nearly.
    pub condition: String,
    /// Whether it does.
    pub holds: bool,
    /// The conditions in it that were looked at.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub of: Vec<Tested>,
}

/// A `when`: true when one of its conditions is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct When {
    /// Whether it is.
    pub holds: bool,
    /// Those that were looked at, up to the first that holds.
    pub conditions: Vec<Tested>,
}

/// A pattern of a route that was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tried {
    /// The pattern.
    pub pattern: String,
    /// Where its route stands.
    pub at: Option<At>,
    /// Whether the path matches.
    pub matches: bool,
    /// Why it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What `*` has matched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rest: Option<String>,
    /// What `:name` segments have matched.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, String>,
    /// The route's condition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when: Option<When>,
    /// Whether this route takes the request.
    pub takes: bool,
}

/// The calls of a configuration by their numbers, and where they stand.
pub struct Book {
    calls: FxHashMap<u32, Arc<Call>>,
    sources: Arc<Sources>,
}

impl Book {
    /// All steps of these declarations.
    pub fn new(declarations: &[Arc<Call>], sources: &Arc<Sources>) -> Book {
        let mut book = Book {
            calls: FxHashMap::default(),
            sources: sources.clone(),
        };
        book.add(declarations);
        book
    }

    fn add(&mut self, calls: &[Arc<Call>]) {
        for call in calls {
            // What stands in several places is looked into once.
            if self.calls.insert(call.id, call.clone()).is_some() {
                continue;
            }
            self.add(&call.steps);
            for (_, node) in &call.keyed {
                if let Value::Pipeline(steps) = &node.value {
                    self.add(steps);
                }
            }
        }
    }

    /// The call of this number.
    pub fn call(&self, id: u32) -> Option<&Arc<Call>> {
        self.calls.get(&id)
    }

    /// Where a call stands.
    pub fn at(&self, call: &Call) -> Option<At> {
        let span = call
            .place
            .is_known()
            .then(|| self.sources.span(call.place))?;
        Some(At {
            file: span.file,
            line: span.line,
        })
    }
}

/// What one step has to say.
pub struct Notes<'a> {
    book: &'a Book,
    call: Option<&'a Call>,
    /// The facts.
    pub list: Vec<Note>,
    /// The routes tried.
    pub routes: Vec<Tried>,
}

impl<'a> Notes<'a> {
    /// Nothing yet, of the step of this call.
    pub fn new(book: &'a Book, call: Option<&'a Call>) -> Notes<'a> {
        Notes {
            book,
            call,
            list: Vec::new(),
            routes: Vec::new(),
        }
    }

    /// Notes a fact.
    pub fn add(&mut self, about: &'static str, text: impl Into<String>) {
        let text = text.into();
        self.list.push(Note { about, text });
    }

    /// Notes which of the prefixes of the step's argument a client is in.
    pub fn prefix(&mut self, client: std::net::IpAddr) {
        let nodes: &[Node] = self.call.map_or(&[], |call| call.get("PREFIX"));
        let found = nodes.iter().find(|node| {
            let prefix: &forebay_config::Prefix = node.get();
            prefix.contains(client)
        });
        let text = match found.and_then(|node| show(&node.value)) {
            Some(prefix) => format!("{client} is in {prefix}"),
            None => format!("{client} is in none of them"),
        };
        self.add("client", text);
    }

    /// An option of the step, as it is written or by default.
    pub fn option(&self, name: &str) -> Option<String> {
        show(&self.call?.node(name)?.value)
    }

    /// Notes a pattern that was tried: why it does not match; or what it has matched in a path, and
    /// the condition of its route.
    pub fn route(
        &mut self,
        call: u32,
        pattern: &Pattern,
        result: Result<(&Captures, &str, Option<When>), Miss>,
    ) {
        let call = self.book.call(call);
        let mut tried = Tried {
            pattern: pattern.as_str().to_owned(),
            at: call.and_then(|call| self.book.at(call)),
            matches: result.is_ok(),
            why: None,
            rest: None,
            params: BTreeMap::new(),
            when: None,
            takes: false,
        };
        match result {
            Err(miss) => tried.why = Some(miss.to_string()),
            Ok((found, path, when)) => {
                let path = path.as_bytes();
                let has_star = pattern.as_str().contains('*');
                tried.rest = has_star.then(|| shown(found.rest(path)));
                let named = pattern.params().iter().enumerate();
                tried.params = named
                    .filter_map(|(at, name)| {
                        Some((name.to_string(), shown(found.param(at, path)?)))
                    })
                    .collect();
                tried.takes = when.as_ref().is_none_or(|when| when.holds);
                if !tried.takes {
                    tried.why = Some("its `when` does not hold".to_owned());
                }
                tried.when = when;
            }
        }
        self.routes.push(tried);
    }

    /// Whether the `when` of a call holds, and which condition decides.
    pub fn when(
        &self,
        call: u32,
        when: Option<&Condition>,
        exchange: &Exchange,
        response: Option<&Response>,
    ) -> Option<When> {
        let call = self.book.call(call)?;
        Some(look(&call.when, &when?.0, exchange, response))
    }

    /// Notes whether a condition that the step looks at itself holds: that of this option, or its
    /// `when`.
    pub fn own_condition(
        &mut self,
        option: &str,
        condition: Option<&Condition>,
        exchange: &Exchange,
        response: &Response,
    ) {
        let (Some(call), Some(condition)) = (self.call, condition) else {
            return;
        };
        let calls: &[Arc<Call>] = match option {
            "when" => &call.when,
            _ => call.find(option).unwrap_or_default(),
        };
        let when = look(calls, &condition.0, exchange, Some(response));
        for test in &when.conditions {
            self.add("when", said(test));
        }
    }
}

/// A condition with its result, in a line.
pub fn said(test: &Tested) -> String {
    let holds = if test.holds { "holds" } else { "does not hold" };
    let mut text = format!("{} {holds}", test.condition);
    if !test.of.is_empty() {
        let parts: Vec<String> = test.of.iter().map(said).collect();
        text.push_str(&format!(" ({})", parts.join("; ")));
    }
    text
}

fn look(
    calls: &[Arc<Call>],
    tests: &[Box<dyn Test>],
    exchange: &Exchange,
    response: Option<&Response>,
) -> When {
    let mut conditions = Vec::new();
    for (call, test) in calls.iter().zip(tests) {
        conditions.push(look_at(call, &**test, exchange, response));
        if conditions.last().is_some_and(|last| last.holds) {
            break;
        }
    }
    When {
        holds: conditions.last().is_some_and(|last| last.holds),
        conditions,
    }
}

fn look_at(
    call: &Call,
    test: &dyn Test,
    exchange: &Exchange,
    response: Option<&Response>,
) -> Tested {
    let parts = test.parts();
    if parts.is_empty() {
        return Tested {
            condition: written(call),
            holds: test.holds(exchange, response),
            of: Vec::new(),
        };
    }
    // Asked one by one, and not once more for the whole: `share` would draw again.
    let is_all = call.name() == "all";
    let mut of = Vec::new();
    for (call, test) in call.steps.iter().zip(parts) {
        of.push(look_at(call, &**test, exchange, response));
        if of.last().is_some_and(|last| last.holds != is_all) {
            break;
        }
    }
    let last = of.last().is_some_and(|last| last.holds);
    Tested {
        condition: call.name().to_owned(),
        holds: last == is_all,
        of,
    }
}

/// A call as it is written, nearly: its arguments, and the options that are set. Of pipelines,
/// conditions and tables of fields only that they are there.
pub fn written(call: &Call) -> String {
    let mut text = call.name().to_owned();
    let directive = call.directive();
    let args = directive.args.iter();
    let args: Vec<String> = args
        .filter_map(|arg| show(&call.node(arg.name)?.value))
        .collect();
    match &args[..] {
        [] => {}
        [one] => text = format!("{text} {one}"),
        several => text = format!("{text}({})", several.join(", ")),
    }
    let set = directive
        .options
        .iter()
        .filter(|option| call.is_set(option.name));
    let options: Vec<String> = set
        .filter_map(|option| {
            let value = show(&call.node(option.name)?.value).unwrap_or_else(|| "…".to_owned());
            Some(format!("{} = {value}", option.name))
        })
        .collect();
    if !options.is_empty() {
        text = format!("{text} {{ {} }}", options.join(", "));
    }
    text
}

/// A value as the language writes it; none for what would take more than a line.
fn show(value: &Value) -> Option<String> {
    let quoted = |text: &dyn std::fmt::Display| Some(format!("\"{text}\""));
    match value {
        Value::Boolean(value) => Some(value.to_string()),
        Value::Duration(time) => quoted(&show_duration(*time)),
        Value::Size(bytes) => quoted(&forebay_config::show_size(*bytes)),
        Value::Rate(rate) => quoted(&format!("{}/{}", rate.count, per(rate.per))),
        Value::Count(count) => Some(count.to_string()),
        Value::Percent(percent) => quoted(&format!("{percent}%")),
        Value::Address(address) => quoted(address),
        Value::Target(target) => quoted(&target.text),
        Value::Prefix(forebay_config::Prefix::Net(net))
            if net.prefix_len() == net.max_prefix_len() =>
        {
            quoted(&net.addr())
        }
        Value::Prefix(forebay_config::Prefix::Net(net)) => quoted(net),
        Value::Prefix(forebay_config::Prefix::Private) => quoted(&"private"),
        Value::Host(host) => quoted(host),
        Value::Pattern(pattern) => quoted(&pattern.text()),
        Value::Match(one) if one.as_regex().is_some() => Some(format!("regex \"{}\"", one.text())),
        Value::Match(one) => quoted(&one.text()),
        Value::Template(template) => quoted(&show_template(template)),
        Value::Path(path) => quoted(&path.display()),
        Value::Url(url) => quoted(&url.shown()),
        Value::PathTemplate(path) if path.rest.parts.is_empty() => quoted(&path.base.display()),
        Value::PathTemplate(path) => {
            let base = path.base.display().to_string();
            let base = base.trim_end_matches('/');
            quoted(&format!("{base}/{}", show_template(&path.rest)))
        }
        Value::Status(Status::Code(code)) => Some(code.to_string()),
        Value::Status(Status::Class(class)) => quoted(&format!("{class}xx")),
        Value::Text(text) => quoted(text),
        Value::Keyword(word) => quoted(word),
        Value::Declared(call) => Some(call.subject()),
        Value::List(nodes) => list(nodes),
        _ => None,
    }
}

/// More items of a list are not shown: a blocklist may have a hundred thousand.
const MAX_ITEMS: usize = 6;

fn list(nodes: &[Node]) -> Option<String> {
    let shown: Option<Vec<String>> = nodes
        .iter()
        .take(MAX_ITEMS)
        .map(|node| show(&node.value))
        .collect();
    let mut shown = shown?;
    match (&shown[..], nodes.len()) {
        ([one], 1) => return Some(one.clone()),
        (_, len) if len > MAX_ITEMS => shown.push(format!("… {} more", len - MAX_ITEMS)),
        _ => {}
    }
    Some(format!("{{ {} }}", shown.join(", ")))
}

fn per(time: std::time::Duration) -> String {
    let text = show_duration(time);
    // `1s` is `s`, `10s` is itself.
    match text.strip_prefix('1') {
        Some(unit) if !unit.starts_with(|c: char| c.is_ascii_digit()) => unit.to_owned(),
        _ => text,
    }
}

/// A status or class as the language writes it.
pub fn show_status(status: Status) -> String {
    match status {
        Status::Code(code) => code.to_string(),
        Status::Class(class) => format!("{class}xx"),
    }
}

/// Fields whose values let somebody in: they are not repeated.
const SECRETS: [&str; 4] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
];

/// What is shown of a field's value.
pub fn value_shown<'a>(name: &str, value: &'a str) -> &'a str {
    match SECRETS.iter().any(|one| name.eq_ignore_ascii_case(one)) {
        true => "(not shown)",
        false => value,
    }
}

/// A template as the language writes it.
pub fn show_template(template: &Template) -> String {
    let part = |part: &Part| match part {
        Part::Text(text) => text.replace('$', "$$"),
        Part::Var(variable) => variable.show(),
    };
    template.parts.iter().map(part).collect()
}

/// Bytes as a text: what is none as `\xNN`.
pub fn shown(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}
