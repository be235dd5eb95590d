//! The walk of an exchange down its pipeline and back, telling of each step on the way.
//!
//! It does what `exchange/step.rs` does, by the same calls of the same steps, but asks each of them
//! first how far it may be run ([`Told`]): what another server would answer is not found out.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use forebay_config::Call;
use forebay_fields::Fields;
use serde::Serialize;

use super::notes::{At, Book, Note, Notes, Told, Tried, When, shown, value_shown, written};
use crate::exchange::step::{Aside, MAX_DEPTH, Rest};
use crate::exchange::{
    DEFAULT_MAX_BODY, Entry, Exchange, Flow, Local, Pipeline, Reason, Response, Up,
};

/// What becomes of a request at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Does {
    /// Its `when` does not hold.
    Skipped,
    /// It goes on.
    Passes,
    /// A route takes it.
    Enters,
    /// The step answers.
    Answers,
    /// The step refuses it.
    Fails,
    /// Another server is asked for the answer.
    Asks,
    /// Another server is asked whether it goes on.
    AsksLeave,
    /// The step waits for what only the running server has.
    Waits,
}

/// A step on the way down.
#[derive(Clone, Debug, Serialize)]
pub struct StepTold {
    /// How deep in routes and error pages it stands.
    pub depth: usize,
    /// The directive's name.
    pub step: &'static str,
    /// As it is written, nearly.
    pub written: String,
    /// Where.
    pub at: Option<At>,
    /// Its condition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when: Option<When>,
    /// What it goes by, and what it changes.
    pub notes: Vec<Note>,
    /// The routes tried.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Tried>,
    /// What becomes of the request.
    pub does: Does,
    /// The status, if it answers.
    pub status: Option<u16>,
}

/// A step on the way up.
#[derive(Clone, Debug, Serialize)]
pub struct UpTold {
    /// How deep it stands.
    pub depth: usize,
    /// The directive's name.
    pub step: &'static str,
    /// Where it stands.
    pub at: Option<At>,
    /// What it goes by, and what it changes.
    pub notes: Vec<Note>,
    /// The status of the response when it has passed; null if another server makes it.
    pub status: Option<u16>,
}

/// How a walk ends.
pub enum End {
    /// With a response.
    Here(Response),
    /// At a step of which it is not known here what it does.
    Unknown,
}

/// Who has answered.
#[derive(Clone, Debug)]
pub struct By {
    /// The directive's name.
    pub step: &'static str,
    /// Where it stands.
    pub at: Option<At>,
    /// What it answers is not known here, and why.
    pub unknown: Option<Unknown>,
}

/// Why it is not known what a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// Another server would say.
    Elsewhere,
    /// It waits for what only the running server has.
    Waits,
}

/// What has been told so far.
#[derive(Default)]
pub struct Record {
    /// Steps on the way down.
    pub steps: Vec<StepTold>,
    /// Steps on the way up.
    pub response: Vec<UpTold>,
    /// Who has answered first; an error's page comes later.
    pub by: Option<By>,
    /// Who has put another answer in its place.
    pub replaced: Option<By>,
    /// Servers that are asked whether the request goes on.
    pub leave: Vec<By>,
}

/// Walks.
pub struct Walker {
    book: Book,
    record: RefCell<Record>,
    depth: std::cell::Cell<usize>,
}

impl Walker {
    /// With the calls that steps are made of.
    pub fn new(book: Book) -> Rc<Walker> {
        Rc::new(Walker {
            book,
            record: RefCell::default(),
            depth: std::cell::Cell::new(0),
        })
    }

    /// What it has told.
    pub fn take(&self) -> Record {
        self.record.take()
    }

    /// Where a step stands.
    fn at(&self, entry: &Entry) -> Option<At> {
        self.book.at(self.book.call(entry.call)?)
    }

    /// The name and place of a step.
    fn by(&self, entry: &Entry, unknown: Option<Unknown>) -> By {
        By {
            step: entry.step.name(),
            at: self.at(entry),
            unknown,
        }
    }

