//! Tokens whose keys are fetched: rotation, servers that are down, slow or wrong.

use std::sync::{Arc, Mutex};

use forebay_tests::certs::{Authority, Certificate};
use forebay_tests::load::Load;
use forebay_tests::origin::script::Act;
use forebay_tests::peers::Nginx;
use forebay_tests::port::Reserved;
use forebay_tests::tokens::{Signer, base64url, jwks, unsigned};
use forebay_tests::{Gate, Origin, Request, Response, Script, Server, wait};

const SITE: &str = r#"site { "*", jwt "http://@id@/keys", respond(200, "$vars.jwt_sub") }"#;

fn ask(server: &Server, token: &str) -> Response {
    let request = Request::get("/").field("Authorization", &format!("Bearer {token}"));
    server.client().request(&request)
}

/// A server of keys whose answer can be changed.
struct Issuer {
    origin: Origin,
    answer: Arc<Mutex<Script>>,
}

impl Issuer {
    fn new(answer: Script) -> Issuer {
        let answer = Arc::new(Mutex::new(answer));
        let now = answer.clone();
        let script = move |_: &_| now.lock().expect("an answer").clone();
        let origin = Origin::setup().handle(script).start();
        Issuer { origin, answer }
    }

    fn answer(&self, script: Script) {
        *self.answer.lock().expect("an answer") = script;
    }

    fn fetches(&self) -> usize {
        self.origin.requests().len()
    }
}

fn issuer_over_tls(certificate: &Certificate, signer: &Signer) -> Nginx {
    let (cert, key) = (certificate.cert_pem(), certificate.key_pem());
    let config = "ssl_certificate @dir@/cert; ssl_certificate_key @dir@/key;";
    let keys = jwks(&[signer]);
    let files: [(&str, &[u8]); 3] = [
        ("cert", &cert),
        ("key", &key),
        ("keys.json", keys.as_bytes()),
    ];
    Nginx::start_tls(config, &files)
}

#[test]
fn a_rotation_is_seen_by_nobody() {
    let authority = Authority::new();
    let certificate = authority.issue("DNS:localhost");
    let (old, new) = (Signer::ed25519("old"), Signer::ed25519("new"));
    let issuer = issuer_over_tls(&certificate, &old);
    let server = Server::builder(
        r#"site { "*", jwt "https://localhost:@port@/keys.json?client=a", respond(200, "$vars.jwt_sub") }"#,
    )
    .set("port", issuer.addr().port().to_string())
    .env("SSL_CERT_FILE", &authority.cert().display().to_string())
    .start();
    assert_eq!(ask(&server, &old.token("ann")).expect(200).text(), "ann");
    // The issuer goes on with another key, and takes the old one back.
    std::fs::write(issuer.dir().join("keys.json"), jwks(&[&new])).expect("a file");
    assert_eq!(ask(&server, &old.token("ann")).status(), 200);
    assert_eq!(ask(&server, &new.token("bob")).expect(200).text(), "bob");
    assert_eq!(ask(&server, &old.token("ann")).status(), 401);
}

#[test]
fn an_issuer_that_proves_nothing_is_not_believed() {
    let authority = Authority::new();
    let certificate = authority.issue("DNS:other.test");
    let signer = Signer::ed25519("a");
    let issuer = issuer_over_tls(&certificate, &signer);
    let server = Server::builder(
        r#"site { "*", jwt "https://localhost:@port@/keys.json?secret=b", respond(200) }"#,
    )
    .set("port", issuer.addr().port().to_string())
    .env("SSL_CERT_FILE", &authority.cert().display().to_string())
    .start();
    assert_eq!(ask(&server, &signer.token("ann")).status(), 503);
    server.wait_stderr("keys for tokens cannot be fetched");
    assert!(!server.stderr().contains("secret"), "{}", server.stderr());
}

#[test]
fn forged_names_of_keys_are_fetched_for_once() {
    let signer = Signer::ed25519("a");
    let issuer = Issuer::new(Script::ok(jwks(&[&signer])));
    let server = Server::builder(SITE)
        .origin("id", &issuer.origin)
        .workers(2)
        .start();
    let token = signer.token("ann");
    assert_eq!(ask(&server, &token).status(), 200);
    assert_eq!(issuer.fetches(), 1);
    let seen = issuer.origin.requests();
    assert_eq!((&*seen[0].method, &*seen[0].target), ("GET", "/keys"));
    assert_eq!(seen[0].field("host"), Some(&*issuer.origin.target()));
    let client = server.client();
    let load = Load::start(8, |number| {
        let mut conn = client.connect();
        let mut count = 0;
        move || {
            count += 1;
            let forged = unsigned("EdDSA", &format!("{number}-{count}"), "eve");
            let forged = format!("Bearer {forged}.{}", base64url(&[0; 64]));
            let request = Request::get("/").field("Authorization", &forged);
            assert_eq!(conn.exchange(&request).status(), 401);
        }
    });
    for _ in 0..200 {
        assert_eq!(ask(&server, &token).status(), 200);
    }
    load.finish();
    assert_eq!(issuer.fetches(), 2);
}

