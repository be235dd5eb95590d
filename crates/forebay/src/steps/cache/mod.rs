//! `cache`: answers from a store, and fills it from the rest of the pipeline.
//!
//! ```text
//!   request ──▶ to be cached? ──▶ stored? ──▶ may it answer? ──▶ answer
//!                  │ no            │ no          │ no, or only while it is validated
//!                  ▼               ▼             ▼
//!              next step       one asks for all who want the same: fill.rs
//! ```
//!
//! What decides is `forebay-cache-policy`, what keeps is `forebay-store`; this is what asks the
//! one and tells the other. Most requests end in `on_request`, out of memory, without a lock.

mod answer;
mod content;
mod declare;
mod derived;
pub mod disks;
mod explain;
mod fill;
mod follow;
mod from_disk;
mod head;
mod join;
mod key;
pub mod live;
mod own;
mod purge;
mod stored;
pub mod stores;
mod tell;
mod vary;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use forebay_cache_policy::{
    Asked, Forward, Moment, Origin, Outcome as Status, Policy, RequestFacts, Reuse, Time,
    WhyAround, WhyNot, WhyStale, WhyValidate, normalise_request, prepare_request, reuse,
};
use forebay_fields::{Fields, Known};
use forebay_http1::Method;
use forebay_store::{Begin, Outcome, Refresh, Store, TooSlow, View};
use forebay_sys::clock;

use self::content::{Content, Unread};
use self::fill::{Brought, Filling};
use self::from_disk::{OnDisk, Reading};
use self::key::{Key, KeyRules};
use self::purge::Purging;
use self::stored::{Kept, Stored, Tags};
use self::vary::{flight, is_for};
use crate::exchange::errand::Errand;
use crate::exchange::step::Rest;
use crate::exchange::{
    Cached, Condition, Exchange, Flow, How, Local, Pipeline, Reason, Request, Response, Step, Up,
    Why,
};
use crate::explain::{Notes, Told};

pub use declare::{DIRECTIVE, build};
pub use key::QuerySpec;
pub use stores::{Caches, Stores};

/// See the module.
pub struct Cache {
    shared: Arc<Shared>,
    bypass: Option<Condition>,
    refresh: Option<Condition>,
    purge: Option<Condition>,
}

/// What fills need of a cache, however long they take.
pub struct Shared {
    /// Under which an exchange keeps what is known of it.
    id: u64,
    /// The store as it was declared.
    kept: Arc<stores::Kept>,
    /// Where objects are.
    pub store: Arc<Store<Stored>>,
    /// What runs and is not stored.
    lives: Arc<join::Lives>,
    /// Whether that is shared, and what becomes of who is too slow for it.
    live: Option<TooSlow>,
    /// What the operator has laid down.
    pub policy: Policy,
    key: KeyRules,
    /// Whether POST is answered and stored, too.
    posts: bool,
    tag_fields: Box<[Box<str>]>,
}

/// What is known of a request that the store could not answer at once.
struct Looked {
    key: Key,
    facts: RequestFacts,
    /// What is there, to be validated.
    stored: Option<Kept>,
    /// Why it goes on to the origin.
    why: Forward,
}

/// Why a request went on to the steps below as it is.
#[derive(Clone, Copy)]
enum Around {
    Bypass,
    Policy(WhyAround),
    /// HEAD, of which nothing is stored.
    Head,
    /// Found not to be for all a short while ago.
    Uncacheable,
    /// Not asked for often enough yet.
    TooFewUses,
}

impl Shared {
    /// Whether what made a response unfit will make the next one unfit, too, as far as one can know.
    pub fn is_lasting(&self, why: WhyNot) -> bool {
        !why.is_of_request() && !matches!(why, WhyNot::Own | WhyNot::BadRange)
    }

    /// Whether fills are asked for without this field, whose name is in lower case.
    pub fn is_left_out(&self, name: &[u8]) -> bool {
        let is_dangerous = |known: &&str| {
            known.as_bytes().eq_ignore_ascii_case(name) && !self.key.names_field(known)
        };
        (self.policy.strip_cookies && name == b"cookie") || NOT_IN_KEY.iter().any(is_dangerous)
    }

    /// Takes out of a request what the origin is not to choose an answer by that all get.
    fn strip(&self, fields: &mut Fields) {
        if self.policy.strip_cookies {
            fields.remove(Known::Cookie);
        }
        for name in NOT_IN_KEY {
            if !self.key.names_field(name) {
                fields.remove(name);
            }
        }
    }

