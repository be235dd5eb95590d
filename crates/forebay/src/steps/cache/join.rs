//! `live`: a response that may not be stored, joined by those who ask while it runs.
//!
//! ```text
//!   lead ── head ──▶ not stored, but to be shared ──▶ pump ──▶ window ──▶ who has asked first
//!                                                                    ├──▶ who has waited for it
//!                                                                    └──▶ who comes later
//! ```
//!
//! Who joins gets the head and what comes from then on. So only what makes sense from its middle is
//! shared: by its media type, see [`borders`].

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use forebay_cache_policy::{Forward, RequestFacts, ResponseFacts, Vary, WhyNot, is_joined};
use forebay_fields::{Fields, Known};
use forebay_store::key::url_of;
use forebay_store::rules::{Rules, Verdict};
use forebay_store::{Borders, Hash, Heard, LiveFiller, LiveReader, Room, Store, TooSlow};

use super::fill::{self, Filling};
use super::key::Key;
use super::stored::{Stored, Tags, Variant};
use super::vary::is_for;
use super::{Cache, forwarded, tell};
use crate::counters::SiteCounts;
use crate::exchange::{
    Body, Cached, Exchange, Fault, Flow, How, Lease, Pulled, Reason, Response, Stream, Why, guard,
};

/// Running responses, which a store has beside its objects.
pub type Lives = forebay_store::Lives<Head, Ending>;

/// What a running response says of itself.
pub struct Head {
    fields: Fields,
    /// What requests it is for; `None`: for every one of its key.
    vary: Option<Box<Variant>>,
    /// Which `Accept` it is for, where that counts.
    accept: Option<Box<[u8]>>,
    /// The newest purge when it was asked for.
    asked_at: u64,
    tags: Tags,
}

/// How a running response has ended.
#[derive(Clone)]
pub enum Ending {
    /// It was complete; with its trailers.
    End(Option<Arc<Fields>>),
    /// It was broken off.
    Abort(Fault),
}

/// Between two turns of others, at most so much is taken.
const TURN_BYTES: usize = 256 * 1024;

impl Head {
    /// Whether no purge has met it.
    pub fn is_alive(&self, key: &[u8], rules: &Rules) -> bool {
        rules.judge(self.asked_at, url_of(key), self.tags.iter()) == Verdict::Alive
    }

    /// What it is, as it says itself.
    pub fn media_type(&self) -> String {
        String::from_utf8_lossy(&media_type(&self.fields)).into_owned()
    }

    /// The values of request fields that it was chosen by.
    pub fn chosen_by(&self) -> (Option<&Variant>, Option<&[u8]>) {
        (self.vary.as_deref(), self.accept.as_deref())
    }

    /// What it can be purged by.
    pub fn tags(&self) -> &Tags {
        &self.tags
    }

    fn is_for(&self, fields: &Fields) -> bool {
        let accepts = self.accept.as_deref();
        accepts.is_none_or(|accept| *accept == *accept_of(fields))
            && is_for(self.vary.as_deref(), fields)
    }
}

/// Without the field, everything is taken (RFC 9110 §12.5.1).
fn accept_of(fields: &Fields) -> &[u8] {
    fields.get(Known::Accept).unwrap_or(b"*/*")
}

impl Cache {
    /// Whether this request may be answered by what runs for others.
    pub(super) fn may_join(&self, exchange: &Exchange, facts: &RequestFacts) -> bool {
        let shared = &*self.shared;
        shared.live.is_some() && facts.may_join(&shared.policy, &exchange.request.fields)
    }

    /// The same, and something runs.
    pub(super) fn may_join_now(&self, exchange: &Exchange, facts: &RequestFacts) -> bool {
        self.may_join(exchange, facts) && {
            let key = Key::of(&self.shared, exchange);
            self.shared.lives.has(key.hash, &key.bytes)
        }
    }

    /// Joins what runs.
    pub(super) fn join(&self, exchange: &mut Exchange, key: &Key, why: Forward) -> Option<Flow> {
        let shared = &*self.shared;
        let fields = &exchange.request.fields;
        let fits =
            |head: &Head| head.is_for(fields) && head.is_alive(&key.bytes, &shared.store.rules);
        let reader = shared
            .lives
            .join(key.hash, &key.bytes, shared.live?, fits)?;
        exchange.outcome.cached = Some(Cached::because(How::Collapsed, Why::Live));
        let mut response = Response::new(exchange, 200);
        (*response.fields).clone_from(&reader.head().fields);
        response.from_upstream = true;
        response.body = Body::Stream(Box::new(Joined(reader)));
        let how = forwarded(why, None, false, true);
        tell::plain(&mut response, how, Some(Why::Live.token()));
        Some(Flow::Answer(response))
    }
}

/// By what a question is known about something that is not stored, but may be shared: those who ask
/// wait for its head.
pub fn flight(store: &Store<Stored>, flight: Hash) -> Hash {
    flight.with(store.hash(b"live"))
}

