//! `files`: the file that ROOT followed by the path names.
//!
//! ```text
//!   in memory, looked at within the last second ─────────────────────────▶ answer
//!   else, on the worker: root ─▶ try ─▶ open, fstat ─▶ read what is small ─▶ answer
//!            │ one of them would wait for a disk
//!            ▼
//!   on the pool: the same, waiting ──────────────────────────────────────▶ answer
//! ```
//!
//! A file that is long and not hot is a part of an open file to whoever sends the response.

pub mod answer;
mod declare;
mod explain;
pub mod find;
mod listing;
mod parts;
pub mod path;
#[cfg(test)]
mod tests;
mod types;

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use bytes::Bytes;
use forebay_config::{Part, PathTemplate, Template, Variable};
use forebay_fields::{Fields, Known};
use forebay_http1::Method;
use forebay_sys::files::{Facts, Links};
use forebay_sys::net::is_exhausted;

use crate::exchange::{Accepts, Coding, Exchange, Fault, Flow, Local, Reason};
use crate::exchange::{Response, Step};
use crate::explain::{Notes, Told};
use crate::files::{CHECK_MS, Disk, Files, Kept, KeptBody, OpenFile, Opened, Roots};
use answer::{Content, Description, Said, read_whole, read_whole_now};
pub use declare::{DIRECTIVE, build};
use find::{Beside, Candidate, Found, Indexes};
use listing::{Page, Wish};
use types::Types;

/// What is sent, and tells of a file that is there, for OPTIONS and wrong methods.
const METHODS: &str = "GET, HEAD, OPTIONS";

/// Files up to this size are read before the response begins, so that head and body leave in one
/// write; longer ones leave from the kernel's memory.
const SMALL: u64 = 32 * 1024;

/// A file that changes while it is read is read again so often.
const TRIES: usize = 3;

/// Sends files.
struct FilesStep {
    /// Tells its entries in the memory from those of others.
    id: u64,
    root: PathTemplate,
    tries: Box<[Try]>,
    indexes: Arc<Indexes>,
    links: Links,
    cache_control: Option<Box<str>>,
    types: Types,
}

/// A path to look at under the root.
enum Try {
    /// The request's. Nearly always this; known apart, because its key needs no decoding.
    Path,
    /// Another one.
    Other(Template),
}

/// How looking went on the worker.
enum Looked {
    Answer(Flow),
    /// Something is not in memory.
    Wait,
}

impl Try {
    fn new(template: &Template) -> Try {
        match template.parts.as_slice() {
            [Part::Var(Variable::Path)] => Try::Path,
            _ => Try::Other(template.clone()),
        }
    }

    /// Appends the path that it names, decoded; false if it names none.
    fn expand(&self, exchange: &Exchange, out: &mut Vec<u8>) -> bool {
        match (self, exchange.request.path().strip_prefix('/')) {
            (_, None) => false,
            (Try::Path, Some(path)) => path::decode(path, out),
            (Try::Other(template), Some(_)) => path::expand(template, exchange, out),
        }
    }
}

impl Step for FilesStep {
    fn name(&self) -> &'static str {
        DIRECTIVE.name
    }

    fn on_request(&self, exchange: &mut Exchange) -> Flow {
        if let Some(response) = self.remembered(exchange, 0) {
            return Flow::Answer(response);
        }
        match self.look(exchange) {
            Looked::Answer(flow) => flow,
            Looked::Wait => Flow::Wait,
        }
    }

    fn wait<'a>(&'a self, exchange: &'a mut Exchange) -> Local<'a, Flow> {
        Box::pin(async move { self.look_waiting(exchange).await.unwrap_or_else(Flow::Fail) })
    }

    fn explain(&self, exchange: &mut Exchange, notes: &mut Notes<'_>) -> Told {
        self.tell(exchange, notes);
        Told::RunsAndWaits
    }
}

// --- In memory ---------------------------------------------------------------------------------

/// Which of a step's files under a path: by the try's number, and the coding if it is a sibling.
#[derive(Clone, Copy)]
struct Which {
    number: usize,
    coding: Option<Coding>,
}

impl Which {
    /// The file itself.
    fn plain(number: usize) -> Which {
        Which {
            number,
            coding: None,
        }
    }

