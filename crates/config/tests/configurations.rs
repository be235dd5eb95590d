//! The configurations of the language's description load as they are written there.

mod common;

use std::fs;

use common::load_in;
use forebay_config::Loaded;

/// Loads one of them, in a directory that has what it reads.
#[track_caller]
fn check(text: &str, declarations: &[&str]) -> Loaded {
    let dir = tempfile::tempdir().unwrap();
    fs::write(
        dir.path().join("blocklist.txt"),
        "# bad\n192.0.2.0/24\n\n198.51.100.7\n",
    )
    .unwrap();
    for name in ["a.example", "b.example"] {
        fs::create_dir_all(dir.path().join("sites.d").join(name)).unwrap();
        fs::write(
            dir.path().join("sites.d").join(name).join("dest"),
            "[2001:db8::1]\n",
        )
        .unwrap();
    }
    let loaded = match load_in(dir.path(), text) {
        Ok(loaded) => loaded,
        Err(report) => panic!("{}", report.render()),
    };
    assert_eq!(loaded.report.render_warnings(), "");
    let subjects: Vec<String> = loaded
        .declarations
        .iter()
        .map(|call| call.subject())
        .collect();
    assert_eq!(subjects, declarations);
    loaded
}

#[test]
fn of_the_shape_of_a_file() {
    let loaded = check(
        r#"
acme { email = "ops@example.com" }                            -- a declaration

local app = upstream "app" { "10.0.0.1:8080", "10.0.0.2:8080", health = { path = "/healthz" } }

site { "example.com", "www.example.com",                      -- host names, then a pipeline
  compress,                                                   -- a filter, with its defaults
  route "/assets/*" { files "/srv/app" { max_age = "1y", immutable = true } },
  route "/api/*"    { limit { rate = "100/s" }, proxy(app) }, -- a filter, then a handler
  cache { stale_while_revalidate = "1m" },
  proxy(app),
}
"#,
        &["acme", "upstream \"app\"", "site"],
    );
    let site = loaded.by("site").next().unwrap();
    let steps: Vec<&str> = site.steps.iter().map(|step| step.name()).collect();
    assert_eq!(steps, ["compress", "route", "route", "cache", "proxy"]);
    let upstream = loaded.by("upstream").next().unwrap();
    let target: &std::sync::Arc<forebay_config::Call> = site.steps[4].get("TARGET");
    assert!(std::sync::Arc::ptr_eq(target, upstream));
    assert_eq!(upstream.items.len(), 2);
}

#[test]
fn of_wordpress() {
    check(
        r#"
local php = fastcgi "unix:/run/php/php8.2-fpm.sock" { root = "/srv/blog" }
local personal = { cookie { "wordpress_logged_in_*", "comment_author_*", "wp-postpass_*" }, path { "/wp-admin/*", "/feed/*" }, query "*" }
site { "blog.example.com", compress, limit { body = "64MB" },
  route "/xmlrpc.php"           { respond(403) },
  route "/wp-content/uploads/*" { files "/srv/blog" { max_age = "30d" } },
  route "/wp-login.php"         { limit { rate = "10/m" }, php },
  files "/srv/blog" { max_age = "30d" },
  cache { ttl = "10m", bypass = personal, stale_while_revalidate = "1m", stale_if_error = "1d" },
  php,
}
"#,
        &["site"],
    );
}

#[test]
fn of_a_front_controller() {
    check(
        r#"
site { "www.shop.example.com", redirect("https://shop.example.com$uri", 301) }
site { "shop.example.com", compress, security_headers,
  route "/build/*" { files "/srv/shop/public" { max_age = "1y", immutable = true } },
  files "/srv/shop/public",
  fastcgi "unix:/run/php/php8.3-fpm.sock" { root = "/srv/shop/public", try = "/index.php", env = { APP_ENV = "prod" } },
}
"#,
        &["site", "site"],
    );
}

