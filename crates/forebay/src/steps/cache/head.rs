//! What the answer to a HEAD that was passed on tells of what is stored (RFC 9111 §4.3.5).

use forebay_cache_policy::{
    RequestFacts, ResponseFacts, Time, Times, Updated, head_matches, update,
};

use super::Shared;
use super::stored::Kept;
use crate::exchange::{Exchange, Response};

/// Brings the stored response up to date, or has it validated before it is used again.
pub fn learn(
    shared: &Shared,
    exchange: &Exchange,
    request: &RequestFacts,
    stored: &Kept,
    response: &Response,
) {
    if response.status != 200 || response.fault.is_some() {
        return;
    }
    let now = super::now();
    let took_ms = exchange.worker.now_ms().saturating_sub(exchange.started_ms);
    let times = Times {
        asked: Time::from_millis(now.as_millis().saturating_sub(took_ms)),
        answered: now,
    };
    let asked_at = stored.asked_at;
    let meta = &stored.meta;
    let mut fields = meta.fields.unpacked();
    if !head_matches(&fields, stored.body.len_bytes(), &response.fields) {
        let stale = meta.renewed(meta.facts.stale_from(now), &fields);
        shared.store.refresh(stored, asked_at, stale);
        return;
    }
    let new = ResponseFacts::of(response.status, &response.fields, false);
    let updated = update(
        &shared.policy,
        request,
        &meta.facts,
        &mut fields,
        &new,
        &response.fields,
        &times,
    );
    match updated {
        Ok(Updated::Stored { facts, vary: None }) => {
            let renewed = meta.renewed(facts, &fields);
            shared.store.refresh(stored, asked_at, renewed);
        }
        Ok(Updated::Left(_)) => {}
        // Under another secondary key, or not to be stored any more: then not at all.
        Ok(Updated::Stored { .. } | Updated::Dropped(_)) | Err(_) => shared.store.remove(stored),
    }
}
