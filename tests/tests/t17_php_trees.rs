//! `forebay php` on the trees of frameworks: what is for browsers is served, pretty URLs reach the
//! front controller, and nothing else is sent or run.

use std::os::unix::fs::symlink;
use std::path::Path;

use forebay_tests::php_tree::{serve, tree};
use forebay_tests::port::Reserved;
use forebay_tests::{Client, Request, Server};
use tempfile::TempDir;

/// A front controller: tells how it was reached, and is fresh for a minute at `/fresh`.
const FRONT: &str = r#"<?php
if ($_SERVER['REQUEST_URI'] === '/fresh') header('Cache-Control: public, max-age=60');
echo implode(' ', ['front', $_SERVER['REQUEST_METHOD'], $_SERVER['REQUEST_URI'],
    $_SERVER['SCRIPT_NAME'], basename($_SERVER['DOCUMENT_ROOT']), $_POST['name'] ?? '-',
    $_GET['q'] ?? '-', uniqid()]);
"#;

/// What must never be seen: neither as it is written, nor run.
const SECRET: &str = "<?php echo 'e'.'v'.'i'.'l'; /* secret */";

struct Tree(TempDir);

impl Tree {
    fn new(files: &[(&str, &str)]) -> Self {
        Self(tree(files))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Serves it; the server says what it takes it for.
    #[track_caller]
    fn serve(&self, dir: &str, kind: &str, more: &[&str]) -> (Server, Reserved) {
        let (server, port) = serve(&self.path().join(dir), more);
        server.wait_stderr(kind);
        (server, port)
    }
}

/// Pretty URLs, forms and queries reach the front controller, under the root's name.
#[track_caller]
fn expect_front(client: &Client, root: &str) {
    for (target, query) in [
        ("/", "-"),
        ("/articles/2026/a-title", "-"),
        ("/search?q=tea", "tea"),
        // Nothing of that name is there, whatever it looks like.
        ("/not-there.php", "-"),
        ("/files.v2/list", "-"),
    ] {
        let text = client.get(target).expect(200).text().to_owned();
        let expected = format!("front GET {target} /index.php {root} - {query} ");
        assert!(text.starts_with(&expected), "{target}: {text}");
    }
    let form = Request::post("/login", "name=ann");
    let form = form.field("Content-Type", "application/x-www-form-urlencoded");
    let text = client.request(&form).expect(200).text().to_owned();
    let expected = format!("front POST /login /index.php {root} ann ");
    assert!(text.starts_with(&expected), "{text}");
}

/// Whatever the answer is, it is neither the file nor what it would print.
#[track_caller]
fn expect_hidden(client: &Client, targets: &[&str]) {
    for target in targets {
        for target in [
            (*target).to_owned(),
            format!("/{target}"),
            format!("{target}/x"),
            format!("{target}~"),
            format!("/no/..{target}"),
            target.replacen('/', "/%2e%2e/", 1),
        ] {
            let text = client.get(&target).text().to_owned();
            let seen = text.contains("secret") || text.contains("evil");
            assert!(!seen, "{target}: {text}");
        }
    }
}

#[track_caller]
fn expect_files(client: &Client, files: &[(&str, &str)]) {
    for (target, text) in files {
        assert_eq!(client.get(target).expect(200).text(), *text, "{target}");
    }
}

fn laravel() -> Tree {
    let tree = Tree::new(&[
        ("artisan", SECRET),
        (".env", "APP_KEY=secret"),
        ("composer.json", "{ \"secret\": 1 }"),
        ("vendor/autoload.php", SECRET),
        ("vendor/phpunit/eval-stdin.php", SECRET),
        ("routes/web.php", SECRET),
        ("storage/logs/laravel.log", "secret"),
        ("storage/app/public/photo.txt", "photo"),
        ("storage/app/public/shell.php", SECRET),
        ("public/index.php", FRONT),
        ("public/.htaccess", "# secret"),
        ("public/.env", "secret"),
        ("public/index.php.bak", SECRET),
        ("public/build/app.js", "js"),
        ("public/uploads/shell.php", SECRET),
        ("public/uploads/a.txt", "a"),
    ]);
    symlink("../storage/app/public", tree.path().join("public/storage")).expect("a link");
    tree
}

const LARAVEL_HIDDEN: [&str; 12] = [
    "/.env",
    "/.htaccess",
    "/artisan",
    "/composer.json",
    "/vendor/autoload.php",
    "/vendor/phpunit/eval-stdin.php",
    "/routes/web.php",
    "/storage/logs/laravel.log",
    "/storage/shell.php",
    "/uploads/shell.php",
    "/index.php.bak",
    "/public/.env",
];

#[test]
fn laravel_is_served_from_its_public_directory() {
    let tree = laravel();
    // By its own directory, or by the one that is for browsers.
    for dir in ["", "public"] {
        let (server, _port) = tree.serve(dir, "public: Laravel", &[]);
        let client = server.client();
        expect_front(&client, "public");
        expect_files(
            &client,
            &[
                ("/build/app.js", "js"),
                ("/storage/photo.txt", "photo"),
                ("/uploads/a.txt", "a"),
            ],
        );
        expect_hidden(&client, &LARAVEL_HIDDEN);
        assert_eq!(client.get("/uploads/shell.php").status(), 404);
        assert_eq!(client.get("/storage/shell.php").status(), 404);
    }
}

#[test]
fn symfony_is_served_from_its_public_directory_and_cached_where_it_says_so() {
    let tree = Tree::new(&[
        ("bin/console", SECRET),
        (".env", "APP_SECRET=secret"),
        (".env.local", "secret"),
        ("config/services.yaml", "secret"),
        ("src/Kernel.php", SECRET),
        ("var/log/prod.log", "secret"),
        ("vendor/autoload.php", SECRET),
        ("public/index.php", FRONT),
        ("public/bundles/web.css", "css"),
        ("public/uploads/shell.php", SECRET),
        ("public/uploads/shell.phtml", SECRET),
    ]);
    let (server, _port) = tree.serve("", "public: Symfony", &["--cache"]);
    let client = server.client();
    expect_front(&client, "public");
    expect_files(&client, &[("/bundles/web.css", "css")]);
    expect_hidden(
        &client,
        &[
            "/.env",
            "/.env.local",
            "/config/services.yaml",
            "/src/Kernel.php",
            "/var/log/prod.log",
            "/vendor/autoload.php",
            "/uploads/shell.php",
            "/uploads/shell.phtml",
        ],
    );
    let ask = |target: &str, cookie: &str| {
        let request = Request::get(target);
        let request = match cookie {
            "" => request,
            cookie => request.field("Cookie", cookie),
        };
        client.request(&request).expect(200).text().to_owned()
    };
    assert_eq!(
        ask("/fresh", ""),
        ask("/fresh", ""),
        "it says that it may be kept"
    );
    assert_ne!(ask("/fresh", "session=1"), ask("/fresh", "session=1"));
    assert_ne!(ask("/other", ""), ask("/other", ""), "it says nothing");
}

#[test]
fn drupal_of_composer_is_served_from_web() {
    let tree = Tree::new(&[
        ("composer.json", "{ \"secret\": 1 }"),
        ("vendor/autoload.php", SECRET),
        ("web/index.php", FRONT),
        ("web/core/lib/Drupal.php", SECRET),
        ("web/core/misc/drupal.js", "js"),
        ("web/core/install.php", "<?php echo 'installs';"),
        ("web/modules/own/own.module", SECRET),
        ("web/modules/own/own.info.yml", "secret: 1"),
        ("web/modules/own/src/own.inc", SECRET),
        ("web/sites/default/settings.php", SECRET),
        ("web/sites/default/files/shell.php", SECRET),
        ("web/sites/default/files/a.txt", "a"),
    ]);
    let (server, _port) = tree.serve("", "web: Drupal", &[]);
    let client = server.client();
    expect_front(&client, "web");
    expect_files(
        &client,
        &[
            ("/core/misc/drupal.js", "js"),
            ("/core/install.php", "installs"),
            ("/sites/default/files/a.txt", "a"),
        ],
    );
    expect_hidden(
        &client,
        &[
            "/composer.json",
            "/vendor/autoload.php",
            "/modules/own/own.module",
            "/modules/own/own.info.yml",
            "/modules/own/src/own.inc",
            "/sites/default/settings.php",
            "/sites/default/files/shell.php",
        ],
    );
}

#[test]
fn any_other_front_controller_in_web_is_one_too() {
    let tree = Tree::new(&[
        ("yii", SECRET),
        (".env", "secret"),
        ("vendor/autoload.php", SECRET),
        ("runtime/app.log", "secret"),
        ("web/index.php", FRONT),
        ("web/css/site.css", "css"),
        ("web/uploads/shell.php", SECRET),
    ]);
    let (server, _port) = tree.serve("", "web: an application with a front controller", &[]);
    let client = server.client();
    expect_front(&client, "web");
    expect_files(&client, &[("/css/site.css", "css")]);
    let hidden = [
        "/.env",
        "/yii",
        "/vendor/autoload.php",
        "/runtime/app.log",
        "/uploads/shell.php",
    ];
    expect_hidden(&client, &hidden);
}

#[test]
fn what_composer_has_put_beside_a_plain_site_is_closed() {
    let tree = Tree::new(&[
        ("index.php", FRONT),
        (".env", "secret"),
        ("composer.json", "{ \"secret\": 1 }"),
        ("composer.lock", "{ \"secret\": 1 }"),
        ("vendor/autoload.php", SECRET),
        ("vendor/phpunit/eval-stdin.php", SECRET),
        ("vendor/phpunit/README.md", "secret"),
        ("lib/config.inc", SECRET),
        ("lib/page.php", "<?php echo 'a page';"),
        ("upload/shell.php", SECRET),
        ("logo.svg", "<svg/>"),
    ]);
    let name = tree
        .path()
        .file_name()
        .and_then(|name| name.to_str())
        .expect("a name")
        .to_owned();
    let (server, _port) = tree.serve("", ": PHP, run by", &[]);
    let client = server.client();
    expect_front(&client, &name);
    expect_files(
        &client,
        &[("/logo.svg", "<svg/>"), ("/lib/page.php", "a page")],
    );
    expect_hidden(
        &client,
        &[
            "/.env",
            "/composer.json",
            "/composer.lock",
            "/vendor/autoload.php",
            "/vendor/phpunit/eval-stdin.php",
            "/vendor/phpunit/README.md",
            "/lib/config.inc",
            "/upload/shell.php",
        ],
    );
}