    fn of(number: usize, candidate: &Candidate) -> Which {
        Which {
            number,
            coding: candidate.coding,
        }
    }

    /// As a byte of a key; there are no more than 64 tries that are remembered.
    fn byte(self) -> Option<u8> {
        let coding = self.coding.map_or(0, |coding| coding as u8 + 1);
        u8::try_from(self.number * 4 + usize::from(coding)).ok()
    }
}

/// Where that byte stands in a key.
const WHICH: usize = 8;

impl FilesStep {
    /// The answer from memory, if the path that this try names is there and needs no look.
    #[inline]
    fn remembered(&self, exchange: &mut Exchange, number: usize) -> Option<Response> {
        if !matches!(exchange.request.method, Method::Get | Method::Head) {
            return None;
        }
        let worker = exchange.worker.clone();
        let now_ms = worker.turn_ms();
        let is_fresh = |kept: &Kept| now_ms.saturating_sub(kept.checked_ms) < CHECK_MS;
        let mut memory = worker.files.memory.borrow_mut();
        let at = worker.files.with_key(|key| {
            self.key(exchange, Which::plain(number), key)?;
            let at = memory.find(key)?;
            let plain = memory.at(at).filter(|kept| is_fresh(kept))?;
            if plain.siblings.is_empty() {
                return Some(at);
            }
            let coding = Accepts::of(&exchange.request.fields).choose(plain.siblings.iter());
            let Some(coding) = coding else {
                return Some(at);
            };
            let coding = Some(coding);
            key[WHICH] = Which { number, coding }.byte()?;
            memory.find(key)
        })?;
        let kept = memory.at(at).filter(|kept| is_fresh(kept))?;
        let holds = match &kept.body {
            None => false,
            Some(KeptBody::Bytes(_)) => true,
            // Changed in place: the response would be broken off as soon as it is sent.
            Some(KeptBody::Open(file)) => file.is_at_hand(now_ms) || file.is_unchanged(),
        };
        if !holds {
            return None;
        }
        answer::from_memory(exchange, kept)
    }

    /// The name in memory of a file that this try leads to: of the step, the try, the root if it
    /// varies, and the path. `None` if there can be none.
    #[inline]
    fn key(&self, exchange: &Exchange, which: Which, key: &mut Vec<u8>) -> Option<()> {
        key.extend_from_slice(&self.id.to_le_bytes());
        key.push(which.byte()?);
        if !self.root.rest.parts.is_empty() {
            self.expand_root(exchange, key)?;
            // No path holds this.
            key.push(0);
        }
        match &self.tries[which.number] {
            // As it is written: decoding it is for who must open the file.
            Try::Path => key.extend_from_slice(exchange.request.path().as_bytes()),
            Try::Other(template) => path::expand(template, exchange, key).then_some(())?,
        }
        Some(())
    }

    /// Forgets what is in memory: the file is no more. Its siblings are not found without it.
    fn forget(&self, exchange: &Exchange, number: usize) {
        let files = &exchange.worker.files;
        files.with_key(|key| {
            if self.key(exchange, Which::plain(number), key).is_some() {
                files.memory.borrow_mut().remove(key);
            }
        });
    }

    /// Takes note that what is in memory has been looked at, or that somebody has gone to look.
    fn touch(&self, exchange: &Exchange, number: usize) {
        let worker = &exchange.worker;
        let mut memory = worker.files.memory.borrow_mut();
        worker.files.with_key(|key| {
            self.key(exchange, Which::plain(number), key)?;
            let plain = memory.get(key)?;
            plain.checked_ms = worker.now_ms();
            for coding in plain.siblings.iter() {
                let coding = Some(coding);
                key[WHICH] = Which { number, coding }.byte()?;
                if let Some(kept) = memory.get(key) {
                    kept.checked_ms = worker.now_ms();
                }
            }
            Some(())
        });
    }

    /// Brings what is in memory of the file itself up to what was found now: nothing is left of
    /// another version, nor of one that had other siblings.
    fn note(&self, exchange: &Exchange, number: usize, beside: &Beside) {
        let worker = &exchange.worker;
        let mut memory = worker.files.memory.borrow_mut();
        worker.files.with_key(|key| {
            self.key(exchange, Which::plain(number), key)?;
            let plain = memory.get(key)?;
            if plain.facts == beside.plain && plain.siblings == beside.siblings {
                plain.checked_ms = worker.now_ms();
            } else {
                memory.remove(key);
            }
            Some(())
        });
    }
}