    /// The tags in these fields; no more of them, and no longer ones, than an object may have.
    fn tags<'f>(&'f self, fields: &'f Fields) -> impl Iterator<Item = &'f [u8]> {
        let lines = self.tag_fields.iter().flat_map(|name| fields.all(&**name));
        let words = lines.flat_map(|line| line.split(|byte| matches!(byte, b' ' | b',' | b'\t')));
        words
            .filter(|word| !word.is_empty() && word.len() <= MAX_TAG)
            .take(MAX_TAGS)
    }

    /// Takes the tags out of a response's fields.
    pub fn take_tags(&self, fields: &mut Fields) -> Tags {
        let tags = Tags::of(self.tags(fields));
        for name in &self.tag_fields {
            fields.remove(&**name);
        }
        tags
    }
}

/// At most so many tags of one object, each of at most so many bytes.
const MAX_TAGS: usize = 256;
pub const MAX_TAG: usize = 256;

/// The time of decisions.
pub fn now() -> Time {
    Time::from_millis(clock::coarse_unix_ms())
}

/// Whether a stored response is used although the origin has failed.
pub fn may_use_stale(
    policy: &Policy,
    request: &RequestFacts,
    stored: &Kept,
    now: Time,
    origin: Origin,
) -> Option<WhyStale> {
    let moment = Moment {
        now,
        origin,
        invalidated: stored.is_gone(),
    };
    match reuse(policy, request, &stored.meta.facts, &moment) {
        Reuse::Stale(why) => Some(why),
        // It has become so meanwhile, by another who asked.
        Reuse::Fresh => Some(WhyStale::Disconnected),
        _ => None,
    }
}

impl Cache {
    /// Whether a stored response is for a request with these fields.
    fn is_it(&self, object: &Kept, fields: &Fields) -> bool {
        is_for(object.meta.vary.as_deref(), fields) && self.shared.store.is_alive(object)
    }

    /// Whether a hit needs nothing but what is there: it is answered where it stands, without
    /// counting one more who uses the object, which costs two workers much where they meet.
    fn is_plain_hit(
        &self,
        exchange: &Exchange,
        facts: &RequestFacts,
        object: &Kept,
        view: &View<'_>,
        now: Time,
    ) -> bool {
        let moment = Moment {
            now,
            origin: Origin::Unasked,
            invalidated: false,
        };
        view.is_whole()
            && !exchange.wants_kept
            && !object.is_stale()
            && reuse(&self.shared.policy, facts, &object.meta.facts, &moment) == Reuse::Fresh
    }

    fn facts(&self, exchange: &Exchange) -> RequestFacts {
        let request = &exchange.request;
        let asked = Asked {
            method: request.method.as_str(),
            safe: request.method.is_safe(),
            has_body: request.body().len_bytes() != Some(0),
            fields: &request.fields,
        };
        RequestFacts::of(&self.shared.policy, &asked)
    }

