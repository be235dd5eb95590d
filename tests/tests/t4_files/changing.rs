//! Files of every size, and files that change while they are sent.

use super::*;

#[test]
fn a_big_file_is_whole() {
    let server = site();
    server.file("www/big.bin", pattern::bytes(20_000_003));
    let mut conn = server.client().connect();
    for _ in 0..2 {
        conn.send(&Request::get("/big.bin"));
        let (head, len) = conn.slow_read(0).expect("the whole file");
        assert_eq!(
            (len, head.field("content-length")),
            (20_000_003, Some("20000003"))
        );
    }
    let range = "bytes=10000000-10000099";
    let part = conn
        .exchange(&Request::get("/big.bin").field("Range", range))
        .expect(206);
    let mut checker = pattern::Checker::at(10_000_000);
    checker.feed(&part.body);
    assert_eq!(part.body.len(), 100);
}

#[test]
fn files_of_every_size_around_the_blocks() {
    let server = site();
    let mut conn = server.client().connect();
    for block in [4096_usize, 16 << 10, 64 << 10, 128 << 10, 256 << 10] {
        for size in [block - 1, block, block + 1] {
            server.file(&format!("www/{size}.bin"), pattern::bytes(size));
            conn.send(&Request::get(&format!("/{size}.bin")));
            let (_, len) = conn.slow_read(0).expect("the whole file");
            assert_eq!(len, size as u64);
        }
    }
}

#[test]
fn a_file_replaced_by_rename_is_sent_as_it_was() {
    let server = site();
    let old = pattern::bytes(8 << 20);
    server.file("www/big.bin", &old);
    let mut conn = server.client().receive_buffer(16 << 10).connect();
    conn.send(&Request::get("/big.bin"));
    let (_, mut body) = conn.read_head();
    let mut checker = pattern::Checker::default();
    checker.feed(&body.next(&mut conn).expect("a piece").expect("a piece"));
    server.file("new.bin", vec![b'n'; 8 << 20]);
    let www = server.dir().join("www/big.bin");
    std::fs::rename(server.dir().join("new.bin"), www).expect("a rename");
    while let Some(part) = body.next(&mut conn).expect("the old file whole") {
        checker.feed(&part);
    }
    assert_eq!(checker.offset(), 8 << 20);
    // And the new one is seen, at the latest after the second that a file is believed.
    wait::until("the new file", || {
        server.client().get("/big.bin").body[0] == b'n'
    });
}

#[test]
fn a_file_cut_short_while_it_is_sent_is_visibly_broken_off() {
    let server = site();
    server.file("www/big.bin", pattern::bytes(8 << 20));
    let mut conn = server.client().receive_buffer(16 << 10).connect();
    conn.send(&Request::get("/big.bin"));
    let (head, mut body) = conn.read_head();
    assert_eq!(head.field("content-length"), Some("8388608"));
    let first = body.next(&mut conn).expect("a piece").expect("a piece");
    let file = std::fs::File::options()
        .write(true)
        .open(server.dir().join("www/big.bin"));
    file.expect("the file")
        .set_len(4096)
        .expect("a shorter file");
    let mut got = first.len();
    let end = loop {
        match body.next(&mut conn) {
            Ok(Some(part)) => got += part.len(),
            Ok(None) => panic!("a whole body of {got} bytes from a file of 4096"),
            Err(end) => break end,
        }
    };
    assert!(
        matches!(end, Trouble::Truncated | Trouble::Reset),
        "{end:?}"
    );
    assert!(got < 8 << 20);
    let fresh = server.client();
    wait::until("the shorter file", || {
        fresh.get("/big.bin").body.len() == 4096
    });
}

