//! Peers behind TLS: `https://` targets, with nginx as the peer.

use std::path::Path;
use std::time::Duration;

use forebay_tests::certs::{Authority, Certificate};
use forebay_tests::peer::Peer;
use forebay_tests::peers::Nginx;
use forebay_tests::{Origin, Request, Script, Server, pattern};

/// What a peer says of the connection that a request came on.
const FACTS: &str = "location / { return 200 \"$ssl_protocol name=$ssl_server_name \
                     alpn=$ssl_alpn_protocol reused=$ssl_session_reused \
                     client=$ssl_client_s_dn host=$http_host conn=$connection\"; }";

fn nginx(certificate: &Certificate, directives: &str) -> Nginx {
    let config = format!(
        "ssl_certificate @dir@/cert; ssl_certificate_key @dir@/key; \
         ssl_session_cache shared:tests:1m; {directives}"
    );
    let (cert, key) = (certificate.cert_pem(), certificate.key_pem());
    Nginx::start_tls(&config, &[("cert", &cert), ("key", &key)])
}

/// A server before a peer, with these options of its upstream; `@ca@` is the authority's file.
fn before(target: &str, ca: &Path, options: &str) -> Server {
    Server::builder(&format!(
        "local app = upstream \"app\" {{ \"https://@target@\", {options} }}\n\
         site {{ \"*\", proxy(app) }}"
    ))
    .set("target", target)
    .set("ca", ca.display().to_string())
    .workers(1)
    .start()
}

#[test]
fn a_peer_proves_its_name() {
    let authority = Authority::new();
    let modern = format!("ssl_protocols TLSv1.2 TLSv1.3; {FACTS}");
    let peer = nginx(&authority.issue("DNS:app.test"), &modern);
    let options = r#"tls_ca = "@ca@", tls_name = "app.test""#;
    let server = before(&peer.target(), &authority.cert(), options);
    let first = server.client().get("/").expect(200);
    let facts = first.text();
    assert!(
        facts.starts_with("TLSv1.3 name=app.test alpn=http/1.1 "),
        "{facts}"
    );
    assert!(facts.contains("host=forebay.test"), "{facts}");
    // Connections are kept, over TLS too.
    let conn = facts.rsplit(' ').next().expect("a word").to_owned();
    for _ in 0..5 {
        let next = server.client().get("/").expect(200);
        assert!(next.text().ends_with(&conn), "{} {conn}", next.text());
    }
}

