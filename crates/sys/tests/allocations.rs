//! What must not allocate, watched by an allocator that counts. It is here because an allocator is
//! `unsafe` to write, and only this crate may be.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use forebay_balance::{Ask, Balance, Load, PeerSpec, Pool, PoolSpec, Tick, Tried};

struct Counting;

thread_local! {
    /// By thread: the test's own runner has others.
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

#[expect(unsafe_code, reason = "an allocator is")]
// SAFETY: everything is left to the system's allocator; counting touches a number that is there from
// the thread's start to its end and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: handed on to the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: handed on to the caller.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(during: impl FnOnce()) -> u64 {
    let before = COUNT.with(Cell::get);
    during();
    COUNT.with(Cell::get) - before
}

#[test]
fn the_allocator_counts() {
    assert_eq!(allocations(|| ()), 0);
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 1);
}

#[test]
fn choosing_a_peer_allocates_nothing() {
    for balance in Balance::ALL {
        for peers in [1, 4, 1_000] {
            let pool = Pool::new(PoolSpec {
                balance,
                ..PoolSpec::new(vec![PeerSpec::default(); peers])
            });
            let pool = pool.expect("a right pool");
            let load = |peer: u16| Load {
                cpu: f32::from(peer * 37 % 100),
                ..Load::default()
            };
            let loads: Vec<_> = (0..peers)
                .zip(0..)
                .map(|(n, peer)| (n, load(peer)))
                .collect();
            let mut tried = Tried::default();
            let count = allocations(|| {
                for round in 0..100_u64 {
                    let now = Tick::from_millis(round * 100);
                    pool.report_loads(&loads, Duration::from_secs(1), now);
                    let first = pool
                        .acquire(&Ask::new(now).draw(round))
                        .expect("a peer")
                        .peer;
                    tried.add(first);
                    let second = pool.acquire(&Ask::again(now, tried).draw(round));
                    pool.release(first);
                    if let Ok(second) = second {
                        pool.release(second.peer);
                    }
                    tried = Tried::default();
                }
            });
            assert_eq!(count, 0, "{balance:?} of {peers}");
        }
    }
}
