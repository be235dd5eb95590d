//! DokuWiki, as Debian has it: logged into, written in, given a picture; by one command, and behind
//! nginx as its FastCGI application. And read as nginx with php-fpm shows it.

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use forebay_tests::peers::Nginx;
use forebay_tests::php::PhpFpm;
use forebay_tests::port::Reserved;
use forebay_tests::visitor::{Visitor, between};
use forebay_tests::{Client, Request, Response, Server};

const PACKAGE: &str = "/usr/share/dokuwiki";
const HOST: &str = "wiki.test";

/// A wiki of its own in this directory, not installed yet.
fn unpack(dir: &Path) {
    assert!(
        Path::new(PACKAGE).is_dir(),
        "there is no DokuWiki: install the Debian package dokuwiki"
    );
    let copy = |from: &str, to: &Path| {
        // With what links lead to; the package's own accounts are links to nothing yet.
        let status = Command::new("cp")
            .args(["-rL", from])
            .arg(to)
            .stderr(std::process::Stdio::null())
            .status();
        assert!(status.is_ok() && to.is_dir(), "{from}");
    };
    copy(&format!("{PACKAGE}/."), dir);
    copy("/etc/dokuwiki/.", &dir.join("conf"));
    copy("/var/lib/dokuwiki/data/.", &dir.join("data"));
    // The package's way to keep its configuration elsewhere.
    let _ = fs::remove_file(dir.join("inc/preload.php"));
    let conf = dir.join("conf");
    for made in [
        "local.php",
        "users.auth.php",
        "acl.auth.php",
        "plugins.local.php",
    ] {
        let _ = fs::remove_file(conf.join(made));
    }
    // As it was before it was packed.
    let path = conf.join("dokuwiki.php");
    let text = fs::read_to_string(&path).expect("its settings");
    fs::write(path, text.replace("'/var/lib/dokuwiki/data'", "'./data'")).expect("a file");
    give(dir);
}

/// Installs it by its own page, with one user: ann, whose password is `s3cret`.
fn install(client: &Client) {
    let form = "submit=1&l=en&d[title]=A+wiki&d[acl]=1&d[superuser]=ann&d[fullname]=Ann&\
                d[email]=ann%40example.com&d[password]=s3cret&d[confirm]=s3cret&d[policy]=1&\
                d[license]=cc-by-sa";
    let mut ann = Visitor::new(client.clone(), HOST);
    let done = ann.form("/install.php", form).expect(200);
    assert!(
        done.text().contains("finished successfully"),
        "{}",
        done.text()
    );
}

/// PHP runs as www-data.
fn give(path: &Path) {
    let mode = if path.is_dir() { 0o755 } else { 0o644 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("permissions");
    chown(path, Some(33), Some(33)).expect("its owner");
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("a directory").flatten() {
            give(&entry.path());
        }
    }
}

/// The value of this field of a form.
fn value(page: &Response, name: &str) -> String {
    between(page, &format!("name=\"{name}\" value=\""), '"')
}