/// Shares a response that is not stored for this reason with those who ask while it runs; gives it
/// back if it is for one alone.
pub fn share(
    filling: &Filling,
    asked_at: u64,
    mut response: Response,
    exchange: Lease,
    why: WhyNot,
) -> Result<Response, (Response, Lease)> {
    let shared = &filling.shared;
    let is_stream = matches!(&response.body, Body::Stream(body) if body.len_bytes().is_none());
    let (Some(too_slow), true, true) = (shared.live, filling.may_share, is_stream) else {
        return Err((response, exchange));
    };
    let facts = ResponseFacts::of(response.status, &response.fields, response.fault.is_some());
    if !is_joined(&shared.policy, &filling.facts, &facts, why) {
        return Err((response, exchange));
    }
    let Some(borders) = borders(&response.fields) else {
        return Err((response, exchange));
    };
    let Some(head) = head(filling, asked_at, &response.fields, &facts) else {
        return Err((response, exchange));
    };
    let begun = shared
        .lives
        .begin(filling.hash, &filling.key, head, borders, too_slow);
    let Some((filler, reader)) = begun else {
        return Err((response, exchange));
    };
    shared.take_tags(&mut response.fields);
    let body = std::mem::replace(&mut response.body, Body::Stream(Box::new(Joined(reader))));
    let worker = filling.errand.worker().clone();
    tokio::task::spawn_local(guard::Task::new(worker, pump(filler, exchange, body)));
    Ok(response)
}

/// What those who join get and are told by; `None`: it depends on too much.
fn head(filling: &Filling, asked_at: u64, fields: &Fields, facts: &ResponseFacts) -> Option<Head> {
    let mut fields = fields.clone();
    let tags = filling.shared.take_tags(&mut fields);
    for name in facts.unstored() {
        fields.retain(|field| !field.name.eq_ignore_ascii_case(name));
    }
    if filling.shared.policy.strip_cookies {
        fields.remove(Known::SetCookie);
    }
    let vary = match &facts.vary() {
        Vary::Nothing => None,
        Vary::Names(_) => filling.variant(facts.vary()).ok()?,
        Vary::Star | Vary::TooLong => return None,
    };
    // Who says `no-store` has no reason to say in `Vary` that it would have been another page, or
    // in JSON, for another `Accept`. What is looked at or listened to has one form.
    let accept = (!is_media(&fields)).then(|| accept_of(filling.errand.fields()).into());
    Some(Head {
        fields,
        vary,
        accept,
        asked_at,
        tags,
    })
}

/// The media type without its parameters, in lower case; empty where there is none.
fn media_type(fields: &Fields) -> Vec<u8> {
    let value = fields.get(Known::ContentType).unwrap_or_default();
    let end = memchr::memchr(b';', value).unwrap_or(value.len());
    value[..end].trim_ascii().to_ascii_lowercase()
}

fn is_media(fields: &Fields) -> bool {
    let kind = media_type(fields);
    [b"audio/".as_slice(), b"video/", b"multipart/"]
        .iter()
        .any(|of| kind.starts_with(of))
}

/// Where who joins such a response begins. `None`: it makes no sense but from its beginning, as a
/// page, a picture or an archive.
fn borders(fields: &Fields) -> Option<Borders> {
    // What is coded can be decoded from its beginning only.
    if fields.contains(Known::ContentEncoding) {
        return None;
    }
    let kind = media_type(fields);
    match &*kind {
        b"text/event-stream" => Some(Borders::EmptyLines),
        _ if kind.starts_with(b"multipart/") => Some(delimiter(fields)),
        _ if is_media(fields) => Some(Borders::Pieces),
        b""
        | b"text/plain"
        | b"application/octet-stream"
        | b"application/ogg"
        | b"application/x-ndjson"
        | b"application/ndjson"
        | b"application/jsonl"
        | b"application/json-seq" => Some(Borders::Pieces),
        _ => None,
    }
}

/// Many cameras put the hyphens that come before a boundary (RFC 2046 §5.1.1) into the boundary
/// itself, and send no others.
fn delimiter(fields: &Fields) -> Borders {
    let value = fields.get(Known::ContentType).unwrap_or_default();
    let parameters = value.split(|byte| *byte == b';').skip(1);
    let boundary = parameters.map(<[u8]>::trim_ascii).find_map(|parameter| {
        let (name, value) = parameter.split_at_checked(b"boundary=".len())?;
        name.eq_ignore_ascii_case(b"boundary=").then_some(value)
    });
    let boundary = boundary.unwrap_or_default();
    let boundary = boundary.strip_prefix(b"\"").unwrap_or(boundary);
    let boundary = boundary.strip_suffix(b"\"").unwrap_or(boundary);
    let hyphens = boundary.iter().take_while(|byte| **byte == b'-').count();
    match &boundary[hyphens..] {
        // At most 70 characters in all; nothing is looked for that is much longer.
        name if name.is_empty() || name.len() > 200 => Borders::Pieces,
        name => Borders::Delimiter([b"--", name].concat().into()),
    }
}

