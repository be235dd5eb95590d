//! Bringing objects in: tasks of their own, which no client takes with it when it leaves.
//!
//! ```text
//!   lead ── the rest of the pipeline ──▶ head ──┬─ may be stored ──▶ object, published ──▶ pump ──▶ end
//!                                               ├─ 304 ────────────▶ object with a new head       │
//!                                               ├─ not for all ────▶ response, to who led         │ broken off
//!                                               └─ failed ─────────▶ fault, to all who wait       ▼
//!                                                                            go on by Range, twice at most
//! ```

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, ready};

use bytes::Bytes;
use forebay_cache_policy::{
    ContentRange, Origin, RangeAsk, RangeSpec, RequestFacts, ResponseFacts, StoredFacts, Time,
    Times, Updated, Validation, Vary, WhyNot, WhyStale, has_content, make_conditional, make_range,
    prepare_fields, select, storable, update,
};
use forebay_fields::{Known, KnownSet, Packed};
use forebay_store::{BLOCK_BYTES, Filler, Hash, Lead, NotFilled, Outcome, Pushed, Reader, Refresh};
use tokio::sync::oneshot;

use super::stored::{Kept, Stored, Variant};
use super::{Shared, join};
use crate::exchange::errand::{self, Errand};
use crate::exchange::{
    Body, Exchange, Fault, Lease, Peered, Pulled, Reason, Request, Response, Stream, guard,
};
use crate::files::FileStream;

/// So long nobody waits for what was found to be not for all.
const PASS_MS: u64 = 120_000;

/// A fill that nobody reads any more goes on if no more than this is to come...
const FINISH_BYTES: u64 = 1024 * 1024;
/// ... or no more than this part of it.
const FINISH_PART: u64 = 5;

/// So often one that is broken off goes on behind what has come.
const MAX_RESUMES: u8 = 2;

/// Between two turns of others, at most so much is taken.
const TURN_BYTES: usize = 256 * 1024;

/// What it takes to bring in something of one resource, now or later.
pub struct Filling {
    /// The cache.
    pub shared: Arc<Shared>,
    /// Who asks the origin.
    pub errand: Errand,
    /// What is asked for, as decisions see it.
    pub facts: RequestFacts,
    /// Others may join the response while it runs, if it is not stored.
    pub may_share: bool,
    /// Where it is stored.
    pub hash: Hash,
    /// Under which key.
    pub key: Box<[u8]>,
    /// The peer that was asked, for the log of who has had it asked.
    pub peer: RefCell<Option<Peered>>,
    /// The disk has not answered: it is not asked again for the same client.
    pub disk_hangs: Cell<bool>,
}

/// What came of asking the origin, for the one who did.
pub enum Brought {
    /// An object that is new; somebody reads it already, so that its fill goes on. With the status
    /// of the answer.
    Object(Kept, Option<Reader<Stored>>, u16),
    /// What was there, and is right: the origin has said so. Whether it is stored as that.
    Validated(Kept, bool),
    /// What was there, used for this reason although the origin has failed; with the status of its
    /// answer, if there was one.
    Stale(Kept, WhyStale, Option<u16>),
    /// A response that is not stored, and why.
    Response(Response, Lease, WhyNot),
    /// A response that is not stored, and why; others may have joined it already.
    Live(Response, WhyNot),
    /// A part that was asked for to be stored, and is not: not the one that the client wants.
    Again,
}

impl Filling {
    /// Asks the origin; all who wait for `lead` are told. `stored` is what is to be validated. If
    /// `in_background`, it stays until what replaces it is complete.
    pub fn ask(
        self: &Rc<Filling>,
        lead: Lead<Stored>,
        stored: Option<Kept>,
        in_background: Option<Refresh<Stored>>,
    ) -> oneshot::Receiver<Brought> {
        let (tell, told) = oneshot::channel();
        let asking = Asking {
            filling: self.clone(),
            stored,
            in_background,
            asked_part: false,
            wants_whole: false,
        };
        let worker = self.errand.worker().clone();
        tokio::task::spawn_local(guard::Task::new(worker, asking.run(lead, tell)));
        told
    }