    /// Down a pipeline to the answer, and back up.
    pub async fn walk(&self, exchange: &mut Exchange, rest: Rest) -> End {
        let Rest {
            mut pipeline,
            mut at,
        } = rest;
        let start_depth = self.depth.get();
        let mut depth = start_depth;
        let mut visited: Vec<(usize, Arc<Pipeline>, usize)> = Vec::new();
        let end = loop {
            let Some(entry) = pipeline.entries.get(at) else {
                break End::Here(Response::nothing_answered(exchange));
            };
            match self.visit(exchange, entry, depth).await {
                Visit::Skipped => at += 1,
                Visit::Flow(Flow::Next) => {
                    if entry.step.sees_response() {
                        visited.push((depth, pipeline.clone(), at));
                    }
                    at += 1;
                }
                Visit::Flow(Flow::Enter(inner)) => {
                    if depth - start_depth >= MAX_DEPTH {
                        break End::Here(Response::fault(exchange, Reason::Internal.into()));
                    }
                    (pipeline, at, depth) = (inner, 0, depth + 1);
                }
                Visit::Flow(Flow::Answer(response)) => {
                    self.answered(entry, None);
                    break End::Here(response);
                }
                Visit::Flow(Flow::Fail(fault)) => {
                    self.answered(entry, None);
                    break End::Here(Response::fault(exchange, fault));
                }
                Visit::Flow(Flow::Wait) => {
                    self.answered(entry, Some(Unknown::Waits));
                    break End::Unknown;
                }
                Visit::Elsewhere => {
                    self.answered(entry, Some(Unknown::Elsewhere));
                    break End::Unknown;
                }
            }
        };
        self.ascend(exchange, end, visited).await
    }

    /// Notes who has answered first.
    fn answered(&self, entry: &Entry, unknown: Option<Unknown>) {
        let by = self.by(entry, unknown);
        self.record.borrow_mut().by.get_or_insert(by);
    }

    /// One step on the way down.
    async fn visit(&self, exchange: &mut Exchange, entry: &Entry, depth: usize) -> Visit {
        let call = self.book.call(entry.call).map(|call| &**call);
        let mut notes = Notes::new(&self.book, call);
        let mut told = StepTold {
            depth,
            step: entry.step.name(),
            written: call.map(written).unwrap_or_default(),
            at: self.at(entry),
            when: self.when(&notes, entry, exchange).await,
            notes: Vec::new(),
            routes: Vec::new(),
            does: Does::Skipped,
            status: None,
        };
        if told.when.as_ref().is_some_and(|when| !when.holds) {
            self.record.borrow_mut().steps.push(told);
            return Visit::Skipped;
        }
        let before = Seen::of(exchange);
        let plan = entry.step.explain(exchange, &mut notes);
        let visit = match plan {
            Told::Does(flow) => Visit::Flow(flow),
            Told::Fails(fault) => Visit::Flow(Flow::Fail(fault)),
            Told::Asks => Visit::Elsewhere,
            Told::AsksLeave => {
                let by = self.by(entry, Some(Unknown::Elsewhere));
                self.record.borrow_mut().leave.push(by);
                told.does = Does::AsksLeave;
                Visit::Flow(Flow::Next)
            }
            Told::Runs => Visit::Flow(entry.step.on_request(exchange)),
            Told::RunsAndWaits => Visit::Flow(match entry.step.on_request(exchange) {
                Flow::Wait => entry.step.wait(exchange).await,
                flow => flow,
            }),
        };
        before.compare(exchange, &mut notes);
        match &visit {
            Visit::Flow(Flow::Next) if told.does == Does::AsksLeave => {}
            Visit::Flow(Flow::Next) | Visit::Skipped => told.does = Does::Passes,
            Visit::Flow(Flow::Enter(_)) => told.does = Does::Enters,
            Visit::Flow(Flow::Answer(response)) => {
                told.does = Does::Answers;
                told.status = Some(response.status);
                if let Some(fault) = &response.fault {
                    notes.add("reason", fault.to_string());
                }
                answer_fields(response, &mut notes);
            }
            Visit::Flow(Flow::Fail(fault)) => {
                told.does = Does::Fails;
                told.status = Some(fault.reason.status()).filter(|status| *status != 0);
                notes.add("reason", fault.to_string());
            }
            Visit::Flow(Flow::Wait) => told.does = Does::Waits,
            Visit::Elsewhere => told.does = Does::Asks,
        }
        (told.notes, told.routes) = (notes.list, notes.routes);
        self.record.borrow_mut().steps.push(told);
        visit
    }

