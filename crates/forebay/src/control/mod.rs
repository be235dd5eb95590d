//! The control plane: from a configuration to what workers serve from, and the server's life.

pub mod admin;
mod ask;
pub mod build;
pub mod declarations;
pub mod dns;
pub mod health;
pub mod keys;
pub mod orders;
mod processes;
pub mod purge;
mod reports;
mod secret;
pub mod server;
pub mod service;
pub mod sockets;
pub mod source;
pub mod watch;
