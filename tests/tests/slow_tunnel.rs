//! What tunnels cost while nothing passes.

use forebay_tests::peer::{Call, Peer};
use forebay_tests::peers::Nginx;
use forebay_tests::{Client, Conn, Request, Server, proc};

const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                      Upgrade: websocket\r\n\r\n";

/// Opens tunnels, and passes something both ways through each.
fn open(client: &Client, peer: &Peer, count: usize) -> Vec<(Conn, Call)> {
    let tunnel = |_| {
        let mut conn = client.connect();
        let request = Request::get("/chat")
            .field("Connection", "Upgrade")
            .field("Upgrade", "websocket")
            .field("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
            .field(
                "User-Agent",
                "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101",
            );
        conn.send(&request);
        let mut call = peer.accept();
        call.send(SWITCH);
        assert_eq!(conn.read_head().0.status, 101);
        conn.more("ping");
        call.expect_bytes("ping");
        call.send("pong");
        conn.expect_bytes(b"pong");
        (conn, call)
    };
    (0..count).map(tunnel).collect()
}

#[test]
fn an_idle_tunnel_costs_no_more_than_nginxs() {
    const FIRST: usize = 300;
    const MORE: usize = 1_200;
    proc::raise_own_limit();
    let peer = Peer::start();
    let ours = |log: &str| {
        Server::builder(&format!(
            r#"local app = upstream "app" {{ "@peer@", max_connections = 10000 }}
               site {{ "*", {log} proxy(app) }}"#
        ))
        .set("peer", peer.target())
        .listen("max_connections_per_client = 10000")
        .workers(1)
        .start()
    };
    let (plain, logged) = (ours(""), ours(r#"access_log "log","#));
    let config = format!(
        "location / {{ proxy_pass http://{}; proxy_http_version 1.1; \
         proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; \
         proxy_read_timeout 1h; }}",
        peer.target()
    );
    let nginx = Nginx::start(&config, &[]);
    let grown = |client: &Client, pss: &dyn Fn() -> u64| {
        // What the first ones bring with them, later ones use again.
        let first = open(client, &peer, FIRST);
        let before = pss();
        let more = open(client, &peer, MORE);
        let each = pss().saturating_sub(before) / MORE as u64;
        drop((first, more));
        each
    };
    let of_ours = grown(&plain.client(), &|| plain.pss());
    // What is kept of the request for the line that is written at the end.
    let of_logged = grown(&logged.client(), &|| logged.pss());
    let of_nginx = grown(&nginx.client(), &|| nginx.pss());
    println!(
        "bytes of user memory per idle tunnel: {of_ours}, logged {of_logged}, of nginx {of_nginx}"
    );
    assert!(of_ours <= of_nginx + 1024 && of_logged <= of_nginx + 1024);
    assert!(of_ours < 4096 && of_logged < 6144, "it holds a buffer");
}
