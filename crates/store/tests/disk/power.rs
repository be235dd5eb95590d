//! The power goes at any time, and takes with it what was not synced: nothing wrong, truncated or
//! purged is ever served, and purges that were acknowledged hold.

use forebay_store::disk::{Disk, Opened};
use forebay_store::rules::{Rule, Rules, Verdict};

use crate::layer::{Dice, Memory};
use crate::{open_in, options, put, read};

const KEYS: u64 = 16;

fn key(number: u64) -> String {
    format!("http://h{}.example/k{number}", number % 3)
}

fn rule(dice: &mut Dice) -> Rule {
    let text = |text: String| text.into_bytes().into();
    match dice.roll(8) {
        0 => Rule::All,
        1 => Rule::Host(text(format!("h{}.example", dice.roll(3)))),
        2 => Rule::Prefix(text(format!("http://h{}.", dice.roll(3)))),
        3 => Rule::Tag(text(format!("t{}", dice.roll(4)))),
        _ => Rule::Url(text(key(dice.roll(KEYS)))),
    }
}

/// What a store knows of rules when it has opened its disks.
fn restored(opened: &Opened) -> Rules {
    let rules = Rules::default();
    let written = opened.rules.iter();
    rules.restore(
        opened.newest,
        written.map(|one| (one.number, &one.rule, one.soft)),
    );
    rules
}

fn judge(rules: &Rules, asked_at: u64, number: u64) -> Verdict {
    let tag = format!("t{}", number % 4);
    rules.judge(asked_at, key(number).as_bytes(), [tag.as_bytes()])
}

/// What acknowledged purges say, whatever the disk says.
struct Known {
    acknowledged: Vec<(u64, Rule, bool)>,
}

impl Known {
    fn judge(&self, asked_at: u64, number: u64) -> Verdict {
        let rules = Rules::default();
        let newest = self
            .acknowledged
            .iter()
            .map(|(number, ..)| *number)
            .max()
            .unwrap_or(0);
        let all = self
            .acknowledged
            .iter()
            .map(|(number, rule, soft)| (*number, rule, *soft));
        rules.restore(newest, all);
        judge(&rules, asked_at, number)
    }
}

fn check(disk: &Disk, opened: &Opened, known: &Known, seed: u64) {
    let rules = restored(opened);
    let acknowledged = known.acknowledged.iter().map(|(number, ..)| *number).max();
    assert!(rules.newest() >= acknowledged.unwrap_or(0), "seed {seed}");
    for number in 0..KEYS {
        // Every byte is compared by this.
        for read in read(disk, &key(number)) {
            let now = judge(&rules, read.asked_at, number);
            let then = known.judge(read.asked_at, number);
            assert!(
                now >= then,
                "seed {seed}: {} {read:?}: {now:?}, {then:?}",
                key(number)
            );
            assert!(read.asked_at <= rules.newest(), "seed {seed}");
        }
    }
}

fn one(seed: u64) -> usize {
    let mut dice = Dice(seed);
    let dirs: &[&str] = match dice.roll(3) {
        0 => &["/a", "/b"],
        _ => &["/a"],
    };
    let mut options = options();
    options.size_bytes = (5 + dice.roll(4)) * crate::SEGMENT;
    let mut layer = Memory::default();
    let mut known = Known {
        acknowledged: Vec::new(),
    };
    let mut survived = 0;
    for _ in 0..3 {
        let (disk, opened) = open_in(&layer, dirs, &options);
        check(&disk, &opened, &known, seed);
        survived += disk.usage().objects;
        let rules = restored(&opened);
        let steps = 5 + dice.roll(40);
        for version in 0..steps {
            let number = dice.roll(KEYS);
            match dice.roll(12) {
                0 => disk.flush(true),
                1 => disk.flush(false),
                2 => disk.remove(crate::hash(&key(number))),
                3 | 4 => {
                    let rule = rule(&mut dice);
                    let soft = dice.roll(2) == 0;
                    let next = rules.newest() + 1;
                    disk.purge(next, &rule, soft).unwrap();
                    assert_eq!(rules.add(&rule, soft), next);
                    known.acknowledged.push((next, rule, soft));
                }
                5 if dice.roll(4) == 0 => {
                    let oldest = disk.oldest_asked().min(rules.newest());
                    disk.set_floor(oldest);
                    rules.forget(oldest);
                    disk.keep_rules(rules.newest(), &rules.all());
                }
                _ => {
                    let len = match dice.roll(4) {
                        0 => 60_000 + dice.roll(20_000),
                        _ => dice.roll(5000),
                    };
                    let version = seed << 20 | version;
                    let len = usize::try_from(len).unwrap();
                    put(&disk, &key(number), 0, version, len, rules.newest());
                }
            }
        }
        if dice.roll(4) == 0 {
            disk.close();
        }
        layer = layer.cut(&mut dice);
    }
    let (disk, opened) = open_in(&layer, dirs, &options);
    check(&disk, &opened, &known, seed);
    survived + disk.usage().objects
}

/// Four tests, so that they run beside each other.
fn cuts(seeds: std::ops::Range<u64>) {
    let survived: usize = seeds.map(one).sum();
    // Or it would prove nothing.
    assert!(survived > 250, "{survived}");
}

#[test]
fn nothing_wrong_comes_back_after_a_power_cut_1() {
    cuts(0..50);
}

#[test]
fn nothing_wrong_comes_back_after_a_power_cut_2() {
    cuts(50..100);
}

#[test]
fn nothing_wrong_comes_back_after_a_power_cut_3() {
    cuts(100..150);
}

#[test]
fn nothing_wrong_comes_back_after_a_power_cut_4() {
    cuts(150..200);
}
