//! Requests that are keyed by what they carry: POST where `methods` has it.
//!
//! ```text
//!   POST ──▶ its content taken in ──▶ at most 64 KB: as GET, with the content in the key
//!                                └─▶ more: goes round
//! ```
//!
//! What comes of them is fetched whole or not at all: ranges and conditions are of GET
//! (RFC 9110 §14.2, §13.1.2).

use std::sync::LazyLock;

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use forebay_cache_policy::WhyAround;
use forebay_fields::{Known, KnownSet};
use forebay_http1::Method;

use super::{Around, Cache};
use crate::exchange::{Body, Exchange, Fault, Flow};
use crate::snapshot::resource_id;
use crate::steps::proxy::gather;

/// More than this is not looked at.
const MAX_CONTENT: usize = 64 << 10;

/// Conditions are about a representation that a GET would bring.
const CONDITIONS: KnownSet = KnownSet::of(&[
    Known::IfMatch,
    Known::IfNoneMatch,
    Known::IfModifiedSince,
    Known::IfUnmodifiedSince,
]);

static CONTENT: LazyLock<u64> = LazyLock::new(resource_id);

/// What a request carries that is keyed by it.
pub struct Content {
    /// All of it.
    pub bytes: Bytes,
    /// In the key in its place, with its type: keys are kept in memory and compared whole.
    pub digest: [u8; 32],
}

/// Its content is still to be read.
pub(super) struct Unread;

impl Content {
    /// That of this exchange.
    pub fn of(exchange: &Exchange) -> Option<&Content> {
        // Nothing is looked for in the requests that there are most of.
        (exchange.request.method == Method::Post)
            .then(|| exchange.kept(*CONTENT))
            .flatten()
    }
}

impl Cache {
    /// Whether this request is keyed by its content, which nobody has read yet.
    pub(super) fn has_unread_content(&self, exchange: &Exchange) -> bool {
        self.shared.posts
            && exchange.request.method == Method::Post
            && !exchange.request.fields.present().intersects(CONDITIONS)
            && Content::of(exchange).is_none()
            && self.facts(exchange).around().is_none()
            && !self.bypass.as_ref().is_some_and(|one| one.holds(exchange))
    }

    /// Takes the content in. Comes back with what else becomes of the request where that is more
    /// than is looked at.
    pub(super) async fn take_content(
        &self,
        exchange: &mut Exchange,
    ) -> Result<Option<Flow>, Fault> {
        let body = gather::take_in(exchange.take_body()?, MAX_CONTENT).await?;
        let bytes = match body {
            Body::Empty => Bytes::new(),
            Body::Bytes(bytes) if bytes.len() <= MAX_CONTENT => bytes,
            body => {
                exchange.request.set_body(body);
                return Ok(Some(self.go_on(exchange, Around::Policy(WhyAround::Body))));
            }
        };
        let fields = &mut exchange.request.fields;
        fields.remove(Known::Range);
        fields.remove(Known::IfRange);
        let mut digest = Context::new(&SHA256);
        digest.update(fields.get(Known::ContentType).unwrap_or_default());
        // No type of a content has one in it.
        digest.update(b"\n");
        digest.update(&bytes);
        let digest = digest.finish();
        let digest = digest.as_ref().first_chunk().copied().unwrap_or_default();
        exchange.request.set_body(bytes.clone().into());
        exchange.keep(*CONTENT, Content { bytes, digest });
        Ok(None)
    }
}
