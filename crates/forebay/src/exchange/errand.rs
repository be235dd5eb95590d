//! Requests of the server's own, on behalf of an exchange: the fills of a cache.
//!
//! An errand runs the rest of a pipeline with a request that is derived from the client's: the same
//! target and fields, without what belongs to the client's connection, its conditions and ranges.
//! It outlives the exchange it was derived from.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use forebay_fields::{Known, KnownSet};
use forebay_http1::Method;

use super::step::Rest;
use super::{Captures, Exchange, Lease, Remote, Request, Response, guard};
use crate::worker::{HeldSite, Worker};

/// What is the client's alone: conditions on what it has, the part that it wants, and its
/// connection (RFC 9110 §13, §14, §7.6.1).
const OWN: KnownSet = KnownSet::HOP_BY_HOP.union(KnownSet::of(&[
    Known::IfMatch,
    Known::IfNoneMatch,
    Known::IfModifiedSince,
    Known::IfUnmodifiedSince,
    Known::IfRange,
    Known::Range,
    Known::Expect,
    Known::ContentLength,
]));

/// What it takes to ask on behalf of an exchange, also again and when that is over.
pub struct Errand {
    worker: Rc<Worker>,
    remote: Remote,
    site: Option<HeldSite>,
    captures: Captures,
    vars: Vec<(Arc<str>, Box<[u8]>)>,
    user: Option<Box<[u8]>>,
    request: Request,
    /// What the request carries.
    content: Option<Bytes>,
    rest: Rest,
}

impl Errand {
    /// On behalf of this exchange, through the rest of its pipeline.
    pub fn of(exchange: &Exchange, rest: Rest) -> Errand {
        let mut request = exchange.request.without_body();
        derive(&mut request);
        if request.method == Method::Head {
            request.method = Method::Get;
        }
        Errand {
            worker: exchange.worker.clone(),
            remote: exchange.remote,
            site: exchange.site.clone(),
            captures: exchange.captures.clone(),
            vars: exchange.vars.clone(),
            user: exchange.user.clone(),
            request,
            content: None,
            rest,
        }
    }

    /// The worker it runs on.
    pub fn worker(&self) -> &Rc<Worker> {
        &self.worker
    }

    /// Counts bytes that the origin has sent.
    pub fn count_bytes(&self, bytes: usize) {
        if let Some(site) = &self.site {
            site.counts.note_fetched(&self.worker, bytes as u64);
        }
    }

    /// Its fields.
    pub fn fields(&self) -> &forebay_fields::Fields {
        &self.request.fields
    }

    /// Has the request carry this, each time.
    pub fn set_content(&mut self, content: Bytes) {
        self.content = Some(content);
    }

    /// The request as it is sent each time, to be changed for good.
    pub fn request_mut(&mut self) -> &mut Request {
        &mut self.request
    }

    /// An exchange that asks once; `edit` changes its request.
    pub fn begin(&self, edit: impl FnOnce(&mut Request)) -> Lease {
        let mut exchange = Exchange::errand(&self.worker, self.remote);
        exchange.site.clone_from(&self.site);
        exchange.captures.clone_from(&self.captures);
        exchange.vars.clone_from(&self.vars);
        exchange.user.clone_from(&self.user);
        exchange.request = self.request.without_body();
        if let Some(content) = &self.content {
            exchange.request.set_body(content.clone().into());
        }
        edit(&mut exchange.request);
        exchange.course.start(self.rest.clone());
        exchange
    }
}

/// Takes out of a request what is its client's alone.
pub fn derive(request: &mut Request) {
    request.fields.remove_hop_by_hop();
    request.fields.remove_all(OWN);
    request.offers_upgrade = false;
}

/// Runs such an exchange until there is a response. What it holds — a place at a peer, a permit — it
/// holds until it is dropped: keep it as long as the body comes.
pub async fn run(exchange: &mut Exchange) -> Response {
    match guard::run(exchange) {
        Some(response) => response,
        None => guard::finish(exchange).await,
    }
}
