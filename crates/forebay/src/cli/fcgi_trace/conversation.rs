//! One connection, as who looks on understands it: bytes of both directions in, what was said out.
//!
//! ```text
//!   bytes ──▶ Records ──▶ by id: parameters collected, the response's head found ──▶ Seen
//!                              │
//!                              └─ asked for by path: held until the parameters are there
//! ```

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};
use forebay_config::Match;
use forebay_fastcgi::{
    Begin, End, Header, Limits, Params, Record, RecordType, Records, read_values,
};

use super::mask::Masks;
use crate::trace::{Time, Who};

/// Requests under way on one connection that are followed. Each may hold parameters.
const MAX_REQUESTS: usize = 256;
/// Of one request, what is held until it is known whether it is shown.
const MAX_HELD: usize = 64;
/// The head of a response; what is longer is no head.
const MAX_HEAD: usize = 64 * 1024;

/// Names with values.
pub type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// Something that was said.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// When.
    pub time: Time,
    /// On which connection.
    pub connection: u32,
    /// By whom.
    pub who: Who,
    /// For which request; 0 is none.
    pub id: u16,
    /// What.
    pub what: What,
}

/// What was said.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// A record.
    Record {
        /// The number of its type.
        kind: u8,
        /// Bytes of content.
        len: usize,
        /// What they mean.
        means: Means,
    },
    /// No record, but something to know: the connection's begin and end, what went wrong.
    Note(String),
}

/// What a record means.
#[derive(Clone, Debug, PartialEq)]
pub enum Means {
    /// Nothing beside its type and length.
    Nothing,
    /// A sentence.
    Text(String),
    /// Names and values: parameters when all are there, variables.
    Pairs(Pairs),
    /// Data of a stream.
    Data(Data),
    /// A stream has ended.
    StreamEnd,
}

/// Data of a stream.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Data {
    /// The lines of the response's head, when it ended here.
    pub head: Pairs,
    /// The data behind it, secrets masked; never more than one record's.
    pub body: Bytes,
    /// Why the data are not shown.
    pub withheld: bool,
}

/// What is shown.
#[derive(Clone, Default)]
pub struct Filter {
    /// Only this request id.
    pub id: Option<u16>,
    /// Only requests for such a path.
    pub path: Option<Match>,
    /// Secrets as they are.
    pub secrets: bool,
}

/// A connection.
pub struct Conversation {
    number: u32,
    filter: Filter,
    server: Side,
    application: Side,
    requests: HashMap<u16, Request>,
}

#[derive(Default)]
struct Side {
    records: Records,
    lost: bool,
}

/// A request under way.
struct Request {
    begun: Time,
    params: Collected,
    head: Head,
    masks: Masks,
    shown: Shown,
    held: Vec<Seen>,
}

#[derive(PartialEq, Eq)]
enum Shown {
    Undecided,
    Yes,
    No,
}

enum Collected {
    Some(BytesMut),
    TooMany,
    Done,
}

/// The head of a response.
enum Head {
    Coming(BytesMut),
    Over,
}

impl Conversation {
    /// A connection that has this number.
    pub fn new(number: u32, filter: Filter) -> Self {
        Self {
            number,
            filter,
            server: Side::default(),
            application: Side::default(),
            requests: HashMap::new(),
        }
    }

    /// Something to know about the connection.
    pub fn note(&self, time: Time, who: Who, text: String) -> Seen {
        Seen {
            time,
            connection: self.number,
            who,
            id: 0,
            what: What::Note(text),
        }
    }

    /// Takes bytes of one direction, at most 64 KiB at a time, and tells what they say.
    pub fn feed(&mut self, time: Time, who: Who, bytes: &[u8], tell: &mut dyn FnMut(Seen)) {
        if self.side(who).lost {
            return;
        }
        self.side(who).records.push(bytes);
        loop {
            match self.side(who).records.next_record() {
                Ok(None) => return,
                Ok(Some(record)) => self.record(time, who, &record, tell),
                Err(fault) => {
                    self.side(who).lost = true;
                    let text = format!("{fault}: what follows in this direction is not shown");
                    tell(self.note(time, who, text));
                    return;
                }
            }
        }
    }

    /// Bytes are missing: where the next record begins nobody knows.
    pub fn gap(&mut self, time: Time, who: Who, why: &str, tell: &mut dyn FnMut(Seen)) {
        if !std::mem::replace(&mut self.side(who).lost, true) {
            let text = format!("{why}: what follows in this direction is not shown");
            tell(self.note(time, who, text));
        }
    }

