//! `forebay explain --live` while something is under way: how far it is, who waits, what runs.

use forebay_tests::peer::Peer;
use forebay_tests::{Request, Server, wait};
use serde_json::Value;

/// Waits until `forebay explain --live` says each of these of a target.
#[track_caller]
fn wait_told(server: &Server, target: &str, lines: &[&str]) -> String {
    let mut said = String::new();
    wait::until(&format!("{lines:?} of {target}"), || {
        let command = format!("explain --live http://forebay.test{target}");
        let now = server.command(&command).expect(0).stdout;
        if said != now {
            println!("{now}");
        }
        said = now;
        lines.iter().all(|line| said.contains(line))
    });
    said
}

#[test]
fn a_running_server_tells_what_is_on_its_way() {
    let peer = Peer::start();
    let config = format!("cache {{ live = \"skip\" }}, proxy \"{}\"", peer.target());
    let server = Server::builder(&format!("site {{ \"*\", {config} }}")).start();
    let ask = |target: &str| {
        let mut conn = server.client().connect();
        conn.send_head(&Request::get(target));
        conn
    };
    const HEAD: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\n";

    // Nothing has come; and one who waits with the first.
    let mut first = ask("/big");
    let mut call = peer.accept();
    let origin = " ago of the origin, which has not answered";
    let said = wait_told(&server, "/big", &[origin]);
    assert!(!said.contains("more request"), "{said}");
    let mut second = ask("/big");
    let waits = "has not answered; 1 more request waits for it\n";
    wait_told(&server, "/big", &[waits]);

    // How far it is, and who follows.
    call.send(format!(
        "{HEAD}Cache-Control: max-age=1000\r\nContent-Length: 200000\r\n\r\n"
    ));
    call.send(vec![b'x'; 70_000]);
    let readers = [first.read_head(), second.read_head()];
    let lines = [
        "  body      200000 bytes, 1 of 4 blocks are there\n",
        "  fill      70000 of 200000 bytes have come in ",
        "  readers   2\n",
        "  lifetime  1000 s",
    ];
    let said = wait_told(&server, "/big", &lines);
    assert!(!said.contains("asked"), "{said}");
    drop(readers);
    first.abort();
    call.send(vec![b'x'; 130_000]);
    let all = "  body      200000 bytes, 4 of 4 blocks are there\n";
    let said = wait_told(&server, "/big", &[all]);
    assert!(!said.contains("fill") && !said.contains("asked"), "{said}");
    second.abort();

    // A stream that is shared and not stored.
    let mut ear = ask("/live");
    let mut call = peer.accept();
    call.send(format!(
        "{HEAD}Content-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-store\r\n\r\n"
    ));
    call.send("data: 1\n\n");
    ear.read_head();
    let lines = [
        "http://forebay.test/live\n  store     none: it runs beside default\n",
        "  stream    9 bytes in ",
        "  readers   1\n",
        "  type      text/event-stream\n",
        "  vary      accept:*/*\n",
    ];
    wait_told(&server, "/live", &lines);
    let json = server
        .command("explain --live --json http://forebay.test/live")
        .expect(0);
    let found: Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!(found["streams"][0]["bytes"], 9, "{found}");
    assert_eq!(found["streams"][0]["readers"], 1, "{found}");
    assert_eq!(found["stored"].as_array().map(Vec::len), Some(0));
    ear.abort();
    wait::until("the stream to be gone", || {
        let said = server.command("explain --live http://forebay.test/live");
        !said.expect(0).stdout.contains("stream")
    });

    // Who comes next does not wait for the answer to another one.
    let mut mine = ask("/mine");
    peer.accept().send(format!(
        "{HEAD}Set-Cookie: a=b\r\nContent-Length: 0\r\n\r\n"
    ));
    assert_eq!(mine.read_response().status(), 200);
    wait_told(
        &server,
        "/mine",
        &["  passed    not stored: ", "cookie", "; for 1"],
    );
}

#[test]
fn what_takes_the_place_of_something_stale_is_told_of_meanwhile() {
    let peer = Peer::start();
    let config = format!("cache, proxy \"{}\"", peer.target());
    let server = Server::builder(&format!("site {{ \"*\", {config} }}")).start();
    let answer = |text: &str| {
        format!(
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\
             Cache-Control: max-age=0, stale-while-revalidate=600\r\n\r\n{text}"
        )
    };
    let client = server.client();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| client.get("/a").expect(200).text().to_owned());
        peer.accept().send(answer("old!"));
        assert_eq!(first.join().expect("an answer"), "old!");
    });
    assert_eq!(client.get("/a").expect(200).text(), "old!");
    let mut call = peer.accept();
    let lines = [
        "of the origin, which has not answered",
        "  now       it is used though it is stale: ",
    ];
    wait_told(&server, "/a", &lines);
    call.send(answer("ne"));
    let place = "  place     not used yet: when all of it has come, it takes the place of what is \
                 stored\n";
    let lines = [place, "  fill      2 of 4 bytes have come in "];
    let said = wait_told(&server, "/a", &lines);
    assert_eq!(said.matches("  body ").count(), 2, "{said}");
    assert_eq!(client.get("/a").expect(200).text(), "old!");
    call.send("w!");
    wait::until("the new one", || {
        let said = server.command("explain --live http://forebay.test/a");
        !said.expect(0).stdout.contains("place")
    });
    // It is stale as well, and asked for anew behind this.
    assert_eq!(client.get("/a").expect(200).text(), "new!");
}
