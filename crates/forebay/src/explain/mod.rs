//! `forebay explain`: what a configuration does with one request, and why, without sending anything.
//!
//! ```text
//!   command line ─▶ asked ─▶ the head, by the parser of a connection ─▶ an exchange
//!   file ─▶ control/build ─▶ snapshot, listeners                            │
//!                                    the listener's hosts ─▶ site ──▶ walk: the site's own steps
//!                                                                           │
//!                                              Explanation ◀── notes of each step on the way
//! ```
//!
//! *Invariant*: decisions are made by the code that serves: the parser, the host table, the steps.
//! What is written here only asks and tells. *Invariant*: nothing is sent, and no address looked up.

mod asked;
mod notes;
mod text;
mod walk;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use forebay_config::{Address, Call, Loaded, Node};
use serde::Serialize;

pub use asked::Asked;
pub use notes::{Notes, Told, show_status, show_template, shown, value_shown};
pub use text::{harmless, render};

use self::asked::CLIENT_PORT;
use self::notes::{At, Book};
use self::walk::{By, End, Record, StepTold, Unknown, UpTold, Walker};
use crate::control::build::Built;
use crate::control::declarations::{LISTEN, SITE, chosen};
use crate::counters::Counters;
use crate::exchange::step::{Aside, Rest};
use crate::exchange::{Exchange, Fault, Remote, Response, dress};
use crate::snapshot::Served;
use crate::steps::patterns;
use crate::worker::{Process, Worker};

/// All that is told. Its field names are those of `--json`.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// What was asked about.
    pub request: RequestTold,
    /// What takes it.
    pub listener: ListenerTold,
    /// What answers; null if the request comes to none.
    pub site: Option<SiteTold>,
    /// The steps on the way down, in order.
    pub steps: Vec<StepTold>,
    /// The steps on the way up, in order.
    pub response: Vec<UpTold>,
    /// What comes of it.
    pub answer: AnswerTold,
}

/// The request.
#[derive(Clone, Debug, Serialize)]
pub struct RequestTold {
    /// Its method.
    pub method: String,
    /// As it was asked about.
    pub url: String,
    /// The host asked for, after what trusted servers say; empty if the head is refused.
    pub host: String,
    /// The path in its one form; empty if the head is refused.
    pub path: String,
    /// The client's address, after what trusted servers say; empty if it has none.
    pub client: String,
    /// `http` or `https`.
    pub scheme: &'static str,
}

/// The listener.
#[derive(Clone, Debug, Serialize)]
pub struct ListenerTold {
    /// As it is written.
    pub address: String,
    /// Where; null for the one that a file without any has.
    pub at: Option<At>,
    /// What is to be said of the choice.
    pub notes: Vec<String>,
}

/// The site.
#[derive(Clone, Debug, Serialize)]
pub struct SiteTold {
    /// Its name.
    pub name: String,
    /// Its host that matches.
    pub host: String,
    /// `exact`, `wildcard` or `any`.
    pub matches: &'static str,
    /// Where it stands.
    pub at: Option<At>,
}

/// The answer.
#[derive(Clone, Debug, Serialize)]
pub struct AnswerTold {
    /// Null if another server makes it.
    pub status: Option<u16>,
    /// The step that answers; null if none does.
    pub by: Option<&'static str>,
    /// Where it stands.
    pub at: Option<At>,
    /// The failure, by the name that metrics and logs have for it.
    pub reason: Option<&'static str>,
    /// Its fields, without those of the connection, as name and value.
    pub fields: Vec<(String, String)>,
    /// The length of its body; null if that shows when it is sent.
    pub body_bytes: Option<u64>,
    /// All of this in a sentence.
    pub sentence: String,
}

