//! Which peer of a pool gets a request, whether a failed one is tried again, and who waits.
//! Pure: no I/O, no clock, no random source, no dependency. Time is given as a [`Tick`].
//!
//! An exchange's way through this crate:
//!
//! 1. [`Pool::acquire`] chooses a peer and takes one of its permits;
//! 2. with [`NoPeer::Full`] the request may wait in a [`WaitQueue`] until a permit is given back;
//! 3. what came of it is told by [`Pool::report`], which ejects a peer that only fails, and how long
//!    the answer took by [`Pool::report_time`];
//! 4. after a failure [`RetryPolicy::decide`] says whether to go to 1. again, with the peer among
//!    those [`Tried`];
//! 5. [`Pool::release`] gives the permit back ([`Permit`] does so by itself).
//!
//! Beside it, [`Gcra`] says how often something may happen at all, and [`Allowances`] keeps count
//! for very many clients.
//!
//! [`Pool`], [`Permits`] and [`RetryBudget`] are shared by all workers: atomics, no locks, `&self`
//! everywhere; so is [`Allowances`], where only a new client takes a lock alone. [`WaitQueue`] and
//! [`HealthCounter`] belong to whoever owns them.

#![forbid(unsafe_code)]

mod allowance;
mod choose;
mod draw;
mod ewma;
mod gcra;
mod groups;
mod health;
mod peer;
mod permits;
mod pool;
mod queue;
mod retry;
mod score;
mod spec;
mod state;
mod units;

pub use allowance::Allowances;
pub use choose::{Ask, Chosen, NoPeer, Tier, Tried};
pub use draw::hash_key;
pub use gcra::{Gcra, Verdict};
pub use health::{Health, HealthCounter};
pub use permits::Permits;
pub use pool::{Permit, Pool};
pub use queue::{Pushed, Ticket, WORST_PRIORITY, WaitQueue};
pub use retry::{
    Attempt, Decision, Failure, GiveUp, MAX_RETRIES, RetryBudget, RetryOn, RetryPolicy,
    is_idempotent,
};
pub use score::Load;
pub use spec::{
    Balance, Eject, MAX_CONNECTIONS, MAX_PEERS, MAX_WEIGHT, PeerSpec, PoolError, PoolSpec,
};
pub use state::{Checked, Duty, Ejection, Outcome, PeerState, PeerView};
pub use units::{Share, Tick};
