//! WordPress with MariaDB, as Debian has them, by one command with its cache: installed, logged
//! into, published in, given a picture; cached for visitors, and never for who is logged in.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use forebay_tests::port::Reserved;
use forebay_tests::visitor::Visitor;
use forebay_tests::{Request, Server, wait};
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
        chown(&data, id, None).expect("its owner");
        let at = format!("--datadir={}", data.display());
        let installed = Command::new("mariadb-install-db")
            .args(["--no-defaults", "--user=mysql", "--skip-test-db", &at])
            .arg("--auth-root-authentication-method=normal")
            .output()
            .expect("mariadb-install-db");
        assert!(installed.status.success(), "{installed:?}");
        let child = Command::new("mariadbd")
            .args(["--no-defaults", "--user=mysql", "--skip-networking", &at])
            .arg(format!("--socket={}", data.join("socket").display()))
            .arg("--innodb-buffer-pool-size=16M")
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
    let client = server.client().patience(std::time::Duration::from_secs(30));

    let mut ann = Visitor::new(client.clone(), &address);
    let form = "weblog_title=A+blog&user_name=ann&admin_password=s3cret-pw&\
                admin_password2=s3cret-pw&pw_weak=on&admin_email=ann%40example.com&\
                blog_public=1&Submit=Install&language=";
    let installed = ann.form("/wp-admin/install.php?step=2", form).expect(200);
    assert!(
        installed.text().contains("Success!"),
        "{}",
        installed.text()
    );
    // Paths that are no files: what `.htaccess` is for elsewhere.
    db.run(
        "wp",
        "UPDATE wp_options SET option_value='/%postname%/' \
         WHERE option_name='permalink_structure'; \
         DELETE FROM wp_options WHERE option_name='rewrite_rules'",
    )
    .expect("the form of links");

    ann.keep("wordpress_test_cookie", "WP%20Cookie%20check");
    let form = "log=ann&pwd=s3cret-pw&wp-submit=Log+In&testcookie=1";
    assert_eq!(ann.form("/wp-login.php", form).status(), 302);
    let home = ann.get("/wp-admin/").expect(200);
    assert!(home.text().contains("wpadminbar"), "{}", home.text());
    let nonce = ann
        .get("/wp-admin/admin-ajax.php?action=rest-nonce")
        .expect(200);
    let nonce = nonce.text().to_owned();

    let post = r#"{"title":"A post","content":"By the test","status":"publish","slug":"a-post"}"#;
    let post = Request::post("/?rest_route=/wp/v2/posts", post)
        .field("X-WP-Nonce", &nonce)
        .field("Content-Type", "application/json");
    assert_eq!(ann.send(post).status(), 201);
    let picture = fs::read(format!("{PACKAGE}/wp-includes/images/rss.png")).expect("a picture");
    let upload = Request::post("/?rest_route=/wp/v2/media", &picture)
        .field("X-WP-Nonce", &nonce)
        .field("Content-Type", "image/png")
        .field(
            "Content-Disposition",
            "attachment; filename=\"picture.png\"",
        );
    let uploaded = ann.send(upload).expect(201);
    let uploaded: serde_json::Value = serde_json::from_str(uploaded.text()).expect("JSON");
    let link = uploaded["source_url"].as_str().expect("a link");
    let (_, link) = link.split_once(&address).expect("a link of this site");

    let mut visitor = Visitor::new(client.clone(), &address);
    assert!(visitor.get(link).expect(200).body == picture);
    let first = visitor.get("/a-post/").expect(200);
    assert!(first.text().contains("By the test"), "{}", first.text());
    let mut other = Visitor::new(client, &address);
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
