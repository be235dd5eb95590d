//! The cache on disks: what is stored is there after a restart, also one without a warning, and
//! what was purged is not.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use forebay_tests::disk::{Case, SITE, STORE, origin};
use forebay_tests::{Request, Server, wait};

/// Some of each size: none, one block, several, with variants.
const ALL: [(&str, &str); 6] = [
    ("a", "/0/empty"),
    ("a", "/1000/small"),
    ("b", "/1000/small"),
    ("a", "/65536/block"),
    ("a", "/65537/two"),
    ("a", "/1500000/many"),
];

#[test]
fn what_is_stored_is_there_after_a_restart() {
    let mut case = Case::start();
    for (device, target) in ALL {
        assert!(!case.is_stored(device, target));
    }
    for is_killed in [false, true, false] {
        if is_killed {
            case.written(6);
            case.server.kill();
        } else {
            case.server.stop();
        }
        case.server.start_again();
        for (device, target) in ALL {
            assert!(case.is_stored(device, target), "{device} {target}");
        }
        // From memory now, and of another variant not at all.
        assert!(case.is_stored("a", "/1000/small"));
    }
    assert!(!case.is_stored("c", "/1000/small"));
    let mode = |name: &str| {
        let path = case.server.dir().join(name);
        std::fs::metadata(path)
            .expect("it is there")
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!((mode("store"), mode("store/rules")), (0o700, 0o600));
}

#[test]
fn parts_and_conditions_are_answered_from_the_disk() {
    let mut case = Case::start();
    let whole = case.ask("a", "/1500000/many");
    let etag = whole.head.field("etag").expect("a tag").to_owned();
    case.server.stop();
    case.server.start_again();
    let before = case.origin.requests().len();
    for (range, len) in [("bytes=700000-700099", 100), ("bytes=-70000", 70_000)] {
        let request = Request::get("/1500000/many")
            .field("X-Device", "a")
            .field("Range", range);
        let got = case.server.client().request(&request);
        assert_eq!((got.status(), got.body.len()), (206, len), "{range}");
        let start = if len == 100 { 700_000 } else { 1_430_000 };
        assert!(got.body[..] == whole.body[start..start + len], "{range}");
    }
    let asked = Request::get("/1500000/many")
        .field("X-Device", "a")
        .field("If-None-Match", &etag);
    assert_eq!(case.server.client().request(&asked).status(), 304);
    let head = Request::new("HEAD", "/1500000/many").field("X-Device", "a");
    assert_eq!(case.server.client().request(&head).status(), 200);
    let only = Request::get("/1000/other").field("Cache-Control", "only-if-cached");
    assert_eq!(case.server.client().request(&only).status(), 504);
    assert_eq!(case.origin.requests().len(), before);
}

#[test]
fn what_is_on_the_disk_is_told() {
    let mut case = Case::start();
    let target = "/1500000/many";
    assert!(!case.is_stored("a", target));
    case.server.stop();
    case.server.start_again();
    let url = format!("explain --live http://forebay.test{target}");
    let said = case.server.command(&url).expect(0).stdout;
    let expected = "1500000 bytes, 1 of 23 blocks are there, and on a disk\n";
    assert!(said.contains(expected), "{said}");
    assert!(said.contains("tags      many"), "{said}");
    let missing = format!("explain --live http://forebay.test{target}?other");
    let said = case.server.command(&missing);
    assert!(said.stdout.contains("nothing is stored"), "{said:?}");
}

#[test]
fn what_is_on_the_disk_stays_over_reloads() {
    let case = Case::start();
    assert!(!case.is_stored("a", "/1000/small"));
    assert!(!case.is_stored("a", "/1500000/many"));
    case.written(2);
    // Equal: it stays open. Another size: opened anew. Without disks: nothing of it is found.
    for store in [STORE, &STORE.replace("256MB", "300MB")] {
        case.server.reload_with(&format!("{store} {SITE}"));
        wait::until("the disk to be open", || case.disk()["objects"] == 2);
        assert!(case.is_stored("a", "/1000/small"));
        assert!(case.is_stored("a", "/1500000/many"));
    }
    assert_eq!(case.disk()["max_bytes"], 300 << 20);
    case.server.reload_with(SITE);
    assert!(case.disk().is_null());
    assert!(!case.is_stored("a", "/1000/small"));
    case.server.reload_with(&format!("{STORE} {SITE}"));
    wait::until("the disk to be open", || case.disk()["objects"] == 2);
    assert!(case.is_stored("a", "/1500000/many"));
    assert!(!case.server.stderr().contains("ERROR"));
}

#[test]
fn what_is_damaged_is_fetched_anew_and_never_served() {
    let mut case = Case::start();
    let targets = ["/60000/one", "/60001/two", "/1500000/many"];
    for target in targets {
        assert!(!case.is_stored("a", target));
    }
    case.server.stop();
    // In the payloads of the bodies, not in a header: as a disk damages, without a word.
    for path in case.segments() {
        let mut bytes = std::fs::read(&path).expect("a segment");
        let end = bytes.len();
        for at in [20_000, 90_000, end - 1_000_000, end - 300_000] {
            bytes[at] ^= 1;
        }
        std::fs::write(&path, bytes).expect("a segment");
    }
    case.server.start_again();
    let before = case.origin.requests().len();
    for target in targets {
        case.ask("a", target);
    }
    let requests = case.origin.requests();
    let ranges: Vec<_> = requests[before..]
        .iter()
        .map(|one| one.field("range"))
        .collect();
    assert_eq!(ranges.len(), 2 + 2, "{ranges:?}");
    assert!(ranges[2..].iter().all(Option::is_some), "{ranges:?}");
    assert!(
        case.disk()["damaged"].as_u64() >= Some(4),
        "{}",
        case.disk()
    );
    assert!(case.disk()["errors"].as_array().expect("a list").is_empty());
}

#[test]
fn a_store_of_another_is_refused_by_name_and_kept_aside() {
    let mut case = Case::start();
    assert!(!case.is_stored("a", "/1000/small"));
    case.server.stop();
    let store = case.server.dir().join("store");
    let identity = std::fs::read(store.join("store")).expect("whose it is");
    let with = |at: usize, byte: u8| {
        let mut bytes = identity.clone();
        bytes[at] = byte;
        let crc = crc32c(&bytes[12..]);
        bytes[8..12].copy_from_slice(&crc.to_le_bytes());
        bytes
    };
    let mut torn = identity.clone();
    torn[40] ^= 1;
    for (bytes, says) in [
        (with(12, 9), "it has format 9, and this is format 1"),
        (torn, "its file `store` is damaged"),
    ] {
        std::fs::write(store.join("store"), &bytes).expect("another one's");
        case.server.start_again();
        let expected = format!("disk {}: {says}; it is kept in `refused`", store.display());
        case.server.wait_stderr(&expected);
        assert_eq!(
            std::fs::read(store.join("refused/store")).expect("aside"),
            bytes
        );
        // It goes on with a new one.
        assert!(!case.is_stored("a", "/1000/small"));
        case.written(1);
        case.server.stop();
    }
}

/// CRC-32C, bit by bit: a second opinion.
fn crc32c(bytes: &[u8]) -> u32 {
    let bit = |crc: u32| (crc >> 1) ^ (0x82F6_3B78 * (crc & 1));
    let byte = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), |crc, _| bit(crc));
    !bytes.iter().fold(!0, byte)
}

