//! WordPress with MariaDB, as Debian has them, by one command with its cache, and behind nginx as its
//! FastCGI application: installed, logged into, published in, given a picture; cached for visitors,
//! and never for who is logged in.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use forebay_tests::peers::Nginx;
use forebay_tests::php::PhpFpm;
use forebay_tests::port::Reserved;
use forebay_tests::visitor::Visitor;
use forebay_tests::{Client, Request, Server, wait};
use tempfile::TempDir;

const PACKAGE: &str = "/usr/share/wordpress";

/// A database server that listens on a Unix socket only; killed when dropped.
struct MariaDb {
    child: Child,
    dir: TempDir,
}

impl MariaDb {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(dir.path(), open).expect("permissions");
        let data = dir.path().join("data");
        fs::create_dir(&data).expect("a directory");
        let id = Command::new("id")
            .args(["-u", "mysql"])
            .output()
            .expect("id");
        let id = String::from_utf8_lossy(&id.stdout).trim().parse().ok();
        assert!(id.is_some(), "install the Debian package mariadb-server");
        // Where temporary files are made otherwise, only this user may do so for all one knows.
        let temporary = dir.path().join("temporary");
        fs::create_dir(&temporary).expect("a directory");
        for dir in [&data, &temporary] {
            chown(dir, id, None).expect("its owner");
        }
        let at = format!("--datadir={}", data.display());
        let installed = Command::new("mariadb-install-db")
            .args(["--no-defaults", "--user=mysql", "--skip-test-db", &at])
            .arg("--auth-root-authentication-method=normal")
            // Of what the kernel has for this there is little, for all who run here.
            .arg("--innodb-use-native-aio=0")
            .env("TMPDIR", &temporary)
            .output()
            .expect("mariadb-install-db");
        assert!(installed.status.success(), "{installed:?}");
        let child = Command::new("mariadbd")
            .args(["--no-defaults", "--user=mysql", "--skip-networking", &at])
            .arg(format!("--socket={}", data.join("socket").display()))
            .args(["--innodb-buffer-pool-size=16M", "--innodb-use-native-aio=0"])
            .env("TMPDIR", &temporary)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("mariadbd, of the Debian package mariadb-server");
        let db = Self { child, dir };
        wait::until("the database", || db.run("", "SELECT 1").is_ok());
        // The directory is the database's own; its socket is for PHP, too.
        let through = fs::Permissions::from_mode(0o711);
        fs::set_permissions(&data, through).expect("permissions");
        db
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("data/socket")
    }

    fn run(&self, database: &str, statement: &str) -> Result<(), String> {
        let mut client = Command::new("mariadb");
        client
            .args(["--no-defaults", "--user=root", "-S"])
            .arg(self.socket());
        if !database.is_empty() {
            client.arg(database);
        }
        let output = client.args(["-e", statement]).output().expect("mariadb");
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A blog of its own in this directory, not installed yet.
fn unpack(dir: &Path, db: &MariaDb) {
    assert!(
        Path::new(PACKAGE).is_dir(),
        "there is no WordPress: install the Debian package wordpress"
    );
    let copied = Command::new("cp")
        .args(["-rL", &format!("{PACKAGE}/.")])
        .arg(dir)
        .stderr(Stdio::null())
        .status();
    assert!(copied.is_ok());
    let config = format!(
        "<?php\n\
         define('DB_NAME', 'wp'); define('DB_USER', 'root'); define('DB_PASSWORD', '');\n\
         define('DB_HOST', 'localhost:{}'); define('DB_CHARSET', 'utf8mb4');\n\
         define('AUTH_KEY', 'a'); define('LOGGED_IN_KEY', 'b'); define('NONCE_KEY', 'c');\n\
         define('WP_HTTP_BLOCK_EXTERNAL', true); define('DISABLE_WP_CRON', true);\n\
         define('AUTOMATIC_UPDATER_DISABLED', true);\n\
         $table_prefix = 'wp_';\n\
         if (!defined('ABSPATH')) {{ define('ABSPATH', __DIR__ . '/'); }}\n\
         require_once ABSPATH . 'wp-settings.php';\n",
        db.socket().display()
    );
    fs::write(dir.join("wp-config.php"), config).expect("a file");
    let uploads = dir.join("wp-content/uploads");
    fs::create_dir_all(&uploads).expect("a directory");
    let status = Command::new("chown")
        .args(["-R", "www-data:www-data"])
        .arg(dir)
        .status();
    assert!(status.is_ok_and(|status| status.success()));
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).expect("permissions");
}

const HOST: &str = "blog.test";