    /// Has bytes of an object brought in that are absent.
    pub fn bring(
        self: &Rc<Filling>,
        object: &Kept,
        at: u64,
        end: Option<u64>,
    ) -> Result<(), NotFilled> {
        let filler = self.shared.store.fill(object, at, end)?;
        let worker = self.errand.worker().clone();
        tokio::task::spawn_local(guard::Task::new(worker, fetch(self.clone(), filler)));
        Ok(())
    }

    /// Has bytes brought in that would come only after much else, if that can be done: then they are
    /// not waited for.
    pub fn bring_far(self: &Rc<Filling>, object: &Kept, at: u64, end: Option<u64>) {
        let meta = &object.meta;
        // Else the answer would be all of it, which is what is under way.
        if is_resumable(object)
            && meta
                .fields
                .unpacked()
                .has_token(Known::AcceptRanges, "bytes")
        {
            // If nobody can, it comes with the rest.
            let _ = self.bring(object, at, end);
        }
    }

    /// The secondary key of the request for a `Vary`.
    pub fn variant(&self, vary: &Vary) -> Result<Option<Box<Variant>>, TooLong> {
        let Vary::Names(names) = vary else {
            return Ok(None);
        };
        let Filling { shared, errand, .. } = self;
        // By what was not asked with nothing can have been chosen.
        let Some(names) = names.without(|name| shared.is_left_out(name)) else {
            return Ok(None);
        };
        let key = super::vary::variant_key(&names, errand.fields()).ok_or(TooLong)?;
        Ok(Some(Box::new(Variant { names, key })))
    }

    fn now(&self) -> Time {
        super::now()
    }
}

/// One question to the origin.
struct Asking {
    filling: Rc<Filling>,
    stored: Option<Kept>,
    /// Nobody waits; as long as this lives, nobody else asks behind the same object's back.
    in_background: Option<Refresh<Stored>>,
    /// It asked for a part only.
    asked_part: bool,
    /// It is not to.
    wants_whole: bool,
}

impl Asking {
    async fn run(mut self, lead: Lead<Stored>, tell: oneshot::Sender<Brought>) {
        let (mut exchange, mut response, mut times) = self.question().await;
        if let Some(stored) = &self.stored
            && response.status == 304
            && !is_about(stored, &response)
        {
            // The origin means something else than what it was asked about.
            self.stored = None;
            self.wants_whole = true;
            drop((exchange, response));
            (exchange, response, times) = self.question().await;
        }
        self.settle(lead, tell, exchange, response, times).await;
    }

    async fn question(&mut self) -> (Lease, Response, Times) {
        let asked = self.filling.now();
        let mut asked_part = false;
        let mut exchange = self.filling.errand.begin(|request| {
            if let Some(stored) = self.stored.as_ref().filter(|stored| is_of_get(stored)) {
                let meta = &stored.meta;
                // Refused only if far too much was added before: then it is asked for as a whole.
                let _ = make_conditional(
                    &mut request.fields,
                    [(&meta.facts, &meta.fields.unpacked())],
                );
            } else if !self.wants_whole {
                asked_part = ask_part(&self.filling.facts, request);
            }
        });
        self.asked_part = asked_part;
        let response = errand::run(&mut exchange).await;
        self.filling.peer.replace(exchange.peered().cloned());
        let times = Times {
            asked,
            answered: self.filling.now(),
        };
        (exchange, response, times)
    }