// --- Looking -----------------------------------------------------------------------------------

impl FilesStep {
    /// Looks without waiting.
    fn look(&self, exchange: &mut Exchange) -> Looked {
        let worker = exchange.worker.clone();
        let Some(root) = self.root_path(exchange) else {
            return Looked::Answer(Flow::Next);
        };
        let accepts = accepts(exchange);
        let opened = match worker.files.roots.now(&root, worker.now_ms()) {
            Ok(opened) if opened.is_local => opened,
            Ok(_) => return Looked::Wait,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Looked::Wait,
            Err(error) => return Looked::Answer(self.failed(exchange, 0, &error)),
        };
        let mut path = Vec::new();
        for (number, attempt) in self.tries.iter().enumerate() {
            if number > 0
                && let Some(response) = self.remembered(exchange, number)
            {
                return Looked::Answer(Flow::Answer(response));
            }
            path.clear();
            if !attempt.expand(exchange, &mut path) {
                continue;
            }
            let open = |name: &[u8]| worker.files.disk.open_now(&opened.root, name, self.links);
            let redirects = attempt.redirects();
            let found = self.indexes.find(&path, redirects, accepts.as_ref(), open);
            let flow = match found {
                Ok(Found::File(candidate)) => {
                    let candidate = Candidate {
                        is_local: true,
                        ..candidate
                    };
                    self.found(exchange, number, candidate, None)
                }
                Ok(Found::Directory) => directory(exchange).map(Looked::Answer),
                // Reading it is for the pool.
                Ok(Found::Listing(_)) => sent_for(exchange).or(Some(Looked::Wait)),
                Ok(Found::Nothing) => {
                    self.forget(exchange, number);
                    None
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.touch(exchange, number);
                    Some(Looked::Wait)
                }
                Err(error) => Some(Looked::Answer(self.failed(exchange, number, &error))),
            };
            if let Some(looked) = flow {
                return looked;
            }
        }
        Looked::Answer(Flow::Next)
    }

    /// Looks where waiting is allowed.
    async fn look_waiting(&self, exchange: &mut Exchange) -> Result<Flow, Fault> {
        let worker = exchange.worker.clone();
        let Some(root) = self.root_path(exchange).map(Cow::into_owned) else {
            return Ok(Flow::Next);
        };
        let now_ms = worker.now_ms();
        let was_open = worker.files.roots.now(&root, now_ms).is_ok();
        let opened = match Roots::wait(&worker.files, &root, now_ms).await? {
            Ok(opened) => opened,
            Err(error) => return Ok(self.failed(exchange, 0, &error)),
        };
        // What was missing may have been the root alone.
        if !was_open
            && opened.is_local
            && let Looked::Answer(flow) = self.look(exchange)
        {
            return Ok(flow);
        }
        let search = self.search(exchange, &worker.files, opened);
        let Opened {
            device, is_local, ..
        } = search.opened;
        let (number, outcome) = worker
            .files
            .pool
            .run_or_refuse(device, move || search.run())
            .await?;
        // Those before it have come to nothing, whatever the memory says.
        for passed in 0..number {
            self.forget(exchange, passed);
        }
        let looked = match outcome {
            Ok(Outcome::File(candidate, content)) => {
                let candidate = Candidate {
                    is_local,
                    ..candidate
                };
                self.found(exchange, number, candidate, content)
            }
            Ok(Outcome::Directory) => directory(exchange).map(Looked::Answer),
            Ok(Outcome::Listing(page)) => {
                sent_for(exchange).or_else(|| Some(Looked::Answer(listed(exchange, page))))
            }
            Ok(Outcome::Nothing) => {
                self.forget(exchange, number);
                None
            }
            Err(error) => Some(Looked::Answer(self.failed(exchange, number, &error))),
        };
        Ok(match looked {
            Some(Looked::Answer(flow)) => flow,
            // The search has read whatever is read before the response begins.
            Some(Looked::Wait) => Flow::Fail(Reason::Internal.into()),
            None => Flow::Next,
        })
    }