#[test]
fn of_a_single_page_application() {
    check(
        r#"
site { "app.example.com", compress,
  route "/api/*"    { proxy "127.0.0.1:3000" },
  route "/assets/*" { files "/srv/app" { max_age = "1y", immutable = true } },
  files "/srv/app" { try = { "$path", "/index.html" }, max_age = "0s" },
}
"#,
        &["site"],
    );
}

#[test]
fn of_a_cdn_edge() {
    check(
        r#"
cache_store { memory = "4GB", disk = { "/disk1", "/disk2" }, disk_size = "900GB" }
local origin = upstream "origin" { "https://origin1.example.net", { "https://origin2.example.net", backup = true }, tls_name = "origin.example.net" }
site { "cdn.example.com", "*.cdn.example.com", cors { origins = "*" },
  cache { ttl = { [200] = "1d", [404] = "1m" }, ignore_query = "utm_*", stale_while_revalidate = "1h", stale_if_error = "7d",
          purge = header("x-purge-key", env "SECRET") },
  proxy(origin) { host = "origin.example.net" },
}
"#,
        &["cache_store", "upstream \"origin\"", "site"],
    );
}

#[test]
fn of_a_shop() {
    check(
        r#"
local shop = upstream "shop" { "10.0.0.11:8000", "10.0.0.12:8000", health = { path = "/health" } }
site { "shop.example.com", compress, headers { response = { server = false, x_powered_by = false } },
  headers { response = { cache_control = "no-cache" }, when = none { path { "/media/*", "/theme/*" } } },
  set("device", "desktop"), set("device", "mobile") { when = header("user-agent", "*Mobile*") },
  cache { ttl = "10m", stale_while_revalidate = "3d", stale_if_error = "3d", strip_cookies = true,
          key = "$vars.device $cookies.currency", ignore_query = { "utm_*", "gclid", "fbclid" }, sort_query = true,
          bypass = { path { "/checkout/*", "/account/*", "/admin/*", "/api/*" }, cookie { "session", "cart" } },
          tags = "x-tags", purge = client { "127.0.0.1", "10.0.0.0/24" } },
  proxy(shop),
}
"#,
        &["upstream \"shop\"", "site"],
    );
}

#[test]
fn of_a_balancer() {
    check(
        r#"
local health = { path = "/health", every = "2s" }
local web = upstream "web" { { "10.0.0.11:8080", weight = 2 }, "10.0.0.12:8080", { "10.0.0.13:8080", backup = true },
                             sticky = "SRV", max_connections = 200, health = health }
local api = upstream "api" { "10.0.1.11:9000", "10.0.1.12:9000", balance = "hash", by = "$headers.authorization", health = health }
local mail = upstream "mail" { "10.0.2.5:443", send_proxy = "v2" }
listen ":80"
listen ":443" { tls = "certs", passthrough = { ["mail.example.com"] = mail, ["*.customer.example"] = "[2001:db8::5]:443" } }
site { "stats.example.com", allow "10.0.0.0/8", basic_auth "users", dashboard }
site { "*", deny(lines "blocklist.txt"), limit { rate = "100/10s" },
  route "/login" { when = method "POST", limit { rate = "10/m", count = status "4xx" }, proxy(web) },
  route "/api/*" { proxy(api) },
  route { "/static/*", "/images/*" } { proxy "10.0.3.11:8080" },
  proxy(web),
}
"#,
        &[
            "upstream \"web\"",
            "upstream \"api\"",
            "upstream \"mail\"",
            "listen",
            "listen",
            "site",
            "site",
        ],
    );
}

#[test]
fn of_a_site_with_passwords() {
    check(
        r#"
acme { email = "ops@example.com" }
local api = upstream "api" { "10.0.0.1:9000", "10.0.0.2:9000", health = { path = "/healthz", every = "10s" }, eject = { time = "30s" } }
site { "www.example.com", redirect("https://example.com$uri", 301) }
site { "example.com", access_log "/var/log/forebay/example.log" { format = "json" }, compress, errors { [404] = "/srv/www/404.html" },
  route "/admin/*" { basic_auth "users", proxy(api) },
  route "/docs/*"  { rewrite "/$rest", files "/srv/docs" { listing = true } },
  route "/api/*"   { proxy(api) },
  route "/old/*"   { redirect "/new/$rest" },
  files "/srv/www",
}
"#,
        &["acme", "upstream \"api\"", "site", "site"],
    );
}