/// Takes in what the origin sends, as long as somebody reads it.
async fn pump(filler: LiveFiller<Head, Ending>, mut exchange: Lease, body: Body) {
    let mut source = fill::stream(&exchange, body);
    let worker = exchange.worker.clone();
    let counts: Option<Arc<SiteCounts>> = exchange.site.as_ref().map(|site| site.counts.clone());
    // It may run for days, and must not keep an old configuration in memory.
    exchange.release_site();
    let mut turn = 0;
    let ending = poll_fn(|cx| {
        loop {
            if ready!(filler.poll_room(cx)) == Room::Alone {
                return Poll::Ready(None);
            }
            if turn >= TURN_BYTES {
                turn = 0;
                guard::end_turn(cx);
                return Poll::Pending;
            }
            match ready!(source.poll_pull(cx)) {
                Pulled::Data(bytes) => {
                    turn += bytes.len();
                    if let Some(counts) = &counts {
                        counts.note_fetched(&worker, bytes.len() as u64);
                    }
                    filler.push(&bytes);
                }
                Pulled::End(trailers) => {
                    let trailers = trailers.map(|trailers| Arc::new(*trailers));
                    return Poll::Ready(Some(Ending::End(trailers)));
                }
                Pulled::Abort(fault) => return Poll::Ready(Some(Ending::Abort(fault))),
            }
        }
    })
    .await;
    if let Some(Ending::Abort(fault)) = &ending {
        crate::log::fault(fault, exchange.site_name());
    }
    if let Some(ending) = ending {
        filler.finish(ending);
    }
}

/// A running response as one of its clients gets it.
struct Joined(LiveReader<Head, Ending>);

impl Stream for Joined {
    fn poll_pull(&mut self, cx: &mut Context<'_>) -> Poll<Pulled> {
        let heard = ready!(self.0.poll_next(cx));
        Poll::Ready(match heard {
            Heard::Data(bytes) => Pulled::Data(bytes),
            Heard::End(Ending::End(trailers)) => {
                Pulled::End(trailers.map(|trailers| Box::new(Fields::clone(&trailers))))
            }
            Heard::End(Ending::Abort(fault)) => Pulled::Abort(fault),
            Heard::Cut => Pulled::Abort(Reason::ClientTooSlow.into()),
            Heard::Lost => Pulled::Abort(Reason::Internal.into()),
        })
    }

    fn len_bytes(&self) -> Option<u64> {
        None
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<Fault> {
        let cut = self.0.poll_cut(cx);
        cut.map(|()| Reason::ClientTooSlow.into())
    }
}

/// What people write for what becomes of a reader that is too slow.
pub fn too_slow(word: &str) -> Option<TooSlow> {
    match word {
        "drop" => Some(TooSlow::Cut),
        "skip" => Some(TooSlow::Skip),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lines: &[(&str, &str)]) -> Option<Borders> {
        let mut fields = Fields::new();
        for (name, value) in lines {
            fields.append(*name, value).unwrap();
        }
        borders(&fields)
    }

    #[test]
    fn what_makes_sense_from_its_middle_is_shared() {
        assert_eq!(of(&[]), Some(Borders::Pieces));
        for kind in [
            "audio/mpeg",
            "Video/MP2T",
            "text/plain; charset=utf-8",
            "application/ogg",
        ] {
            assert_eq!(
                of(&[("Content-Type", kind)]),
                Some(Borders::Pieces),
                "{kind}"
            );
        }
        let events = "Text/Event-Stream;charset=utf-8";
        assert_eq!(of(&[("Content-Type", events)]), Some(Borders::EmptyLines));
        for kind in [
            "text/html",
            "application/json",
            "image/png",
            "application/zip",
            "x",
        ] {
            assert_eq!(of(&[("Content-Type", kind)]), None, "{kind}");
        }
        let coded = [("Content-Type", events), ("Content-Encoding", "gzip")];
        assert_eq!(of(&coded), None);
    }

    #[test]
    fn parts_are_told_by_their_boundary() {
        for (parameter, expected) in [
            ("; boundary=frame", Some("--frame")),
            (";Boundary=\"a b\"; x=y", Some("--a b")),
            ("; boundary=--frame", Some("--frame")),
            ("", None),
            ("; boundary=", None),
            ("; boundary=--", None),
        ] {
            let kind = format!("multipart/x-mixed-replace{parameter}");
            let expected = expected.map_or(Borders::Pieces, |text| {
                Borders::Delimiter(text.as_bytes().into())
            });
            assert_eq!(
                of(&[("Content-Type", &kind)]),
                Some(expected),
                "{parameter}"
            );
        }
    }
}