    fn search(&self, exchange: &Exchange, files: &Files, opened: Opened) -> Search {
        let mut paths = Vec::with_capacity(self.tries.len());
        for (number, attempt) in self.tries.iter().enumerate() {
            let mut path = Vec::new();
            if attempt.expand(exchange, &mut path) {
                paths.push((number, path, attempt.redirects()));
            }
        }
        Search {
            disk: files.disk.clone(),
            opened,
            links: self.links,
            indexes: self.indexes.clone(),
            paths,
            accepts: accepts(exchange),
            wish: self.indexes.listing.then(|| Wish::of(exchange)),
            reads: exchange.request.method == Method::Get,
        }
    }

    /// The path of the root; `None` where its variables lead nowhere.
    fn root_path(&self, exchange: &Exchange) -> Option<Cow<'_, [u8]>> {
        let base = self.root.base.as_os_str().as_bytes();
        if self.root.rest.parts.is_empty() {
            return Some(base.into());
        }
        let mut path = base.to_vec();
        if !path.ends_with(b"/") {
            path.push(b'/');
        }
        self.expand_root(exchange, &mut path)?;
        Some(path.into())
    }

    fn expand_root(&self, exchange: &Exchange, out: &mut Vec<u8>) -> Option<()> {
        let start = out.len();
        let named = path::expand(&self.root.rest, exchange, out);
        (named && path::is_plain(&out[start..])).then_some(())
    }
}

impl Try {
    /// A directory is redirected to only where the client has asked for it by its name.
    fn redirects(&self) -> bool {
        matches!(self, Try::Path)
    }
}

/// What the client says of codings, where it gets a file at all.
fn accepts(exchange: &Exchange) -> Option<Accepts> {
    let request = &exchange.request;
    matches!(request.method, Method::Get | Method::Head).then(|| Accepts::of(&request.fields))
}

/// A search on the pool, with all that it needs.
struct Search {
    disk: Arc<dyn Disk>,
    opened: Opened,
    links: Links,
    indexes: Arc<Indexes>,
    /// The tries' numbers, their paths, and whether they redirect.
    paths: Vec<(usize, Vec<u8>, bool)>,
    /// The codings in which a sibling may stand for a file.
    accepts: Option<Accepts>,
    /// How a directory is to be listed.
    wish: Option<Wish>,
    /// Whether a small file is read, too.
    reads: bool,
}

/// What a search on the pool has found.
enum Outcome {
    File(Candidate, Option<Bytes>),
    Directory,
    Listing(Page),
    Nothing,
}

impl Search {
    /// Says which try it came to.
    fn run(self) -> (usize, io::Result<Outcome>) {
        let mut last = 0;
        for (number, path, redirects) in &self.paths {
            last = *number;
            let open = |name: &[u8]| self.disk.open(&self.opened.root, name, self.links);
            let accepts = self.accepts.as_ref();
            let found = self.indexes.find(path, *redirects, accepts, open);
            return match found {
                Ok(Found::Nothing) => continue,
                Ok(Found::Directory) => (last, Ok(Outcome::Directory)),
                Ok(Found::Listing(dir)) => (last, self.list(path, &dir)),
                Ok(Found::File(candidate)) => (last, self.read(candidate)),
                Err(error) => (last, Err(error)),
            };
        }
        (last, Ok(Outcome::Nothing))
    }

    fn list(&self, path: &[u8], dir: &File) -> io::Result<Outcome> {
        let Some(wish) = &self.wish else {
            return Ok(Outcome::Nothing);
        };
        let (root, hide) = (&self.opened.root, &self.indexes.hide);
        let page = listing::page(&*self.disk, root, self.links, path, dir, hide, wish);
        page.map(Outcome::Listing)
    }

    fn read(&self, mut candidate: Candidate) -> io::Result<Outcome> {
        if !self.reads {
            return Ok(Outcome::File(candidate, None));
        }
        for _ in 0..TRIES {
            if candidate.facts.len > SMALL {
                return Ok(Outcome::File(candidate, None));
            }
            let file = &candidate.file;
            let read = read_whole(&candidate.facts, file, |at, buffer, left| {
                self.disk.read(file, at, buffer, left).map(Some)
            })?;
            if let Content::Whole(bytes) = read {
                return Ok(Outcome::File(candidate, Some(bytes)));
            }
            candidate.facts = Facts::of(&candidate.file)?;
        }
        Err(changing())
    }
}