#[test]
fn a_directory_that_cannot_be_used_is_told_and_the_others_are() {
    let store = r#"cache_store {
        memory = "8MB", disk = { "@dir@/file/below", "@dir@/good" }, disk_size = "256MB",
    }"#;
    let origin = origin();
    let server = Server::builder(&format!("{store} {SITE}"))
        .origin("origin", &origin)
        .file("file", "no directory")
        .start();
    let case = Case { server, origin };
    case.server.wait_stderr("goes on without disk");
    assert_eq!(case.disk()["errors"].as_array().map(Vec::len), Some(1));
    for target in ["/1000/a", "/1000/b", "/1000/c"] {
        assert!(!case.is_stored("a", target));
    }
    case.written(3);
    let shown = case.server.command("status").expect(0).stdout;
    assert!(
        shown.contains("3 objects, 0 evicted, 0 not written"),
        "{shown}"
    );
    assert!(shown.contains("  not used: disk "), "{shown}");
}

#[test]
fn two_servers_never_use_one_directory() {
    let case = Case::start();
    let other = Server::builder(&format!("{STORE} {SITE}").replace(
        "@dir@/store",
        &case.server.dir().join("store").display().to_string(),
    ))
    .origin("origin", &case.origin)
    .start();
    other.wait_stderr("another process uses this directory");
    assert!(!case.is_stored("a", "/1000/small"));
    case.written(1);
}

