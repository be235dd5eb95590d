//! A resource as origins have them: a body of any length, validators, ranges or not, and the ways in
//! which its transfer goes wrong.

use std::sync::{Arc, Mutex};

use super::script::{Act, Gate, Script};
use super::{Origin, Received, Setup};
use crate::journal::lock;

/// What a resource is now. Its body is a [`crate::pattern`] from `version` on, so that the bodies of
/// two versions differ everywhere.
#[derive(Debug, Clone)]
pub struct Asset {
    /// The length of its body.
    pub len: u64,
    /// Where in the pattern the body begins: another number is another version.
    pub version: u64,
    /// More fields of every answer, each line ending in CRLF.
    pub fields: String,
    /// `ETag`, as it stands in the field.
    pub etag: Option<String>,
    /// Whether it knows ranges.
    pub ranges: bool,
    /// Whether it tells its length.
    pub tells_length: bool,
    /// Bytes per second; 0: as fast as it goes.
    pub rate: u64,
    /// Nothing of the body behind this byte is sent until the gate is open.
    pub hold: Option<(u64, Gate)>,
    /// Nothing of any body is sent until the gate is open.
    pub hold_all: Option<Gate>,
    /// Where a transfer is broken off, and how many still are.
    pub dies: Option<(u64, usize)>,
    /// Whenever a transfer is broken off it becomes another version.
    pub changes_when_dead: bool,
}

impl Asset {
    /// One that may be stored, with a strong validator and ranges.
    #[must_use]
    pub fn new(len: u64) -> Self {
        Self {
            len,
            version: 0,
            fields: "Cache-Control: max-age=600\r\n".into(),
            etag: Some("\"v0\"".into()),
            ranges: true,
            tells_length: true,
            rate: 0,
            hold: None,
            hold_all: None,
            dies: None,
            changes_when_dead: false,
        }
    }

    /// Without ranges, and without anything by which versions could be told apart.
    #[must_use]
    pub fn plain(len: u64) -> Self {
        Self {
            etag: None,
            ranges: false,
            ..Self::new(len)
        }
    }

    /// At so many bytes a second.
    #[must_use]
    pub fn rate(mut self, rate: u64) -> Self {
        self.rate = rate;
        self
    }

    /// With these fields instead of the usual ones, each line ending in CRLF.
    #[must_use]
    pub fn fields(mut self, fields: &str) -> Self {
        self.fields = fields.into();
        self
    }

    /// Held back at this byte until the gate is open.
    #[must_use]
    pub fn hold(mut self, at: u64, gate: &Gate) -> Self {
        self.hold = Some((at, gate.clone()));
        self
    }

    /// Broken off at this byte, so many times.
    #[must_use]
    pub fn dies(mut self, at: u64, times: usize) -> Self {
        self.dies = Some((at, times));
        self
    }

    /// Sent in chunks.
    #[must_use]
    pub fn chunked(mut self) -> Self {
        self.tells_length = false;
        self
    }

    /// Another version of it: another body under another validator.
    pub fn change(&mut self) {
        self.version += 1000;
        self.etag = self.etag.as_ref().map(|_| format!("\"v{}\"", self.version));
    }