/// Tells what becomes of a request. The error is a sentence for who asks.
pub fn explain(
    mut asked: Asked,
    loaded: &mut Loaded,
    built: &Built,
) -> Result<Explanation, String> {
    asked.complete(&loaded.declarations)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        // One thread that may wait, so that what it does is done in order.
        .max_blocking_threads(1)
        .build()
        .map_err(|error| format!("no thread of its own: {error}"))?;
    let book = Book::new(&loaded.declarations, loaded.report.sources());
    let counters = Arc::new(Counters::default());
    let process = Arc::<Process>::default();
    process.all.lock().push(counters.clone());
    let worker = Worker::new(0, built.snapshot.clone(), counters, process);
    let (at, notes) = asked.listener(&built.binds);
    let bind = built.binds.get(at).ok_or("nothing is listened on")?;
    let mut listener = ListenerTold {
        address: bind.address.to_string(),
        at: place_of_listener(loaded, &book, &bind.address),
        notes,
    };
    if asked.tls {
        let note = "no listener speaks TLS: told as if it had come by TLS";
        listener.notes.push(note.to_owned());
    }
    let served = built.snapshot.served.get(&bind.id);
    let served = served.ok_or("the listener serves nothing")?;
    let mut exchange = Exchange::new(&worker, remote(&asked, &bind.address));
    if served.expects_header(&exchange.remote) {
        let note =
            "the client is one that begins with a PROXY header: named here is whom that names";
        listener.notes.push(note.to_owned());
    }
    // Steps may begin tasks of their own, as they do on a worker.
    let tasks = tokio::task::LocalSet::new();
    let walked = tasks.block_on(&runtime, run(&asked, &mut exchange, served, book));
    let site = exchange.site.as_ref().and_then(|_| {
        let host = exchange.request.host();
        let host = host.strip_suffix('.').unwrap_or(host);
        site_of(loaded, built, at, served, host)
    });
    let request = RequestTold {
        method: asked.method.clone(),
        url: asked.url.clone(),
        host: walked.host,
        path: walked.path,
        client: match exchange.has_client_ip() {
            true => exchange.client_ip().to_string(),
            false => String::new(),
        },
        scheme: exchange.scheme(),
    };
    // Nothing has happened: there is nothing to be logged.
    exchange.logs.clear();
    let answer = answer(&walked.record, walked.end);
    Ok(Explanation {
        request,
        listener,
        site,
        steps: walked.record.steps,
        response: walked.record.response,
        answer,
    })
}

/// Who asks, and what was asked.
fn remote(asked: &Asked, address: &Address) -> Remote {
    let nobody = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
    let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let (local, client) = match address {
        Address::Port(port) => (
            SocketAddr::new(here, *port),
            SocketAddr::new(here, CLIENT_PORT),
        ),
        Address::Socket(address) => {
            let ip = if address.ip().is_unspecified() {
                here
            } else {
                address.ip()
            };
            (
                SocketAddr::new(ip, address.port()),
                SocketAddr::new(here, CLIENT_PORT),
            )
        }
        Address::Fd(_) => {
            let port = asked.port.unwrap_or(80);
            (
                SocketAddr::new(here, port),
                SocketAddr::new(here, CLIENT_PORT),
            )
        }
        Address::Unix(_) => (nobody, nobody),
    };
    Remote {
        address: asked.client.unwrap_or(client),
        local,
        tls: asked.tls,
    }
}

/// A walk, when it is over.
struct Walked {
    record: Record,
    end: End,
    /// Before any step has changed them.
    host: String,
    path: String,
}

async fn run(asked: &Asked, exchange: &mut Exchange, served: &Served, book: Book) -> Walked {
    let walker = Walker::new(book);
    let mut walked = Walked {
        record: Record::default(),
        end: End::Unknown,
        host: String::new(),
        path: String::new(),
    };
    let response = match asked.fill(exchange, &served.limits) {
        Err(fault) => Some(Response::fault(exchange, fault)),
        Ok(()) => {
            let response = exchange.enter(served);
            exchange.request.host().clone_into(&mut walked.host);
            exchange.request.path().clone_into(&mut walked.path);
            response
        }
    };
    let pipeline = exchange.site.as_ref().map(|site| site.pipeline.clone());
    walked.end = match (response, pipeline) {
        (Some(response), _) => End::Here(response),
        (None, Some(pipeline)) => {
            let aside: Rc<dyn Aside> = walker.clone();
            exchange.aside = Some(aside);
            let end = walker.walk(exchange, Rest::from(pipeline)).await;
            exchange.aside = None;
            end
        }
        (None, None) => End::Unknown,
    };
    if let End::Here(response) = &mut walked.end {
        dress(exchange, response);
    }
    walked.record = walker.take();
    walked
}

