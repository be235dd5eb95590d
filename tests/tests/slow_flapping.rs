//! Peers that come, go, refuse, stall and flap under load: every idempotent request is answered.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use forebay_tests::load::Load;
use forebay_tests::port::Reserved;
use forebay_tests::{Conn, Request, Server, wait};
use socket2::SockRef;

const PEERS: usize = 6;

/// So many may be in trouble at once. A request that sees one change of the schedule then meets at most
/// twice as many, and has a peer left.
const IN_TROUBLE: usize = 2;

const TIME: Duration = Duration::from_secs(60);

const SEED: u64 = 0x0f0e_ba15;

/// What a peer does with its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Mood {
    /// Answers.
    Well,
    /// Nobody listens; what was open is closed.
    Gone,
    /// Takes requests and says nothing.
    Stalls,
    /// Takes requests and resets the connection.
    Resets,
    /// Takes connections and ends them.
    HangsUp,
    /// Answers 503.
    Sick,
    /// Answers, resets or says 503, by turns at random.
    Flaps,
}

const TROUBLES: [Mood; 6] = [
    Mood::Gone,
    Mood::Stalls,
    Mood::Resets,
    Mood::HangsUp,
    Mood::Sick,
    Mood::Flaps,
];

/// Numbers that look random, the same each time (SplitMix64).
#[derive(Debug)]
struct Numbers(AtomicU64);

impl Numbers {
    fn below(&self, end: usize) -> usize {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        let end = u64::try_from(end).expect("a small number");
        usize::try_from((z ^ z >> 31) % end).expect("a small number")
    }
}

/// A peer whose mood is set from outside.
struct Peer {
    port: Reserved,
    shared: Arc<Shared>,
}