    /// `disk`: whether what is not in memory is looked for on disks.
    fn look(&self, exchange: &mut Exchange, disk: bool) -> Flow {
        let shared = &*self.shared;
        let facts = self.facts(exchange);
        if let Some(bypass) = &self.bypass
            && bypass.holds(exchange)
        {
            return self.go_on(exchange, Around::Bypass);
        }
        if let Some(why) = facts.around() {
            return self.go_on(exchange, Around::Policy(why));
        }
        if exchange.request.method == Method::Post && Content::of(exchange).is_none() {
            return self.go_on(exchange, Around::Policy(WhyAround::Precondition));
        }
        if let Some(refresh) = &self.refresh
            && refresh.holds(exchange)
        {
            return self.ask_first(exchange, facts, None, Forward::Request);
        }
        let now = now();
        let mut others = false;
        let found = KEY.with_borrow_mut(|room| {
            shared.key.write(exchange, room);
            let hash = shared.store.hash(room);
            shared.store.with(hash, room, |object| {
                others = true;
                if !self.is_it(object, &exchange.request.fields) {
                    return None;
                }
                let view = object.body.view();
                if self.is_plain_hit(exchange, &facts, object, &view, now) {
                    shared.store.used(object);
                    return Some(Ok(self.answer(exchange, object, &view, facts, None, now)));
                }
                Some(Err(object.clone()))
            })
        });
        let object = match found {
            Some(Ok(answer)) => return answer,
            Some(Err(object)) => Some(object),
            None if disk && shared.store.disk().is_some() => match self.find_on_disk(exchange) {
                OnDisk::Absent => None,
                OnDisk::Here(object) => Some(object),
                OnDisk::Wait(reading) => {
                    exchange.keep(shared.id, reading);
                    return Flow::Wait;
                }
            },
            None => None,
        };
        let Some(object) = object else {
            return match () {
                () if facts.only_if_cached() => not_stored(exchange),
                () if facts.is_head() => self.go_on(exchange, Around::Head),
                () if !self.is_used_enough(exchange) && !self.may_join_now(exchange, &facts) => {
                    self.go_on(exchange, Around::TooFewUses)
                }
                () if others => self.ask_first(exchange, facts, None, Forward::VaryMiss),
                () => self.ask_first(exchange, facts, None, Forward::UriMiss),
            };
        };
        let moment = Moment {
            now,
            origin: Origin::Unasked,
            invalidated: false,
        };
        let decision = match object.is_stale() {
            true => Reuse::Validate(WhyValidate::Invalidated),
            false => reuse(&shared.policy, &facts, &object.meta.facts, &moment),
        };
        match decision {
            Reuse::Fresh => {
                shared.store.used(&object);
                self.answer(exchange, &object, &object.body.view(), facts, None, now)
            }
            Reuse::Stale(why) => {
                shared.store.used(&object);
                if why.validate_in_background() {
                    self.refresh_behind(exchange, facts, &object);
                }
                let view = object.body.view();
                self.answer(exchange, &object, &view, facts, Some(why), now)
            }
            Reuse::OnlyIfCached(_) | Reuse::Forbidden(_) => not_stored(exchange),
            Reuse::Validate(_) if facts.is_head() => self.go_on(exchange, Around::Head),
            Reuse::Validate(why) => {
                let why = match why {
                    WhyValidate::RequestNoCache
                    | WhyValidate::RequestMaxAge
                    | WhyValidate::RequestMinFresh => Forward::Request,
                    _ => Forward::Stale,
                };
                self.ask_first(exchange, facts, Some(object), why)
            }
        }
    }

    fn answer(
        &self,
        exchange: &mut Exchange,
        object: &Kept,
        view: &View<'_>,
        facts: RequestFacts,
        stale: Option<WhyStale>,
        now: Time,
    ) -> Flow {
        exchange.outcome.cached = Some(match stale {
            None => Cached::of(How::Hit),
            Some(why) => Cached::because(How::Stale, Why::Stale(why)),
        });
        let detail = stale.map(WhyStale::token);
        let mut response = answer::answer(exchange, object, view, now, |exchange| {
            let key = Key::of(&self.shared, exchange);
            self.filling(exchange, facts, &key)
        });
        if exchange.wants_kept {
            response.kept = derived::beside(&self.shared.store, object, &exchange.worker);
        }
        tell::object(&mut response, Status::Hit, object, now, detail);
        Flow::Answer(response)
    }

    /// The request goes on as it is; why is said when the response comes.
    fn go_on(&self, exchange: &mut Exchange, why: Around) -> Flow {
        if self.shared.policy.strip_cookies && !matches!(why, Around::Bypass | Around::Policy(_)) {
            exchange.request.fields.remove(Known::Cookie);
        }
        exchange.outcome.cached = Some(match why {
            Around::Bypass => Cached::because(How::Bypass, Why::Around(WhyAround::Bypass)),
            Around::Policy(why) => Cached::because(How::Bypass, Why::Around(why)),
            Around::Head => Cached::because(How::Pass, Why::Head),
            Around::Uncacheable => Cached::because(How::Pass, Why::HitForMiss),
            Around::TooFewUses => Cached::because(How::Pass, Why::Not(WhyNot::TooFewUses)),
        });
        exchange.keep(self.shared.id, why);
        Flow::Next
    }

    /// Whether this was asked for as often as `min_uses` says, now included.
    fn is_used_enough(&self, exchange: &Exchange) -> bool {
        let Shared { store, policy, .. } = &*self.shared;
        policy.min_uses <= 1 || {
            let uses = store.count_use(Key::of(&self.shared, exchange).hash);
            policy.used_enough(uses).is_ok()
        }
    }

    /// The origin has to be asked first.
    fn ask_first(
        &self,
        exchange: &mut Exchange,
        facts: RequestFacts,
        stored: Option<Kept>,
        why: Forward,
    ) -> Flow {
        // Of a fill whose application leads on: by another path to what waits for this very fill.
        if exchange.must_not_join() {
            return self.go_on(exchange, Around::Bypass);
        }
        let looked = Looked {
            key: Key::of(&self.shared, exchange),
            facts,
            stored,
            why,
        };
        exchange.keep(self.shared.id, looked);
        Flow::Wait
    }