    /// The `when` of a step, looked at as the running server would after a moment: a condition that
    /// has to look at a disk does that on another thread, and knows it the next time it is asked.
    async fn when(&self, notes: &Notes<'_>, entry: &Entry, exchange: &Exchange) -> Option<When> {
        let when = entry.when.as_ref()?;
        let _ = when.holds(exchange);
        // There is one such thread: behind what it has to do.
        let _ = tokio::task::spawn_blocking(|| {}).await;
        let looked = notes.when(entry.call, Some(when), exchange, None);
        // Without its call there would be nothing to tell, but whether it holds.
        looked.or_else(|| {
            Some(When {
                holds: when.holds(exchange),
                conditions: Vec::new(),
            })
        })
    }

    /// Back up through the steps that see responses.
    async fn ascend(
        &self,
        exchange: &mut Exchange,
        mut end: End,
        visited: Vec<(usize, Arc<Pipeline>, usize)>,
    ) -> End {
        for (depth, pipeline, at) in visited.into_iter().rev() {
            let entry = &pipeline.entries[at];
            let call: Option<&Call> = self.book.call(entry.call).map(|call| &**call);
            let mut notes = Notes::new(&self.book, call);
            let status = match &mut end {
                End::Unknown => {
                    entry.step.explain_response(exchange, None, &mut notes);
                    None
                }
                End::Here(response) => {
                    entry
                        .step
                        .explain_response(exchange, Some(response), &mut notes);
                    self.pass_up(exchange, entry, depth, response, &mut notes)
                        .await;
                    Some(response.status)
                }
            };
            self.record.borrow_mut().response.push(UpTold {
                depth,
                step: entry.step.name(),
                at: self.at(entry),
                notes: notes.list,
                status,
            });
        }
        end
    }

    async fn pass_up(
        &self,
        exchange: &mut Exchange,
        entry: &Entry,
        depth: usize,
        response: &mut Response,
        notes: &mut Notes<'_>,
    ) {
        let (status, before) = (response.status, lines(&response.fields));
        let len = response.body.len_bytes();
        if let Up::Replace = entry.step.on_response(exchange, response) {
            let whole = std::mem::take(response);
            let outside = self.depth.replace(depth + 1);
            *response = entry.step.replace(exchange, whole).await;
            self.depth.set(outside);
        }
        if response.status != status {
            notes.add("status", format!("{status} → {}", response.status));
        }
        compare(&before, &lines(&response.fields), "field", notes);
        match (len, response.body.len_bytes()) {
            (before, after) if before == after => {}
            (_, Some(after)) => notes.add("body", format!("{after} bytes")),
            (_, None) => notes.add("body", "of a length that shows when it is sent"),
        }
    }
}

impl Aside for Walker {
    fn run<'a>(&'a self, exchange: &'a mut Exchange, rest: Rest) -> Local<'a, Response> {
        Box::pin(async move {
            let first = self.record.borrow_mut().by.take();
            let end = Box::pin(self.walk(exchange, rest)).await;
            let mut record = self.record.borrow_mut();
            let page = std::mem::replace(&mut record.by, first);
            match end {
                End::Here(response) => {
                    // A page that fails leaves what it was to stand in the place of.
                    if response.fault.is_none() {
                        record.replaced = page;
                    }
                    response
                }
                // Told as it would be without the page: what the other server says is not known.
                End::Unknown => {
                    record.replaced = page;
                    drop(record);
                    Response::fault(exchange, Reason::ConnectFailed.into())
                }
            }
        })
    }
}