struct Shared {
    name: usize,
    mood: Mutex<Mood>,
    numbers: Numbers,
    /// Its listener, while there is one, and what it has accepted.
    open: Mutex<(Option<TcpListener>, Vec<TcpStream>)>,
    /// How often it has failed somebody, by how; checks of its health do not count.
    failed: Mutex<BTreeMap<Mood, u64>>,
    over: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Peer {
    fn start(name: usize) -> Peer {
        let seed = SEED + u64::try_from(name).expect("a small number");
        let shared = Shared {
            name,
            mood: Mutex::new(Mood::Gone),
            numbers: Numbers(AtomicU64::new(seed)),
            open: Mutex::default(),
            failed: Mutex::default(),
            over: AtomicBool::new(false),
        };
        let peer = Peer {
            port: Reserved::new(),
            shared: Arc::new(shared),
        };
        peer.set(Mood::Well);
        peer
    }

    fn set(&self, mood: Mood) {
        let before = std::mem::replace(&mut *lock(&self.shared.mood), mood);
        match (before == Mood::Gone, mood == Mood::Gone) {
            (true, false) => self.listen(),
            (false, true) => self.go(),
            _ => {}
        }
    }

    fn listen(&self) {
        let listener = self.port.listen();
        let accepting = listener.try_clone().expect("a descriptor");
        lock(&self.shared.open).0 = Some(listener);
        let shared = self.shared.clone();
        std::thread::spawn(move || {
            // Ends when the listener is shut down.
            while let Ok((stream, _)) = accepting.accept() {
                let kept = stream.try_clone().expect("a descriptor");
                lock(&shared.open).1.push(kept);
                let shared = shared.clone();
                std::thread::spawn(move || shared.serve(stream));
            }
        });
    }

    fn go(&self) {
        let (listener, streams) = std::mem::take(&mut *lock(&self.shared.open));
        if let Some(listener) = listener {
            let _ = SockRef::from(&listener).shutdown(Shutdown::Both);
        }
        for stream in streams {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        self.go();
    }
}

impl Shared {
    /// Answers requests on a connection until it is over.
    fn serve(&self, mut stream: TcpStream) {
        while let Some(line) = read_request(&mut stream) {
            let is_check = line.contains(" /up ");
            let mut mood = *lock(&self.mood);
            if mood == Mood::Flaps {
                mood = [Mood::Well, Mood::Resets, Mood::Sick][self.numbers.below(3)];
            }
            if mood != Mood::Well && !is_check && !self.over.load(Ordering::Relaxed) {
                *lock(&self.failed).entry(mood).or_default() += 1;
            }
            match mood {
                Mood::Well | Mood::Flaps => {
                    let body = format!("{} by {}", line, self.name);
                    if answer(&mut stream, &line, "200 OK", &body).is_err() {
                        return;
                    }
                }
                Mood::Sick => {
                    if answer(&mut stream, &line, "503 Sick", "").is_err() {
                        return;
                    }
                }
                // Until the other side has had enough.
                Mood::Stalls => _ = stream.read(&mut [0; 64]),
                Mood::Resets => {
                    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
                    self.forget(&stream);
                    return;
                }
                Mood::HangsUp | Mood::Gone => break,
            }
        }
        let _ = stream.shutdown(Shutdown::Both);
        self.forget(&stream);
    }

    /// The second descriptor would keep the connection open.
    fn forget(&self, stream: &TcpStream) {
        let Ok(remote) = stream.peer_addr() else {
            return;
        };
        lock(&self.open)
            .1
            .retain(|kept| kept.peer_addr().is_ok_and(|other| other != remote));
    }
}

/// The first line of a request; they have no bodies here.
fn read_request(stream: &mut TcpStream) -> Option<String> {
    let (mut head, mut part) = (Vec::new(), [0; 2048]);
    while !head.ends_with(b"\r\n\r\n") {
        let count = stream.read(&mut part).ok().filter(|count| *count > 0)?;
        head.extend_from_slice(&part[..count]);
    }
    let text = String::from_utf8(head).expect("a head in ASCII");
    text.lines().next().map(str::to_owned)
}

fn answer(stream: &mut TcpStream, line: &str, status: &str, body: &str) -> std::io::Result<()> {
    let length = body.len();
    let body = if line.starts_with("HEAD ") { "" } else { body };
    // In one piece: an answer has come whole or not at all.
    let text = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(text.as_bytes())
}

/// Asks again and again, and notes whatever is not right.
fn ask(server: &Server, thread: usize, wrong: &Arc<Mutex<Vec<String>>>) -> impl FnMut() + use<> {
    let (client, wrong) = (server.client(), wrong.clone());
    let mut conn: Option<Conn> = None;
    let mut number = 0;
    move || {
        number += 1;
        let method = ["GET", "HEAD", "GET", "DELETE"][number % 4];
        let target = format!("/{thread}/{number}");
        let on = conn.get_or_insert_with(|| client.connect());
        on.send(&Request::new(method, &target));
        let said = match on.try_read_response() {
            Ok(response) if response.status() != 200 => {
                Some(format!("{} {}", response.status(), response.text()))
            }
            Ok(response) => {
                let is_whole = response
                    .text()
                    .starts_with(&format!("{method} {target} HTTP/1.1 by "));
                let is_right = is_whole || method == "HEAD";
                (!is_right).then(|| response.text().to_owned())
            }
            Err(trouble) => {
                conn = None;
                Some(trouble.to_string())
            }
        };
        if let Some(said) = said {
            lock(&wrong).push(format!("{method} {target}: {said}"));
        }
        // A client that thinks a little: what is tested is not how much can be borne.
        std::thread::sleep(Duration::from_millis(4));
    }
}

/// The sum of a metric over all samples of it, by peer.
fn metric(server: &Server, name: &str) -> Vec<u64> {
    let text = server.admin().get("/metrics").expect(200).text().to_owned();
    let lines = text.lines().filter(|line| line.starts_with(name));
    let value = |line: &str| line.rsplit(' ').next().and_then(|value| value.parse().ok());
    lines.filter_map(value).collect()
}

#[test]
fn every_idempotent_request_is_answered() {
    let peers: Vec<_> = (0..PEERS).map(Peer::start).collect();
    let targets: String = peers
        .iter()
        .map(|peer| format!("\"{}\", ", peer.port.addr()))
        .collect();
    let server = Server::start(&format!(
        r#"local pool = upstream "pool" {{ {targets}
             health = {{ path = "/up", every = "100ms", timeout = "300ms", up = 2, down = 2 }},
             eject = {{ errors = 3, time = "1s" }} }}
           site {{ "*", proxy(pool) {{
             retries = 5, retry_on = {{ "connect", "reset", "timeout", 503 }}, retry_budget = "100%",
             connect_timeout = "1s", first_byte_timeout = "700ms" }} }}"#
    ));
    let wrong = Arc::new(Mutex::new(Vec::new()));
    let load = Load::start(4, |thread| ask(&server, thread, &wrong));
    let numbers = Numbers(AtomicU64::new(SEED));
    let begun = Instant::now();
    let mut phases = 0;
    while (begun.elapsed() < TIME || phases < 10) && lock(&wrong).is_empty() {
        let mut moods = [Mood::Well; PEERS];
        for _ in 0..IN_TROUBLE {
            // By turns, so that each has its time.
            let trouble = TROUBLES[(phases + numbers.below(2)) % TROUBLES.len()];
            moods[numbers.below(PEERS)] = trouble;
        }
        for (peer, mood) in peers.iter().zip(moods) {
            peer.set(mood);
        }
        phases += 1;
        // By what has been asked, not by a clock: a slow machine gets through as much of each.
        let enough = load.count() + 600 + u64::try_from(numbers.below(900)).expect("small");
        wait::until("requests of a phase", || {
            load.count() > enough || !lock(&wrong).is_empty()
        });
    }
    let count = load.finish();
    let wrong = lock(&wrong);
    assert!(
        wrong.is_empty(),
        "seed {SEED:#x}, phase {phases}: {wrong:#?}"
    );
    // It was not easy.
    let mut failed: BTreeMap<Mood, u64> = BTreeMap::new();
    for peer in &peers {
        for (mood, times) in &*lock(&peer.shared.failed) {
            *failed.entry(*mood).or_default() += times;
        }
    }
    let failures = metric(&server, "forebay_peer_failures_total{");
    let retries = metric(&server, "forebay_upstream_retries_total");
    println!(
        "{count} requests, {phases} phases, failures {failures:?}, of {failed:?}, {retries:?}"
    );
    for mood in [Mood::Stalls, Mood::Resets, Mood::HangsUp, Mood::Sick] {
        assert!(
            failed.contains_key(&mood),
            "none has met {mood:?}: {failed:?}"
        );
    }
    assert!(
        failures.len() == PEERS && failures.iter().all(|count| *count > 0),
        "{failures:?}"
    );
    assert!(retries.iter().sum::<u64>() > 100, "{retries:?}");
    let log = server.stderr();
    assert!(
        log.contains("the peer is down") && log.contains("the peer is up"),
        "{log}"
    );
    assert!(log.contains("refused"), "some peer was gone: {log}");
}
