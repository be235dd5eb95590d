//! The body of a request: records that come as they come, pulled as they are wanted.

use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::Conn;
use crate::exchange::{Fault, Pulled, Reason, Stream};

/// Bytes that are held for who has not pulled them yet; then the connection waits, with all that is
/// on it.
const AHEAD: usize = 64 * 1024;

/// The connection's side of a body.
pub struct Inlet {
    data: VecDeque<Bytes>,
    held: usize,
    /// How long it is to be, where that was said.
    len: Option<u64>,
    received: u64,
    state: State,
    /// Somebody has pulled and got nothing.
    waits: bool,
    /// Nobody will pull any more.
    unwanted: bool,
}

enum State {
    Coming,
    Ended,
    Failed(Fault),
    /// Its end has been told.
    Told,
}

impl Inlet {
    /// A body of this length.
    pub fn new(len: Option<u64>) -> Inlet {
        Inlet {
            data: VecDeque::new(),
            held: 0,
            len,
            received: 0,
            state: State::Coming,
            waits: false,
            unwanted: false,
        }
    }

    /// Whether somebody waits for more.
    pub fn waits(&self) -> bool {
        self.waits && matches!(self.state, State::Coming)
    }

    /// Whether what comes is for anybody.
    pub fn is_wanted(&self) -> bool {
        !self.unwanted && matches!(self.state, State::Coming)
    }

    /// How many bytes it takes now.
    pub fn room(&self) -> usize {
        AHEAD.saturating_sub(self.held)
    }

    /// Takes some.
    pub fn push(&mut self, bytes: Bytes) {
        self.received += bytes.len() as u64;
        if self.len.is_some_and(|len| self.received > len) {
            self.fail(Fault::with(
                Reason::BodyMalformed,
                "it is longer than CONTENT_LENGTH says",
            ));
            return;
        }
        self.held += bytes.len();
        self.data.push_back(bytes);
        self.waits = false;
    }

    /// All has come.
    pub fn end(&mut self) {
        if self.len.is_some_and(|len| self.received < len) {
            let why = "it is shorter than CONTENT_LENGTH says";
            self.fail(Fault::with(Reason::BodyMalformed, why));
        } else if matches!(self.state, State::Coming) {
            self.state = State::Ended;
        }
    }

    /// It will never be complete.
    pub fn fail(&mut self, fault: Fault) {
        if matches!(self.state, State::Coming) {
            self.state = State::Failed(fault);
        }
    }

    fn pull(&mut self) -> Option<Pulled> {
        if let State::Failed(_) = self.state {
            let State::Failed(fault) = std::mem::replace(&mut self.state, State::Told) else {
                return None;
            };
            return Some(Pulled::Abort(fault));
        }
        if let Some(bytes) = self.data.pop_front() {
            self.held -= bytes.len();
            return Some(Pulled::Data(bytes));
        }
        match self.state {
            State::Coming => {
                self.waits = true;
                None
            }
            State::Ended | State::Failed(_) | State::Told => {
                self.state = State::Told;
                Some(Pulled::End(None))
            }
        }
    }
}

/// Those of a connection, by the ids of their requests: mostly one, and never many.
#[derive(Default)]
pub struct Inlets(Vec<(u16, Inlet)>);

impl Inlets {
    /// That of this request.
    pub fn get_mut(&mut self, id: u16) -> Option<&mut Inlet> {
        let found = self.0.iter_mut().find(|(of, _)| *of == id);
        found.map(|(_, inlet)| inlet)
    }

    /// Adds that of a request which has none.
    pub fn insert(&mut self, id: u16, inlet: Inlet) {
        debug_assert!(self.get_mut(id).is_none());
        self.0.push((id, inlet));
    }

    /// Takes that of this request away, if there is one.
    pub fn remove(&mut self, id: u16) {
        self.0.retain(|(of, _)| *of != id);
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Inlet> {
        self.0.iter().map(|(_, inlet)| inlet)
    }

    /// The same, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Inlet> {
        self.0.iter_mut().map(|(_, inlet)| inlet)
    }
}

/// The request's side of a body.
pub struct StdinBody {
    conn: Rc<Conn>,
    id: u16,
    len: Option<u64>,
    left: u64,
}

impl StdinBody {
    /// The body of this request.
    pub fn new(conn: Rc<Conn>, id: u16, len: Option<u64>) -> StdinBody {
        StdinBody {
            conn,
            id,
            len,
            left: u64::MAX,
        }
    }
}

impl Drop for StdinBody {
    fn drop(&mut self) {
        if let Some(inlet) = self.conn.inlets.borrow_mut().get_mut(self.id) {
            inlet.unwanted = true;
            inlet.data.clear();
            inlet.held = 0;
        }
    }
}

impl Stream for StdinBody {
    fn poll_pull(&mut self, cx: &mut Context<'_>) -> Poll<Pulled> {
        let mut inlets = self.conn.inlets.borrow_mut();
        let Some(inlet) = inlets.get_mut(self.id) else {
            return Poll::Ready(Pulled::Abort(Reason::ClientGone.into()));
        };
        let was_full = inlet.room() == 0;
        match inlet.pull() {
            Some(Pulled::Data(bytes)) => {
                let len = bytes.len() as u64;
                if len > self.left {
                    return Poll::Ready(Pulled::Abort(Reason::BodyTooLarge.into()));
                }
                self.left -= len;
                // There is room again: the connection's task, which polls this, has to look.
                if was_full {
                    cx.waker().wake_by_ref();
                }
                Poll::Ready(Pulled::Data(bytes))
            }
            Some(pulled) => Poll::Ready(pulled),
            // Whatever comes wakes the connection's task, and that polls this.
            None => Poll::Pending,
        }
    }

    fn len_bytes(&self) -> Option<u64> {
        self.len
    }

    fn limit(&mut self, max_bytes: u64) {
        self.left = max_bytes;
    }
}