    fn filling(&self, exchange: &Exchange, facts: RequestFacts, key: &Key) -> Rc<Filling> {
        // A step always stands in a pipeline.
        let rest = exchange.course.rest();
        let rest = rest.unwrap_or_else(|| Rest::from(Pipeline::new(Vec::new())));
        let mut errand = Errand::of(exchange, rest);
        if let Some(content) = Content::of(exchange) {
            errand.set_content(content.bytes.clone());
        }
        self.derive(errand.request_mut());
        Rc::new(Filling {
            shared: self.shared.clone(),
            errand,
            may_share: self.may_join(exchange, &facts),
            facts,
            hash: key.hash,
            key: key.bytes.clone(),
            peer: RefCell::default(),
            disk_hangs: Cell::default(),
        })
    }

    /// Makes of a client's request the one that brings in what is for all.
    fn derive(&self, request: &mut Request) {
        self.shared.key.derive(request);
        prepare_request(&self.shared.policy, &mut request.fields);
        self.shared.strip(&mut request.fields);
        // Refused only if far too much was added before; then the fields stay as they came.
        let _ = normalise_request(&mut request.fields);
    }

    /// Has a stale object validated, if nobody does already.
    fn refresh_behind(&self, exchange: &Exchange, facts: RequestFacts, object: &Kept) {
        let Some(refresh) = Refresh::begin(object) else {
            return;
        };
        let key = Key::of(&self.shared, exchange);
        let flight = flight(&self.shared, &key, Some(object), &exchange.request.fields);
        if let Begin::Lead(lead) =
            self.shared
                .store
                .begin_variant(key.hash, &key.bytes, flight, exchange.worker.now_ms())
        {
            let filling = self.filling(exchange, facts, &key);
            // Nobody waits for it.
            drop(filling.ask(lead, Some(object.clone()), Some(refresh)));
        }
    }

    async fn bring(&self, exchange: &mut Exchange) -> Flow {
        let Some(looked) = exchange.take_kept::<Looked>(self.shared.id) else {
            return Flow::Fail(Reason::Internal.into());
        };
        let Looked {
            key,
            facts,
            mut stored,
            mut why,
        } = looked;
        let store = &self.shared.store;
        let filling = self.filling(exchange, facts, &key);
        for _ in 0..MAX_ROUNDS {
            if filling.may_share
                && let Some(joined) = self.join(exchange, &key, why)
            {
                return joined;
            }
            let rules_before = store.rules.newest();
            match self.begin(exchange, &key, filling.may_share) {
                Begin::Pass => break,
                Begin::Lead(lead) => {
                    // It may have come, or a purge, between the look and this.
                    if let Some(object) = self.has_come(exchange, &key, &stored, why) {
                        drop(lead);
                        return self.collapsed(exchange, &object, &filling, why);
                    }
                    if filling.may_share
                        && let Some(joined) = self.join(exchange, &key, why)
                    {
                        return joined;
                    }
                    stored = stored.filter(|stored| store.is_alive(stored));
                    let told = filling.ask(lead, stored.clone(), None);
                    let told = told.await;
                    if let Some(peer) = filling.peer.take() {
                        exchange.set_peered(peer);
                    }
                    return match told {
                        Ok(brought) => self.lead(exchange, brought, &filling, why),
                        Err(_) => Flow::Fail(Reason::Internal.into()),
                    };
                }
                Begin::Follow(follow) => match follow.await {
                    // Asked for before a purge, joined after it.
                    Outcome::Object(object)
                        if object.asked_at < rules_before && !store.is_alive(&object) => {}
                    Outcome::Object(object) => {
                        if is_for(object.meta.vary.as_deref(), &exchange.request.fields) {
                            return self.collapsed(exchange, &object, &filling, why);
                        }
                        // It varies, and this is another variant.
                        (stored, why) = (None, Forward::VaryMiss);
                    }
                    // It may run for others, too.
                    Outcome::Pass if filling.may_share => {}
                    Outcome::Pass => break,
                    Outcome::Failed(fault) => {
                        let passed = Cached::because(How::Pass, Why::Not(WhyNot::Own));
                        exchange.outcome.cached = Some(passed);
                        return Flow::Fail(fault);
                    }
                    Outcome::Dropped => {}
                },
            }
        }
        self.go_on(exchange, Around::Uncacheable)
    }