fn changing() -> io::Error {
    io::Error::other("it changes faster than it can be read")
}

// --- Answering ---------------------------------------------------------------------------------

impl FilesStep {
    /// Answers with a file; `content` is all of it, if it has been read. `None`: this try does not
    /// answer, but those behind it may not either.
    fn found(
        &self,
        exchange: &mut Exchange,
        number: usize,
        candidate: Candidate,
        content: Option<Bytes>,
    ) -> Option<Looked> {
        if let Some(looked) = sent_for(exchange) {
            return Some(looked);
        }
        self.note(exchange, number, &candidate.beside);
        let which = Which::of(number, &candidate);
        if let Some(response) = self.unchanged(exchange, which, &candidate.facts) {
            return Some(Looked::Answer(Flow::Answer(response)));
        }
        let sent = match content {
            Some(bytes) => Ok(Sent::Memory(bytes, candidate.facts)),
            None => self.contents(exchange, &candidate),
        };
        Some(match sent {
            Ok(Sent::Memory(bytes, facts)) => {
                Looked::Answer(self.answer_bytes(exchange, number, &candidate, facts, bytes))
            }
            Ok(Sent::File) => Looked::Answer(self.answer_file(exchange, number, candidate)),
            Ok(Sent::Wait) => Looked::Wait,
            Err(error) => Looked::Answer(self.failed(exchange, number, &error)),
        })
    }

    /// The answer from memory, if that still is the file that was found now; else forgets it.
    fn unchanged(&self, exchange: &mut Exchange, which: Which, facts: &Facts) -> Option<Response> {
        let worker = exchange.worker.clone();
        worker.files.with_key(|key| {
            self.key(exchange, which, key)?;
            let mut memory = worker.files.memory.borrow_mut();
            let kept = memory.get(key)?;
            if kept.facts == *facts {
                kept.checked_ms = worker.now_ms();
                return answer::from_memory(exchange, kept);
            }
            memory.remove(key);
            None
        })
    }

    /// What of the file to send from where: small ones are read here and now.
    fn contents(&self, exchange: &Exchange, candidate: &Candidate) -> io::Result<Sent> {
        if exchange.request.method == Method::Head {
            return Ok(Sent::File);
        }
        let worker = exchange.worker.clone();
        let mut facts = candidate.facts;
        for _ in 0..TRIES {
            if facts.len > SMALL {
                return Ok(Sent::File);
            }
            match read_whole_now(&*worker.files.disk, &candidate.file, &facts)? {
                Content::Whole(bytes) => return Ok(Sent::Memory(bytes, facts)),
                Content::NotInMemory => return Ok(Sent::Wait),
                Content::Changed => facts = Facts::of(&candidate.file)?,
            }
        }
        Err(changing())
    }

    fn answer_bytes(
        &self,
        exchange: &mut Exchange,
        number: usize,
        candidate: &Candidate,
        facts: Facts,
        body: Bytes,
    ) -> Flow {
        let description = Description::new(&facts);
        let mut response = Response::new(exchange, 200);
        description.write(&self.said(candidate), &mut response.fields);
        let kept = KeptBody::Bytes(body.clone());
        let which = Which::of(number, candidate);
        self.keep(exchange, which, candidate.beside, &facts, &response, kept);
        let decision = answer::decision(exchange, &description, facts.len);
        Flow::Answer(answer::finish(
            exchange,
            response,
            decision,
            facts.len,
            |part| answer::slice(&body, &part),
        ))
    }

    fn answer_file(&self, exchange: &mut Exchange, number: usize, candidate: Candidate) -> Flow {
        let facts = candidate.facts;
        let description = Description::new(&facts);
        let mut response = Response::new(exchange, 200);
        description.write(&self.said(&candidate), &mut response.fields);
        let (which, beside) = (Which::of(number, &candidate), candidate.beside);
        let file = OpenFile::found(candidate.file, facts, candidate.is_local);
        if facts.len > SMALL && candidate.is_local {
            let kept = KeptBody::Open(file.clone());
            self.keep(exchange, which, beside, &facts, &response, kept);
        }
        let decision = answer::decision(exchange, &description, facts.len);
        Flow::Answer(answer::finish(
            exchange,
            response,
            decision,
            facts.len,
            |part| answer::open(&file, part),
        ))
    }