/// Logs in, writes a page, changes it, puts a picture there; reads it all as somebody else.
fn use_it(client: &Client) {
    let mut ann = Visitor::new(client.clone(), HOST);
    let form = "sectok=&id=start&do=login&u=ann&p=s3cret";
    assert_eq!(ann.form("/doku.php?id=start", form).status(), 302);
    let home = ann.get("/doku.php?id=start").expect(200);
    assert!(home.text().contains("Logged in as"), "{}", home.text());

    for text in ["The **first** text", "The second text"] {
        let page = ann.get("/doku.php?id=a:page&do=edit").expect(200);
        let (token, date) = (value(&page, "sectok"), value(&page, "date"));
        let form = format!(
            "sectok={token}&id=a:page&rev=0&date={date}&prefix=.&suffix=&changecheck=&\
             target=section&wikitext={}&summary=x&do[save]=1",
            text.replace(' ', "+").replace('*', "%2A")
        );
        let saved = ann.form("/doku.php?id=a:page", &form);
        assert_eq!(saved.status(), 302, "{}", saved.text());
        let shown = client.request(&Request::get("/doku.php?id=a:page").host(HOST));
        let expected = text.replace("**first**", "<strong>first</strong>");
        assert!(
            shown.text().contains(&expected),
            "{expected}: {}",
            shown.text()
        );
        assert!(
            !shown.text().contains("Logged in as"),
            "a page of somebody else's"
        );
    }

    let picture = fs::read(format!("{PACKAGE}/lib/images/error.png")).expect("a picture");
    let token = value(&ann.get("/doku.php?id=a:page&do=edit"), "sectok");
    let mut body = Vec::new();
    for (name, value) in [
        ("call", "mediaupload"),
        ("sectok", &*token),
        ("ns", "a"),
        ("mediaid", "picture.png"),
    ] {
        let part =
            format!("--cut\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        body.extend_from_slice(part.as_bytes());
    }
    body.extend_from_slice(
        b"--cut\r\nContent-Disposition: form-data; name=\"qqfile\"; filename=\"picture.png\"\r\n\
          Content-Type: image/png\r\n\r\n",
    );
    body.extend_from_slice(&picture);
    body.extend_from_slice(b"\r\n--cut--\r\n");
    let upload = Request::post("/lib/exe/ajax.php", &body)
        .field("Content-Type", "multipart/form-data; boundary=cut");
    let done = ann.send(upload).expect(200);
    assert!(done.text().contains("\"success\":true"), "{}", done.text());
    let fetch = Request::get("/lib/exe/fetch.php?media=a:picture.png").host(HOST);
    assert!(client.request(&fetch).expect(200).body == picture);

    // What is nobody's stays so.
    for target in [
        "/data/pages/a/page.txt",
        "/conf/users.auth.php",
        "/inc/init.php",
    ] {
        let refused = client.request(&Request::get(target).host(HOST));
        assert!(
            matches!(refused.status(), 403 | 404),
            "{target}: {}",
            refused.status()
        );
    }
}

#[test]
fn by_one_command() {
    let dir = tempfile::tempdir().expect("a directory");
    unpack(dir.path());
    let port = Reserved::new();
    let (address, path) = (port.addr().to_string(), dir.path().display().to_string());
    let args = ["php", &path, "--cache", "--listen", &address];
    let server = Server::from_command(&args, port.addr());
    server.wait_stderr("DokuWiki");
    install(&server.client());
    use_it(&server.client());
}

/// What this server does for the wiki, behind nginx or alone.
const WIKI: &str = "site { \"*\",\n\
    route { \"/data/*\", \"/conf/*\", \"/bin/*\", \"/inc/*\", \"/vendor/*\" } { respond(403) },\n\
    files \"@root@\",\n\
    cache { bypass = cookie { \"DokuWiki\", \"DW*\" } },\n\
    fastcgi \"@php@\" { root = \"@root@\",\n\
      try = { \"$path\", \"$path/index.php\", \"/doku.php?id=$rest&$query_string\" } },\n}";

fn wiki_behind_nginx() -> (PhpFpm, Server, Nginx) {
    let php = PhpFpm::start_extended(3);
    unpack(Path::new(&php.root()));
    let text = format!(
        "listen \"unix:@dir@/app.sock\" {{ protocol = \"fastcgi\", mode = \"0666\" }}\n{WIKI}"
    );
    let server = Server::builder(&text)
        .set("php", php.target())
        .set("root", php.root())
        .open_to_all()
        .start();
    let socket = server.dir().join("app.sock");
    let front = Nginx::start(
        &format!(
            "client_max_body_size 0; location / {{ include /etc/nginx/fastcgi_params; \
             fastcgi_pass unix:{}; }}",
            socket.display()
        ),
        &[],
    );
    install(&front.client());
    (php, server, front)
}

#[test]
fn behind_nginx_as_its_fastcgi_application() {
    let (_php, _server, front) = wiki_behind_nginx();
    use_it(&front.client());
}

/// Paths that a page leads to.
fn links(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for part in text.split(['"', '\'']).filter(|part| part.starts_with('/')) {
        let target = part
            .split('#')
            .next()
            .unwrap_or_default()
            .replace("&amp;", "&");
        let is_plain = target.bytes().all(|byte| byte.is_ascii_graphic());
        // What changes something, or never ends.
        let is_endless = [
            "do=edit",
            "do=diff",
            "rev=",
            "do=login",
            "sectok",
            "do=media",
            "indexer",
            // Fetched from somewhere else.
            "media=http",
        ]
        .iter()
        .any(|one| target.contains(one));
        if is_plain && !is_endless && !target.starts_with("//") {
            found.insert(target);
        }
    }
    found
}

/// A page without what tells the second it was made in: two wikis, or two looks, differ in that.
fn timeless(body: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(body).into_owned();
    for mark in ["<dc:date>", "taskrunner.php?id="] {
        let mut from = 0;
        while let Some(at) = text[from..].find(mark) {
            let start = from + at + mark.len();
            let end = text[start..].find(['<', '"']).unwrap_or(0) + start;
            text.replace_range(start..end, "");
            from = start;
        }
    }
    text
}

#[test]
fn a_crawl_brings_what_nginx_and_php_fpm_bring() {
    let (php, _server, front) = wiki_behind_nginx();
    let direct = Nginx::start(
        &format!(
            "include /etc/nginx/mime.types; index index.php; client_max_body_size 0;\n\
             location ~ ^/(data|conf|bin|inc|vendor)/ {{ return 403; }}\n\
             location / {{ root {0}; try_files $uri $uri/ @wiki; }}\n\
             location @wiki {{ rewrite ^/(.*) /doku.php?id=$1&$args last; }}\n\
             location ~ \\.php$ {{ root {0}; include /etc/nginx/fastcgi_params; \
             fastcgi_param SCRIPT_FILENAME {0}$fastcgi_script_name; fastcgi_pass {1}; }}",
            php.root(),
            php.target()
        ),
        &[],
    );
    let get =
        |nginx: &Nginx, target: &str| nginx.client().request(&Request::get(target).host(HOST));
    // The first request of a wiki makes its caches.
    let _ = get(&direct, "/doku.php");
    let mut waiting = VecDeque::from(["/doku.php".to_owned(), "/".to_owned()]);
    let mut seen: BTreeSet<String> = waiting.iter().cloned().collect();
    let (mut same, mut changing) = (0, 0);
    while let Some(target) = waiting.pop_front() {
        let (one, ours) = (get(&direct, &target), get(&front, &target));
        let two = get(&direct, &target);
        assert_eq!(ours.status(), one.status(), "{target}");
        let kind = one.field("content-type").unwrap_or_default().to_owned();
        assert_eq!(
            ours.field("content-type").map(|it| it.split(';').next()),
            Some(kind.split(';').next()),
            "{target}"
        );
        let (its, expected) = (timeless(&ours.body), timeless(&one.body));
        // What is another one each time can't be compared.
        if expected == timeless(&two.body) {
            let at = its.bytes().zip(expected.bytes()).position(|(a, b)| a != b);
            let near = |text: &str| {
                let start = at.unwrap_or(text.len()).saturating_sub(80);
                String::from_utf8_lossy(&text.as_bytes()[start..text.len().min(start + 160)])
                    .into_owned()
            };
            assert!(
                its == expected,
                "{target}: {:?} instead of {:?}",
                near(&its),
                near(&expected)
            );
            same += 1;
        } else {
            changing += 1;
        }
        if kind.starts_with("text/html") && seen.len() < 150 {
            for link in links(&String::from_utf8_lossy(&one.body)) {
                if seen.insert(link.clone()) {
                    waiting.push_back(link);
                }
            }
        }
    }
    assert!(
        same >= 20 && changing * 4 < same,
        "{same} the same, {changing} change"
    );
}