/// What a visit comes to.
enum Visit {
    Skipped,
    Flow(Flow),
    /// Another server answers.
    Elsewhere,
}

/// What of an exchange steps change.
struct Seen {
    uri: String,
    fields: Lines,
    vars: BTreeMap<String, String>,
    max_body: u64,
    allowed: Option<&'static str>,
    prefix: Option<String>,
}

type Lines = Vec<(String, String)>;

impl Seen {
    fn of(exchange: &Exchange) -> Seen {
        let mut uri = Vec::new();
        exchange.request.write_uri(&mut uri);
        let vars = exchange.vars.iter();
        Seen {
            uri: shown(&uri),
            fields: lines(&exchange.request.fields),
            vars: vars
                .map(|(name, value)| (name.to_string(), shown(value)))
                .collect(),
            max_body: exchange.max_body_bytes.unwrap_or(DEFAULT_MAX_BODY),
            allowed: exchange.allowed_methods,
            prefix: exchange.request.prefix.as_deref().map(str::to_owned),
        }
    }

    /// Notes what is another now.
    fn compare(&self, exchange: &Exchange, notes: &mut Notes<'_>) {
        let now = Seen::of(exchange);
        if now.uri != self.uri {
            notes.add("uri", format!("{} → {}", self.uri, now.uri));
        }
        if now.prefix != self.prefix {
            notes.add("prefix", now.prefix.clone().unwrap_or_default());
        }
        compare(&self.fields, &now.fields, "field", notes);
        for (name, value) in &now.vars {
            if self.vars.get(name) != Some(value) {
                notes.add("var", format!("$vars.{name} = \"{value}\""));
            }
        }
        if now.max_body != self.max_body {
            let size = forebay_config::show_size(now.max_body);
            notes.add("body", format!("at most {size} of the request's"));
        }
        if now.allowed != self.allowed
            && let Some(methods) = now.allowed
        {
            notes.add("methods", format!("only {methods}"));
        }
    }
}

/// The lines of a head.
fn lines(fields: &Fields) -> Lines {
    let line = |field: forebay_fields::Field<'_>| {
        let name = shown(field.name);
        (name, shown(field.value))
    };
    fields.iter().map(line).collect()
}

fn line(name: &str, value: &str) -> String {
    format!("{name}: {}", value_shown(name, value))
}

/// Notes lines that have gone and such that have come.
fn compare(before: &Lines, after: &Lines, about: &'static str, notes: &mut Notes<'_>) {
    let mut gone: Vec<&(String, String)> = before.iter().collect();
    let mut come = Vec::new();
    for one in after {
        match gone.iter().position(|other| *other == one) {
            Some(at) => {
                gone.remove(at);
            }
            None => come.push(one),
        }
    }
    for (name, value) in gone {
        notes.add(about, format!("- {}", line(name, value)));
    }
    for (name, value) in come {
        notes.add(about, format!("+ {}", line(name, value)));
    }
}

/// Notes what an answer says.
fn answer_fields(response: &Response, notes: &mut Notes<'_>) {
    for (name, value) in lines(&response.fields) {
        notes.add("field", line(&name, &value));
    }
    let len = response.announced_len.or(response.body.len_bytes());
    match len {
        Some(0) if response.wants_page => {}
        Some(len) => notes.add("body", format!("{len} bytes")),
        None => notes.add("body", "of a length that shows when it is sent"),
    }
}

/// The fields of the final response, for the whole answer.
pub fn final_fields(response: &Response) -> Vec<(String, String)> {
    let lines = lines(&response.fields).into_iter();
    let shown = lines.map(|(name, value)| {
        let value = value_shown(&name, &value).to_owned();
        (name, value)
    });
    shown.collect()
}
