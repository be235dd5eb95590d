//! From an object to a response.

use std::rc::Rc;

use forebay_cache_policy::Time;
use forebay_fields::Known;
use forebay_store::View;

use super::fill::Filling;
use super::follow;
use super::stored::Kept;
use crate::exchange::conditional::{self, Decision, Validators};
use crate::exchange::{Exchange, Response};
use crate::steps::files::answer::finish;

/// What answers a request out of an object: all of it, a part, or that the client has it already.
/// `view` is how its body is now; `source` is asked for where that may have to be brought in.
pub fn answer(
    exchange: &mut Exchange,
    object: &Kept,
    view: &View<'_>,
    now: Time,
    source: impl FnOnce(&Exchange) -> Rc<Filling>,
) -> Response {
    let meta = &object.meta;
    let mut response = Response::new(exchange, meta.facts.status());
    meta.fields.unpack_into(&mut response.fields);
    response.from_upstream = true;
    response.fields.remove(Known::Age);
    let told = response
        .fields
        .set_number(Known::Age, meta.facts.age(now).into());
    debug_assert!(told.is_ok(), "it was stored, so there is room");
    let len = view.len_bytes();
    let decision = decide(exchange, object, now, len);
    // What needs no other bytes than those that are there needs nobody to bring them.
    let is_there = view.is_whole() || matches!(decision, Decision::NotModified);
    let source = if is_there {
        None
    } else {
        Some(source(exchange))
    };
    match (decision, len) {
        (Decision::Whole, None) if exchange.request.method == forebay_http1::Method::Head => {
            response
        }
        (Decision::Whole, None) => {
            response.body = follow::body(object, view, None, source.as_ref());
            response
        }
        (decision, len) => {
            let len = len.unwrap_or(0);
            finish(exchange, response, decision, len, |range| {
                follow::body(object, view, Some(range), source.as_ref())
            })
        }
    }
}

/// What of the representation the request wants (RFC 9111 §4.3.2).
fn decide(exchange: &Exchange, object: &Kept, now: Time, len: Option<u64>) -> Decision {
    let request = &exchange.request;
    let facts = &object.meta.facts;
    let is_plain = !request.fields.present().intersects(conditional::FIELDS);
    // Conditions and ranges are about what a 200 would carry (RFC 9110 §13.2.1).
    if is_plain || facts.status() != 200 {
        return Decision::Whole;
    }
    let validators = Validators {
        etag: object
            .meta
            .fields
            .get(Known::Etag)
            .filter(|_| facts.has_etag()),
        last_modified: facts.last_modified(),
        made: Some(facts.modified()),
        // What counts is when it was made, not when it is asked for (RFC 9110 §8.8.2.2).
        now: match facts.has_strong_date() {
            true => now.as_secs(),
            false => 0,
        },
    };
    conditional::decide(request.method, &request.fields, &validators, len)
}
