//! The pages for who comes from another server: its configuration and its translation answer the
//! same requests alike, and where they differ they differ as is said.
//!
//! On a page `docs/from-….md` these blocks follow one another:
//! * `nginx`, `haproxy` or `caddyfile`: the other server's configuration, which it accepts;
//! * `lua`: the translation;
//! * `text both`: requests that both answer so, `METHOD URL | FIELD: VALUE | STATUS | FIELD: VALUE`;
//! * `text differs`: requests that they answer in different ways,
//!   `METHOD URL | NAME STATUS | Forebay STATUS`.
//!
//! Behind a status stand fields of the response, or a part of its body in quotes.

use std::collections::BTreeSet;

use forebay_tests::docs::{Block, blocks_of, matches, root};
use forebay_tests::shell::{Job, Shell};

/// The other server.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rival {
    Nginx,
    Haproxy,
    Caddy,
}

impl Rival {
    fn of(language: &str) -> Option<Self> {
        match language {
            "nginx" => Some(Self::Nginx),
            "haproxy" => Some(Self::Haproxy),
            "caddyfile" => Some(Self::Caddy),
            _ => None,
        }
    }

    /// As it is written in a line of differences.
    fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
            Self::Caddy => "Caddy",
        }
    }

    /// The page shows what stands in `http` of nginx; of the others all.
    fn whole(self, config: &str) -> String {
        match self {
            Self::Nginx => nginx(config),
            Self::Haproxy | Self::Caddy => config.to_owned(),
        }
    }

    fn check(self) -> &'static str {
        match self {
            Self::Nginx => "nginx -t -q -p /mnt -c /mnt/rival",
            Self::Haproxy => "haproxy -c -q -f /mnt/rival",
            Self::Caddy => "caddy validate --adapter caddyfile --config /mnt/rival >/mnt/said 2>&1",
        }
    }

    fn run(self) -> &'static str {
        match self {
            Self::Nginx => "nginx -p /mnt -c /mnt/rival",
            Self::Haproxy => "haproxy -db -f /mnt/rival",
            Self::Caddy => "caddy run --adapter caddyfile --config /mnt/rival",
        }
    }
}

fn nginx(http: &str) -> String {
    format!(
        "daemon off; master_process off; pid nginx.pid; error_log stderr;\nevents {{}}\n\
         http {{ include /etc/nginx/mime.types; access_log off;\n{http}}}\n"
    )
}

/// One configuration with its translation.
struct Pair {
    rival: Rival,
    theirs: Block,
    ours: Block,
    both: Vec<Block>,
    differs: Vec<Block>,
}

fn pairs(page: &str) -> Vec<Pair> {
    let mut pairs: Vec<Pair> = Vec::new();
    let mut blocks = blocks_of(&root().join("docs").join(page)).into_iter();
    while let Some(block) = blocks.next() {
        if let Some(rival) = Rival::of(block.language()) {
            let ours = blocks.next().expect("a translation");
            assert_eq!(ours.kind, "lua", "{}", ours.place);
            pairs.push(Pair {
                rival,
                theirs: block,
                ours,
                both: Vec::new(),
                differs: Vec::new(),
            });
            continue;
        }
        let last = pairs.last_mut();
        match (block.kind.as_str(), last) {
            ("text both", Some(pair)) => pair.both.push(block),
            ("text differs", Some(pair)) => pair.differs.push(block),
            _ => {}
        }
    }
    for pair in &pairs {
        assert!(!pair.both.is_empty(), "{}: no requests", pair.theirs.place);
    }
    pairs
}

struct Answer {
    status: String,
    fields: Vec<(String, String)>,
    body: String,
    text: String,
}

impl Answer {
    fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.fields.iter();
        let (_, value) = fields.find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        Some(value)
    }

    /// What is to be equal: neither dates and tags nor how a body is framed.
    fn essence(&self) -> Vec<String> {
        let media = self.field("content-type").unwrap_or_default();
        let media = media.split(';').next().unwrap_or_default();
        // The older name, which RFC 9239 has made obsolete.
        let media = media.replace("application/javascript", "text/javascript");
        let mut essence = vec![self.status.clone()];
        for name in ["location", "content-range", "content-encoding"] {
            essence.push(format!("{name}: {}", self.field(name).unwrap_or_default()));
        }
        // Each server has error pages of its own, and compresses in its own way.
        if self.status.starts_with('2') {
            essence.push(media);
            if self.field("content-encoding").is_none() {
                essence.push(self.body.clone());
            }
        }
        essence
    }

    /// What is not as expected.
    fn wrong(&self, expected: &[&str]) -> Option<String> {
        let right = |want: &&str| match want.strip_prefix('"') {
            Some(part) => self.body.contains(part.trim_end_matches('"')),
            None => match want.split_once(':') {
                Some((name, value)) => matches(value.trim(), self.field(name).unwrap_or_default()),
                None => self.status == **want,
            },
        };
        let wrong = expected.iter().find(|want| !right(want))?;
        Some(format!("not {wrong}, but\n{}", self.text))
    }
}

