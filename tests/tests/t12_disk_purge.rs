//! What was purged, with a disk: it does not come back, whatever happens to the process.

use forebay_tests::disk::{Case, SITE, STORE, SmallDisk, origin};
use forebay_tests::{Request, Server, wait};

const TARGETS: [&str; 3] = ["/1000/a", "/70000/b", "/1500000/c"];

fn stored(case: &Case) -> [bool; 3] {
    TARGETS.map(|target| case.is_stored("a", target))
}

#[test]
fn purges_hold_over_restarts_and_kills() {
    for (what, left) in [
        ("http://forebay.test/1000/a", [false, true, true]),
        ("--prefix http://forebay.test/7", [true, false, true]),
        ("--tag c", [true, true, false]),
        ("--host forebay.test", [false; 3]),
        ("--all", [false; 3]),
    ] {
        for is_killed in [true, false] {
            let mut case = Case::start();
            assert_eq!(stored(&case), [false; 3]);
            case.written(3);
            let said = case
                .server
                .command(&format!("purge {what}"))
                .expect(0)
                .stdout;
            assert!(said.contains(" purged, "), "{said}");
            assert!(said.contains("and what is on disks"), "{said}");
            if is_killed {
                case.server.kill();
            } else {
                case.server.stop();
            }
            case.server.start_again();
            assert_eq!(stored(&case), left, "{what}");
            assert_eq!(stored(&case), [true; 3], "{what}");
            // What came after it is not met by it.
            case.server.stop();
            case.server.start_again();
            assert_eq!(stored(&case), [true; 3], "{what}");
        }
    }
}

#[test]
fn what_is_on_the_disk_alone_is_purged() {
    let mut case = Case::start();
    assert_eq!(stored(&case), [false; 3]);
    case.server.stop();
    case.server.start_again();
    let _ = case.server.command("purge --tag b").expect(0);
    assert_eq!(stored(&case), [true, false, true]);
    let _ = case.server.command("purge --all --soft").expect(0);
    case.server.kill();
    case.server.start_again();
    // Validated, not fetched: its body has stayed.
    let before = case.origin.requests().len();
    let got = case.ask("a", "/1500000/c");
    assert!(got.head.all("cache-status")[0].contains("fwd=stale"));
    let requests = case.origin.requests();
    assert_eq!(requests.len(), before + 1);
    assert_eq!(requests[before].field("if-none-match"), Some("\"1500000\""));
}

#[test]
fn purge_by_http_is_answered_when_it_is_durable() {
    let mut case = Case::start();
    assert_eq!(stored(&case), [false; 3]);
    case.written(3);
    let client = case.server.client();
    let asked = Request::new("PURGE", "/1000/a");
    assert_eq!(client.request(&asked).status(), 200);
    let asked = Request::new("PURGE", "/").field("Cache-Tag", "b");
    assert_eq!(client.request(&asked).status(), 200);
    case.server.kill();
    case.server.start_again();
    assert_eq!(stored(&case), [false, false, true]);
}

#[test]
fn what_a_change_made_invalid_does_not_come_back() {
    for cache in ["purge = method \"PURGE\"", "key = \"$cookies.none\""] {
        let mut case = Case::with(&format!(
            "{STORE} {}",
            SITE.replace("purge = method \"PURGE\"", cache)
        ));
        assert_eq!(stored(&case), [false; 3]);
        case.written(3);
        let rules = || {
            std::fs::metadata(case.server.dir().join("store/rules"))
                .unwrap()
                .len()
        };
        let before = rules();
        let changed = Request::new("POST", "/1000/a").body("x");
        assert_eq!(case.server.client().request(&changed).status(), 200);
        // Nobody waits for it; but it is written soon.
        wait::until("it to be written", || {
            case.disk()["objects"] == 2 || rules() > before
        });
        case.server.kill();
        case.server.start_again();
        assert_eq!(stored(&case), [false, true, true], "{cache}");
    }
}

#[test]
fn a_purge_that_cannot_be_written_fails_loudly() {
    let disk = SmallDisk::mount(64 << 20);
    let origin = origin();
    let config = format!("{STORE} {SITE}").replace("@dir@/store", "@disk@/store");
    let server = Server::builder(&config)
        .set("disk", disk.dir().display().to_string())
        .origin("origin", &origin)
        .start();
    let mut case = Case { server, origin };
    assert_eq!(stored(&case), [false; 3]);
    case.written(3);
    disk.fill();
    // Longer than what is left of the file's last page.
    let long = format!("http://forebay.test/1000/a?{}", "x".repeat(5000));
    let said = case
        .server
        .command(&format!("purge {long}"))
        .expect(1)
        .stderr;
    assert!(said.contains("purged, but not written"), "{said}");
    assert_eq!(case.disk()["errors"].as_array().map(Vec::len), Some(1));
    case.server.wait_stderr("goes on without a disk");
    // It goes on in memory, and what is on the disk is not used again: so purges hold, and say so.
    let _ = case.server.command("purge --all").expect(0);
    assert_eq!(stored(&case), [false; 3]);
    std::fs::remove_file(disk.dir().join("ballast")).expect("removed");
    case.server.stop();
    case.server.start_again();
    case.server.wait_stderr("what was in it is discarded");
    assert_eq!(stored(&case), [false; 3]);
    assert_eq!(stored(&case), [true; 3]);
}

#[test]
fn without_any_directory_open_a_purge_says_that_it_is_not_durable() {
    let origin = origin();
    let config = format!("{STORE} {SITE}").replace("@dir@/store", "@dir@/file/store");
    let server = Server::builder(&config)
        .origin("origin", &origin)
        .file("file", "no directory")
        .start();
    let case = Case { server, origin };
    assert_eq!(stored(&case), [false; 3]);
    let said = case.server.command("purge --all").expect(1).stderr;
    assert!(said.contains("purged, but not written: disk "), "{said}");
    let asked = Request::new("PURGE", "/1000/a");
    assert_eq!(case.server.client().request(&asked).status(), 500);
    assert_eq!(stored(&case), [false; 3]);
}