    /// Who is to ask for what is absent.
    fn begin(&self, exchange: &Exchange, key: &Key, may_share: bool) -> Begin<Stored> {
        let store = &self.shared.store;
        let newest = self.newest(key);
        let fields = &exchange.request.fields;
        let flight = flight(&self.shared, key, newest.as_ref(), fields);
        let now_ms = exchange.worker.now_ms();
        match store.begin_variant(key.hash, &key.bytes, flight, now_ms) {
            // Not for all, but perhaps for all who ask while it runs.
            Begin::Pass if may_share => {
                let flight = join::flight(store, flight);
                store.begin_variant(key.hash, &key.bytes, flight, now_ms)
            }
            begun => begun,
        }
    }

    /// Another one has had it brought in.
    fn collapsed(
        &self,
        exchange: &mut Exchange,
        object: &Kept,
        filling: &Rc<Filling>,
        why: Forward,
    ) -> Flow {
        exchange.outcome.cached = Some(Cached::of(How::Collapsed));
        let how = forwarded(why, None, false, true);
        self.answer_brought(exchange, object, filling, how, None)
    }

    /// What came of asking, for the one who did.
    fn lead(
        &self,
        exchange: &mut Exchange,
        brought: Brought,
        filling: &Rc<Filling>,
        why: Forward,
    ) -> Flow {
        match brought {
            Brought::Object(object, reader, status) => {
                exchange.outcome.cached = Some(Cached::of(How::Miss));
                let how = forwarded(why, Some(status), true, false);
                let flow = self.answer_brought(exchange, &object, filling, how, None);
                // Its own reader has taken this one's place.
                drop(reader);
                flow
            }
            Brought::Validated(object, stored) => {
                exchange.outcome.cached = Some(Cached::of(How::Revalidated));
                let how = forwarded(why, Some(304), stored, false);
                self.answer_brought(exchange, &object, filling, how, None)
            }
            Brought::Stale(object, stale, status) => {
                let cached = Cached::because(How::Stale, Why::Stale(stale));
                exchange.outcome.cached = Some(cached);
                let how = forwarded(why, status, false, false);
                let detail = Some(stale.token());
                self.answer_brought(exchange, &object, filling, how, detail)
            }
            Brought::Response(mut response, lease, not) => {
                exchange.outcome.cached = Some(Cached::because(How::Pass, Why::Not(not)));
                self.strip_response(&mut response);
                tell::unstored(&mut response, why, not);
                exchange.keep(self.shared.id, lease);
                Flow::Answer(response)
            }
            Brought::Live(mut response, not) => {
                exchange.outcome.cached = Some(Cached::because(How::Pass, Why::Live));
                self.strip_response(&mut response);
                tell::unstored(&mut response, why, not);
                Flow::Answer(response)
            }
            Brought::Again => self.go_on(exchange, Around::Uncacheable),
        }
    }

    fn strip_response(&self, response: &mut Response) {
        if self.shared.policy.strip_cookies {
            response.fields.remove(Known::SetCookie);
        }
    }

    fn answer_brought(
        &self,
        exchange: &mut Exchange,
        object: &Kept,
        filling: &Rc<Filling>,
        how: Status,
        detail: Option<&str>,
    ) -> Flow {
        let now = now();
        let filling = filling.clone();
        let view = object.body.view();
        let mut response = answer::answer(exchange, object, &view, now, |_| filling);
        tell::object(&mut response, how, object, now, detail);
        Flow::Answer(response)
    }

    /// What another one has brought in since this one has looked for it in vain.
    fn has_come(
        &self,
        exchange: &Exchange,
        key: &Key,
        stored: &Option<Kept>,
        why: Forward,
    ) -> Option<Kept> {
        let is_miss = matches!(why, Forward::UriMiss | Forward::VaryMiss);
        if stored.is_some() || !is_miss {
            return None;
        }
        let fields = &exchange.request.fields;
        let select = |object: &Kept| self.is_it(object, fields).then(|| object.clone());
        let store = &self.shared.store;
        store.with(key.hash, &key.bytes, select)
    }

    fn newest(&self, key: &Key) -> Option<Kept> {
        let store = &self.shared.store;
        store.with(key.hash, &key.bytes, |object| Some(object.clone()))
    }