    async fn settle(
        self,
        lead: Lead<Stored>,
        tell: oneshot::Sender<Brought>,
        exchange: Lease,
        response: Response,
        times: Times,
    ) {
        let own = response.fault.is_some() || response.wants_page;
        let facts = ResponseFacts::of(response.status, &response.fields, own);
        let validation = match (&self.stored, &response.fault) {
            (_, Some(_)) => Validation::Failed(Origin::Disconnected),
            (None, None) => Validation::Replace,
            (Some(_), None) => Validation::of(response.status),
        };
        match (validation, &self.stored) {
            (Validation::NotModified, Some(stored)) => {
                let (object, stored) = self.not_modified(stored, &facts, &response, &times, &lead);
                lead.land(Outcome::Object(object.clone()));
                // Who asked may be gone.
                let _ = tell.send(Brought::Validated(object, stored));
            }
            (Validation::Failed(origin), Some(stored)) => {
                let fault = response.fault.as_deref().cloned();
                match self.stale(stored, origin) {
                    Some(why) => {
                        lead.land(Outcome::Object(stored.clone()));
                        // An answer of our own is none of the origin's.
                        let status = (!own).then_some(response.status);
                        let _ = tell.send(Brought::Stale(stored.clone(), why, status));
                    }
                    None => self.pass(lead, tell, exchange, response, fault, WhyNot::Own),
                }
            }
            // What is wrong with the part that was asked for is nothing for others.
            _ if self.asked_part && response.status == 416 => {
                lead.land(Outcome::Dropped);
                let _ = tell.send(Brought::Response(response, exchange, WhyNot::BadRange));
            }
            _ => {
                let length = response.body.len_bytes();
                let allowed = storable(
                    &self.filling.shared.policy,
                    &self.filling.facts,
                    &facts,
                    &times,
                );
                let too_large =
                    length.is_some_and(|len| len > self.filling.shared.policy.max_object);
                match allowed {
                    Ok(_) if too_large => {
                        self.pass(lead, tell, exchange, response, None, WhyNot::TooLarge);
                    }
                    Ok(stored) if response.status == 206 && !is_strong(&stored) => {
                        // Nothing could ever be put together with it.
                        lead.land(Outcome::Dropped);
                        let _ = tell.send(Brought::Again);
                    }
                    Ok(stored) => {
                        self.store(lead, tell, exchange, response, (stored, facts, times))
                            .await;
                    }
                    Err(why) => {
                        let fault = response.fault.as_deref().cloned();
                        self.pass(lead, tell, exchange, response, fault, why);
                    }
                }
            }
        }
    }

    /// What is stored has not changed: it goes on under another head.
    fn not_modified(
        &self,
        stored: &Kept,
        facts: &ResponseFacts,
        response: &Response,
        times: &Times,
        lead: &Lead<Stored>,
    ) -> (Kept, bool) {
        let Filling {
            shared,
            facts: asked,
            ..
        } = &*self.filling;
        let mut fields = stored.meta.fields.unpacked();
        let updated = update(
            &shared.policy,
            asked,
            &stored.meta.facts,
            &mut fields,
            facts,
            &response.fields,
            times,
        );
        let (facts, vary) = match updated {
            Ok(Updated::Stored { facts, vary }) => (facts, vary),
            Ok(Updated::Left(_)) => return (stored.clone(), false),
            Ok(Updated::Dropped(_)) | Err(_) => {
                // It answers those who asked, and nobody after them.
                shared.store.remove(stored);
                return (stored.clone(), false);
            }
        };
        let mut meta = stored.meta.renewed(facts, &fields);
        if let Some(vary) = vary {
            match self.filling.variant(&vary) {
                Ok(variant) => meta.vary = variant,
                Err(TooLong) => {
                    shared.store.remove(stored);
                    return (stored.clone(), false);
                }
            }
        }
        (shared.store.refresh(stored, lead.asked_at(), meta), true)
    }

    /// Whether the stored response is used although the origin has failed.
    fn stale(&self, stored: &Kept, origin: Origin) -> Option<WhyStale> {
        let Filling { shared, facts, .. } = &*self.filling;
        super::may_use_stale(&shared.policy, facts, stored, self.filling.now(), origin)
    }

    /// It is not stored: who asked gets the response, the others ask for themselves.
    fn pass(
        &self,
        lead: Lead<Stored>,
        tell: oneshot::Sender<Brought>,
        mut exchange: Lease,
        mut response: Response,
        fault: Option<Fault>,
        why: WhyNot,
    ) {
        let Filling { shared, .. } = &*self.filling;
        match fault {
            // All who wait would only find the same.
            Some(fault) => lead.land(Outcome::Failed(fault)),
            None => {
                if self.in_background.is_none() {
                    let asked_at = lead.asked_at();
                    match join::share(&self.filling, asked_at, response, exchange, why) {
                        Ok(response) => {
                            // Those who wait find it by themselves; and who comes next waits for
                            // its head only.
                            lead.land(Outcome::Pass);
                            let _ = tell.send(Brought::Live(response, why));
                            return;
                        }
                        Err(back) => (response, exchange) = back,
                    }
                }
                let hash = lead.hash();
                if shared.is_lasting(why) {
                    let until = self.filling.errand.worker().now_ms() + PASS_MS;
                    shared.store.pass(hash, until, why as u8);
                    if self.filling.may_share {
                        let live = join::flight(&shared.store, hash);
                        shared.store.pass(live, until, why as u8);
                    }
                }
                lead.land(Outcome::Pass);
            }
        }
        let brought = match response.status == 206 && self.stored.is_none() {
            true => Brought::Again,
            false => Brought::Response(response, exchange, why),
        };
        let _ = tell.send(brought);
    }

