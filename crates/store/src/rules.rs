//! Purging: rules, not deeds.
//!
//! A purge is a rule with a number. An object carries the number that was the newest when its
//! fill's request was sent; a rule with a higher number that matches it makes it dead (hard) or
//! stale (soft). So a purge costs the same however many objects it meets, nothing that was asked
//! for before it can come back after it, and whoever brings in an object needs to know nothing of
//! purges under way.
//!
//! A hit compares two numbers: that of the newest rule and that under which the object was last
//! judged. Only where they differ is it judged anew: by a few look-ups in tables, however many rules
//! there are.
//!
//! Rules are let go when nothing is older than they are; sweeps see to that. Should they come faster
//! than sweeps, their memory has a limit all the same: then rules about one host become one about all
//! of it, and if that is not enough, all rules one about everything (`widen.rs`). So more is purged
//! than was meant, never less.

mod widen;

use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Release};

use parking_lot::RwLock;
use rustc_hash::FxHashMap;

use crate::disk::Written;
use crate::key::host_of;
use crate::room::room;

/// What a purge is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// All variants of one URL.
    Url(Box<[u8]>),
    /// Every URL that begins so.
    Prefix(Box<[u8]>),
    /// Every URL of a host, as it stands in the URL.
    Host(Box<[u8]>),
    /// Every object with this tag.
    Tag(Box<[u8]>),
    /// Everything.
    All,
}

/// What becomes of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// No rule is about it.
    Alive,
    /// It must be validated before it is used again.
    Stale,
    /// It is gone.
    Dead,
}

/// Memory for rules: some 250,000 about URLs of common length.
const MAX_BYTES: usize = 32 << 20;

/// So many lengths of prefixes are looked up at most: where there are more, prefixes are cut to
/// shorter ones.
const MAX_PREFIX_LENS: usize = 64;

/// The youngest rules about one thing; 0: none.
#[derive(Clone, Copy, Default)]
struct Marks {
    hard: u64,
    soft: u64,
}

struct Tables {
    newest: u64,
    /// What the tables take, and may take.
    bytes: usize,
    max_bytes: usize,
    /// How often rules had to become wider ones.
    widened: u64,
    /// The number of a rule that is not in force yet.
    reserved: Option<u64>,
    all: Marks,
    urls: FxHashMap<Box<[u8]>, Marks>,
    prefixes: FxHashMap<Box<[u8]>, Marks>,
    /// How long the prefixes are that there are: those lengths of a URL are looked up.
    prefix_lens: BTreeSet<usize>,
    hosts: FxHashMap<Box<[u8]>, Marks>,
    tags: FxHashMap<Box<[u8]>, Marks>,
}

/// All rules in force.
pub struct Rules {
    /// The number of the newest rule, outside of the lock: this is all that most hits look at.
    newest: AtomicU64,
    tables: RwLock<Tables>,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules::bounded(MAX_BYTES)
    }
}

impl Marks {
    fn note(&mut self, number: u64, soft: bool) {
        match soft {
            true => self.soft = self.soft.max(number),
            false => self.hard = self.hard.max(number),
        }
    }

    fn verdict(self, number: u64) -> Verdict {
        if self.hard > number {
            Verdict::Dead
        } else if self.soft > number {
            Verdict::Stale
        } else {
            Verdict::Alive
        }
    }

    fn merge(&mut self, other: Marks) {
        self.hard = self.hard.max(other.hard);
        self.soft = self.soft.max(other.soft);
    }

    fn is_over(self, oldest: u64) -> bool {
        self.hard <= oldest && self.soft <= oldest
    }
}

impl Rules {
    fn bounded(max_bytes: usize) -> Rules {
        let tables = Tables {
            newest: 0,
            bytes: 0,
            max_bytes,
            widened: 0,
            reserved: None,
            all: Marks::default(),
            urls: FxHashMap::default(),
            prefixes: FxHashMap::default(),
            prefix_lens: BTreeSet::new(),
            hosts: FxHashMap::default(),
            tags: FxHashMap::default(),
        };
        Rules {
            newest: AtomicU64::new(0),
            tables: RwLock::new(tables),
        }
    }

