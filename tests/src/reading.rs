//! What most cases of the cache's fills do: read what is the pattern, in several at once.

use crate::client::Conn;
use crate::pattern::Checker;
use crate::wire::{Body, Head};
use crate::{Client, Origin, Request, Server, Trouble};

/// The store of these cases: in a test with `disk` in its name one with a disk, so that the same
/// cases are run with and without.
pub fn store() -> &'static str {
    let test = std::env::current_exe().expect("this test");
    let name = test.file_name().unwrap_or_default().to_string_lossy();
    match name.contains("disk") {
        true => r#"cache_store { disk = "@dir@/store", disk_size = "256MB" }"#,
        false => "",
    }
}

/// A cache before an origin.
pub fn with_workers(origin: &Origin, workers: usize) -> Server {
    let store = store();
    Server::builder(&format!(
        r#"{store} site {{ "*", cache, proxy "@origin@" }}"#
    ))
    .origin("origin", origin)
    .workers(workers)
    .start()
}

/// The same, with two workers.
pub fn cached(origin: &Origin) -> Server {
    with_workers(origin, 2)
}

/// A response that is being read, and checked against the pattern.
pub struct Reading {
    pub conn: Conn,
    pub head: Head,
    pub body: Body,
    pub checker: Checker,
    pub begun: u64,
}

impl Reading {
    /// Asks; what comes is to be the pattern from `at` on.
    pub fn start(client: &Client, request: &Request, at: u64) -> Self {
        let mut conn = client.connect();
        conn.send_head(request);
        let (head, body) = conn.read_head();
        Self {
            conn,
            head,
            body,
            checker: Checker::at(at),
            begun: at,
        }
    }

    /// Of all of it.
    pub fn get(client: &Client) -> Self {
        let reading = Self::start(client, &Request::get("/big"), 0);
        assert_eq!(reading.head.status, 200);
        reading
    }

    /// Of a part of it.
    pub fn range(client: &Client, first: u64, last: u64) -> Self {
        let range = format!("bytes={first}-{last}");
        let request = Request::get("/big").field("Range", &range);
        let reading = Self::start(client, &request, first);
        assert_eq!(reading.head.status, 206, "{range}");
        reading
    }

    /// How many bytes have come.
    pub fn got(&self) -> u64 {
        self.checker.offset() - self.begun
    }

    /// Reads until so many bytes have come.
    #[track_caller]
    pub fn until(&mut self, got: u64) {
        while self.got() < got {
            match self.body.next(&mut self.conn) {
                Ok(Some(part)) => self.checker.feed(&part),
                other => panic!("{other:?} after {} of {got} bytes", self.got()),
            }
        }
    }

    /// Reads to the end, and says how long the body was.
    pub fn finish(mut self) -> Result<u64, Trouble> {
        while let Some(part) = self.body.next(&mut self.conn)? {
            self.checker.feed(&part);
        }
        Ok(self.got())
    }

    /// Goes away at once.
    pub fn leave(self) {
        self.conn.abort();
    }
}

/// All of it, which is this version.
#[track_caller]
pub fn expect_whole(client: &Client, version: u64, len: u64) -> Head {
    let reading = Reading::start(client, &Request::get("/big"), version);
    assert_eq!(reading.head.status, 200);
    let head = reading.head.clone();
    assert_eq!(reading.finish(), Ok(len));
    head
}

/// The fields of what is stale from the beginning.
pub const STALE: &str = "Age: 100\r\nCache-Control: max-age=10";
