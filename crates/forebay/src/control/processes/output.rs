//! What processes print.

use std::rc::Rc;

use bytes::BytesMut;
use tokio::net::unix::pipe;

use crate::helper::programs::Watch;
use crate::log::{Ration, Split};

/// Bytes that are read at a time.
const READ: usize = 4096;

/// Logs what a process prints.
pub async fn log(output: pipe::Receiver, watch: Watch, peer: Box<str>, ration: Rc<Ration>) {
    let line = |line: &[u8]| {
        if let Some(dropped) = ration.pass() {
            let text = line.escape_ascii();
            tracing::info!(peer = &*peer, dropped, "{text}");
        }
    };
    let mut split = Split::default();
    let mut held = BytesMut::new();
    loop {
        let is_over = tokio::select! {
            biased;
            ready = output.readable() => ready.is_err(),
            () = watch.over() => true,
        };
        loop {
            held.reserve(READ);
            match output.try_read_buf(&mut held) {
                Ok(0) => return split.rest(&mut held).iter().for_each(|rest| line(rest)),
                Ok(_) => split.each(&mut held, line),
                Err(_) => break,
            }
        }
        if is_over {
            return split.rest(&mut held).iter().for_each(|rest| line(rest));
        }
        if held.is_empty() {
            held = BytesMut::new();
        }
    }
}