    /// What its origin does with a request for it.
    fn answer(&mut self, request: &Received) -> Script {
        let etag = self.etag.as_deref();
        let described = match etag {
            Some(etag) => format!("{}ETag: {etag}\r\n", self.fields),
            None => self.fields.clone(),
        };
        let asked = request.all("if-none-match").join(",");
        if etag.is_some_and(|etag| asked.split(',').any(|one| one.trim() == etag)) {
            return Script::raw(format!("HTTP/1.1 304 Not Modified\r\n{described}\r\n"));
        }
        let is_same = request
            .field("if-range")
            .is_none_or(|one| Some(one) == etag);
        let range = request.field("range").filter(|_| self.ranges && is_same);
        let (status, start, end) = match range.map(|range| part(range, self.len)) {
            None => (200, 0, self.len),
            Some(Some((start, end))) => (206, start, end),
            Some(None) => {
                return Script::raw(format!(
                    "HTTP/1.1 416 No\r\n{described}Content-Range: bytes */{}\r\n\
                     Content-Length: 0\r\n\r\n",
                    self.len
                ));
            }
        };
        let mut head = format!("HTTP/1.1 {status} Asset\r\n{described}");
        if self.ranges {
            head += "Accept-Ranges: bytes\r\n";
        }
        if status == 206 {
            head += &format!("Content-Range: bytes {start}-{}/{}\r\n", end - 1, self.len);
        }
        head += &match self.tells_length {
            true => format!("Content-Length: {}\r\n\r\n", end - start),
            false => "Transfer-Encoding: chunked\r\n\r\n".to_owned(),
        };
        let mut script = Script::raw(head);
        if request.method == "HEAD" {
            return script;
        }
        if let Some(gate) = &self.hold_all {
            script = script.then(Act::Wait(gate.clone()));
        }
        let mut stop = end;
        let mut is_dead = false;
        if let Some((at, times)) = &mut self.dies
            && *times > 0
            && start <= *at
            && *at < end
        {
            *times -= 1;
            (stop, is_dead) = (*at, true);
        }
        let mut cuts = vec![start, stop];
        let held = self
            .hold
            .as_ref()
            .filter(|(at, _)| start <= *at && *at < stop);
        if let Some((at, _)) = held {
            cuts.insert(1, *at);
        }
        for (nth, cut) in cuts.windows(2).enumerate() {
            if nth > 0
                && let Some((_, gate)) = held
            {
                script = script.then(Act::Wait(gate.clone()));
            }
            script = script.then(Act::Part {
                at: cut[0] + self.version,
                len: cut[1] - cut[0],
                rate: self.rate,
                chunked: !self.tells_length,
            });
        }
        if is_dead && self.changes_when_dead {
            self.change();
        }
        match (is_dead, self.tells_length) {
            (true, _) => script.close(),
            (false, false) => script.send("0\r\n\r\n"),
            (false, true) => script,
        }
    }
}

/// The one range of a `Range` field; `None` where it lies behind the end.
fn part(range: &str, len: u64) -> Option<(u64, u64)> {
    let spec = range.strip_prefix("bytes=").expect("a range of bytes");
    assert!(
        !spec.contains(','),
        "the server asks for one range: {range}"
    );
    let (first, last) = spec.split_once('-').expect("a range");
    let number = |text: &str| text.parse::<u64>().expect("a number in a range");
    let (start, end) = match (first, last) {
        ("", count) => (len.saturating_sub(number(count)), len),
        (first, "") => (number(first), len),
        (first, last) => (number(first), number(last).saturating_add(1).min(len)),
    };
    (start < end).then_some((start, end))
}

/// A resource that a test changes while its origin serves it.
#[derive(Clone)]
pub struct Shelf(Arc<Mutex<Asset>>);

impl Shelf {
    /// An origin that answers every path with this resource.
    #[must_use]
    pub fn start(asset: Asset) -> (Self, Origin) {
        let shelf = Self(Arc::new(Mutex::new(asset)));
        let origin = shelf.setup().start();
        (shelf, origin)
    }

    /// The same, to be set up further.
    #[must_use]
    pub fn setup(&self) -> Setup {
        let shelf = self.clone();
        Origin::setup().handle(move |request| shelf.answer(request))
    }

    /// A resource without an origin yet.
    #[must_use]
    pub fn new(asset: Asset) -> Self {
        Self(Arc::new(Mutex::new(asset)))
    }

    /// What its origin does with a request for it.
    #[must_use]
    pub fn answer(&self, request: &Received) -> Script {
        lock(&self.0).answer(request)
    }

    /// Changes it.
    pub fn edit(&self, edit: impl FnOnce(&mut Asset)) {
        edit(&mut lock(&self.0));
    }
}