    async fn store(
        self,
        lead: Lead<Stored>,
        tell: oneshot::Sender<Brought>,
        exchange: Lease,
        mut response: Response,
        (stored, facts, times): (StoredFacts, ResponseFacts, Times),
    ) {
        let Filling {
            shared, hash, key, ..
        } = &*self.filling;
        let mut fields = std::mem::take(&mut *response.fields);
        let tags = shared.take_tags(&mut fields);
        if prepare_fields(&shared.policy, &facts, &times, &mut fields).is_err() {
            *response.fields = fields;
            return self.pass(lead, tell, exchange, response, None, WhyNot::TooLarge);
        }
        // Trailers are not stored, so none are announced.
        fields.remove_all(KnownSet::of(&[Known::ContentLength, Known::Trailer]));
        let Ok(vary) = self.filling.variant(facts.vary()) else {
            // Of no use to others; but for this request another one might be stored.
            lead.land(Outcome::Pass);
            *response.fields = fields;
            let _ = tell.send(Brought::Response(response, exchange, WhyNot::VaryTooLong));
            return;
        };
        let meta = Stored {
            facts: stored,
            fields: Packed::of(&fields),
            vary,
            tags,
        };
        let part = facts.content_range().cloned();
        let len = match &part {
            Some(part) => part.complete,
            None => response.body.len_bytes(),
        };
        let asked_at = lead.asked_at();
        let hidden = self.in_background.is_some();
        let store = &shared.store;
        let (object, filler) = match part {
            None => store.publish(*hash, key, asked_at, meta, len, hidden),
            Some(part) => {
                let begun = len.and_then(|len| {
                    store.publish_part(*hash, key, asked_at, meta, len, part.range)
                });
                match begun {
                    Some(begun) => begun,
                    // It does not begin where a block does: nothing could be put together with it.
                    None => {
                        return self.pass(lead, tell, exchange, response, None, WhyNot::BadRange);
                    }
                }
            }
        };
        // Before anybody is told: a fill without readers would stop.
        let reader = (!hidden).then(|| Reader::new(object.clone(), 0, None));
        lead.land(Outcome::Object(object.clone()));
        let _ = tell.send(Brought::Object(object, reader, response.status));
        let filling = self.filling.clone();
        let replaced = self.stored.as_ref().filter(|_| hidden);
        pump(filling, filler, exchange, response.body, replaced).await;
    }
}

/// The secondary key of a request is longer than is compared.
pub struct TooLong;

/// Whether a 304 is about what was asked about (RFC 9111 §4.3.4).
fn is_about(stored: &Kept, response: &Response) -> bool {
    let facts = ResponseFacts::of(response.status, &response.fields, false);
    let fields = stored.meta.fields.unpacked();
    let candidate = (&stored.meta.facts, &fields);
    !select(&facts, &response.fields, [candidate]).is_empty()
}

/// Brings one run of an object's bytes in that are absent.
async fn fetch(filling: Rc<Filling>, filler: Filler<Stored>) {
    let object = filler.object().clone();
    let range = filler.range();
    match ask_rest(&filling, &object, range.start, range.end).await {
        Some((exchange, body, _)) => pump(filling, filler, exchange, body, None).await,
        None => filler.stop(true, true),
    }
}

/// Bytes of an object, for one reader alone; and how long all of it is, if that is known now.
pub async fn part_of(
    filling: Rc<Filling>,
    object: Kept,
    range: Range<u64>,
) -> Option<(Lease, Body, Option<u64>)> {
    ask_rest(&filling, &object, range.start, range.end).await
}