    fn said(&self, candidate: &Candidate) -> Said<'_> {
        Said {
            kind: self.types.of(&candidate.name),
            coding: candidate.coding,
            varies: !candidate.beside.siblings.is_empty(),
            cache_control: self.cache_control.as_deref(),
        }
    }

    /// Keeps a file if it is worth it: asked for before, and certain not to change unseen.
    /// `response` has the fields that describe it.
    fn keep(
        &self,
        exchange: &Exchange,
        which: Which,
        beside: Beside,
        facts: &Facts,
        response: &Response,
        body: KeptBody,
    ) {
        let worker = &exchange.worker;
        let description = Description::new(facts);
        if !description.is_settled {
            return;
        }
        let mut memory = worker.files.memory.borrow_mut();
        worker.files.with_key(|key| {
            self.key(exchange, which, key)?;
            if !memory.is_wanted(key) {
                return None;
            }
            let kept = Kept {
                facts: *facts,
                body: Some(body),
                siblings: beside.siblings,
                fields: response.fields.settled(),
                last_modified: description.last_modified,
                checked_ms: worker.now_ms(),
            };
            memory.insert(key, kept);
            // By the file itself its siblings are found.
            key[WHICH] = Which::plain(which.number).byte()?;
            if which.coding.is_some() && memory.find(key).is_none() {
                let plain = Kept {
                    facts: beside.plain,
                    body: None,
                    siblings: beside.siblings,
                    fields: Fields::new(),
                    last_modified: None,
                    checked_ms: worker.now_ms(),
                };
                memory.insert(key, plain);
            }
            Some(())
        });
    }

    /// What is answered where a file could not be opened or read.
    fn failed(&self, exchange: &mut Exchange, number: usize, error: &io::Error) -> Flow {
        if find::is_absent(error) {
            return Flow::Next;
        }
        if is_exhausted(error) {
            // Out of descriptors: what is in memory is better than nothing, for another second.
            self.touch(exchange, number);
            if let Some(response) = self.remembered(exchange, number) {
                return Flow::Answer(response);
            }
        }
        Flow::Fail(find::fault(error))
    }
}

/// What is answered to methods other than those that something is sent for.
fn sent_for(exchange: &mut Exchange) -> Option<Looked> {
    let flow = match exchange.request.method {
        Method::Get | Method::Head => return None,
        Method::Options => {
            let mut response = Response::new(exchange, 204);
            response.set(Known::Allow, METHODS.as_bytes());
            Flow::Answer(response)
        }
        _ => {
            exchange.allowed_methods = Some(METHODS);
            Flow::Next
        }
    };
    Some(Looked::Answer(flow))
}

/// Answers with a listing.
fn listed(exchange: &mut Exchange, page: Page) -> Flow {
    let mut response = Response::text(exchange, 200, page.kind, page.body);
    response.set(Known::CacheControl, b"no-cache");
    response.set(Known::ContentSecurityPolicy, listing::POLICY.as_bytes());
    response.vary("Accept");
    Flow::Answer(response)
}

/// Sends the client to the directory with its slash, query and all (only reading ones: others
/// would lose their bodies on the way).
pub fn directory(exchange: &mut Exchange) -> Option<Flow> {
    if !matches!(exchange.request.method, Method::Get | Method::Head) {
        return None;
    }
    let request = &exchange.request;
    // As the client knows it: with what a `rewrite` has taken off the front.
    let mut location = request.prefix.as_deref().unwrap_or("").as_bytes().to_vec();
    location.extend_from_slice(request.path().as_bytes());
    location.push(b'/');
    // Two slashes would be another host (RFC 3986 §4.2).
    let slashes = location.iter().take_while(|&&byte| byte == b'/').count();
    location.drain(1..slashes.max(1));
    if let Some((_, query)) = request.original_uri().split_once('?') {
        location.push(b'?');
        location.extend_from_slice(query.as_bytes());
    }
    let mut response = Response::page(exchange, 301);
    response.set(Known::Location, &location);
    Some(Flow::Answer(response))
}

/// Where the bytes of a file come from.
enum Sent {
    /// They are here, under these facts.
    Memory(Bytes, Facts),
    /// The file, by windows.
    File,
    /// A small file that is not in memory.
    Wait,
}