/// Sends the request that a line begins with.
#[track_caller]
fn ask(shell: &mut Shell, columns: &[&str]) -> Answer {
    let (method, url) = columns[0].split_once(' ').expect("a method and a URL");
    let mut command = String::from("curl -s -i --path-as-is --max-time 10 ");
    command.push_str("--connect-to ::127.0.0.1: ");
    match method {
        "HEAD" => command.push_str("-I "),
        _ => command.push_str(&format!("-X {method} ")),
    }
    for column in &columns[1..] {
        match column.strip_prefix("body ") {
            Some(len) => command.push_str(&format!("--data-binary @/mnt/{len} -H 'Expect:' ")),
            None => command.push_str(&format!("-H '{column}' ")),
        }
    }
    let text = shell.succeed(&format!("{command} '{}'", url.trim()));
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1));
    let fields = lines.filter_map(|line| line.split_once(": "));
    Answer {
        status: status.unwrap_or_default().to_owned(),
        fields: fields
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        body: body.to_owned(),
        text: text.clone(),
    }
}

fn columns(line: &str) -> Vec<&str> {
    line.split(" | ").map(str::trim).collect()
}

/// Where the part that begins with this stands.
#[track_caller]
fn position(columns: &[&str], line: &str, is: impl Fn(&str) -> bool) -> usize {
    let at = columns.iter().position(|column| is(column));
    at.unwrap_or_else(|| panic!("{line}: what is the answer?"))
}

fn is_status(column: &str) -> bool {
    column.len() == 3 && column.bytes().all(|byte| byte.is_ascii_digit())
}

/// What the configurations serve: files, and applications on every port that is named.
fn furnish(shell: &mut Shell, config: &str) {
    let page = |name: &str| {
        format!(
            "<title>{name}</title>\n{}\n",
            "A line of text. ".repeat(200)
        )
    };
    for path in [
        "index.html",
        "404.html",
        "50x.html",
        "about.html",
        "docs/guide.html",
    ] {
        shell.write(&format!("/srv/www/{path}"), &page(path));
    }
    for (path, text) in [
        ("assets/app.js", "let a = 1;\n"),
        ("assets/site.css", "a {}\n"),
        ("files/a.txt", "a text\n"),
        (".git/config", "[core]\n"),
        ("upload.php", "<?php secret();\n"),
    ] {
        shell.write(&format!("/srv/www/{path}"), text);
    }
    // ann: wonderland
    let hash = "$2b$05$zoXvUasMCTmDZR27e5b9U.ObsQQGA96NmdIw5W7oHb2gLfW7U0kfC";
    shell.write("/srv/users", &format!("ann:{hash}\n"));
    let _ = shell.succeed("head -c 3000000 /dev/zero >/mnt/3MB; head -c 1000 /dev/zero >/mnt/1KB");
    if config.contains("fastcgi_pass") {
        furnish_php(shell);
    }
    let ports: BTreeSet<&str> = config
        .split("127.0.0.1:")
        .skip(1)
        .map(|rest| {
            rest.split(|c: char| !c.is_ascii_digit())
                .next()
                .unwrap_or_default()
        })
        .collect();
    if ports.is_empty() {
        return;
    }
    let listens: String = ports
        .iter()
        .map(|p| format!("listen 127.0.0.1:{p};\n"))
        .collect();
    // The first two digits of the port say which pool it is: of one, any peer may answer.
    let origin = nginx(&format!(
        r#"map $server_port $pool {{ ~^(?<first>\d\d) $first; }}
server {{
  {listens}
  default_type text/plain;
  client_max_body_size 0;
  location / {{ return 200 "pool $pool: $request_method $request_uri at $host for $http_x_forwarded_for\n"; }}
  location /missing {{ return 404 "not there\n"; }}
  location /verify {{
    if ($http_cookie !~ session) {{ return 401; }}
    add_header Remote-User ann;
    return 204;
  }}
  location = /user {{ return 200 "user $http_remote_user\n"; }}
  location /fresh {{ add_header Cache-Control max-age=60; return 200 "fresh\n"; }}
  location /mine {{ add_header Set-Cookie a=b; return 200 "mine\n"; }}
  location /fields {{ add_header X-Powered-By PHP; return 200 "proto $http_x_forwarded_proto\n"; }}
}}
"#
    ));
    shell.write("/mnt/origin/conf", &origin);
    let _ = shell.spawn("nginx -p /mnt/origin -c /mnt/origin/conf", "");
}

