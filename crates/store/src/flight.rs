//! Many who ask for the same thing while nobody knows yet what it is: one asks, the others wait.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use slab::Slab;

use crate::key::Hash;
use crate::object::{Meta, Object};
use crate::store::Store;

/// A question that is under way.
pub(crate) struct Flight<M: Meta> {
    state: Mutex<State<M>>,
}

enum State<M: Meta> {
    Under {
        waiting: Slab<Waker>,
        followers: usize,
    },
    Landed(Outcome<M>),
}

/// What a question has come to.
pub enum Outcome<M: Meta> {
    /// This is it; its body may still be coming.
    Object(Arc<Object<M>>),
    /// It is not for all: each has to ask for himself.
    Pass,
    /// It could not be had.
    Failed(M::Failure),
    /// Who asked is gone, and nobody knows.
    Dropped,
}

impl<M: Meta> Clone for Outcome<M> {
    fn clone(&self) -> Outcome<M> {
        match self {
            Outcome::Object(object) => Outcome::Object(object.clone()),
            Outcome::Pass => Outcome::Pass,
            Outcome::Failed(failure) => Outcome::Failed(failure.clone()),
            Outcome::Dropped => Outcome::Dropped,
        }
    }
}

/// What to do about something that is absent.
pub enum Begin<M: Meta> {
    /// Ask for it, and tell the others.
    Lead(Lead<M>),
    /// Somebody asks already.
    Follow(Follow<M>),
    /// It was found to be not for all a short while ago: ask without making anybody wait.
    Pass,
}

/// The one who asks. Dropped without a word, it releases all who wait.
pub struct Lead<M: Meta> {
    store: Arc<Store<M>>,
    flight: Arc<Flight<M>>,
    hash: Hash,
    /// The newest rule when the question was asked.
    asked_at: u64,
    is_over: bool,
}

/// One of those who wait for the one who asks.
pub struct Follow<M: Meta> {
    flight: Arc<Flight<M>>,
    /// Its place among those who wait.
    place: Option<usize>,
}

impl<M: Meta> Flight<M> {
    pub(crate) fn new() -> Arc<Flight<M>> {
        Arc::new(Flight {
            state: Mutex::new(State::Under {
                waiting: Slab::new(),
                followers: 0,
            }),
        })
    }

    pub(crate) fn follow(self: &Arc<Flight<M>>) -> Follow<M> {
        if let State::Under { followers, .. } = &mut *self.state.lock() {
            *followers += 1;
        }
        Follow {
            flight: self.clone(),
            place: None,
        }
    }

    pub(crate) fn followers(&self) -> usize {
        match &*self.state.lock() {
            State::Under { followers, .. } => *followers,
            State::Landed(_) => 0,
        }
    }

    fn land(&self, outcome: Outcome<M>) {
        let before = std::mem::replace(&mut *self.state.lock(), State::Landed(outcome));
        if let State::Under { waiting, .. } = before {
            waiting.into_iter().for_each(|(_, waker)| waker.wake());
        }
    }
}

impl<M: Meta> Lead<M> {
    pub(crate) fn new(
        store: &Arc<Store<M>>,
        flight: Arc<Flight<M>>,
        hash: Hash,
        asked_at: u64,
    ) -> Lead<M> {
        Lead {
            store: store.clone(),
            flight,
            hash,
            asked_at,
            is_over: false,
        }
    }

    /// The newest rule when the question was asked: what objects made of the answer carry.
    pub fn asked_at(&self) -> u64 {
        self.asked_at
    }

    /// What the question is known by.
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// How many wait with it.
    pub fn followers(&self) -> usize {
        self.flight.followers()
    }

    /// Tells all who wait.
    pub fn land(mut self, outcome: Outcome<M>) {
        self.is_over = true;
        // First the flight goes, so that who comes now finds the object, or asks himself.
        self.store.end_flight(self.hash);
        self.flight.land(outcome);
    }
}

impl<M: Meta> Drop for Lead<M> {
    fn drop(&mut self) {
        if !self.is_over {
            self.store.end_flight(self.hash);
            self.flight.land(Outcome::Dropped);
        }
    }
}

impl<M: Meta> Future for Follow<M> {
    type Output = Outcome<M>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome<M>> {
        let flight = self.flight.clone();
        match &mut *flight.state.lock() {
            State::Landed(outcome) => Poll::Ready(outcome.clone()),
            State::Under { waiting, .. } => {
                match self.place.and_then(|at| waiting.get_mut(at)) {
                    Some(waker) => waker.clone_from(cx.waker()),
                    None => self.place = Some(waiting.insert(cx.waker().clone())),
                }
                Poll::Pending
            }
        }
    }
}

impl<M: Meta> Drop for Follow<M> {
    fn drop(&mut self) {
        if let State::Under { followers, waiting } = &mut *self.flight.state.lock() {
            *followers = followers.saturating_sub(1);
            self.place.and_then(|at| waiting.try_remove(at));
        }
    }
}