fn place_of_listener(loaded: &Loaded, book: &Book, address: &Address) -> Option<At> {
    let mut calls = loaded.by(LISTEN.name);
    let call = calls.find(|call| call.get::<&Address>("ADDRESS") == address)?;
    book.at(call)
}

/// The site that answers on this listener for a host, and why.
fn site_of(
    loaded: &mut Loaded,
    built: &Built,
    listener: usize,
    served: &Served,
    host: &str,
) -> Option<SiteTold> {
    let found = served.hosts.lookup(host.as_bytes())?;
    let mut calls = loaded
        .declarations
        .iter()
        .filter(|call| call.name() == SITE.name);
    let report = &mut loaded.report;
    let is_named = |call: &Call| {
        let hosts: &[Node] = call.get("HOST");
        let mut hosts = hosts.iter().filter_map(patterns::host);
        hosts.any(|host| host == *found.pattern)
    };
    let call = calls.find(|call| {
        let on = chosen(call, &built.binds, report);
        is_named(call) && on.is_none_or(|on| on.contains(&listener))
    });
    let call = call.cloned();
    let at = call.map(|call| {
        let span = loaded.report.sources().span(call.place);
        At {
            file: span.file,
            line: span.line,
        }
    });
    Some(SiteTold {
        name: found.value.counts.name.to_string(),
        host: found.pattern.to_string(),
        matches: match (found.pattern.is_any(), found.pattern.is_wildcard()) {
            (true, _) => "any",
            (false, true) => "wildcard",
            (false, false) => "exact",
        },
        at,
    })
}

fn answer(record: &Record, end: End) -> AnswerTold {
    let by = record.by.as_ref();
    let elsewhere = record
        .replaced
        .as_ref()
        .filter(|page| page.unknown.is_some());
    let mut told = AnswerTold {
        status: None,
        by: by.map(|by| by.step),
        at: by.and_then(|by| by.at.clone()),
        reason: None,
        fields: Vec::new(),
        body_bytes: None,
        sentence: String::new(),
    };
    let who = by.map(place);
    told.sentence = match (end, elsewhere) {
        (End::Here(response), Some(page)) => {
            format!("{}, in the place of a {}", unknown(page), response.status)
        }
        (End::Here(response), None) => {
            let status = response.status;
            told.status = Some(status);
            told.reason = response.fault.as_ref().map(|fault| fault.reason.name());
            told.fields = walk::final_fields(&response);
            told.body_bytes = response.announced_len.or(response.body.len_bytes());
            let mut sentence = match (&who, &response.fault) {
                (Some(who), Some(fault)) if record.replaced.is_none() => {
                    format!("refused by {who} with {status}: {}", why(fault))
                }
                (Some(who), _) => format!("answered by {who} with {status}"),
                (None, Some(fault)) => format!("answered with {status}: {}", why(fault)),
                (None, None) => format!("answered with {status}"),
            };
            if let Some(page) = &record.replaced {
                sentence.push_str(&format!(", with the page of {}", place(page)));
            }
            sentence
        }
        (End::Unknown, _) => by.map_or_else(|| "not answered".to_owned(), unknown),
    };
    for by in &record.leave {
        told.sentence.push_str(&format!(
            ", if the server that {} asks lets it pass",
            place(by)
        ));
    }
    told
}

/// A failure as a part of a sentence.
fn why(fault: &Fault) -> String {
    let text = fault.reason.sentence().trim_end_matches('.');
    match &fault.detail {
        Some(detail) => format!("{text} ({detail})"),
        None => text.to_owned(),
    }
}

/// What is said of a step of which it is not known what it does.
fn unknown(by: &By) -> String {
    match by.unknown {
        Some(Unknown::Waits) => format!("{} waits for what only the running server has", place(by)),
        _ => format!("answered by the server that {} asks", place(by)),
    }
}

/// `files at forebay.lua:12`
fn place(by: &By) -> String {
    match &by.at {
        Some(at) => format!("{} at {}:{}", by.step, at.file, at.line),
        None => by.step.to_owned(),
    }
}

#[cfg(test)]
mod tests;