    /// How often there were too many rules, and they became wider ones.
    pub fn widened(&self) -> u64 {
        self.tables.read().widened
    }

    /// The number of the newest rule.
    pub fn newest(&self) -> u64 {
        self.newest.load(Acquire)
    }

    /// Puts a rule in force; says its number.
    pub fn add(&self, rule: &Rule, soft: bool) -> u64 {
        let mut tables = self.tables.write();
        let number = tables.newest + 1;
        tables.note(number, rule, soft);
        // Behind the tables: who sees the number sees the rule.
        self.newest.store(number, Release);
        number
    }

    /// What the rules that are younger than `number` say of an object.
    pub fn judge<'t>(
        &self,
        number: u64,
        url: &[u8],
        tags: impl IntoIterator<Item = &'t [u8]>,
    ) -> Verdict {
        let tables = self.tables.read();
        let of = |marks: Option<&Marks>| marks.map_or(Verdict::Alive, |m| m.verdict(number));
        let mut verdict = tables.all.verdict(number);
        verdict = verdict.max(of(tables.urls.get(url)));
        verdict = verdict.max(of(tables.hosts.get(host_of(url))));
        for len in tables.prefix_lens.range(..=url.len()) {
            verdict = verdict.max(of(tables.prefixes.get(&url[..*len])));
        }
        if !tables.tags.is_empty() {
            for tag in tags {
                verdict = verdict.max(of(tables.tags.get(tag)));
            }
        }
        verdict
    }

    /// The number of a rule that is about to be put in force.
    pub(crate) fn reserve(&self) -> u64 {
        let mut tables = self.tables.write();
        tables.newest += 1;
        tables.reserved = Some(tables.newest);
        self.newest.store(tables.newest, Release);
        tables.newest
    }

    /// All rules up to this number are in force.
    pub(crate) fn in_force(&self) -> u64 {
        let tables = self.tables.read();
        tables.reserved.map_or(tables.newest, |number| number - 1)
    }

    /// Puts it in force. All is judged anew, also what was judged since its number was given.
    pub(crate) fn add_reserved(&self, number: u64, rule: &Rule, soft: bool) {
        let mut tables = self.tables.write();
        tables.note(number, rule, soft);
        tables.reserved = None;
        tables.newest += 1;
        self.newest.store(tables.newest, Release);
    }

    /// Puts rules in force that were kept, with the numbers that they had; `newest` is the newest
    /// number that was ever given.
    pub fn restore<'r>(&self, newest: u64, rules: impl IntoIterator<Item = (u64, &'r Rule, bool)>) {
        let mut tables = self.tables.write();
        let before = tables.newest;
        for (number, rule, soft) in rules {
            tables.note(number, rule, soft);
        }
        let newest = newest.max(before).max(tables.newest);
        tables.newest = newest;
        self.newest.store(newest, Release);
    }

    /// All of them, as they are to be kept.
    pub fn all(&self) -> Vec<Written> {
        let tables = self.tables.read();
        let mut all = Vec::new();
        let mut see = |rule: Rule, marks: &Marks| {
            for (number, soft) in [(marks.hard, false), (marks.soft, true)] {
                if number > 0 {
                    let rule = rule.clone();
                    all.push(Written { number, rule, soft });
                }
            }
        };
        see(Rule::All, &tables.all);
        let Tables {
            urls,
            prefixes,
            hosts,
            tags,
            ..
        } = &*tables;
        let text = |text: &[u8]| text.into();
        urls.iter()
            .for_each(|(url, marks)| see(Rule::Url(text(url)), marks));
        prefixes
            .iter()
            .for_each(|(prefix, marks)| see(Rule::Prefix(text(prefix)), marks));
        hosts
            .iter()
            .for_each(|(host, marks)| see(Rule::Host(text(host)), marks));
        tags.iter()
            .for_each(|(tag, marks)| see(Rule::Tag(text(tag)), marks));
        all.sort_unstable_by_key(|rule| rule.number);
        all
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        let tables = self.tables.read();
        tables.urls.len() + tables.prefixes.len() + tables.hosts.len() + tables.tags.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Lets go of rules that nothing is old enough for any more: all that is there, and all that
    /// is under way, has `oldest` or a higher number.
    pub fn forget(&self, oldest: u64) {
        let mut tables = self.tables.write();
        let Tables {
            urls,
            prefixes,
            prefix_lens,
            hosts,
            tags,
            ..
        } = &mut *tables;
        for table in [&mut *urls, &mut *prefixes, hosts, tags] {
            table.retain(|_, marks| !marks.is_over(oldest));
            table.shrink_to_fit();
        }
        prefix_lens.clear();
        prefix_lens.extend(prefixes.keys().map(|prefix| prefix.len()));
        tables.count();
    }
}