    fn learn(&self, exchange: &Exchange, response: &Response) {
        let key = Key::of(&self.shared, exchange);
        let fields = &exchange.request.fields;
        let select = |object: &Kept| self.is_it(object, fields).then(|| object.clone());
        if let Some(stored) = self.shared.store.with(key.hash, &key.bytes, select) {
            let facts = self.facts(exchange);
            head::learn(&self.shared, exchange, &facts, &stored, response);
        }
    }
}

/// So often a request that waited for another one begins anew.
const MAX_ROUNDS: usize = 4;

thread_local! {
    /// Room for the key of a lookup.
    static KEY: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Fields that some applications let a client choose the answer by, and that no `Vary` names: a
/// client could have what it has chosen stored for all.
const NOT_IN_KEY: [&str; 8] = [
    "X-Original-URL",
    "X-Rewrite-URL",
    "X-Host",
    "X-Forwarded-Server",
    "X-HTTP-Method",
    "X-HTTP-Method-Override",
    "X-Method-Override",
    "X-Original-Host",
];

/// `only-if-cached`, and nothing would do.
fn not_stored(exchange: &mut Exchange) -> Flow {
    exchange.outcome.cached = Some(Cached::because(How::Pass, Why::OnlyIfCached));
    Flow::Fail(Reason::NotStored.into())
}

fn forwarded(why: Forward, status: Option<u16>, stored: bool, collapsed: bool) -> Status {
    Status::Forwarded {
        why,
        status,
        stored,
        collapsed,
    }
}

impl Step for Cache {
    fn name(&self) -> &'static str {
        DIRECTIVE.name
    }

    fn on_request(&self, exchange: &mut Exchange) -> Flow {
        if let Method::Other(_) = exchange.request.method
            && exchange.request.method.as_str() == "PURGE"
            && let Some(purge) = &self.purge
        {
            if !purge.holds(exchange) {
                return Flow::Fail(Reason::Forbidden.into());
            }
            return self.purge(exchange);
        }
        if self.has_unread_content(exchange) {
            exchange.keep(self.shared.id, Unread);
            return Flow::Wait;
        }
        self.look(exchange, true)
    }

    fn explain(&self, exchange: &mut Exchange, notes: &mut Notes<'_>) -> Told {
        self.tell_request(exchange, notes)
    }

    fn explain_response(
        &self,
        exchange: &Exchange,
        response: Option<&Response>,
        notes: &mut Notes<'_>,
    ) {
        self.tell_response(exchange, response, notes);
    }

    fn wait<'a>(&'a self, exchange: &'a mut Exchange) -> Local<'a, Flow> {
        Box::pin(async move {
            if exchange.take_kept::<Unread>(self.shared.id).is_some() {
                let looked = match self.take_content(exchange).await {
                    Ok(Some(flow)) => flow,
                    Ok(None) => self.look(exchange, true),
                    Err(fault) => Flow::Fail(fault),
                };
                if !matches!(looked, Flow::Wait) {
                    return looked;
                }
            }
            for round in 1..=MAX_ROUNDS {
                let Some(reading) = exchange.take_kept::<Reading>(self.shared.id) else {
                    break;
                };
                let answers = self.read_from_disk(exchange, reading).await;
                match self.look(exchange, answers && round < MAX_ROUNDS) {
                    Flow::Wait => {}
                    flow => return flow,
                }
            }
            match exchange.take_kept::<Purging>(self.shared.id) {
                Some(purging) => self.purge_on_disk(exchange, purging).await,
                None => self.bring(exchange).await,
            }
        })
    }

    fn sees_response(&self) -> bool {
        true
    }

    fn on_response(&self, exchange: &mut Exchange, response: &mut Response) -> Up {
        if let Some(why) = exchange.kept::<Around>(self.shared.id).copied() {
            if let Around::Policy(why) = why
                && why == WhyAround::Method
                && !exchange.request.method.is_safe()
            {
                self.invalidate(exchange, response);
            }
            if let Around::Head = why {
                self.learn(exchange, response);
            }
            let (forward, detail) = match why {
                Around::Bypass => (Forward::Bypass, None),
                Around::Policy(why) => (Forward::from(why), Some(why.token())),
                Around::Head => (Forward::Miss, Some("head")),
                Around::Uncacheable => (Forward::UriMiss, Some("hit-for-miss")),
                Around::TooFewUses => (Forward::UriMiss, Some(WhyNot::TooFewUses.token())),
            };
            if !matches!(why, Around::Bypass | Around::Policy(_)) {
                self.strip_response(response);
            }
            tell::plain(response, forwarded(forward, None, false, false), detail);
        }
        Up::Done
    }
}

#[cfg(test)]
mod tests;