#[test]
fn what_cannot_be_fetched_leaves_what_there_was() {
    let (signer, other) = (Signer::ed25519("a"), Signer::ed25519("b"));
    let set = jwks(&[&other]);
    let elsewhere = Origin::always(Script::ok(&set));
    let location = format!("Location: http://{}/\r\n", elsewhere.target());
    let huge = format!("{}{set}", " ".repeat(1 << 20));
    for (answer, why) in [
        (Script::ok("<html>"), "no set of keys"),
        (Script::ok(r#"{"keys":[]}"#), "no key that can be used"),
        (Script::status(500, &set), "status 500"),
        (Script::with_fields(302, &location, ""), "status 302"),
        (Script::ok(huge), "larger than 1MB"),
        (
            Script::raw(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n{set}"
            ))
            .close(),
            "cut short",
        ),
        (Script::raw("nonsense\r\n\r\n"), "the status line is not"),
        (Script::new().close(), "without an answer"),
        (Script::new().then(Act::Stall), "no answer within"),
    ] {
        let issuer = Issuer::new(Script::ok(jwks(&[&signer])));
        let server = Server::builder(SITE).origin("id", &issuer.origin).start();
        let token = signer.token("ann");
        assert_eq!(ask(&server, &token).status(), 200);
        issuer.answer(answer);
        assert_eq!(ask(&server, &other.token("bob")).status(), 401, "{why}");
        server.wait_stderr("keys for tokens cannot be fetched; those that were fetched before");
        assert!(server.stderr().contains(why), "{why}: {}", server.stderr());
        assert_eq!(ask(&server, &token).status(), 200, "{why}");
        assert_eq!(issuer.fetches(), 2, "{why}");
    }
    elsewhere.expect_untouched();
}

#[test]
fn before_there_are_keys() {
    let signer = Signer::ed25519("a");
    let token = signer.token("ann");
    // While they are on their way, who brings a token waits.
    let gate = Gate::new();
    let issuer = Issuer::new(Script::ok(jwks(&[&signer])).when(&gate));
    let server = Server::builder(SITE).origin("id", &issuer.origin).start();
    assert_eq!(server.client().get("/").status(), 401);
    let mut conn = server.client().connect();
    conn.send(&Request::get("/").field("Authorization", &format!("Bearer {token}")));
    let _ = issuer.origin.wait_requests(1);
    conn.expect_silence(std::time::Duration::from_millis(100));
    gate.open();
    assert_eq!(conn.read_response().status(), 200);
    // Where nobody answers, it is not the token that is wrong; it goes on by itself.
    let port = Arc::new(Reserved::new());
    let server = Server::builder(SITE)
        .set("id", port.addr().to_string())
        .start();
    let refused = ask(&server, &token).expect(503);
    assert!(refused.field("retry-after").is_some());
    assert_eq!(server.client().get("/").status(), 401);
    server.wait_stderr("until there are some, no token is accepted");
    let _issuer = Origin::setup()
        .route("/keys", Script::ok(jwks(&[&signer])))
        .start_on(port);
    wait::until("the keys", || ask(&server, &token).status() == 200);
    server.wait_stderr("were fetched at last");
}

#[test]
fn a_reload_keeps_the_keys() {
    let signer = Signer::ed25519("a");
    let issuer = Issuer::new(Script::ok(jwks(&[&signer])));
    let server = Server::builder(SITE).origin("id", &issuer.origin).start();
    let token = signer.token("ann");
    assert_eq!(ask(&server, &token).status(), 200);
    issuer.answer(Script::status(500, ""));
    server.reload_with(&SITE.replace("$vars", "again $vars"));
    assert_eq!(ask(&server, &token).expect(200).text(), "again ann");
    assert_eq!(issuer.fetches(), 1);
    // One that comes anew is fetched anew.
    server.reload_with(r#"site { "*", respond(204) }"#);
    assert_eq!(ask(&server, &token).status(), 204);
    issuer.answer(Script::ok(jwks(&[&signer])));
    server.reload_with(SITE);
    assert_eq!(ask(&server, &token).status(), 200);
    assert_eq!(issuer.fetches(), 2);
}

#[test]
fn a_public_key_is_no_secret() {
    let signer = Signer::rsa("r");
    let issuer = Issuer::new(Script::ok(jwks(&[&signer])));
    let server = Server::builder(SITE).origin("id", &issuer.origin).start();
    assert_eq!(ask(&server, &signer.token("ann")).expect(200).text(), "ann");
    let pem = signer.public_pem();
    let modulus = signer.jwk()["n"].as_str().expect("a modulus").to_owned();
    for secret in [&pem[..], pem.trim_ascii_end(), modulus.as_bytes(), b"\0"] {
        let token = signer.confused_token(secret);
        assert_eq!(ask(&server, &token).status(), 401, "{secret:?}");
    }
    for algorithm in ["none", "None", "RS512", "PS256"] {
        let token = format!("{}.", unsigned(algorithm, "r", "eve"));
        assert_eq!(ask(&server, &token).status(), 401, "{algorithm}");
    }
    assert_eq!(issuer.fetches(), 1);
}
