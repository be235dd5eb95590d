//! What a cache decides, asked step by step: a request, what the origin would answer, and what is to
//! come of it.

use std::sync::{Arc, Mutex};

use crate::{Origin, Request, Response, Script, Server};

/// A server with a cache before an origin that answers as it is told.
pub struct Bench {
    answer: Arc<Mutex<String>>,
    pub origin: Origin,
    pub server: Server,
    paths: usize,
}

/// A request and what is to come of it.
pub struct Step {
    /// The method, `METHOD HOST`, and fields, a line each.
    ask: &'static str,
    /// What the origin answers if it is asked: the status and fields, a line each.
    answer: &'static str,
    status: u16,
    /// What `Cache-Status` says, among other things.
    says: &'static str,
    /// How many requests the origin has had by then.
    asked: usize,
}

/// A request, what the origin answers if it is asked, and the status, words of `Cache-Status` and
/// number of requests to the origin that are to come of it.
pub const fn step(
    ask: &'static str,
    answer: &'static str,
    status: u16,
    says: &'static str,
    asked: usize,
) -> Step {
    Step {
        ask,
        answer,
        status,
        says,
        asked,
    }
}

fn request(ask: &str, target: &str) -> Request {
    let mut lines = ask.lines();
    let method = lines.next().expect("a method");
    lines.fold(Request::new(method, target), |request, line| {
        let (name, value) = line.split_once(": ").expect("a field");
        request.field(name, value)
    })
}

impl Bench {
    /// Behind a cache with these options.
    pub fn new(options: &str) -> Self {
        Self::before(&format!(
            "cache {options}, proxy \"@origin@\" {{ retries = 0 }}"
        ))
    }

    /// Behind these steps.
    pub fn before(pipeline: &str) -> Self {
        let answer = Arc::new(Mutex::new(String::new()));
        let told = Arc::clone(&answer);
        let count = Mutex::new(0);
        let origin = Origin::setup()
            .handle(move |_| {
                let told = told.lock().unwrap().clone();
                let mut count = count.lock().unwrap();
                *count += 1;
                if told.is_empty() {
                    return Script::raw("nonsense\r\n\r\n").close();
                }
                let (status, fields) = told.split_once('\n').unwrap_or((&told, ""));
                let fields: String = fields.lines().map(|line| format!("{line}\r\n")).collect();
                let status = status.parse().expect("a status");
                Script::with_fields(status, &fields, format!("body {count}"))
            })
            .start();
        let server = Server::before(&origin, pipeline);
        Self {
            answer,
            origin,
            server,
            paths: 0,
        }
    }

    /// One request, and what the origin answers to it.
    pub fn ask(&self, ask: &str, target: &str, answer: &str) -> Response {
        *self.answer.lock().unwrap() = answer.to_owned();
        self.server.client().request(&request(ask, target))
    }

    /// How often the origin was asked.
    pub fn asked(&self) -> usize {
        self.origin.requests().len()
    }

    /// Goes through the steps, on a path of their own.
    #[track_caller]
    pub fn check(&mut self, name: &str, steps: &[Step]) -> Vec<Response> {
        self.paths += 1;
        let target = format!("/{}", self.paths);
        let before = self.asked();
        let mut all = Vec::new();
        for (nth, step) in steps.iter().enumerate() {
            let got = self.ask(step.ask, &target, step.answer);
            let said = got.head.all("cache-status").join(", ");
            let what = format!("{name}, step {nth}: {said:?}");
            assert_eq!(got.status(), step.status, "{what}");
            assert!(said.contains(step.says), "{what}, not {:?}", step.says);
            assert_eq!(
                self.asked() - before,
                step.asked,
                "{what}: requests to the origin"
            );
            all.push(got);
        }
        all
    }
}

/// An answer that is fresh.
pub const FRESH: &str = "200\nCache-Control: max-age=60";
/// The same, and told from it.
pub const NEW: &str = "200\nCache-Control: max-age=60\nX-New: 1";

/// Stored by the first request, and the answer to the second.
pub const HIT: &str = "forebay; hit";
