//! What is never sent: what is hidden, and what is outside of the root.

use super::*;

#[test]
fn dotfiles_and_scripts_are_never_sent() {
    let server = site();
    for path in [
        ".env",
        ".git/config",
        "sub/.htaccess",
        "a.php",
        "x.PHP",
        "b.phtml",
        "c.phar",
        "d.cgi",
    ] {
        server.file(&format!("www/{path}"), "private");
        assert_eq!(
            server.client().get(&format!("/{path}")).status(),
            404,
            "{path}"
        );
    }
    assert_eq!(server.client().get("/%2eenv").status(), 404);
    assert_eq!(server.client().get("/a.ph%70").status(), 404);
    server.file("www/.well-known/acme", "public");
    assert_eq!(
        server.client().get("/.well-known/acme").expect(200).text(),
        "public"
    );
}

#[test]
fn nothing_outside_of_the_root_is_sent() {
    let server = site();
    for target in [
        "/../secret.txt",
        "/sub/../../secret.txt",
        "/%2e%2e/secret.txt",
        "/%2e%2e%2fsecret.txt",
        "/..%2fsecret.txt",
        "/..%5csecret.txt",
        "/..\\secret.txt",
        "/sub/..%2f..%2fsecret.txt",
        "/%252e%252e/secret.txt",
        "/%c0%ae%c0%ae/secret.txt",
        "/..%00/secret.txt",
        "/....//secret.txt",
        "/.%2e/secret.txt",
        "/a.txt%00.html",
        "//etc/passwd",
        "/%2fetc/passwd",
        "/sub%2fb.txt",
        "/..;/secret.txt",
        "/%uff0e%uff0e/secret.txt",
    ] {
        let response = server
            .client()
            .raw(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert!(
            matches!(response.status(), 400 | 403 | 404),
            "{target}: {}",
            response.status()
        );
        assert!(!response.body.windows(6).any(|w| w == b"secret") || response.status() != 200);
    }
}

#[test]
fn names_are_decoded_once() {
    let server = site();
    server.file("www/with space.txt", "space");
    server.file("www/per%20cent.txt", "percent");
    server.file("www/\u{fc}.txt", "umlaut");
    server.file("www/q?.txt", "question");
    let client = server.client();
    assert_eq!(client.get("/with%20space.txt").expect(200).text(), "space");
    assert_eq!(
        client.get("/per%2520cent.txt").expect(200).text(),
        "percent"
    );
    assert_eq!(client.get("/per%20cent.txt").status(), 404);
    assert_eq!(client.get("/%C3%BC.txt").expect(200).text(), "umlaut");
    assert_eq!(client.get("/%c3%bc.txt?x").expect(200).text(), "umlaut");
    assert_eq!(client.get("/q%3f.txt").expect(200).text(), "question");
    assert_eq!(
        client.get(&format!("/{}", "x".repeat(300))).status(),
        404,
        "ENAMETOOLONG"
    );
    assert_eq!(
        client.get(&"/x".repeat(3000)).status(),
        404,
        "longer than PATH_MAX"
    );
}

#[test]
fn symbolic_links() {
    let server = serve(
        r#"route "/any/*" { rewrite "/$rest", files "@dir@/www" { symlinks = "any" } },
           route "/no/*" { rewrite "/$rest", files "@dir@/www" { symlinks = "none" } },
           files "@dir@/www""#,
    );
    let www = server.dir().join("www");
    symlink("a.txt", www.join("in.txt")).expect("a link");
    symlink("sub", www.join("in-dir")).expect("a link");
    symlink("../../www/a.txt", www.join("sub/back.txt")).expect("a link");
    symlink("../secret.txt", www.join("out.txt")).expect("a link");
    symlink(server.dir().join("secret.txt"), www.join("abs-out.txt")).expect("a link");
    symlink("/", www.join("root")).expect("a link");
    symlink("loop.txt", www.join("loop.txt")).expect("a link");
    let check = |target: &str, status: u16| {
        assert_eq!(server.client().get(target).status(), status, "{target}");
    };
    for target in [
        "/in.txt",
        "/in-dir/b.txt",
        "/any/out.txt",
        "/any/abs-out.txt",
    ] {
        check(target, 200);
    }
    for target in ["/out.txt", "/abs-out.txt", "/root/etc/passwd", "/loop.txt"] {
        assert!(
            matches!(server.client().get(target).status(), 403 | 404),
            "{target}"
        );
    }
    for target in ["/no/in.txt", "/no/in-dir/b.txt", "/no/out.txt"] {
        assert!(
            matches!(server.client().get(target).status(), 403 | 404),
            "{target}"
        );
    }
    check("/no/a.txt", 200);
}

#[test]
fn what_is_no_plain_file_is_not_sent() {
    let server = site();
    let www = server.dir().join("www");
    let made = std::process::Command::new("mkfifo")
        .arg(www.join("pipe"))
        .status();
    assert!(made.expect("mkfifo").success());
    let _socket = std::os::unix::net::UnixListener::bind(www.join("sock")).expect("a socket");
    symlink("/dev/zero", www.join("zero")).expect("a link");
    // Opening a pipe that nobody writes to would wait: nothing may.
    for target in ["/pipe", "/sock", "/zero"] {
        assert!(
            matches!(server.client().get(target).status(), 403 | 404),
            "{target}"
        );
    }
    assert_eq!(server.client().get("/a.txt").status(), 200);
}

#[test]
fn a_file_that_may_not_be_read_is_not_sent() {
    use std::os::unix::fs::PermissionsExt;
    let server = serve(r#"files "@dir@/www", respond(200, "next")"#);
    let path = server.dir().join("www/a.txt");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o000)).expect("permissions");
    let response = server.client().get("/a.txt");
    // Root may read everything.
    let root = rustix::process::geteuid().is_root();
    assert!(response.status() == 403 || root, "{}", response.status());
}

#[test]
fn a_path_template_cannot_lead_out() {
    let server = Server::builder(r#"site { "*", files "@dir@/hosts/$host" }"#)
        .file("hosts/a.test/x.txt", "a")
        .file("hosts/b.test/x.txt", "b")
        .file("x.txt", "outside")
        .start();
    let ask = |host: &str| server.client().request(&Request::get("/x.txt").host(host));
    assert_eq!(ask("a.test").expect(200).text(), "a");
    assert_eq!(ask("b.test").expect(200).text(), "b");
    assert_eq!(ask("c.test").status(), 404);
    for host in ["..", "."] {
        assert!(matches!(ask(host).status(), 400 | 403 | 404), "{host}");
    }
}
