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

use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Release};

use parking_lot::RwLock;
use rustc_hash::FxHashMap;

use crate::disk::Written;
use crate::key::host_of;

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

/// The youngest rules about one thing; 0: none.
#[derive(Clone, Copy, Default)]
struct Marks {
    hard: u64,
    soft: u64,
}

#[derive(Default)]
struct Tables {
    newest: u64,
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
#[derive(Default)]
pub struct Rules {
    /// The number of the newest rule, outside of the lock: this is all that most hits look at.
    newest: AtomicU64,
    tables: RwLock<Tables>,
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

    fn is_over(self, oldest: u64) -> bool {
        self.hard <= oldest && self.soft <= oldest
    }
}

impl Rules {
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
    }
}

impl Tables {
    fn note(&mut self, number: u64, rule: &Rule, soft: bool) {
        self.newest = self.newest.max(number);
        let (table, what) = match rule {
            Rule::All => return self.all.note(number, soft),
            Rule::Url(url) => (&mut self.urls, url),
            Rule::Host(host) => (&mut self.hosts, host),
            Rule::Tag(tag) => (&mut self.tags, tag),
            Rule::Prefix(prefix) => {
                self.prefix_lens.insert(prefix.len());
                (&mut self.prefixes, prefix)
            }
        };
        table.entry(what.clone()).or_default().note(number, soft);
    }
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