/// Installs it with one user, ann, and gives paths that are no files to its posts: what `.htaccess`
/// is for elsewhere.
fn install(ann: &mut Visitor, db: &MariaDb) {
    let form = "weblog_title=A+blog&user_name=ann&admin_password=s3cret-pw&\
                admin_password2=s3cret-pw&pw_weak=on&admin_email=ann%40example.com&\
                blog_public=1&Submit=Install&language=";
    let installed = ann.form("/wp-admin/install.php?step=2", form).expect(200);
    assert!(
        installed.text().contains("Success!"),
        "{}",
        installed.text()
    );
    db.run(
        "wp",
        "UPDATE wp_options SET option_value='/%postname%/' \
         WHERE option_name='permalink_structure'; \
         DELETE FROM wp_options WHERE option_name='rewrite_rules'",
    )
    .expect("the form of links");
}

/// Logs ann in; what her requests to write must bear.
fn log_in(ann: &mut Visitor) -> String {
    ann.keep("wordpress_test_cookie", "WP%20Cookie%20check");
    let form = "log=ann&pwd=s3cret-pw&wp-submit=Log+In&testcookie=1";
    assert_eq!(ann.form("/wp-login.php", form).status(), 302);
    let home = ann.get("/wp-admin/").expect(200);
    assert!(home.text().contains("wpadminbar"), "{}", home.text());
    let nonce = ann
        .get("/wp-admin/admin-ajax.php?action=rest-nonce")
        .expect(200);
    nonce.text().to_owned()
}

fn publish(ann: &mut Visitor, nonce: &str) {
    let post = r#"{"title":"A post","content":"By the test","status":"publish","slug":"a-post"}"#;
    let post = Request::post("/?rest_route=/wp/v2/posts", post)
        .field("X-WP-Nonce", nonce)
        .field("Content-Type", "application/json");
    assert_eq!(ann.send(post).status(), 201);
}

/// Uploads a picture; its URL.
fn upload(ann: &mut Visitor, nonce: &str, picture: &[u8]) -> String {
    let upload = Request::post("/?rest_route=/wp/v2/media", picture)
        .field("X-WP-Nonce", nonce)
        .field("Content-Type", "image/png")
        .field(
            "Content-Disposition",
            "attachment; filename=\"picture.png\"",
        );
    let uploaded = ann.send(upload).expect(201);
    let uploaded: serde_json::Value = serde_json::from_str(uploaded.text()).expect("JSON");
    let link = uploaded["source_url"].as_str().expect("a link");
    link.to_owned()
}

fn picture() -> Vec<u8> {
    fs::read(format!("{PACKAGE}/wp-includes/images/rss.png")).expect("a picture")
}

/// Visitors share a page, and ann sees her own, which nobody else does.
fn is_cached_for_visitors_only(client: &Client, host: &str, ann: &mut Visitor) {
    let mut visitor = Visitor::new(client.clone(), host);
    let first = visitor.get("/a-post/").expect(200);
    assert!(first.text().contains("By the test"), "{}", first.text());
    let mut other = Visitor::new(client.clone(), host);
    other.keep("seen", "1");
    let again = other.get("/a-post/").expect(200);
    let status = again.field("cache-status").unwrap_or_default();
    assert!(status.contains("hit"), "{status}");
    assert!(again.body == first.body);
    for _ in 0..2 {
        let own = ann.get("/a-post/").expect(200);
        assert!(own.text().contains("wpadminbar"), "ann sees her own page");
        let status = own.field("cache-status").unwrap_or_default();
        assert!(status.contains("bypass"), "{status}");
    }
    let again = other.get("/a-post/").expect(200);
    assert!(!again.text().contains("wpadminbar"), "nobody else does");
}

#[test]
fn installed_published_in_and_cached_for_visitors_only() {
    let db = MariaDb::start();
    db.run("", "CREATE DATABASE wp").expect("a database");
    let dir = tempfile::tempdir().expect("a directory");
    unpack(dir.path(), &db);
    let port = Reserved::new();
    let (address, path) = (port.addr().to_string(), dir.path().display().to_string());
    let args = ["php", &path, "--cache", "--listen", &address];
    let server = Server::from_command(&args, port.addr());
    server.wait_stderr("WordPress");
    let client = server.client().patience(Duration::from_secs(30));
    let mut ann = Visitor::new(client.clone(), &address);
    install(&mut ann, &db);
    let nonce = log_in(&mut ann);
    publish(&mut ann, &nonce);
    let link = upload(&mut ann, &nonce, &picture());
    let (_, link) = link.split_once(&address).expect("a link of this site");
    let mut visitor = Visitor::new(client.clone(), &address);
    assert!(visitor.get(link).expect(200).body == picture());
    is_cached_for_visitors_only(&client, &address, &mut ann);
}

