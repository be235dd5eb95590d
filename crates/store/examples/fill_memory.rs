//! What the process takes when a budget of 1 GiB is filled, and filled again and again:
//! `cargo run --release -p forebay-store --example fill_memory`
//!
//! For objects of 1 KiB also what each takes of all of it beyond the bytes that came from the origin,
//! those of the body and the head's lines: its key, what the store keeps, the index, queues and
//! ghosts, and whatever the allocator rounds up and holds back.

use std::sync::Arc;

use bytes::Bytes;
use forebay_fields::{Fields, Packed};
use forebay_store::{Meta, Options, Store, room};
use smallvec::SmallVec;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BUDGET: u64 = 1 << 30;

/// As large as what the server keeps of a response.
struct Head {
    _facts: [u64; 7],
    fields: Packed,
    _vary: Option<Box<u8>>,
    _tags: Option<Box<u8>>,
}

impl Meta for Head {
    type Failure = ();

    fn weight_bytes(&self) -> usize {
        room(self.fields.heap_bytes())
    }

    fn replaces(&self, _: &Head) -> bool {
        true
    }

    fn encode(&self) -> Option<Bytes> {
        None
    }

    fn decode(_: &[u8]) -> Option<Head> {
        None
    }

    fn variant(&self) -> u16 {
        0
    }

    fn tags(&self) -> SmallVec<[&[u8]; 4]> {
        SmallVec::new()
    }
}

/// Ten lines, some 350 bytes.
fn fields(number: u64) -> Fields {
    let mut fields = Fields::new();
    let etag = format!("\"5f3a{number:012x}\"");
    let lines = [
        ("Server", "nginx/1.22.1"),
        ("Date", "Sat, 21 Nov 2026 07:00:00 GMT"),
        ("Content-Type", "text/html; charset=utf-8"),
        ("Last-Modified", "Fri, 20 Nov 2026 17:23:42 GMT"),
        ("ETag", &etag),
        ("Cache-Control", "public, max-age=3600"),
        ("X-Frame-Options", "SAMEORIGIN"),
        ("X-Content-Type-Options", "nosniff"),
        ("Strict-Transport-Security", "max-age=31536000"),
        ("Accept-Ranges", "bytes"),
    ];
    for (name, value) in lines {
        fields.append(name, value).expect("it is a good one");
    }
    fields
}

/// Puts objects in until as many bytes as `times` budgets have gone in; says how many objects.
fn fill(store: &Arc<Store<Head>>, len: impl Fn(u64) -> usize, times: f64, from: u64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "some GiB"
    )]
    #[expect(clippy::cast_precision_loss, reason = "it is 2^30")]
    let most = (BUDGET as f64 * times) as usize;
    let (mut put, mut number) = (0, from);
    while put < most {
        let len = len(number);
        let key = format!("http://www.example.com/images/{number:08}.png").into_bytes();
        let hash = store.hash(&key);
        let meta = Head {
            _facts: [number; 7],
            fields: Packed::of(&fields(number)),
            _vary: None,
            _tags: None,
        };
        let (_, mut filler) = store.publish(hash, &key, 0, meta, Some(len as u64), false);
        let received = Bytes::from(vec![1; len]);
        filler.push(&received);
        assert!(filler.finish());
        put += len;
        number += 1;
    }
    number
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

fn main() {
    let which = std::env::args().nth(1);
    type Len = fn(u64) -> usize;
    let cases: [(&str, Len); 4] = [
        ("1k", |_| 1024),
        ("64k", |_| 64 * 1024),
        ("1m", |_| 1 << 20),
        ("mix", |number| {
            let draw = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
            let doublings = (draw | 1 << 9).trailing_zeros();
            usize::try_from((400 << doublings) + draw % (400 << doublings)).unwrap_or(1024)
        }),
    ];
    let Some(which) = which else {
        // Each in its own process: what one leaves behind is not the other's.
        for (name, _) in cases {
            let me = std::env::current_exe().expect("it runs");
            let run = std::process::Command::new(me).arg(name).status();
            assert!(run.is_ok_and(|status| status.success()));
        }
        return;
    };
    let Some((name, len)) = cases.iter().find(|(name, _)| *name == which) else {
        panic!("no such case");
    };
    let before = resident_bytes();
    let store = Store::new(Options {
        memory_bytes: BUDGET,
        secret: [1; 16],
    });
    let head = fields(0).wire_len() as u64;
    let mut next = fill(&store, len, 1.1, 0);
    for round in 0..5 {
        let took = resident_bytes() - before;
        let usage = store.usage();
        let objects = usage.objects as u64;
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        let share = took as f64 / BUDGET as f64;
        print!("{name:4} round {round}: {objects} objects, {share:.3} of the budget");
        if *name == "1k" {
            let beyond = took / objects - 1024 - head;
            print!(", {beyond} B each beyond the origin's own bytes: 1024 B, head of {head} B");
        }
        println!();
        next = fill(&store, len, 2.0, next);
    }
}