#[test]
fn a_file_that_grows_while_it_is_sent_is_never_over_long() {
    let server = site();
    server.file("www/big.bin", pattern::bytes(4 << 20));
    let mut conn = server.client().receive_buffer(16 << 10).connect();
    conn.send(&Request::get("/big.bin"));
    conn.send(&Request::get("/a.txt"));
    let (_, mut body) = conn.read_head();
    let mut got = body
        .next(&mut conn)
        .expect("a piece")
        .expect("a piece")
        .len();
    server.file("www/big.bin", pattern::bytes(6 << 20));
    loop {
        match body.next(&mut conn) {
            Ok(Some(part)) => got += part.len(),
            Ok(None) => break,
            // A file changed in place may also be broken off: mixing both would be worse.
            Err(Trouble::Truncated | Trouble::Reset) => return,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(got, 4 << 20);
    assert_eq!(conn.read_response().text(), "0123456789");
}

#[test]
fn a_hot_file_is_whole_however_it_is_asked_for() {
    let server = site();
    let all = pattern::bytes(200_000);
    server.file("www/hot.bin", &all);
    set_time(&server, "www/hot.bin");
    let mut conn = server.client().connect();
    let get = Request::get("/hot.bin");
    // The first ones find it, the others take what was found.
    for _ in 0..5 {
        let whole = conn.exchange(&get).expect(200);
        assert!(whole.body == all);
        let part = conn.exchange(&get.clone().field("Range", "bytes=1000-150999"));
        assert!(part.expect(206).body == all[1000..151_000]);
        let head = conn.exchange(&Request::new("HEAD", "/hot.bin")).expect(200);
        assert_eq!(head.field("content-length"), Some("200000"));
        let etag = whole.field("etag").expect("an ETag");
        let same = get.clone().field("If-None-Match", etag);
        let _ = conn.exchange(&same).expect(304);
    }
    for response in conn.pipeline(&vec![get.clone(); 20]) {
        assert!(response.expect(200).body == all);
    }
    // Its client takes a little at a time.
    let mut slow = server.client().receive_buffer(4 << 10).connect();
    slow.pipeline(&vec![get.clone(); 3])
        .into_iter()
        .for_each(|response| assert!(response.body == all));
    // Cut short in place: from then on no answer is whole but the shorter file's.
    let file = std::fs::File::options()
        .write(true)
        .open(server.dir().join("www/hot.bin"));
    file.expect("the file").set_len(100_000).expect("shorter");
    wait::until("the shorter file", || {
        let mut conn = server.client().connect();
        conn.send(&get);
        match conn.try_read_response() {
            Ok(response) => {
                assert!(response.body == all[..100_000]);
                true
            }
            Err(Trouble::Truncated | Trouble::Reset) => false,
            Err(other) => panic!("{other}"),
        }
    });
}

#[test]
fn a_small_file_that_changes_is_seen_to() {
    let server = site();
    let client = server.client();
    let first = client.get("/a.txt").expect(200);
    let etag = first.field("etag").expect("an ETag").to_owned();
    server.file("www/a.txt", "changed, and longer");
    wait::until("the change", || {
        client.get("/a.txt").text() == "changed, and longer"
    });
    let response = client
        .request(&Request::get("/a.txt").field("If-None-Match", &etag))
        .expect(200);
    assert_ne!(response.field("etag"), Some(etag.as_str()));
    std::fs::remove_file(server.dir().join("www/a.txt")).expect("the file");
    wait::until("the file to be missed", || {
        client.get("/a.txt").status() == 404
    });
    server.file("www/a.txt", "back");
    wait::until("the file to be back", || {
        client.get("/a.txt").status() == 200
    });
}

#[test]
fn a_directory_of_ten_thousand_files() {
    let server = site();
    for i in 0..10_000 {
        server.file(&format!("www/many/{i}.txt"), format!("file {i}"));
    }
    let mut conn = server.client().connect();
    for i in 0..10_000 {
        // A few at a time: every one of them must be the right one.
        let response = conn.get(&format!("/many/{i}.txt"));
        assert_eq!(
            (response.status(), response.text()),
            (200, format!("file {i}").as_str())
        );
    }
}
