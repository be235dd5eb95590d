//! What processes print.

use std::rc::Rc;

use tokio::net::unix::pipe;

use crate::helper::programs::{Watch, each_line};
use crate::log::Ration;

/// Logs what a process prints.
pub async fn log(output: pipe::Receiver, watch: Watch, peer: Box<str>, ration: Rc<Ration>) {
    each_line(output, watch, |line| {
        if let Some(dropped) = ration.pass() {
            let text = line.escape_ascii();
            tracing::info!(peer = &*peer, dropped, "{text}");
        }
    })
    .await;
}