    /// The connection has ended.
    pub fn closed(&mut self, time: Time, who: Who, tell: &mut dyn FnMut(Seen)) {
        let mut text = "closed".to_owned();
        let cut = |side: &Side| !side.lost && !side.records.is_between();
        if cut(&self.server) || cut(&self.application) {
            text.push_str(" in the middle of a record");
        } else if !self.requests.is_empty() {
            let mut ids: Vec<_> = self.requests.keys().copied().collect();
            ids.sort_unstable();
            let ids: Vec<_> = ids.iter().take(10).map(ToString::to_string).collect();
            text = format!("closed; not ended: request {}", ids.join(", "));
        }
        tell(self.note(time, who, text));
    }

    /// How many requests are followed, and the most that is held of one.
    #[cfg(test)]
    pub fn sizes(&self) -> (usize, usize) {
        let held = self.requests.values().map(|request| request.held.len());
        (self.requests.len(), held.max().unwrap_or_default())
    }

    fn side(&mut self, who: Who) -> &mut Side {
        match who {
            Who::Server => &mut self.server,
            Who::Application => &mut self.application,
        }
    }

    fn record(&mut self, time: Time, who: Who, record: &Record, tell: &mut dyn FnMut(Seen)) {
        let Header { kind, id, .. } = record.header;
        let known = RecordType::of(kind);
        let mut seen = Seen {
            time,
            connection: self.number,
            who,
            id,
            what: What::Note(String::new()),
        };
        if known == Some(RecordType::BeginRequest) {
            self.begin(time, id);
        }
        let means = match (known, self.requests.get_mut(&id)) {
            (Some(kind), Some(request)) if !kind.is_management() => {
                request.means(time, kind, &record.content, &self.filter)
            }
            (known, _) => without_request(known, &record.content),
        };
        seen.what = What::Record {
            kind,
            len: record.content.len(),
            means,
        };
        self.show(seen, tell);
        if known == Some(RecordType::EndRequest) {
            self.requests.remove(&id);
        }
    }

    fn begin(&mut self, time: Time, id: u16) {
        if self.requests.len() >= MAX_REQUESTS && !self.requests.contains_key(&id) {
            return;
        }
        let shown = match self.filter.path {
            Some(_) => Shown::Undecided,
            None => Shown::Yes,
        };
        let request = Request {
            begun: time,
            params: Collected::Some(BytesMut::new()),
            head: Head::Coming(BytesMut::new()),
            masks: Masks::new(self.filter.secrets),
            shown,
            held: Vec::new(),
        };
        self.requests.insert(id, request);
    }

    /// Tells it, holds it or drops it.
    fn show(&mut self, seen: Seen, tell: &mut dyn FnMut(Seen)) {
        if self.filter.id.is_some_and(|only| only != seen.id) {
            return;
        }
        match self.requests.get_mut(&seen.id) {
            // A path was asked for, and what belongs to no request that is followed has none.
            None if self.filter.path.is_some() => {}
            None => tell(seen),
            Some(request) => match request.shown {
                Shown::No => {}
                Shown::Undecided if request.held.len() >= MAX_HELD => {}
                Shown::Undecided => request.held.push(seen),
                Shown::Yes => {
                    request.held.drain(..).for_each(&mut *tell);
                    tell(seen);
                }
            },
        }
    }
}

impl Request {
    fn means(&mut self, time: Time, kind: RecordType, content: &Bytes, filter: &Filter) -> Means {
        match kind {
            RecordType::Params => self.params(content, filter),
            RecordType::Stdin | RecordType::Stdout | RecordType::Stderr | RecordType::Data
                if content.is_empty() =>
            {
                Means::StreamEnd
            }
            RecordType::Stdin => {
                let (body, withheld) = self.masks.request(content);
                Means::Data(Data {
                    body,
                    withheld,
                    ..Data::default()
                })
            }
            RecordType::Stdout => self.stdout(content),
            RecordType::Stderr | RecordType::Data => Means::Data(Data {
                body: content.clone(),
                ..Data::default()
            }),
            RecordType::EndRequest => end(content, Some(time.saturating_sub(self.begun))),
            _ => without_request(Some(kind), content),
        }
    }

    fn params(&mut self, content: &Bytes, filter: &Filter) -> Means {
        let limits = Limits::default();
        let Collected::Some(block) = &mut self.params else {
            return Means::Nothing;
        };
        if !content.is_empty() {
            block.extend_from_slice(content);
            if u32::try_from(block.len()).map_or(true, |len| len > limits.max_params_bytes) {
                self.params = Collected::TooMany;
                self.shown = Shown::Yes;
                return Means::Text("more parameters than are followed".to_owned());
            }
            return Means::Nothing;
        }
        let block = std::mem::take(block).freeze();
        self.params = Collected::Done;
        match Params::read(block, &limits) {
            Ok(params) => {
                self.masks.learn(&params);
                if let Some(path) = &filter.path {
                    let right = is_for(&params, path);
                    self.shown = if right { Shown::Yes } else { Shown::No };
                    if !right {
                        self.held.clear();
                    }
                }
                let own = |(name, value): (&[u8], &[u8])| {
                    (name.to_vec(), self.masks.param(name, value).into_owned())
                };
                Means::Pairs(params.iter().map(own).collect())
            }
            Err(fault) => {
                // Whoever looks for a path wants to see what keeps it from being seen.
                self.shown = Shown::Yes;
                Means::Text(fault.to_string())
            }
        }
    }

