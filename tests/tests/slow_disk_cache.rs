//! A cache with a disk that is killed again and again, at whatever moment, under load: nothing is
//! served that is wrong, cut short, or was purged before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use forebay_tests::origin::Received;
use forebay_tests::{Client, Origin, Response, Script, Server, Trouble};

/// How often it is killed.
const KILLS: u64 = 100;

/// Paths are `/NUMBER`, and each is in one of so many groups, which are tags.
const PATHS: usize = 60;
const GROUPS: usize = 4;

/// Numbers that are the same for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap() % sides
    }
}

/// What is known of a resource.
struct Resource {
    /// What the origin has.
    version: AtomicU64,
    /// Nothing older may be served: a purge was acknowledged.
    floor: AtomicU64,
}

/// Empty ones, single blocks, a few blocks, and more than memory keeps.
fn len_of(path: usize) -> usize {
    match path % 12 {
        0 => 0,
        1..=7 => 700 * (path + 1),
        8..=10 => 70_000 + 3_000 * path,
        _ => 2_500_000,
    }
}

fn body(path: usize, version: u64) -> impl Iterator<Item = u8> {
    let text = format!("/{path} in version {version}; ").into_bytes();
    text.into_iter().cycle().take(len_of(path))
}

fn answer(all: &[Resource], received: &Received) -> Script {
    let path: usize = received.target[1..].parse().expect("a path of ours");
    let version = all[path].version.load(SeqCst);
    let fields = format!(
        "Cache-Control: max-age=600\r\nETag: \"{version}\"\r\nAccept-Ranges: bytes\r\n\
         Cache-Tag: g{}\r\n",
        path % GROUPS
    );
    let body: Vec<u8> = body(path, version).collect();
    let is_same = received
        .field("if-range")
        .is_none_or(|tag| tag == format!("\"{version}\""));
    let range = received
        .field("range")
        .filter(|_| is_same)
        .and_then(|range| {
            let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
            let last: usize = last.parse().unwrap_or(body.len() - 1);
            Some((first.parse::<usize>().ok()?, last.min(body.len() - 1)))
        });
    match range {
        None => Script::with_fields(200, &fields, body),
        Some((first, last)) => {
            let range = format!("Content-Range: bytes {first}-{last}/{}\r\n", body.len());
            Script::with_fields(206, &(fields + &range), &body[first..=last])
        }
    }
}

/// One request on a connection of its own.
fn ask(client: &Client, request: &str) -> Result<Response, Trouble> {
    let mut conn = client.try_connect().map_err(|_| Trouble::Reset)?;
    let head = format!("{request} HTTP/1.1\r\nHost: forebay.test\r\nConnection: close\r\n");
    conn.try_raw(format!("{head}\r\n"))
        .map_err(|_| Trouble::Reset)?;
    conn.try_read_response()
}

struct Case {
    all: Arc<Vec<Resource>>,
    is_killed: AtomicBool,
    hits: AtomicUsize,
    answers: AtomicUsize,
    purges: AtomicUsize,
}

impl Case {
    /// Asks for something and checks what comes. `None`: the server was killed meanwhile.
    fn get(&self, client: &Client, path: usize) -> Option<()> {
        let resource = &self.all[path];
        let floor = resource.floor.load(SeqCst);
        let got = match ask(client, &format!("GET /{path}")) {
            Ok(got) => got,
            Err(trouble) => {
                assert!(self.is_killed.load(SeqCst), "/{path}: {trouble:?}");
                return None;
            }
        };
        assert_eq!(got.status(), 200, "/{path}");
        let etag = got.head.field("etag").expect("a tag").trim_matches('"');
        let version: u64 = etag.parse().expect("a version");
        let newest = resource.version.load(SeqCst);
        assert!(
            (floor..=newest).contains(&version),
            "/{path}: version {version}, though {floor} to {newest} are right"
        );
        assert!(
            got.body.iter().copied().eq(body(path, version)),
            "/{path}: {} bytes that are not version {version}",
            got.body.len()
        );
        self.answers.fetch_add(1, SeqCst);
        if got.head.all("cache-status")[0].contains("; hit") {
            self.hits.fetch_add(1, SeqCst);
        }
        Some(())
    }

