//! `forebay php`: a PHP site by one command, with real PHP.

use forebay_tests::Request;
use forebay_tests::php_tree::{serve, tree};
use forebay_tests::server::{binary, run};

const INDEX: &str = "<?php echo $_SERVER['REQUEST_METHOD'].' '.$_SERVER['REQUEST_URI'].' '.\
                     ($_POST['a'] ?? '-').' '.uniqid();";

#[test]
fn a_directory_with_scripts_is_a_site() {
    let dir = tree(&[
        ("index.php", INDEX),
        ("style.css", "h1 {}"),
        ("sub/index.php", "<?php echo 'sub';"),
        ("config.php.bak", "<?php $password = 'secret';"),
        ("uploads/evil.php", "<?php echo 'evil';"),
        ("uploads/a.txt", "text"),
    ]);
    let (server, _port) = serve(dir.path(), &[]);
    let client = server.client();
    let text = |target: &str| client.get(target).text().to_owned();
    assert!(text("/").starts_with("GET / - "));
    assert!(text("/what/ever?x").starts_with("GET /what/ever?x - "));
    let form =
        Request::post("/form", "a=b").field("Content-Type", "application/x-www-form-urlencoded");
    assert!(client.request(&form).text().starts_with("POST /form b "));
    assert_eq!(text("/style.css"), "h1 {}");
    assert_eq!(client.get("/sub").field("location"), Some("/sub/"));
    assert_eq!(text("/sub/"), "sub");
    assert_eq!(text("/uploads/a.txt"), "text");
    // What visitors have uploaded is a file or nothing, never a program; nor is any source sent.
    assert_eq!(client.get("/uploads/evil.php").status(), 404);
    assert!(!text("/config.php.bak").contains("secret"));
    server.wait_stderr("serves");
}

#[test]
fn wordpress_is_known_and_cached_for_visitors_only() {
    let dir = tree(&[
        ("index.php", INDEX),
        ("wp-load.php", ""),
        ("wp-includes/version.php", ""),
        ("wp-content/uploads/evil.php", "<?php echo 'evil';"),
    ]);
    let (server, _port) = serve(dir.path(), &["--cache"]);
    server.wait_stderr("WordPress");
    let client = server.client();
    let page = |cookie: &str| {
        let request = Request::get("/post").field("Cookie", cookie);
        client.request(&request).text().to_owned()
    };
    let first = page("seen=1");
    assert!(first.starts_with("GET /post - "), "{first}");
    assert_eq!(page("seen=2"), first, "one page for all visitors");
    assert_ne!(page("wordpress_logged_in_1=x"), first);
    assert_eq!(page("seen=3"), first);
    assert_eq!(client.get("/wp-content/uploads/evil.php").status(), 404);
    for target in ["/wp-config.php", "/wp-config.php/x"] {
        assert_eq!(client.get(target).status(), 403, "{target}");
    }
}

#[test]
fn of_an_application_with_a_public_directory_only_that_is_served() {
    let dir = tree(&[
        ("artisan", "#!/usr/bin/env php"),
        (".env", "APP_KEY=secret"),
        ("composer.json", "{}"),
        ("public/index.php", INDEX),
        ("public/app.js", "js"),
        ("public/.env", "secret"),
    ]);
    let (server, _port) = serve(dir.path(), &[]);
    let client = server.client();
    assert_eq!(client.get("/app.js").text(), "js");
    for target in [
        "/composer.json",
        "/artisan",
        "/.env",
        "/../.env",
        "/%2e%2e/.env",
    ] {
        let text = client.get(target).text().to_owned();
        assert!(!text.contains("secret") && text != "{}", "{target}: {text}");
    }
    assert!(client.get("/users/7").text().starts_with("GET /users/7 - "));
}

#[test]
fn what_is_wrong_is_said() {
    let output = run(&["php", "/nowhere"]).expect(2);
    assert!(output.stderr.contains("/nowhere"), "{}", output.stderr);
    let dir = tree(&[("index.php", INDEX)]);
    let path = dir.path().to_str().expect("text");
    let output = run(&["php", path, "--php", "/nowhere/php-cgi"]).expect(2);
    assert!(
        output.stderr.contains("/nowhere/php-cgi"),
        "{}",
        output.stderr
    );
    let output = std::process::Command::new(binary())
        .args(["php", path])
        .env("PATH", "/nowhere")
        .output()
        .expect("the forebay binary to run");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("apt-get install php-cgi"), "{said}");
    // What may be a slip of the pen is pointed at.
    let empty = tree(&[("readme.txt", "")]);
    let (server, _port) = serve(empty.path(), &[]);
    server.wait_stderr("there is no script in ");
    // The configuration that is printed is right.
    let printed = run(&["php", path, "--print"]).expect(0).stdout;
    std::fs::write(dir.path().join("forebay.lua"), printed).expect("a file");
    let file = dir.path().join("forebay.lua");
    let _ = run(&["check", file.to_str().expect("text")]).expect(0);
}