impl Tables {
    fn note(&mut self, number: u64, rule: &Rule, soft: bool) {
        self.newest = self.newest.max(number);
        let (table, what) = match rule {
            Rule::All => return self.all.note(number, soft),
            Rule::Url(url) => (&mut self.urls, &**url),
            Rule::Host(host) => (&mut self.hosts, &**host),
            Rule::Tag(tag) => (&mut self.tags, &**tag),
            Rule::Prefix(prefix) => {
                let len = self.fitting_len(prefix.len());
                (&mut self.prefixes, &prefix[..len])
            }
        };
        if let Some(marks) = table.get_mut(what) {
            return marks.note(number, soft);
        }
        let mut marks = Marks::default();
        marks.note(number, soft);
        table.insert(what.into(), marks);
        self.bytes += cost(what);
        if self.bytes > self.max_bytes {
            self.widen();
        }
    }

    /// Counts what the tables take anew.
    fn count(&mut self) {
        let tables = [&self.urls, &self.prefixes, &self.hosts, &self.tags];
        let keys = tables.into_iter().flat_map(FxHashMap::keys);
        self.bytes = keys.map(|key| cost(key)).sum();
    }
}

/// What a rule takes: its text, and its place in a table, of which half may be free.
fn cost(text: &[u8]) -> usize {
    room(text.len()) + 2 * (size_of::<Box<[u8]>>() + size_of::<Marks>())
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &[u8] = b"https://a.example/x/y?q=1";

    fn judged(rules: &Rules, number: u64) -> Verdict {
        rules.judge(number, URL, [&b"red"[..], b"blue"])
    }

    #[test]
    fn a_rule_is_about_what_is_older() {
        let rules_about_it = [
            Rule::Url(URL.into()),
            Rule::Prefix((*b"https://a.example/x/").into()),
            Rule::Prefix(URL.into()),
            Rule::Host((*b"a.example").into()),
            Rule::Tag((*b"blue").into()),
            Rule::All,
        ];
        for rule in rules_about_it {
            let rules = Rules::default();
            let before = rules.newest();
            assert_eq!(judged(&rules, before), Verdict::Alive);
            let number = rules.add(&rule, true);
            assert_eq!(judged(&rules, before), Verdict::Stale, "{rule:?}");
            rules.add(&rule, false);
            assert_eq!(judged(&rules, before), Verdict::Dead, "{rule:?}");
            assert_eq!(judged(&rules, number), Verdict::Dead, "{rule:?}");
            assert_eq!(judged(&rules, rules.newest()), Verdict::Alive, "{rule:?}");
        }
    }

    #[test]
    fn a_rule_is_about_nothing_else() {
        let others = [
            Rule::Url((*b"https://a.example/x/y").into()),
            Rule::Prefix((*b"https://a.example/x/z").into()),
            Rule::Host((*b"b.example").into()),
            Rule::Host((*b"example").into()),
            Rule::Tag((*b"bl").into()),
        ];
        let rules = Rules::default();
        for rule in &others {
            rules.add(rule, false);
        }
        assert_eq!(judged(&rules, 0), Verdict::Alive);
        assert_eq!(rules.len(), others.len());
    }

    /// URLs of ten lengths; every one of `hosts` has the same share of them.
    fn url(number: u64, hosts: u64) -> Box<[u8]> {
        let host = number % hosts;
        format!(
            "https://h{host}.example/{number:0$}",
            10 + usize::try_from(number % 10).unwrap()
        )
        .into_bytes()
        .into()
    }

    #[test]
    fn a_flood_of_rules_has_a_bound() {
        for hosts in [1, 7, 1_000_000] {
            let rules = Rules::bounded(100_000);
            let mut most = 0;
            for number in 0..20_000 {
                let asked_at = rules.newest();
                let url = url(number, hosts);
                assert_eq!(rules.judge(asked_at, &url, []), Verdict::Alive);
                let rule = match number % 3 {
                    0 => Rule::Prefix(url.clone()),
                    _ => Rule::Url(url.clone()),
                };
                rules.add(&rule, number % 2 == 0);
                // Whatever became of the rule, it holds for what is older.
                let verdict = rules.judge(asked_at, &url, []);
                let wanted = if number % 2 == 0 {
                    Verdict::Stale
                } else {
                    Verdict::Dead
                };
                assert!(verdict >= wanted, "{number} of {hosts}: {verdict:?}");
                assert_eq!(rules.judge(rules.newest(), &url, []), Verdict::Alive);
                let tables = rules.tables.read();
                most = most.max(tables.bytes);
            }
            assert!(most <= 100_000 && most > 50_000, "{hosts}: {most}");
            assert!(rules.widened() > 0);
            // What was purged first is dead still: older than everything.
            assert!((0..20_000).all(|n| rules.judge(0, &url(n, hosts), []) > Verdict::Alive));
            let other = rules.judge(0, b"https://other.example/", []);
            // Where they were about few hosts, no other has been met.
            assert_eq!(other == Verdict::Alive, hosts < 10, "{hosts}: {other:?}");
        }
    }

    #[test]
    fn what_cannot_be_said_by_hosts_is_said_of_all() {
        let rules = Rules::bounded(10_000);
        for number in 0..1000 {
            rules.add(
                &Rule::Tag(format!("tag-{number}").into_bytes().into()),
                true,
            );
        }
        assert!(rules.len() < 150, "{}", rules.len());
        assert!(rules.widened() > 0);
        assert_eq!(rules.judge(0, URL, [&b"tag-1"[..]]), Verdict::Stale);
        assert_eq!(
            rules.judge(rules.newest(), URL, [&b"tag-1"[..]]),
            Verdict::Alive
        );
        // They go as others do.
        rules.forget(rules.newest());
        assert!(rules.is_empty() && rules.tables.read().bytes == 0);
    }

    #[test]
    fn prefixes_have_few_lengths() {
        let rules = Rules::default();
        let text = |len: usize| {
            let mut text = b"https://a.example/".to_vec();
            text.resize(len, b'x');
            text
        };
        for len in (20..2000).rev().chain(20..2000) {
            let before = rules.newest();
            rules.add(&Rule::Prefix(text(len).into()), false);
            assert_eq!(
                rules.judge(before, &text(len + 5), []),
                Verdict::Dead,
                "{len}"
            );
        }
        for len in 25..2000 {
            assert_eq!(rules.judge(0, &text(len), []), Verdict::Dead, "{len}");
        }
        let tables = rules.tables.read();
        assert!(tables.prefix_lens.len() <= MAX_PREFIX_LENS && tables.widened > 0);
    }

    #[test]
    fn rules_that_are_over_are_forgotten() {
        let rules = Rules::default();
        let first = rules.add(&Rule::Tag((*b"red").into()), false);
        rules.add(&Rule::Prefix((*b"https://a.").into()), true);
        rules.forget(first);
        assert_eq!(rules.len(), 1);
        assert_eq!(judged(&rules, first), Verdict::Stale);
        rules.forget(rules.newest());
        assert!(rules.is_empty() && rules.tables.read().prefix_lens.is_empty());
    }
}