    fn stdout(&mut self, content: &Bytes) -> Means {
        let mut data = Data::default();
        match &mut self.head {
            Head::Over => (data.body, data.withheld) = self.masks.response(content),
            Head::Coming(head) => {
                head.extend_from_slice(content);
                if let Some(len) = head_len(head) {
                    let body = head.split_off(len).freeze();
                    data.head = head_lines(head);
                    self.masks.head(&mut data.head);
                    self.head = Head::Over;
                    (data.body, data.withheld) = self.masks.response(&body);
                } else if head.len() > MAX_HEAD {
                    data.body = std::mem::take(head).freeze();
                    self.head = Head::Over;
                } else {
                    return Means::Text("the head goes on".to_owned());
                }
            }
        }
        Means::Data(data)
    }
}

/// What a record means that needs no request, or has none that is followed.
fn without_request(kind: Option<RecordType>, content: &Bytes) -> Means {
    match kind {
        None => Means::Text("a type that FastCGI 1.0 does not know".to_owned()),
        Some(RecordType::BeginRequest) => match Begin::read(content) {
            Ok(begin) => {
                let role = match begin.known_role() {
                    Some(role) => format!("{role:?}"),
                    None => format!("unknown role {}", begin.role),
                };
                let keep = if begin.keep_conn {
                    ", keep the connection"
                } else {
                    ""
                };
                Means::Text(format!("{role}{keep}"))
            }
            Err(fault) => Means::Text(fault.to_string()),
        },
        Some(RecordType::EndRequest) => end(content, None),
        Some(RecordType::GetValues | RecordType::GetValuesResult) => match read_values(content) {
            Ok(values) => {
                let own = |(name, value): (&[u8], &[u8])| (name.to_vec(), value.to_vec());
                Means::Pairs(values.iter().map(own).collect())
            }
            Err(fault) => Means::Text(fault.to_string()),
        },
        Some(RecordType::UnknownType) => {
            let number = content.first().copied().unwrap_or_default();
            Means::Text(format!("type {number} is not known"))
        }
        Some(RecordType::AbortRequest) => Means::Nothing,
        // Of these nobody knows what is secret in them.
        Some(_) if content.is_empty() => Means::StreamEnd,
        Some(_) => Means::Text("of a request whose beginning was not seen".to_owned()),
    }
}

fn end(content: &Bytes, took: Option<u64>) -> Means {
    match End::read(content) {
        Ok(end) => {
            let took = took.map_or(String::new(), |us| {
                format!(", after {}.{:03} ms", us / 1000, us % 1000)
            });
            Means::Text(format!(
                "status {} of the application, {:?}{took}",
                end.app_status, end.status
            ))
        }
        Err(fault) => Means::Text(fault.to_string()),
    }
}

/// Whether it asks for such a path: as the client wrote it, or as the script's name.
fn is_for(params: &Params, path: &Match) -> bool {
    let target = params.get(b"REQUEST_URI").unwrap_or_default();
    let asked = target.split(|&b| b == b'?').next().unwrap_or_default();
    let script = params.get(b"SCRIPT_NAME").unwrap_or_default();
    path.matches(asked) || path.matches(script)
}

/// Where the head ends: behind the first empty line.
fn head_len(bytes: &[u8]) -> Option<usize> {
    let mut start = 0;
    for (at, _) in bytes.iter().enumerate().filter(|&(_, &b)| b == b'\n') {
        let line = bytes.get(start..at).unwrap_or_default();
        if matches!(line, [] | [b'\r']) {
            return Some(at + 1);
        }
        start = at + 1;
    }
    None
}

fn head_lines(head: &[u8]) -> Pairs {
    let lines = head.split(|&b| b == b'\n').map(<[u8]>::trim_ascii);
    let filled = lines.filter(|line| !line.is_empty());
    filled
        .map(|line| match line.iter().position(|&b| b == b':') {
            Some(colon) => {
                let (name, value) = line.split_at(colon);
                let value = value.get(1..).unwrap_or_default();
                (name.to_vec(), value.trim_ascii().to_vec())
            }
            None => (line.to_vec(), Vec::new()),
        })
        .collect()
}
