//! Disks that are full: the cache goes on without them.

use forebay_tests::disk::{Case, SITE, STORE, SmallDisk, origin};
use forebay_tests::{Server, wait};

#[test]
fn a_full_disk_costs_the_disk_and_nothing_else() {
    let disk = SmallDisk::mount(24 << 20);
    let origin = origin();
    let config = format!("{STORE} {SITE}").replace("@dir@/store", "@disk@/store");
    let server = Server::builder(&config)
        .set("disk", disk.dir().display().to_string())
        .origin("origin", &origin)
        .start();
    let mut case = Case { server, origin };
    // More than there is room for, though not more than `disk_size`.
    let targets: Vec<String> = (0..40).map(|n| format!("/900000/{n}")).collect();
    for target in &targets {
        assert!(!case.is_stored("a", target));
    }
    case.server
        .wait_stderr("`disk_size` is more than the 24 MB of the file system of ");
    case.server.wait_stderr("goes on without a disk");
    let expected = format!(
        "{}: cannot write: No space left",
        disk.dir().join("store").display()
    );
    case.server.wait_stderr(&expected);
    let metrics = case.server.admin().get("/metrics").expect(200);
    let text = String::from_utf8_lossy(&metrics.body).into_owned();
    let line = "forebay_cache_disk_failed{store=\"default\"} 1";
    assert!(text.contains(line), "{text}");
    let shown = case.server.command("status").expect(0).stdout;
    assert!(shown.contains("  not used: "), "{shown}");
    // It is served from memory, and from the origin what is not there.
    for target in &targets {
        case.ask("a", target);
    }
    assert!(case.is_stored("a", "/900000/39"));
    case.ask("a", "/5000000/large");
    assert_eq!(
        case.server
            .stderr()
            .matches("goes on without a disk")
            .count(),
        1
    );
    // With more room it begins anew: purges of the time in between were not written.
    let _ = case.server.command("purge --all").expect(0);
    case.server.stop();
    case.server
        .write_config(&format!("{STORE} {SITE}").replace("@dir@/store", "@dir@/other"));
    case.server.start_again();
    case.server.reload_with(&config.replace("256MB", "16MB"));
    case.server.wait_stderr("what was in it is discarded");
    assert!(!case.is_stored("a", "/900000/39"));
    wait::until("it to be written", || case.disk()["objects"] == 1);
}

#[test]
fn disk_size_holds() {
    let mut case = Case::with(&format!("{} {SITE}", STORE.replace("256MB", "16MB")));
    for number in 0..80 {
        case.ask("a", &format!("/700000/{number}"));
        wait::until("it to be written", || case.disk()["queue_bytes"] == 0);
        let files = std::fs::read_dir(case.server.dir().join("store")).expect("the store");
        let sizes = files.map(|file| file.and_then(|file| file.metadata()).map_or(0, |m| m.len()));
        let bytes: u64 = sizes.sum();
        assert!(bytes <= 16 << 20, "{bytes} after {number}");
    }
    let disk = case.disk();
    assert!(disk["evicted"].as_u64() > Some(40), "{disk}");
    case.server.stop();
    case.server.start_again();
    assert!(case.is_stored("a", "/700000/79"));
    assert!(!case.is_stored("a", "/700000/0"));
}
