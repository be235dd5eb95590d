//! A disk that does not answer: what it has is asked of the origin, and nobody else waits.

use std::path::Path;
use std::time::{Duration, Instant};

use forebay_tests::disk::{Case, SITE, STORE, origin};
use forebay_tests::proc::Stopped;
use forebay_tests::{Request, Server};
use rustix::fs::{Advice, fadvise};

/// So long a read is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Nothing of what the files hold is in the system's memory any more.
fn forget(dir: &Path) {
    for entry in std::fs::read_dir(dir.join("store")).expect("the store") {
        let path = entry.expect("a file").path();
        let Ok(file) = std::fs::File::open(&path) else {
            continue;
        };
        file.sync_all().expect("it is written");
        fadvise(&file, 0, None, Advice::DontNeed).expect("it is forgotten");
    }
}

#[test]
fn a_disk_that_hangs_is_given_up() {
    // Not where everything is in memory anyway.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let origin = origin();
    let store = STORE.replace("@dir@", &dir.path().display().to_string());
    let server = Server::builder(&format!("{store} {SITE}"))
        .origin("origin", &origin)
        .workers(1)
        .start();
    let mut case = Case { server, origin };
    let targets = ["/1000/first", "/1000/head", "/1500000/body", "/1000/memory"];
    for target in targets {
        assert!(!case.is_stored("a", target));
    }
    case.written(4);
    case.server.stop();
    case.server.start_again();
    forget(dir.path());
    // The threads that read are made; those that have done so wait for more.
    assert!(case.is_stored("a", "/1000/first"));
    assert!(case.is_stored("a", "/1000/memory"));
    let head = Request::head("/1500000/body").field("X-Device", "a");
    assert_eq!(case.server.client().request(&head).status(), 200);
    let before = case.origin.requests().len();
    forget(dir.path());
    let mut stopped = Stopped::threads_and_new(case.server.pid(), "files-0", "worker-0");
    let mut hangs_for = |target: &str| {
        let begun = Instant::now();
        let got = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| case.ask("a", target));
            let memory = scope.spawn(|| {
                let mut longest = Duration::ZERO;
                while begun.elapsed() < PATIENCE {
                    let begun = Instant::now();
                    let _ = case.ask("a", "/1000/memory");
                    longest = longest.max(begun.elapsed());
                    std::thread::sleep(Duration::from_millis(20));
                }
                longest
            });
            while !waiting.is_finished() || !memory.is_finished() {
                stopped.go_round();
                // To try to read without waiting has the system read ahead.
                forget(dir.path());
                std::thread::sleep(Duration::from_millis(5));
            }
            // What is in memory is not kept waiting meanwhile.
            let longest = memory.join().expect("answers from memory");
            assert!(longest < PATIENCE / 2, "{longest:?}");
            waiting.join().expect("an answer")
        });
        let took = begun.elapsed();
        let range = PATIENCE.mul_f32(0.9)..PATIENCE * 2;
        assert!(range.contains(&took), "{took:?}");
        got
    };
    // The head does not come.
    let got = hangs_for("/1000/head");
    let asked = case.origin.requests().len();
    let says = got.head.all("cache-status");
    assert_eq!(asked, before + 1, "the origin is asked: {says:?}");
    // Of what was found, the body does not.
    let got = hangs_for("/1500000/body");
    let says = got.head.all("cache-status");
    let again = case.origin.requests().len();
    assert!(again > asked, "the origin is asked for the body: {says:?}");
    drop(stopped);
    // It answers again, and is asked again.
    for target in targets {
        assert!(case.is_stored("a", target), "{target}");
    }
}