    /// Changes something at the origin and purges it: from the acknowledgement on it is not served.
    fn purge(&self, client: &Client, dice: &mut Dice) -> Option<()> {
        let path = dice.roll(PATHS);
        let (fields, met): (String, Vec<usize>) = match dice.roll(4) {
            0 => {
                let group = path % GROUPS;
                let met = (0..PATHS).filter(|path| path % GROUPS == group).collect();
                (format!("\r\nCache-Tag: g{group}"), met)
            }
            _ => (String::new(), vec![path]),
        };
        let mut floors = Vec::new();
        for path in met {
            floors.push((path, self.all[path].version.fetch_add(1, SeqCst) + 1));
        }
        let request = format!("PURGE /{path} HTTP/1.1{fields}\r\nX: ");
        match ask(client, &request) {
            Ok(got) => {
                assert_eq!(got.status(), 200);
                for (path, floor) in floors {
                    self.all[path].floor.fetch_max(floor, SeqCst);
                }
                self.purges.fetch_add(1, SeqCst);
                Some(())
            }
            Err(trouble) => {
                assert!(self.is_killed.load(SeqCst), "{trouble:?}");
                None
            }
        }
    }
}

#[test]
fn killed_at_whatever_moment_it_serves_nothing_wrong() {
    let resource = |_| Resource {
        version: AtomicU64::new(1),
        floor: AtomicU64::new(1),
    };
    let all: Arc<Vec<Resource>> = Arc::new((0..PATHS).map(resource).collect());
    let case = Case {
        all: all.clone(),
        is_killed: AtomicBool::new(false),
        hits: AtomicUsize::new(0),
        answers: AtomicUsize::new(0),
        purges: AtomicUsize::new(0),
    };
    let origin = Origin::setup()
        .handle(move |received| answer(&all, received))
        .start();
    let mut server = Server::builder(
        r#"cache_store { memory = "8MB", disk = "@dir@/store", disk_size = "32MB" }
           site { "*", cache { purge = method "PURGE" }, proxy "@origin@" }"#,
    )
    .origin("origin", &origin)
    .start();
    let mut found = 0;
    for round in 1..=KILLS {
        let seed = 0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(round);
        let mut dice = Dice(seed);
        println!("round {round}, seed {seed:#x}");
        case.is_killed.store(false, SeqCst);
        std::thread::scope(|scope| {
            for reader in 1..4 {
                let (case, client) = (&case, server.client());
                let mut dice = Dice(seed ^ reader << 32);
                scope.spawn(move || while case.get(&client, dice.roll(PATHS)).is_some() {});
            }
            let (case, client) = (&case, server.client());
            let mut purges = Dice(seed ^ 0xFFFF);
            scope.spawn(move || {
                while case.purge(&client, &mut purges).is_some() {
                    std::thread::sleep(Duration::from_millis(5));
                }
            });
            // The moment is the dice's.
            let moment = u64::try_from(dice.roll(250_000)).expect("a few");
            std::thread::sleep(Duration::from_micros(moment));
            case.is_killed.store(true, SeqCst);
            server.kill();
        });
        server.start_again();
        case.is_killed.store(false, SeqCst);
        let before = case.hits.load(SeqCst);
        for _ in 0..10 {
            let path = dice.roll(PATHS);
            assert!(case.get(&server.client(), path).is_some());
        }
        found += case.hits.load(SeqCst) - before;
    }
    let (answers, purges) = (case.answers.load(SeqCst), case.purges.load(SeqCst));
    println!("{answers} answers, {purges} purges, {found} of 1000 found after a restart");
    assert!(answers > 1000 && purges > 100, "{answers}, {purges}");
    assert!(found > 100, "{found} found after restarts");
    assert!(!server.stderr().contains("ERROR"), "{}", server.stderr());
}
