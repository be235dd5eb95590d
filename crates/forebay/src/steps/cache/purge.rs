//! `PURGE`, and what a request that changes something makes invalid.

use forebay_cache_policy::{Target, invalidated};
use forebay_store::rules::Rule;

use super::key::Key;
use super::{Cache, from_disk};
use crate::exchange::{Exchange, Fault, Flow, Reason, Response};

/// What is to be purged, on disks as well.
pub struct Purging {
    rules: Vec<Rule>,
    soft: bool,
}

impl Cache {
    /// `PURGE`.
    pub(super) fn purge(&self, exchange: &mut Exchange) -> Flow {
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
        if self.shared.kept.disks.spec().is_some() {
            // It is acknowledged when it is on them.
            exchange.keep(self.shared.id, Purging { rules, soft });
            return Flow::Wait;
        }
        for rule in &rules {
            self.shared.store.purge(rule, soft);
        }
        self.sweep(exchange);
        Flow::Answer(self.purged(exchange))
    }

    /// Purges where that can wait for disks.
    pub(super) async fn purge_on_disk(&self, exchange: &mut Exchange, purging: Purging) -> Flow {
        let kept = self.shared.kept.clone();
        let Purging { rules, soft } = purging;
        let pool = exchange.worker.files.pool.clone();
        let purge = move || kept.purge(&rules, soft);
        // Without a limit of time: nobody could say then whether it is durable.
        let written = pool.run_or_refuse(from_disk::lane(&self.shared), purge);
        match written.await {
            Ok(Ok(())) => {
                self.sweep(exchange);
                Flow::Answer(self.purged(exchange))
            }
            Ok(Err(error)) => {
                self.sweep(exchange);
                Flow::Fail(Fault::with(Reason::PurgeNotWritten, error))
            }
            Err(fault) => Flow::Fail(fault),
        }
    }

    /// Puts a purge in force that nobody waits for: it is written down behind this.
    fn purge_soon(&self, exchange: &Exchange, rule: Rule) {
        let kept = self.shared.kept.clone();
        let number = kept.store.purge(&rule, false);
        if kept.disks.spec().is_none() {
            return;
        }
        let pool = exchange.worker.files.pool.clone();
        let write = pool.run(from_disk::lane(&self.shared), move || {
            if let Err(error) = kept.store.write_purge(number, &rule, false) {
                tracing::error!("cache store {}: {error}", kept.shown());
            }
        });
        tokio::task::spawn_local(write);
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
                    self.purge_soon(exchange, Rule::Url(url.into()));
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
