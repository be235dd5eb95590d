//! The key of a request: what the operator makes of its URL.

use std::borrow::Cow;
use std::sync::Arc;

use forebay_cache_policy::QueryRules;
use forebay_config::{Call, Match, Node, Template, Variable};
use forebay_store::Hash;

use super::Shared;
use super::content::Content;
use super::declare::methods;
use crate::exchange::{Exchange, Request, expand};

/// What counts of a URL, and what is added to it.
pub struct KeyRules {
    extra: Option<Template>,
    query: Arc<QuerySpec>,
    /// Requests are keyed by their content, too.
    posts: bool,
}

/// What counts of a query.
#[derive(Default)]
pub struct QuerySpec {
    keep: Option<Box<[Match]>>,
    ignore: Option<Box<[Match]>>,
    sort: bool,
}

/// The key of one request.
pub struct Key {
    /// Its hash in the store.
    pub hash: Hash,
    /// All of it.
    pub bytes: Box<[u8]>,
}

impl Key {
    /// That of an exchange.
    pub fn of(shared: &Shared, exchange: &Exchange) -> Key {
        let mut bytes = Vec::with_capacity(128);
        shared.key.write(exchange, &mut bytes);
        Key {
            hash: shared.store.hash(&bytes),
            bytes: bytes.into(),
        }
    }

    /// That of another URL of the same site, for the same exchange.
    pub fn of_other(shared: &Shared, exchange: &Exchange, path_and_query: &[u8]) -> Option<Key> {
        let at = memchr::memchr(b'?', path_and_query);
        let path = &path_and_query[..at.unwrap_or(path_and_query.len())];
        let query = at.map(|at| &path_and_query[at + 1..]);
        let path = forebay_route::normalize(path).ok()?;
        let mut bytes = Vec::with_capacity(128);
        shared
            .key
            .write_parts(exchange, &path, query, None, &mut bytes);
        Some(Key {
            hash: shared.store.hash(&bytes),
            bytes: bytes.into(),
        })
    }
}

impl KeyRules {
    /// As a call says.
    pub fn of(call: &Call) -> KeyRules {
        let matches = |option: &str| {
            let nodes = call.find::<&[Node]>(option)?;
            Some(
                nodes
                    .iter()
                    .map(|node| node.get::<&Match>().clone())
                    .collect(),
            )
        };
        KeyRules {
            extra: call.find::<&Template>("key").cloned(),
            posts: methods(call).any(|method| method == "POST"),
            query: Arc::new(QuerySpec {
                keep: matches("keep_query"),
                ignore: matches("ignore_query"),
                sort: call.get("sort_query"),
            }),
        }
    }

    /// What counts of a query.
    pub fn query(&self) -> &Arc<QuerySpec> {
        &self.query
    }

    /// Whether one URL may have several keys.
    pub fn has_extra(&self) -> bool {
        self.extra.is_some() || self.posts
    }

    /// Whether the operator has put this field of the request into the key.
    pub fn names_field(&self, name: &str) -> bool {
        let mut variables = self.extra.iter().flat_map(Template::variables);
        variables.any(|variable| match variable {
            Variable::Header(field) => field.eq_ignore_ascii_case(name),
            _ => false,
        })
    }

    /// Writes the key of an exchange in place of what `out` holds.
    pub fn write(&self, exchange: &Exchange, out: &mut Vec<u8>) {
        let request = &exchange.request;
        let query = request.query().map(str::as_bytes);
        let content = Content::of(exchange).map(|content| content.digest.as_slice());
        self.write_parts(exchange, request.path().as_bytes(), query, content, out);
    }

    fn write_parts(
        &self,
        exchange: &Exchange,
        path: &[u8],
        query: Option<&[u8]>,
        content: Option<&[u8]>,
        out: &mut Vec<u8>,
    ) {
        out.clear();
        let query = query.and_then(|query| self.query.counts(query));
        let mut extra = Vec::new();
        if let Some(template) = &self.extra {
            expand(template, exchange, None, &mut extra);
        }
        forebay_cache_policy::Key {
            scheme: exchange.scheme(),
            host: exchange.request.host(),
            port: exchange.port(),
            path,
            query: query.as_deref(),
            extra: &extra,
            content: content.map(|content| ("POST", content)),
        }
        .write(out);
    }

    /// Lets the origin see no more of the query than what counts.
    pub fn derive(&self, request: &mut Request) {
        let Some(query) = request.query() else {
            return;
        };
        let counts = self.query.counts(query.as_bytes());
        if counts.as_deref() != Some(query.as_bytes()) {
            let counts = counts.and_then(|query| String::from_utf8(query.into_owned()).ok());
            request.set_query(counts);
        }
    }
}

impl QuerySpec {
    /// Whether all of a query counts, as it stands.
    fn is_plain(&self) -> bool {
        self.keep.is_none() && self.ignore.is_none() && !self.sort
    }

    /// By what it can be told from others; none: it leaves queries as they are.
    pub fn form(&self) -> Option<String> {
        let texts = |list: &Option<Box<[Match]>>| -> Option<Vec<String>> {
            Some(
                list.as_deref()?
                    .iter()
                    .map(|one| format!("{one:?}"))
                    .collect(),
            )
        };
        let form = || {
            format!(
                "{:?} {:?} {}",
                texts(&self.keep),
                texts(&self.ignore),
                self.sort
            )
        };
        (!self.is_plain()).then(form)
    }

    /// What counts of this one; nothing is copied where nothing has to be.
    pub fn counts<'q>(&self, query: &'q [u8]) -> Option<Cow<'q, [u8]>> {
        if self.is_plain() {
            return Some(Cow::Borrowed(query));
        }
        let listed = |list: &[Match], name: &[u8]| list.iter().any(|one| one.matches(name));
        let keep = |name: &[u8]| self.keep.as_deref().is_some_and(|list| listed(list, name));
        let ignore = |name: &[u8]| {
            self.ignore
                .as_deref()
                .is_some_and(|list| listed(list, name))
        };
        QueryRules {
            keep: self.keep.is_some().then_some(&keep),
            ignore: self.ignore.is_some().then_some(&ignore),
            sort: self.sort,
        }
        .apply(query)
    }
}
