//! Two configurations that differ in everything a reload can change, reloaded in turns under load.
//!
//! Configuration A and B differ in a body, in a field, in a route, in the peer of an upstream and
//! in a listener. Every answer must be wholly of one of them; once `reload` has returned, of the new
//! one; every tenth reload is of a broken configuration, which changes nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::load::Load;
use crate::{Client, Conn, Origin, Request, Response, Script, Server};

const CONFIG: &str = r#"
    listen "@extra_LETTER@"
    local pool = upstream "pool" { "@origin_LETTER@" }
    site { "*",
      headers { response = { x_config = "LETTER" } },
      route "/body" { respond(200, "LETTER") },
      route "/only-LETTER" { respond(200, "LETTER") },
      route "/pool" { proxy(pool) },
    }"#;

/// Which configuration must answer: an even number while a reload is under way, else an odd one
/// whose upper part tells the letter.
struct Phase(AtomicU64);

impl Phase {
    fn begin(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    fn settle(&self, letter: char) {
        let next = (self.0.load(Ordering::SeqCst) & 0xffff_ffff) + 1;
        self.0
            .store(next | (u64::from(letter) << 32), Ordering::SeqCst);
    }

    /// The number and, when no reload is under way, the letter.
    fn now(&self) -> (u64, Option<char>) {
        let value = self.0.load(Ordering::SeqCst);
        let settled = value & 1 == 1;
        let letter = u32::try_from(value >> 32).ok().and_then(char::from_u32);
        (value, letter.filter(|_| settled))
    }
}

/// Runs this load for so long, with a reload every `pause`, but until at least `least` have been done,
/// however slow the machine is; gives the number of requests.
///
/// # Panics
/// When a request fails, an answer is mixed, or an old one comes after its time.
#[track_caller]
pub fn run(duration: Duration, pause: Duration, least: u64) -> u64 {
    let origins = ["A", "B"].map(|letter| Origin::always(Script::ok(letter)));
    let server = Server::builder(&CONFIG.replace("LETTER", "A"))
        .origin("origin_A", &origins[0])
        .origin("origin_B", &origins[1])
        .free_address("extra_A")
        .free_address("extra_B")
        .start();
    let phase = Arc::new(Phase(AtomicU64::new(0)));
    phase.settle('A');
    let load = Load::start(4, |number| {
        let (client, phase) = (server.client(), Arc::clone(&phase));
        let mut conn = client.connect();
        let mut turn = number;
        move || {
            turn += 1;
            ask(&client, &mut conn, &phase, turn);
        }
    });
    let end = Instant::now() + duration;
    let mut reloads = 0_u64;
    let mut letter = 'A';
    while Instant::now() < end || reloads < least {
        let next = Instant::now() + pause;
        reloads += 1;
        phase.begin();
        if reloads.is_multiple_of(10) {
            server.write_config("site { \"*\", respnd(200, \"broken\") }");
            let output = server.reload();
            assert!(
                output.code.is_some_and(|c| c != 0),
                "a broken configuration was taken"
            );
            let said = output.stdout + &output.stderr;
            assert!(
                said.contains("respnd"),
                "the caller is not told why: {said}"
            );
        } else {
            letter = if letter == 'A' { 'B' } else { 'A' };
            server.reload_with(&CONFIG.replace("LETTER", &letter.to_string()));
        }
        phase.settle(letter);
        check_listeners(&server, letter);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    load.finish()
}

/// One request, on the connection that is kept or on one of its own.
fn ask(client: &Client, conn: &mut Conn, phase: &Phase, turn: usize) {
    let targets = ["/body", "/pool", "/only-A", "/only-B"];
    let target = targets[turn % targets.len()];
    let (before, want) = phase.now();
    let response = match turn % 3 {
        0 => client.request(&Request::get(target).field("Connection", "close")),
        _ => conn.get(target),
    };
    let got = check_whole(target, &response);
    let (after, _) = phase.now();
    if let Some(want) = want
        && before == after
    {
        assert_eq!(
            got, want,
            "an old answer to {target} after `reload` had returned"
        );
    }
    if response.says_close() {
        *conn = client.connect();
    }
}

/// The letter of an answer, every part of which must be of the same configuration.
fn check_whole(target: &str, response: &Response) -> char {
    let field = response.field("x-config").unwrap_or_default().to_owned();
    let letter = field
        .chars()
        .next()
        .unwrap_or_else(|| panic!("{target}: {response:?}"));
    let there = !target.starts_with("/only-") || target.ends_with(letter);
    assert_eq!(
        response.status(),
        if there { 200 } else { 404 },
        "{target} of {letter}"
    );
    if there {
        assert_eq!(
            response.text(),
            field,
            "{target}: body and field of two configurations"
        );
    }
    letter
}

/// The listener of the configuration in service answers, that of the other one is gone.
fn check_listeners(server: &Server, letter: char) {
    let (ours, other) = if letter == 'A' {
        ("extra_A", "extra_B")
    } else {
        ("extra_B", "extra_A")
    };
    let response = server.client_of(ours).get("/body").expect(200);
    assert_eq!(response.text(), letter.to_string());
    crate::wait::until("the other listener to be gone", || {
        server.client_of(other).try_connect().is_err()
    });
}