#[test]
fn nothing_is_opened_where_a_configuration_is_only_looked_at() {
    let mut case = Case::start();
    case.server.stop();
    let store = case.server.dir().join("store");
    std::fs::remove_dir_all(&store).expect("removed");
    let path = case.server.config_path().display().to_string();
    let _ = forebay_tests::server::run(&["check", &path]).expect(0);
    let _ = forebay_tests::server::run(&["explain", &path, "http://a.test/1/x"]).expect(0);
    assert!(!store.exists());
}

#[test]
fn a_directory_is_made_for_the_user_that_the_server_becomes() {
    let origin = origin();
    let server =
        Server::builder(&format!("{STORE} {SITE}").replace("@dir@/store", "@dir@/a/store"))
            .origin("origin", &origin)
            .server(r#"user = "nobody""#)
            .open_to_all()
            .start();
    let case = Case { server, origin };
    assert!(!case.is_stored("a", "/1000/small"));
    case.written(1);
    let made = std::fs::metadata(case.server.dir().join("a/store")).expect("it is there");
    assert_eq!(
        (made.uid(), made.permissions().mode() & 0o777),
        (65534, 0o700)
    );
}

#[test]
fn the_second_request_is_what_is_written() {
    let case = Case::with(&format!(
        "{} {SITE}",
        STORE.replace("256MB\"", "256MB\", disk_admit = \"second\"")
    ));
    assert!(!case.is_stored("a", "/1000/once"));
    assert!(!case.is_stored("a", "/1000/twice"));
    assert!(case.is_stored("a", "/1000/twice"));
    case.written(1);
}

#[test]
fn more_than_may_be_written_is_not() {
    let case = Case::with(&format!(
        "{} {SITE}",
        STORE.replace("256MB\"", "256MB\", disk_write = \"100KB/s\"")
    ));
    for number in 0..20 {
        assert!(!case.is_stored("a", &format!("/60000/{number}")));
    }
    let disk = case.disk();
    assert!(disk["refused_rate"].as_u64() > Some(0), "{disk}");
    // They are in memory all the same.
    assert!(case.is_stored("a", "/60000/19"));
    let metrics = case.server.admin().get("/metrics").expect(200);
    let text = String::from_utf8_lossy(&metrics.body).into_owned();
    let line = "forebay_cache_disk_refused_total{store=\"default\",reason=\"rate\"}";
    assert!(text.contains(line), "{text}");
}

#[test]
fn several_disks_share_what_is_stored_and_one_that_was_away_is_not_believed() {
    let store = r#"cache_store {
        memory = "8MB", disk = { "@dir@/one", "@dir@/two" }, disk_size = "64MB",
    }"#;
    let mut case = Case::with(&format!("{store} {SITE}"));
    let targets: Vec<String> = (0..30).map(|n| format!("/70000/{n}")).collect();
    let stored = |case: &Case| targets.iter().filter(|t| case.is_stored("a", t)).count();
    assert_eq!(stored(&case), 0);
    case.written(30);
    case.server.stop();
    case.server.start_again();
    assert_eq!(stored(&case), 30);
    case.server.stop();
    let (there, away) = (
        case.server.dir().join("two"),
        case.server.dir().join("away"),
    );
    std::fs::rename(&there, &away).expect("taken out");
    case.server.start_again();
    let left = stored(&case);
    assert!((1..30).contains(&left), "{left} on the other one");
    let _ = case.server.command("purge --all").expect(0);
    case.server.stop();
    std::fs::remove_dir_all(&there).expect("removed");
    std::fs::rename(&away, &there).expect("put back");
    case.server.start_again();
    case.server
        .wait_stderr("the store was in use without it, so it may have missed purges");
    assert_eq!(stored(&case), 0);
    assert_eq!(stored(&case), 30);
}