/// nginx → FastCGI → Forebay → php-fpm, and beside it nginx → php-fpm.
#[test]
fn behind_nginx_it_is_what_nginx_and_php_fpm_make_of_it() {
    let db = MariaDb::start();
    db.run("", "CREATE DATABASE wp").expect("a database");
    let dir = tempfile::tempdir().expect("a directory");
    unpack(dir.path(), &db);
    let root = dir.path().display().to_string();
    let php = PhpFpm::start_extended(6);
    let server = Server::builder(
        "listen \"unix:@dir@/app.sock\" { protocol = \"fastcgi\", mode = \"0666\" }\n\
         site { \"*\",\n\
           route \"/wp-content/uploads/*\" { files \"@root@\" },\n\
           files \"@root@\",\n\
           cache { ttl = \"1m\", bypass = cookie { \"wordpress_logged_in_*\", \"wp-postpass_*\" } },\n\
           fastcgi \"@php@\" { root = \"@root@\" } }",
    )
    .set("php", php.target())
    .set("root", root.clone())
    .open_to_all()
    .start();
    let front = Nginx::start(
        &format!(
            "client_max_body_size 0; location / {{ include /etc/nginx/fastcgi_params; \
             fastcgi_pass unix:{}/app.sock; }}",
            server.dir().display()
        ),
        &[],
    );
    let direct = Nginx::start(
        &format!(
            "server_name {HOST}; include /etc/nginx/mime.types; index index.php; absolute_redirect off;\n\
             location / {{ root {root}; try_files $uri $uri/ /index.php?$args; }}\n\
             location ~ \\.php$ {{ root {root}; try_files $uri =404; \
             include /etc/nginx/fastcgi_params; \
             fastcgi_param SCRIPT_FILENAME {root}$fastcgi_script_name; fastcgi_pass {}; }}",
            php.target()
        ),
        &[],
    );
    let patient = |nginx: &Nginx| nginx.client().patience(Duration::from_secs(30));
    let (client, direct) = (patient(&front), patient(&direct));
    let mut ann = Visitor::new(client.clone(), HOST);
    install(&mut ann, &db);
    let nonce = log_in(&mut ann);
    publish(&mut ann, &nonce);
    let link = upload(&mut ann, &nonce, &picture());
    let (_, link) = link.split_once(HOST).expect("a link of this site");
    is_cached_for_visitors_only(&client, HOST, &mut ann);

    let look = |client: &Client, target: &str| {
        let response = client.request(&Request::get(target).host(HOST));
        let field = |name: &str| response.field(name).unwrap_or_default().to_owned();
        // An older name of nginx's; and what it says to a redirect of its own is not of interest.
        let kind = field("content-type").replace("application/javascript", "text/javascript");
        let kind = match response.status() {
            301 => String::new(),
            _ => kind.split(';').next().unwrap_or_default().to_owned(),
        };
        (
            (response.status(), kind, field("location")),
            String::from_utf8_lossy(&response.body).into_owned(),
        )
    };
    for target in [
        "/",
        "/a-post/",
        "/a-post",
        "/hello-world/",
        "/nowhere/",
        "/feed/",
        "/?p=1",
        "/?s=test",
        "/wp-json/wp/v2/posts",
        "/wp-admin",
        "/wp-admin/",
        "/wp-login.php",
        "/wp-config.php",
        "/wp-includes/css/dashicons.min.css",
        "/wp-includes/js/jquery/jquery.min.js",
        "/robots.txt",
        "/xmlrpc.php",
        link,
    ] {
        let (expected, body) = look(&direct, target);
        let (ours, our_body) = look(&client, target);
        assert_eq!(ours, expected, "{target}");
        // Pages of errors are of who makes them; and some pages are another one each time.
        let is_made = ours.0 == 200 || ours.0 == 404;
        if is_made && body == look(&direct, target).1 {
            let at = our_body.bytes().zip(body.bytes()).position(|(a, b)| a != b);
            let start = at.unwrap_or(body.len()).saturating_sub(80);
            let near = |text: &str| {
                let end = text.len().min(start + 200);
                String::from_utf8_lossy(&text.as_bytes()[start.min(end)..end]).into_owned()
            };
            let (its, expected) = (near(&our_body), near(&body));
            assert!(
                our_body == body,
                "{target}: {its:?} instead of {expected:?}"
            );
        }
    }
}