/// A site of PHP in `/srv/blog`, and a php-fpm for it at `/run/php/blog.sock`.
fn furnish_php(shell: &mut Shell) {
    let script = |name: &str| {
        format!(
            "<?php if (isset($_GET['status'])) http_response_code((int) $_GET['status']);\n\
             if (isset($_GET['max'])) header('Cache-Control: max-age=' . $_GET['max']);\n\
             header('Content-Type: text/plain');\n\
             echo '{name} ', $_SERVER['REQUEST_METHOD'], ' ', $_SERVER['REQUEST_URI'], ' ', $_SERVER['QUERY_STRING'],\n\
             \"\\nin \", $_SERVER['APP_ENV'] ?? '-', ', proxy ', $_SERVER['HTTP_PROXY'] ?? '' ?: '-',\n\
             ', behind it ', $_SERVER['PATH_INFO'] ?? '-', ', ', strlen(file_get_contents('php://input')), \" bytes\\n\";\n"
        )
    };
    for path in [
        "index.php",
        "info.php",
        "admin/index.php",
        "uploads/evil.php",
    ] {
        shell.write(&format!("/srv/blog/{path}"), &script(path));
    }
    for (path, text) in [
        ("style.css", "a {}\n"),
        ("a.jpg", "no picture\n"),
        ("uploads/a.txt", "a text\n"),
        ("info.php.bak", "<?php $password = 1;\n"),
        (".env", "SECRET=1\n"),
    ] {
        shell.write(&format!("/srv/blog/{path}"), text);
    }
    shell.write(
        "/mnt/fpm.conf",
        "[global]\nerror_log = /mnt/fpm.log\n[blog]\nlisten = /run/php/blog.sock\n\
         user = www-data\ngroup = www-data\npm = static\npm.max_children = 4\n\
         php_admin_value[post_max_size] = 20M\n",
    );
    let _ = shell.succeed("mkdir -p /run/php");
    let program = "$(ls /usr/sbin/php-fpm* | tail -n 1)";
    let _ = shell.spawn(&format!("{program} -n -F -R -y /mnt/fpm.conf"), "");
}

/// Asks a server what the lines say, and ends it. What is wrong goes to `wrong`.
fn answers(
    shell: &mut Shell,
    server: &Job,
    pair: &Pair,
    who: &str,
    wrong: &mut Vec<String>,
) -> Vec<(String, Answer)> {
    let mut answers = Vec::new();
    for line in pair.both.iter().flat_map(|block| block.text.lines()) {
        let columns = columns(line);
        let at = position(&columns, line, is_status);
        let answer = ask(shell, &columns[..at]);
        let what = answer.wrong(&columns[at..]);
        wrong.extend(what.map(|what| format!("{who}: {line}\n{what}")));
        answers.push((line.to_owned(), answer));
    }
    for line in pair.differs.iter().flat_map(|block| block.text.lines()) {
        let columns = columns(line);
        let names = [pair.rival.name(), "Forebay"];
        let of = |column: &str, name: &str| {
            column
                .strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(' '))
        };
        let begins = |column: &str| names.iter().any(|name| of(column, name));
        let request = position(&columns, line, begins);
        let at = position(&columns, line, |column| of(column, who));
        let end = columns[at + 1..].iter().position(|column| begins(column));
        let end = end.map_or(columns.len(), |more| at + 1 + more);
        let mut expected = columns[at..end].to_vec();
        expected[0] = expected[0][who.len()..].trim_start();
        let what = ask(shell, &columns[..request]).wrong(&expected);
        wrong.extend(what.map(|what| format!("{who}: {line}\n{what}")));
    }
    shell.end(server);
    answers
}

fn try_pair(pair: &Pair, wrong: &mut Vec<String>) {
    let mut shell = Shell::start();
    furnish(&mut shell, &pair.theirs.text);
    shell.write("/mnt/rival", &pair.rival.whole(&pair.theirs.text));
    let (said, code) = shell.run(pair.rival.check());
    assert!(code == 0, "{}: {said}", pair.theirs.place);
    let server = shell.spawn(pair.rival.run(), "");
    let theirs = answers(&mut shell, &server, pair, pair.rival.name(), wrong);

    shell.write("/srv/forebay.lua", &pair.ours.text);
    let server = shell.spawn("forebay run /srv/forebay.lua", "");
    let ours = answers(&mut shell, &server, pair, "Forebay", wrong);
    for ((line, theirs), (_, ours)) in theirs.iter().zip(&ours) {
        if theirs.essence() != ours.essence() {
            wrong.push(format!("not alike: {line}\n{}\n{}", theirs.text, ours.text));
        }
    }
}

fn try_page(page: &str, at_least: usize) {
    let pairs = pairs(page);
    assert!(pairs.len() >= at_least, "only {} of {page}", pairs.len());
    let mut wrong = Vec::new();
    for pair in &pairs {
        try_pair(pair, &mut wrong);
    }
    assert!(wrong.is_empty(), "{page}:\n{}", wrong.join("\n\n"));
}

#[test]
fn coming_from_nginx() {
    try_page("from-nginx.md", 7);
}

#[test]
fn coming_from_haproxy() {
    try_page("from-haproxy.md", 2);
}

#[test]
fn coming_from_caddy() {
    try_page("from-caddy.md", 4);
}