#[test]
fn of_sockets_and_grpc() {
    check(
        r#"
site { "rt.example.com",
  route "/events/*"       { proxy "127.0.0.1:3001" },
  route "/chat.v1.Chat/*" { proxy "h2c://127.0.0.1:50051" },
  proxy "127.0.0.1:3000",
}
"#,
        &["site"],
    );
}

#[test]
fn of_hosting() {
    let loaded = check(
        r#"
server { watch = true }
for _, dir in ipairs(glob "sites.d/*") do
  local name = dir:match "[^/]+$"
  site { name, "www." .. name, compress,
    files(dir .. "/public") { max_age = "1h" },
    fastcgi("unix:/run/php/" .. name .. ".sock") { root = dir .. "/public" },
  }
end
"#,
        &["server", "site", "site"],
    );
    assert_eq!(loaded.globs.len(), 1);
    assert!(loaded.globs[0].ends_with("/sites.d/*"));
}

#[test]
fn of_an_application_behind_another_server() {
    check(
        r#"
listen "unix:/run/forebay.sock" { protocol = "fastcgi", owner = "www-data:www-data" }
site { "*",
  route { "/data/*", "/conf/*", "/bin/*", "/inc/*" } { respond(403) },
  files "/srv/wiki",
  cache { bypass = cookie "DokuWiki", stale_while_revalidate = "1m" },
  fastcgi "unix:/run/php/php8.2-fpm.sock" { root = "/srv/wiki", try = { "$path", "$path/index.php", "/doku.php?id=$rest&$query_string" } },
}
"#,
        &["listen", "site"],
    );
}

#[test]
fn of_functions() {
    check(
        r#"
site { "fn.example.com",
  limit { rate = "50/s", concurrency = 100, by = "$headers.x_api_key" },
  functions "/srv/functions" { time = "5s", memory = "64MB", count = { 2, 16 }, user = "fn" },
}
"#,
        &["site"],
    );
}

#[test]
fn of_a_login_service() {
    check(
        r#"
site { "intra.example.com",
  cors { origins = "https://app.example.com", credentials = true },
  allow { "10.0.0.0/8", "2001:db8::/32" },
  respond(503) { file = "/srv/maintenance.html", headers = { retry_after = "600" }, when = exists "/srv/maintenance.on" },
  forward_auth "127.0.0.1:9091" { uri = "/api/verify?rd=https://login.example.com/", copy = { "remote-user", "remote-groups" } },
  proxy "127.0.0.1:8080",
}
"#,
        &["site"],
    );
}

#[test]
fn of_a_cdn_node() {
    check(
        r#"
listen "unix:/run/cdn.sock" { protocol = "fastcgi" }
resolver { min_ttl = "5m", max_ttl = "1d" }
cache_store { memory = "2GB", disk = "/var/cache/forebay", disk_size = "500GB" }
site { "*", respond(405) { headers = { allow = "GET, HEAD" }, when = none { method { "GET", "HEAD" } } },
  cache { force = true, ttl = { [200] = "1d", other = "60s" }, stale_while_revalidate = "1d", stale_if_error = "7d" },
  proxy(upstream "customers" { "https://$host", family = "ipv6", allow = "2001:db8::/32" }) { retries = 2 },
}
"#,
        &[
            "listen",
            "resolver",
            "cache_store",
            "upstream \"customers\"",
            "site",
        ],
    );
}

/// Without `cert_names`, which reads certificates: the names are those of the directories.
#[test]
fn of_machines_behind_ipv6() {
    check(
        r#"
for _, dir in ipairs(glob "sites.d/*") do
  site { { dir:match "[^/]+$" }, tls = dir, proxy("https://" .. read(dir .. "/dest")) }
end
"#,
        &["site", "site"],
    );
}
