//! Too many rules become fewer and wider ones.

use rustc_hash::{FxHashMap, FxHashSet};

use super::{MAX_PREFIX_LENS, Tables, cost};

impl Tables {
    /// Halves what the tables take: rules about URLs of a host become one about the host, of those
    /// with the most rules first. If that is not enough, as with many tags, all rules become one
    /// about everything.
    pub(super) fn widen(&mut self) {
        self.widened += 1;
        let most = self.max_bytes / 2;
        let hosts = self.largest_hosts(self.bytes.saturating_sub(most));
        for table in [&mut self.urls, &mut self.prefixes] {
            table.retain(|url, marks| {
                let Some(host) = whole_host(url).filter(|host| hosts.contains(*host)) else {
                    return true;
                };
                self.hosts.entry(host.into()).or_default().merge(*marks);
                false
            });
        }
        self.count();
        if self.bytes > most {
            let tables = [
                &mut self.urls,
                &mut self.prefixes,
                &mut self.hosts,
                &mut self.tags,
            ];
            for (_, marks) in tables.into_iter().flat_map(FxHashMap::drain) {
                self.all.merge(marks);
            }
            self.count();
        }
        self.urls.shrink_to_fit();
        self.prefixes.shrink_to_fit();
        self.tags.shrink_to_fit();
        self.prefix_lens.clear();
        self.prefix_lens
            .extend(self.prefixes.keys().map(|prefix| prefix.len()));
    }

    /// How much is kept of a prefix of this length.
    pub(super) fn fitting_len(&mut self, len: usize) -> usize {
        if self.prefix_lens.contains(&len) {
            return len;
        }
        if self.prefix_lens.len() < MAX_PREFIX_LENS {
            self.prefix_lens.insert(len);
            return len;
        }
        self.widened += 1;
        if let Some(shorter) = self.prefix_lens.range(..len).next_back() {
            return *shorter;
        }
        // It is the shortest: half of the others are cut.
        let kept = std::iter::once(&len).chain(&self.prefix_lens);
        self.prefix_lens = kept.take(MAX_PREFIX_LENS / 2).copied().collect();
        for (prefix, marks) in std::mem::take(&mut self.prefixes) {
            let kept = self.prefix_lens.range(..=prefix.len()).next_back();
            let cut = &prefix[..kept.map_or(prefix.len(), |kept| *kept)];
            self.prefixes.entry(cut.into()).or_default().merge(marks);
        }
        self.count();
        len
    }

    /// The hosts whose rules take that much together, if there are such: those with the most first.
    fn largest_hosts(&self, wanted: usize) -> FxHashSet<Box<[u8]>> {
        let mut by_host: FxHashMap<&[u8], usize> = FxHashMap::default();
        for url in self.urls.keys().chain(self.prefixes.keys()) {
            if let Some(host) = whole_host(url) {
                *by_host.entry(host).or_default() += cost(url);
            }
        }
        let mut by_host: Vec<(usize, &[u8])> = by_host
            .into_iter()
            .map(|(host, bytes)| (bytes, host))
            .collect();
        by_host.sort_unstable_by(|one, other| other.cmp(one));
        let mut freed = 0;
        let mut hosts = FxHashSet::default();
        for (bytes, host) in by_host {
            let gain = bytes.saturating_sub(cost(host));
            if freed >= wanted || gain == 0 {
                break;
            }
            freed += gain;
            hosts.insert(host.into());
        }
        hosts
    }
}

/// The host of a URL or of the beginning of one, if that goes further than the host.
fn whole_host(url: &[u8]) -> Option<&[u8]> {
    let start = url.windows(3).position(|three| three == b"://")? + 3;
    let rest = url.get(start..)?;
    let end = rest.iter().position(|byte| *byte == b'/')?;
    rest.get(..end)
}