#[test]
fn a_certificate_that_proves_nothing_gets_502_with_its_reason() {
    let authority = Authority::new();
    let stranger = Authority::new();
    let right = authority.issue("DNS:app.test");
    let expired = authority.issue_expired("DNS:late.test");
    let foreign = stranger.issue("DNS:app.test");
    for (what, certificate, name) in [
        ("another name", &right, "other.test"),
        ("no name but an address", &right, "127.0.0.1"),
        ("its time is over", &expired, "late.test"),
        ("an authority that is not trusted", &foreign, "app.test"),
    ] {
        let peer = nginx(certificate, FACTS);
        let options = format!(r#"tls_ca = "@ca@", tls_name = "{name}", eject = false"#);
        let server = before(&peer.target(), &authority.cert(), &options);
        let _ = server.client().get("/").expect(502);
        server.wait_stderr("certificate_refused");
        assert!(
            server.stderr().contains(name),
            "{what}: {}",
            server.stderr()
        );
        // Unless it is told not to look.
        let options = format!(r#"tls_verify = false, tls_name = "{name}""#);
        let server = before(&peer.target(), &authority.cert(), &options);
        let _ = server.client().get("/").expect(200);
    }
}

#[test]
fn the_authorities_are_the_systems_unless_told_otherwise() {
    let authority = Authority::new();
    let peer = nginx(&authority.issue("DNS:app.test"), FACTS);
    let config = r#"site { "*", proxy "https://@target@" }"#;
    let builder = || Server::builder(config).set("target", peer.target());
    let request = Request::get("/").host("app.test");
    let _ = builder().start().client().request(&request).expect(502);
    let ca = authority.cert();
    let server = builder().env("SSL_CERT_FILE", &ca.display().to_string());
    let server = server.env("SSL_CERT_DIR", "/nowhere").start();
    let response = server.client().request(&request).expect(200);
    assert!(
        response.text().contains("name=app.test"),
        "{}",
        response.text()
    );
    // The name to be proved is that of the request: each has connections of its own.
    let _ = server
        .client()
        .request(&request.clone().host("b.test"))
        .expect(502);
    let _ = server.client().request(&request).expect(200);
}

#[test]
fn a_certificate_of_an_address() {
    let authority = Authority::new();
    let peer = nginx(&authority.issue("IP:127.0.0.1"), FACTS);
    let options = r#"tls_ca = "@ca@", tls_name = "127.0.0.1""#;
    let server = before(&peer.target(), &authority.cert(), options);
    let facts = server.client().get("/").expect(200);
    assert!(
        facts.text().contains("name= "),
        "RFC 6066 §3: {}",
        facts.text()
    );
}

#[test]
fn a_peers_own_name_is_asked_for() {
    let authority = Authority::new();
    let peer = nginx(&authority.issue("DNS:localhost"), FACTS);
    let target = format!("localhost:{}", peer.addr().port());
    let server = before(&target, &authority.cert(), r#"tls_ca = "@ca@""#);
    let response = server.client().get("/").expect(200);
    assert!(
        response.text().contains("name=localhost"),
        "{}",
        response.text()
    );
}

#[test]
fn a_peer_may_ask_who_we_are() {
    let authority = Authority::new();
    let peer = nginx(
        &authority.issue("DNS:app.test"),
        &format!("ssl_client_certificate @dir@/cert; ssl_verify_client optional_no_ca; {FACTS}"),
    );
    let ours = authority.issue("DNS:edge.test");
    let options = format!(
        r#"tls_ca = "@ca@", tls_name = "app.test", tls_cert = "{}", tls_key = "{}""#,
        ours.cert.display(),
        ours.key.display()
    );
    let server = before(&peer.target(), &authority.cert(), &options);
    let facts = server.client().get("/").expect(200);
    assert!(
        facts.text().contains("client=CN=edge.test"),
        "{}",
        facts.text()
    );
}

#[test]
fn a_session_is_resumed() {
    for protocol in ["TLSv1.2", "TLSv1.3"] {
        let authority = Authority::new();
        let once = format!("ssl_protocols {protocol}; keepalive_timeout 0; {FACTS}");
        let peer = nginx(&authority.issue("DNS:app.test"), &once);
        let options = r#"tls_ca = "@ca@", tls_name = "app.test""#;
        let server = before(&peer.target(), &authority.cert(), options);
        let first = server.client().get("/").expect(200);
        assert!(first.text().contains("reused=. "), "{}", first.text());
        let second = server.client().get("/").expect(200);
        assert!(second.text().contains("reused=r "), "{}", second.text());
    }
}

/// nginx with TLS before an origin, which is behind Forebay: what passes two servers.
const PASS_ON: &str = "client_max_body_size 0; proxy_request_buffering off; proxy_buffering off; \
                       location / { proxy_pass http://@origin@; proxy_http_version 1.1; \
                       proxy_set_header Upgrade $http_upgrade; \
                       proxy_set_header Connection $http_connection; }";

#[test]
fn bodies_pass_both_ways() {
    let authority = Authority::new();
    let origin = Origin::setup()
        .route("/down", Script::pattern(5_000_000))
        .start();
    let pass_on = PASS_ON.replace("@origin@", &origin.target());
    let peer = nginx(&authority.issue("DNS:app.test"), &pass_on);
    let options = r#"tls_ca = "@ca@", tls_name = "app.test""#;
    let server = before(&peer.target(), &authority.cert(), options);
    let mut conn = server.client().connect();
    let body = pattern::bytes(3_000_000);
    let sent = conn.exchange(&Request::post("/up", &body)).expect(200);
    assert_eq!(sent.text(), "POST /up");
    assert!(origin.only_request().body == body);
    let got = conn.get("/down").expect(200);
    assert!(got.body == pattern::bytes(5_000_000));
    // A client that reads slowly: what it does not take waits at the peer.
    let mut slow = server.client().receive_buffer(16 << 10).connect();
    slow.send(&Request::get("/down"));
    let (_, len) = slow.slow_read(20_000_000).expect("a whole body");
    assert_eq!(len, 5_000_000);
}

#[test]
fn a_websocket_passes_through_tls() {
    let authority = Authority::new();
    let far = Peer::start();
    let pass_on = PASS_ON.replace("@origin@", &far.target());
    let peer = nginx(&authority.issue("DNS:app.test"), &pass_on);
    let options = r#"tls_ca = "@ca@", tls_name = "app.test""#;
    let server = before(&peer.target(), &authority.cert(), options);
    let mut conn = server.client().connect();
    let request = Request::get("/chat")
        .field("Connection", "Upgrade")
        .field("Upgrade", "websocket");
    conn.send(&request);
    let mut call = far.accept();
    assert_eq!(call.fields("upgrade"), ["websocket"]);
    let body = pattern::bytes(2_000_000);
    call.send(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhi",
    );
    assert_eq!(conn.read_head().0.status, 101);
    conn.expect_bytes(b"hi");
    let mut writer = conn.writer();
    let sent = body.clone();
    let writing = std::thread::spawn(move || writer.send(&sent).is_ok());
    call.expect_bytes(&body);
    assert!(writing.join().expect("a writer"));
    let expected = body.clone();
    let answering = std::thread::spawn(move || {
        call.send(&body);
        call
    });
    conn.expect_bytes(&expected);
    let mut call = answering.join().expect("a peer");
    conn.more("bye");
    call.expect_bytes("bye");
    call.half_close();
    conn.expect_gone();
}

#[test]
fn what_speaks_no_tls_gets_502() {
    let clear = Script::raw("HTTP/1.1 400 Bad Request\r\n\r\n").close();
    let origin = Origin::setup().on_accept(clear).start();
    let ca = Authority::new().cert();
    let options = r#"tls_verify = false, tls_name = "app.test""#;
    let server = before(&origin.target(), &ca, options);
    let _ = server.client().get("/").expect(502);
    server.wait_stderr("tls_failed");
}

#[test]
fn a_peer_that_says_nothing_gets_504() {
    let port = forebay_tests::port::Reserved::new();
    let _deaf = port.listen();
    let server = Server::builder(
        r#"site { "*", proxy "https://@target@" { connect_timeout = "300ms", retries = 0 } }"#,
    )
    .set("target", port.addr().to_string())
    .start();
    let _ = server.client().get("/").expect(504);
}

#[test]
fn a_proxy_header_goes_before_the_handshake() {
    let authority = Authority::new();
    let certificate = authority.issue("DNS:app.test");
    let peer = Nginx::start_listening(
        "ssl proxy_protocol",
        "ssl_certificate @dir@/cert; ssl_certificate_key @dir@/key; \
         location / { return 200 \"$proxy_protocol_addr\"; }",
        &[
            ("cert", &certificate.cert_pem()),
            ("key", &certificate.key_pem()),
        ],
    );
    let options = r#"tls_ca = "@ca@", tls_name = "app.test", send_proxy = "v2""#;
    let server = before(&peer.target(), &authority.cert(), options);
    let client = server.client().from("127.0.0.7");
    assert_eq!(client.get("/").expect(200).text(), "127.0.0.7");
}

/// A server that takes up a tunnel and sends two records at once, of which no buffer holds both.
const RECORDS: &str = r#"
import socket, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
plain, _ = listener.accept()
secure = context.wrap_socket(plain, server_side=True)
secure.recv(65536)
secure.sendall(b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
while secure.recv(65536) == b"more":
    secure.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    secure.sendall(b"a" * 10000)
    secure.sendall(b"b" * 16000)
    secure.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
# Without saying so, as many do.
secure.sendall(b"last words")
secure.close()
"#;

#[test]
fn what_is_decrypted_and_has_no_room_is_not_forgotten() {
    let authority = Authority::new();
    let peer = Python::start(RECORDS, &authority.issue("DNS:app.test"));
    let options = r#"tls_ca = "@ca@", tls_name = "app.test""#;
    let server = before(&peer.target, &authority.cert(), options);
    let mut conn = server.client().connect();
    let request = Request::get("/")
        .field("Connection", "Upgrade")
        .field("Upgrade", "websocket");
    conn.send(&request);
    assert_eq!(conn.read_head().0.status, 101);
    for _ in 0..10 {
        conn.more("more");
        conn.expect_bytes(&[b'a'; 10_000]);
        conn.expect_bytes(&[b'b'; 16_000]);
    }
    conn.more("enough");
    conn.expect_bytes(b"last words");
    conn.expect_closed();
}

/// A server in Python that has printed its port; it is killed when dropped.
struct Python {
    child: std::process::Child,
    target: String,
}

impl Python {
    fn start(program: &str, certificate: &Certificate) -> Self {
        let mut child = std::process::Command::new("/usr/bin/python3")
            .args(["-c", program])
            .args([&certificate.cert, &certificate.key])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("python3, of the Debian package python3");
        let mut line = String::new();
        let mut out = std::io::BufReader::new(child.stdout.take().expect("a pipe"));
        std::io::BufRead::read_line(&mut out, &mut line).expect("a line");
        let target = format!("127.0.0.1:{}", line.trim());
        Self { child, target }
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server that ends connections without saying so, as somebody in between could.
const CUTTING: &str = r#"
import socket, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    plain, _ = listener.accept()
    secure = context.wrap_socket(plain, server_side=True)
    path = secure.recv(65536).split()[1]
    secure.sendall(b"HTTP/1.1 200 OK\r\n\r\nall of it")
    if path == b"/whole":
        secure.unwrap()
    secure.close()
"#;

#[test]
fn an_end_that_is_not_announced_is_no_end() {
    let authority = Authority::new();
    let peer = Python::start(CUTTING, &authority.issue("DNS:app.test"));
    let options = r#"tls_ca = "@ca@", tls_name = "app.test", eject = false"#;
    let server = before(&peer.target, &authority.cert(), options);
    let mut cut = server.client().connect();
    cut.send(&Request::get("/cut"));
    let cut = cut.try_read_response();
    let whole = server.client().get("/whole");
    assert!(cut.is_err(), "{cut:?}");
    assert_eq!(whole.expect(200).text(), "all of it");
}

#[test]
fn a_reload_with_other_authorities_trusts_those() {
    let authority = Authority::new();
    let peer = nginx(&authority.issue("DNS:app.test"), FACTS);
    let config = r#"local app = upstream "app" { "https://@target@", tls_ca = "ca.pem", tls_name = "app.test" }
                    site { "*", proxy(app) }"#;
    let server = Server::builder(config)
        .set("target", peer.target())
        .file("ca.pem", std::fs::read(authority.cert()).expect("a file"))
        .workers(1)
        .start();
    let first = server.client().get("/").expect(200);
    // The same file: the same pool, with its connections.
    server.reload_with(config);
    assert_eq!(server.client().get("/").expect(200).text(), first.text());
    let other = Authority::new();
    server.file("ca.pem", std::fs::read(other.cert()).expect("a file"));
    server.reload_with(config);
    let _ = server.client().get("/").expect(502);
    server.file("ca.pem", "no certificate");
    let refused = server.reload();
    assert_eq!(refused.code, Some(2), "{refused:?}");
    let _ = server.client().get("/").expect(502);
}

#[test]
fn the_first_of_many_requests_waits_for_no_other() {
    let authority = Authority::new();
    let peer = nginx(&authority.issue("DNS:app.test"), FACTS);
    let options = r#"tls_ca = "@ca@", tls_name = "app.test""#;
    let server = before(&peer.target(), &authority.cert(), options);
    let mut conns: Vec<_> = (0..50).map(|_| server.client().connect()).collect();
    for conn in &mut conns {
        conn.send(&Request::get("/"));
    }
    for conn in &mut conns {
        conn.set_read_timeout(Duration::from_secs(20));
        let _ = conn.read_response().expect(200);
    }
}

#[test]
fn checks_of_health_go_over_tls() {
    let authority = Authority::new();
    let up = format!("location /up {{ return 200 well; }} {FACTS}");
    let good = nginx(&authority.issue("DNS:app.test"), &up);
    let stranger = nginx(&Authority::new().issue("DNS:app.test"), &up);
    let server = Server::builder(
        r#"local app = upstream "app" { "https://@good@", "https://@stranger@", eject = false,
             tls_ca = "@ca@", tls_name = "app.test",
             health = { path = "/up", body = "well", every = "20ms", up = 1, down = 1 } }
           site { "*", proxy(app) { retries = 0 } }"#,
    )
    .set("good", good.target())
    .set("stranger", stranger.target())
    .set("ca", authority.cert().display().to_string())
    .start();
    server.wait_stderr("the peer is down");
    for _ in 0..10 {
        let _ = server.client().get("/").expect(200);
    }
    let said = server.stderr();
    assert!(said.contains("certificate"), "{said}");
    assert_eq!(said.matches("the peer is down").count(), 1, "{said}");
}
