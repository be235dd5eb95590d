//! The harness of the end-to-end tests: the real `forebay` binary between a client and an origin
//! that both record every byte.
//!
//! | module | what it is |
//! |---|---|
//! | [`server`] | starts the binary on a free port with a configuration of the test's own |
//! | [`client`] | what a test says to it: whole requests, raw bytes, bytes in pieces, slowly, or not at all |
//! | [`wire`] | a strict HTTP/1 reader, on purpose not the server's own codec: they must not share a bug |
//! | [`origin`] | a recording origin that misbehaves by [`origin::script`] |
//! | [`peer`] | a peer whose every byte the test sends and reads itself |
//! | [`peers`] | real servers from Debian, started with a configuration of the test's own |
//! | [`php`] | php-fpm, and an application whose every record the test sends and reads itself |
//! | [`load`] | threads that ask and check until they are told to stop |
//! | [`certs`] | certificates of an authority of the test's own |
//! | [`journal`] | who sent what and when; printed when a test fails |
//! | [`pattern`] | bodies of any size that can be checked without being kept |
//! | [`proc`] | what the kernel says about a process and its sockets |
//! | [`browser`] | a browser from Debian |
//! | [`cache`] | what a cache decides, asked step by step |
//! | [`reading`] | bodies that are read in several at once, as they come |
//! | [`alternate`] | two configurations reloaded in turns under load |
//! | [`disk`] | caches with disks, and disks that are full |
//! | [`docs`] | the pages, and the examples in them |
//! | [`shell`] | a shell on a machine of its own, for what the pages show |
//! | [`slow_disk`] | a file whose bytes come slowly |
//! | [`tokens`] | keys and tokens, made and signed by `openssl` |
//! | [`wait`] | waiting for a condition, never for a time |
//!
//! A case is written against [`client::Client`], which does not tell what carries the bytes, so that
//! the same case can run over TLS or another protocol; only cases that say `raw` are about HTTP/1.

pub mod alternate;
pub mod browser;
pub mod cache;
pub mod certs;
pub mod client;
pub mod disk;
pub mod docs;
pub mod fcgi;
pub mod fronts;
pub mod journal;
pub mod load;
pub mod origin;
pub mod pattern;
pub mod peer;
pub mod peers;
pub mod php;
pub mod php_tree;
pub mod port;
pub mod proc;
pub mod reading;
pub mod server;
pub mod shell;
pub mod slow_disk;
pub mod tokens;
pub mod visitor;
pub mod wait;
pub mod wire;

pub use client::{Client, Conn, Request};
pub use origin::Origin;
pub use origin::asset::{Asset, Shelf};
pub use origin::script::{Gate, Script};
pub use server::{Builder, Server};
pub use wire::{Response, Trouble};