/// Asks for bytes of what is stored, under its validator: nothing else will do.
async fn ask_rest(
    filling: &Filling,
    object: &Kept,
    start: u64,
    end: u64,
) -> Option<(Lease, Body, Option<u64>)> {
    if !is_of_get(object) {
        return None;
    }
    let meta = &object.meta;
    let mut can = false;
    let mut exchange = filling.errand.begin(|request| {
        let stored = (&meta.facts, &meta.fields.unpacked());
        can = make_range(&mut request.fields, &(start..end), stored).unwrap_or(false);
        if can && end >= object.body.len_bytes().unwrap_or(u64::MAX) {
            // To its end, wherever that is.
            let open = format!("bytes={start}-");
            can = request.fields.set(Known::Range, open.as_bytes()).is_ok();
        }
    });
    if !can {
        return None;
    }
    let response = errand::run(&mut exchange).await;
    if let Some(complete) = is_rest(&response, object, start) {
        return Some((exchange, response.body, complete));
    }
    if response.fault.is_none() && response.status == 200 {
        // The origin has something else by now: what is left of this is of no use to anybody.
        filling.shared.store.remove(object);
    }
    None
}

/// Whether a response has the bytes from `start` on of this very object; and how long that is, if it
/// says so.
fn is_rest(response: &Response, object: &Kept, start: u64) -> Option<Option<u64>> {
    if response.status != 206 || response.fault.is_some() {
        return None;
    }
    let value = response.fields.get_only(Known::ContentRange);
    let range = value.and_then(ContentRange::parse)?;
    let stored = &object.meta.fields;
    let same = |name: Known| {
        response
            .fields
            .get(name)
            .is_none_or(|v| stored.get(name) == Some(v))
    };
    let is_same = range.range.start == start
        && (object.body.len_bytes().is_none() || range.complete == object.body.len_bytes())
        && same(Known::Etag)
        && same(Known::LastModified);
    is_same.then_some(range.complete)
}

/// What came of pumping.
enum Pumped {
    End,
    /// Nobody reads it, and too much is still to come.
    Alone,
    Broken(Fault),
}

/// Takes a body in to its end; one that is broken off goes on behind what has come. What is to take
/// the place of `replaced` comes in without readers.
async fn pump(
    filling: Rc<Filling>,
    mut filler: Filler<Stored>,
    exchange: Lease,
    body: Body,
    replaced: Option<&Kept>,
) {
    let mut exchange = exchange;
    let mut source = stream(&exchange, body);
    let mut resumes = 0;
    loop {
        match take_in(&mut filler, &mut *source, &filling, replaced.is_some()).await {
            Pumped::End => {
                // What goes to a disk may still wait for room there.
                poll_fn(|cx| filler.poll_sent(cx)).await;
                // One that is shorter than it has said is gone with this.
                filler.finish();
                return;
            }
            Pumped::Alone => {
                if let Some(replaced) = replaced {
                    // What is new cannot be kept: who asks next gets it as it comes.
                    filling.shared.store.remove(replaced);
                }
                let keep = is_resumable(filler.object());
                return filler.stop(false, keep);
            }
            Pumped::Broken(fault) => {
                drop(source);
                let object = filler.object().clone();
                let next = match resumes < MAX_RESUMES {
                    true => {
                        ask_rest(&filling, &object, filler.position(), filler.range().end).await
                    }
                    false => None,
                };
                let Some((asked, body, _)) = next else {
                    crate::log::fault(&fault, exchange.site_name());
                    let keep = is_resumable(filler.object());
                    return filler.stop(true, keep);
                };
                resumes += 1;
                source = stream(&asked, body);
                exchange = asked;
            }
        }
    }
}

