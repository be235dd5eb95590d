//! A head for tests, and how readers are driven without a runtime.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use forebay_store::{Begin, Hash, Meta, Object, Options, Read, Reader, Store};
use smallvec::SmallVec;

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Head {
    pub variant: u8,
    pub tag: &'static str,
}

impl Meta for Head {
    type Failure = u16;

    fn weight_bytes(&self) -> usize {
        0
    }

    fn replaces(&self, other: &Head) -> bool {
        self.variant == other.variant
    }

    fn encode(&self) -> Option<Bytes> {
        let mut bytes = vec![self.variant];
        bytes.extend_from_slice(self.tag.as_bytes());
        Some(bytes.into())
    }

    fn decode(bytes: &[u8]) -> Option<Head> {
        let (variant, tag) = bytes.split_first()?;
        // Few, and the same ones, in a test.
        let tag: &'static str = str::from_utf8(tag).ok()?.to_owned().leak();
        let variant = *variant;
        Some(Head { variant, tag })
    }

    fn variant(&self) -> u16 {
        self.variant.into()
    }

    fn tags(&self) -> SmallVec<[&[u8]; 4]> {
        let tag = self.tag.as_bytes();
        if tag.is_empty() {
            SmallVec::new()
        } else {
            [tag].into_iter().collect()
        }
    }
}

pub const KEY: &[u8] = b"http://a.example/x";

pub fn store(memory_bytes: u64) -> Arc<Store<Head>> {
    Store::new(Options {
        memory_bytes,
        secret: [7; 16],
    })
}

pub fn found(store: &Arc<Store<Head>>, key: &[u8]) -> Option<Arc<Object<Head>>> {
    let hash = store.hash(key);
    let newest = store.with(hash, key, |object| Some(object.clone()));
    newest.filter(|object| store.is_alive(object))
}

pub fn lead(store: &Arc<Store<Head>>, hash: Hash) -> forebay_store::Lead<Head> {
    match store.begin(hash, KEY, 0) {
        Begin::Lead(lead) => lead,
        _ => panic!("somebody else leads"),
    }
}

/// Counts how often it is woken.
#[derive(Default)]
pub struct Bell(AtomicUsize);

impl Bell {
    pub fn rung(&self) -> usize {
        self.0.load(SeqCst)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

pub fn bell() -> (Arc<Bell>, Waker) {
    let bell = Arc::new(Bell::default());
    (bell.clone(), Waker::from(bell))
}

/// What a byte of the made-up body at a position is.
pub fn byte_at(at: u64) -> u8 {
    u8::try_from((at.wrapping_mul(2_654_435_761) >> 13) % 251).unwrap()
}

pub fn bytes(range: std::ops::Range<u64>) -> Bytes {
    range.map(byte_at).collect::<Vec<u8>>().into()
}

/// How a reader stands.
#[derive(Debug, PartialEq, Eq)]
pub enum State {
    Waits,
    End,
    Absent(u64),
    Failed,
}

/// Reads all that is there, and checks every byte.
pub fn drain(reader: &mut Reader<Head>, waker: &Waker) -> State {
    let mut cx = Context::from_waker(waker);
    loop {
        let before = reader.position();
        match reader.poll_read(&mut cx) {
            Poll::Pending => return State::Waits,
            Poll::Ready(Read::End) => return State::End,
            Poll::Ready(Read::Absent(at)) => return State::Absent(at),
            // Said once; then it waits.
            Poll::Ready(Read::Far(_)) => {}
            Poll::Ready(Read::Failed) => return State::Failed,
            Poll::Ready(Read::Data(data)) => {
                assert!(!data.is_empty());
                assert_eq!(
                    data,
                    bytes(before..before + data.len() as u64),
                    "at {before}"
                );
            }
        }
    }
}
