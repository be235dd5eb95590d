//! `PURGE`, and what a request that changes something makes invalid.

use forebay_cache_policy::{Target, invalidated};
use forebay_store::rules::Rule;

use super::Cache;
use super::key::Key;
use crate::exchange::{Exchange, Response};

impl Cache {
    /// `PURGE`.
    pub(super) fn purge(&self, exchange: &mut Exchange) -> Response {
        let fields = &exchange.request.fields;
        let soft = fields.has_token("Purge", "soft");
        let key = Key::of(&self.shared, exchange);
        let url = forebay_store::key::url_of(&key.bytes);
        let tags = self.shared.tags(fields);
        let mut rules: Vec<Rule> = tags.map(|tag| Rule::Tag(tag.into())).collect();
        if rules.is_empty() {
            rules.push(match fields.has_token("Purge", "prefix") {
                true => Rule::Prefix(url.into()),
                false => Rule::Url(url.into()),
            });
        }
        for rule in &rules {
            self.shared.store.purge(rule, soft);
        }
        self.sweep(exchange);
        self.purged(exchange)
    }

    /// Has the memory of what is dead given back, and rules that are over let go.
    fn sweep(&self, exchange: &Exchange) {
        let store = self.shared.store.clone();
        if store.wants_sweep() {
            let process = exchange.worker.process.clone();
            tokio::task::spawn_local(async move {
                let sweeping = store.clone();
                let sweep = move || process.give_back(sweeping.sweep().bytes);
                // Memory comes back a little later; where too much waits, with the next purge.
                if crate::compute::run(sweep).await.is_err() {
                    store.sweep_fell_out();
                }
            });
        }
    }

    /// What who has purged is told.
    pub(super) fn purged(&self, exchange: &mut Exchange) -> Response {
        Response::text(exchange, 200, "text/plain; charset=utf-8", "purged\n")
    }

    /// What a request that changes something makes invalid (RFC 9111 §4.4).
    pub(super) fn invalidate(&self, exchange: &Exchange, response: &Response) {
        let shared = &*self.shared;
        let request = &exchange.request;
        let facts = self.facts(exchange);
        let mut uri = Vec::new();
        request.write_uri(&mut uri);
        let target = Target {
            scheme: exchange.scheme(),
            host: request.host(),
            port: exchange.port(),
            path_and_query: &uri,
        };
        let mut took_rule = false;
        for uri in invalidated(&facts, response.status, &target, &response.fields) {
            let Some(key) = Key::of_other(shared, exchange, &uri) else {
                continue;
            };
            match shared.key.has_extra() {
                // Under one URL there are keys that this request does not have.
                true => {
                    let url = forebay_store::key::url_of(&key.bytes);
                    shared.store.purge(&Rule::Url(url.into()), false);
                    took_rule = true;
                }
                false => took_rule |= shared.store.invalidate(key.hash, &key.bytes),
            }
        }
        if took_rule {
            self.sweep(exchange);
        }
    }
}