async fn take_in(
    filler: &mut Filler<Stored>,
    source: &mut dyn Stream,
    filling: &Filling,
    to_its_end: bool,
) -> Pumped {
    let max = filling.shared.policy.max_object;
    let mut turn = 0;
    poll_fn(|cx| {
        loop {
            if to_its_end && !filler.stays() {
                return Poll::Ready(Pumped::Alone);
            }
            if !to_its_end && filler.poll_alone(cx).is_ready() && !is_worth_finishing(filler) {
                return Poll::Ready(Pumped::Alone);
            }
            if turn >= TURN_BYTES {
                turn = 0;
                guard::end_turn(cx);
                return Poll::Pending;
            }
            ready!(filler.poll_room(cx));
            let bytes = match ready!(source.poll_pull(cx)) {
                Pulled::Data(bytes) => bytes,
                // A part may be shorter than what was asked for; the rest is asked for again.
                Pulled::End(_) if is_short(filler) => {
                    return Poll::Ready(Pumped::Broken(Reason::Truncated.into()));
                }
                Pulled::End(_) => return Poll::Ready(Pumped::End),
                Pulled::Abort(fault) => return Poll::Ready(Pumped::Broken(fault)),
            };
            turn += bytes.len();
            filling.errand.count_bytes(bytes.len());
            match filler.push(&bytes) {
                Pushed::Enough => return Poll::Ready(Pumped::End),
                Pushed::More if filler.position() <= max => {}
                Pushed::More | Pushed::TooMuch => {
                    let fault = Fault::with(Reason::BadResponse, "more than was announced");
                    return Poll::Ready(Pumped::Broken(fault));
                }
            }
        }
    })
    .await
}

fn is_short(filler: &Filler<Stored>) -> bool {
    let end = filler.range().end;
    end != u64::MAX && filler.position() < end
}

/// Whether what is there of an object can be completed later.
fn is_resumable(object: &Kept) -> bool {
    is_of_get(object) && is_strong(&object.meta.facts)
}

/// Whether it can be asked for by ranges and under conditions, which are of GET.
fn is_of_get(object: &Kept) -> bool {
    !has_content(&object.key)
}

/// Whether it has a validator that means these very bytes (RFC 9111 §3.4).
fn is_strong(facts: &StoredFacts) -> bool {
    facts.has_strong_etag() || (facts.has_strong_date() && !facts.has_etag())
}

/// Of a range that is asked for of something unknown only the blocks that it touches are brought
/// in; of the end of something whose length is unknown, its first block, which tells that.
fn ask_part(facts: &RequestFacts, request: &mut Request) -> bool {
    let (first, last) = match facts.range() {
        RangeAsk::One(RangeSpec::From(first, last)) => {
            let first = first - first % BLOCK_BYTES;
            let end = last.saturating_add(1).checked_next_multiple_of(BLOCK_BYTES);
            (first, end.map(|end| end - 1))
        }
        RangeAsk::One(RangeSpec::Last(_)) => (0, Some(BLOCK_BYTES - 1)),
        RangeAsk::None | RangeAsk::Several => return false,
    };
    let mut value = format!("bytes={first}-");
    if let Some(last) = last {
        value.push_str(&last.to_string());
    }
    // Refused only if far too much was added before: then all of it is asked for.
    request.fields.set(Known::Range, value.as_bytes()).is_ok()
}

fn is_worth_finishing(filler: &Filler<Stored>) -> bool {
    if !filler.stays() {
        return false;
    }
    let at = filler.position();
    match filler.object().body.len_bytes() {
        Some(len) => {
            let end = filler.range().end.min(len);
            let left = end.saturating_sub(at);
            left <= FINISH_BYTES || left <= len / FINISH_PART
        }
        // Nobody knows: most are small.
        None => at <= FINISH_BYTES,
    }
}

pub fn stream(exchange: &Exchange, body: Body) -> Box<dyn Stream> {
    match body {
        Body::Stream(stream) => stream,
        Body::File(range) => Box::new(FileStream::new(&exchange.worker, range)),
        Body::Bytes(bytes) => Box::new(Once(bytes)),
        Body::Empty | Body::Tunnel(_) => Box::new(Once(Bytes::new())),
    }
}

/// A body that is there.
struct Once(Bytes);

impl Stream for Once {
    fn poll_pull(&mut self, _: &mut std::task::Context<'_>) -> Poll<Pulled> {
        Poll::Ready(match std::mem::take(&mut self.0) {
            bytes if bytes.is_empty() => Pulled::End(None),
            bytes => Pulled::Data(bytes),
        })
    }

    fn len_bytes(&self) -> Option<u64> {
        Some(self.0.len() as u64)
    }
}
