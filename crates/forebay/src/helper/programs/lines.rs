//! What programs print, line by line.

use bytes::BytesMut;
use tokio::net::unix::pipe;

use super::Watch;
use crate::log::Split;

/// Bytes that are read at a time.
const READ: usize = 4096;

/// Gives each line that comes, until the program has ended or has closed its end.
pub async fn each_line(output: pipe::Receiver, watch: Watch, mut line: impl FnMut(&[u8])) {
    let mut split = Split::default();
    let mut held = BytesMut::new();
    let mut is_over = false;
    while !is_over {
        is_over = tokio::select! {
            biased;
            ready = output.readable() => ready.is_err(),
            // What it has left behind may hold the stream for ever.
            () = watch.over() => true,
        };
        loop {
            held.reserve(READ);
            match output.try_read_buf(&mut held) {
                Ok(0) => {
                    is_over = true;
                    break;
                }
                Ok(_) => split.each(&mut held, &mut line),
                Err(_) => break,
            }
        }
        // Nothing is held for a program that says nothing.
        if held.is_empty() {
            held = BytesMut::new();
        }
    }
    if let Some(rest) = split.rest(&mut held) {
        line(&rest);
    }
}
