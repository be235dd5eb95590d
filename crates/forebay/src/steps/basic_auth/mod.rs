//! `basic_auth`: names and passwords (RFC 7617).
//!
//! ```text
//!   no password ─────────────────────────────────────────────────────▶ 401
//!   a password ──▶ found right within a minute? ── yes ──────────────▶ next step
//!                          │ no                                           ▲
//!                          ▼                                              │ right
//!                  hashed on a compute thread ────────────────────────────┴──▶ 401
//! ```
//!
//! Somebody who is not in the file costs the same hash as somebody who is. Equal names with equal
//! passwords that are sent at once cost one hash.

mod joined;
mod users;

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use forebay_config::{Arg, Call, Code, Directive, Opt, Report, Type};
use forebay_fields::{Known, is_value};

use self::users::{Users, Verified};
use super::watched::Watched;
use crate::compute;
use crate::control::build::Builder;
use crate::exchange::{Exchange, Fault, Flow, Local, Reason, Response, Step};
use crate::explain::{Notes, Told, shown};

pub static DIRECTIVE: Directive = Directive::filter(
    "basic_auth",
    "Lets those pass who send a name and password of FILE; for all others the answer is 401. FILE \
     holds one `user:hash` per line, the hash being argon2 or bcrypt (`htpasswd -nB` prints one); \
     blank lines and lines that begin with `#` are left out. It is read again when it has changed. \
     A password that was right is believed for a minute without hashing it again, and one that \
     comes many times at once is hashed once. Without TLS \
     passwords can be read on the way.",
)
.args(&[Arg::required("FILE", Type::Path)])
.options(&[Opt::new(
    "realm",
    Type::Text,
    "What the browser shows when it asks for the password.",
)
.unset("the site's name")])
.check(check)
.access_control()
.example(r#"basic_auth "/etc/forebay/users" { realm = "Staff" }"#);

fn check(call: &Call, report: &mut Report) {
    if let Some(realm) = call.find::<&str>("realm")
        && !is_value(realm.as_bytes())
    {
        let message = "basic_auth: `realm` cannot stand in a field";
        let place = call.place_of("realm");
        report.mistake(place, Code::BadValue, message, "expected one line of text");
    }
}

/// See the module.
struct BasicAuth {
    users: Arc<Watched<Users>>,
    verified: Arc<Verified>,
    realm: Option<Box<str>>,
}

pub fn build(call: &Call, builder: &mut Builder<'_>) -> Option<Box<dyn Step>> {
    let users = Watched::of(call, "FILE", Users::parse, builder.report)?;
    Some(Box::new(BasicAuth {
        users: Arc::new(users),
        verified: builder.carried(call, Verified::default),
        realm: call.find("realm").map(|realm: &str| realm.into()),
    }))
}

/// A name and a password.
struct Credentials {
    user: Vec<u8>,
    password: Vec<u8>,
}

impl Credentials {
    /// Those that a request brings; none if they are missing, twice there, or no such thing.
    fn of(exchange: &Exchange) -> Option<Credentials> {
        let value = exchange.request.fields.get_only(Known::Authorization)?;
        let (scheme, encoded) = value.split_at_checked("Basic ".len())?;
        if !scheme.eq_ignore_ascii_case(b"Basic ") {
            return None;
        }
        let mut user = STANDARD.decode(encoded.trim_ascii()).ok()?;
        let colon = user.iter().position(|byte| *byte == b':')?;
        let password = user.split_off(colon + 1);
        user.truncate(colon);
        Some(Credentials { user, password })
    }
}

impl BasicAuth {
    /// Whether these were right a moment ago.
    fn is_believed(&self, credentials: &Credentials, now_ms: u64) -> bool {
        let users = self.users.now();
        match users.hash_for(&credentials.user) {
            (Some(hash), true) => {
                let key = self.verified.key(hash, &credentials.password);
                self.verified.contains(key, now_ms)
            }
            _ => false,
        }
    }

    /// Whether they are right.
    async fn are_right(&self, credentials: Credentials, now_ms: u64) -> Result<bool, Fault> {
        self.users.refresh(now_ms).await;
        if self.is_believed(&credentials, now_ms) {
            return Ok(true);
        }
        let users = self.users.now();
        let (Some(hash), known) = users.hash_for(&credentials.user) else {
            return Ok(false);
        };
        let Credentials { user, password } = credentials;
        let key = self.verified.key(hash, &password);
        let same = self.verified.key_of_user(&user, key);
        let hash = hash.clone();
        let compute = async move {
            let matches = compute::run(move || hash.matches(&password)).await?;
            if matches && known {
                self.verified.insert(key, now_ms);
            }
            Ok::<bool, Fault>(matches)
        };
        let matches = self.verified.joined.run(same, compute).await?;
        Ok(matches && known)
    }

    /// 401, and what is asked for.
    fn ask(&self, exchange: &mut Exchange) -> Flow {
        let realm = match &self.realm {
            Some(realm) => realm.to_string(),
            None => exchange.site_name().to_owned(),
        };
        let mut asked = String::from("Basic realm=\"");
        for character in realm.chars() {
            if matches!(character, '"' | '\\') {
                asked.push('\\');
            }
            asked.push(character);
        }
        asked.push_str("\", charset=\"UTF-8\"");
        let mut response = Response::fault(exchange, Reason::Unauthorized.into());
        response.set(Known::WwwAuthenticate, asked.as_bytes());
        Flow::Answer(response)
    }
}

impl Step for BasicAuth {
    fn name(&self) -> &'static str {
        DIRECTIVE.name
    }

    fn on_request(&self, exchange: &mut Exchange) -> Flow {
        let Some(credentials) = Credentials::of(exchange) else {
            return self.ask(exchange);
        };
        let now_ms = exchange.worker.now_ms();
        if !self.users.is_due(now_ms) && self.is_believed(&credentials, now_ms) {
            exchange.user = Some(credentials.user.into());
            return Flow::Next;
        }
        Flow::Wait
    }

    fn wait<'a>(&'a self, exchange: &'a mut Exchange) -> Local<'a, Flow> {
        Box::pin(async move {
            let Some(credentials) = Credentials::of(exchange) else {
                return self.ask(exchange);
            };
            let now_ms = exchange.worker.now_ms();
            let user = credentials.user.clone();
            match self.are_right(credentials, now_ms).await {
                Ok(true) => {
                    exchange.user = Some(user.into());
                    Flow::Next
                }
                Ok(false) => self.ask(exchange),
                Err(fault) => Flow::Fail(fault),
            }
        })
    }

    fn explain(&self, exchange: &mut Exchange, notes: &mut Notes<'_>) -> Told {
        let text = match Credentials::of(exchange) {
            None => "no name and password that can be read".to_owned(),
            Some(credentials) => {
                let user = shown(&credentials.user);
                match self.users.now().hash_for(&credentials.user) {
                    (_, true) => format!("\"{user}\" is in the file: the password decides"),
                    (_, false) => format!("\"{user}\" is not in the file"),
                }
            }
        };
        notes.add("user", text);
        Told::RunsAndWaits
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::steps::testing::{Bench, Got, mistakes};

    fn line(user: &str, password: &str) -> String {
        let hash = bcrypt::hash_with_salt(password, 4, [1; 16]).expect("a hash");
        format!("{user}:{hash}\n")
    }

    fn config(file: &Path, options: &str) -> String {
        let file = file.display();
        format!(
            "site {{ \"*\", name = \"docs\", basic_auth \"{file}\" {options}, respond(200, \"in\") }}"
        )
    }

    fn ask(bench: &Bench, user: &str, password: &str) -> Got {
        let value = STANDARD.encode(format!("{user}:{password}"));
        bench
            .get("/")
            .field("Authorization", &format!("Basic {value}"))
            .run()
    }

    #[test]
    fn who_is_in_the_file_passes() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("users");
        std::fs::write(&file, line("ann", "a:b") + &line("bob", "")).expect("a file");
        let bench = Bench::new(&config(&file, ""));
        for (user, password, status) in [
            ("ann", "a:b", 200),
            ("ann", "a", 401),
            ("Ann", "a:b", 401),
            ("bob", "", 200),
            ("eve", "a:b", 401),
            ("", "", 401),
        ] {
            assert_eq!(
                ask(&bench, user, password).status(),
                status,
                "{user}:{password}"
            );
        }
        let refused = bench.get("/").run();
        assert_eq!(refused.status(), 401);
        assert!(!refused.waited);
        let asked = refused.field("www-authenticate");
        assert_eq!(asked, Some(r#"Basic realm="docs", charset="UTF-8""#));
        // Within the minute, nothing is hashed again; but once a second the file is looked at.
        let waited = (0..3).filter(|_| ask(&bench, "ann", "a:b").waited).count();
        assert!(waited <= 1, "{waited}");
    }

    #[test]
    fn what_is_no_name_and_password() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("users");
        std::fs::write(&file, line("ann", "x")).expect("a file");
        let bench = Bench::new(&config(&file, r#"{ realm = 'a "b" \\c' }"#));
        let right = STANDARD.encode("ann:x");
        for (value, status) in [
            (format!("basic  {right}"), 200),
            (format!("Basic {right}!"), 401),
            (format!("Bearer {right}"), 401),
            ("Basic".to_owned(), 401),
            ("Basic ".to_owned(), 401),
            (format!("Basic {}", STANDARD.encode("ann")), 401),
            (format!("Bäsic {right}"), 401),
        ] {
            let got = bench.get("/").field("Authorization", &value).run();
            assert_eq!(got.status(), status, "{value}");
        }
        let value = format!("Basic {right}");
        let twice = bench
            .get("/")
            .field("Authorization", &value)
            .field("Authorization", &value);
        let twice = twice.run();
        assert_eq!(twice.status(), 401);
        let asked = twice.field("www-authenticate");
        assert_eq!(asked, Some(r#"Basic realm="a \"b\" \\c", charset="UTF-8""#));
    }

    #[test]
    fn the_file_is_read_again_when_it_has_changed() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("users");
        std::fs::write(&file, line("ann", "old")).expect("a file");
        let bench = Bench::new(&config(&file, ""));
        assert_eq!(ask(&bench, "ann", "old").status(), 200);
        std::fs::write(&file, line("ann", "new!") + &line("bob", "x")).expect("a file");
        // What was believed of the old password is worth nothing.
        bench.until(|| ask(&bench, "ann", "old").status() == 401);
        assert_eq!(ask(&bench, "ann", "new!").status(), 200);
        // A file that is wrong, and one that is gone, leave things as they are.
        std::fs::write(&file, "broken").expect("a file");
        bench.until(|| ask(&bench, "bob", "x").waited);
        std::fs::remove_file(&file).expect("it was there");
        bench.until(|| ask(&bench, "bob", "x").waited);
        assert_eq!(ask(&bench, "ann", "new!").status(), 200);
    }

    #[test]
    fn a_pipe_is_not_waited_for() {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        let dir = tempfile::tempdir().expect("a directory");
        let pipe = dir.path().join("users");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR, 0).expect("a pipe");
        let (told, said) = std::sync::mpsc::channel();
        let config = config(&pipe, "");
        std::thread::spawn(move || told.send(mistakes(&config)));
        let said = said.recv_timeout(std::time::Duration::from_secs(20));
        let said = said.expect("it is waited for");
        assert!(said.contains("it is no regular file"), "{said}");
    }

    #[test]
    fn mistakes_are_named_with_their_lines() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("users");
        std::fs::write(&file, line("ann", "x") + "bob\nsue:{SHA}x\n").expect("a file");
        let said = mistakes(&config(&file, ""));
        assert!(said.contains("users, line 2: there is no colon"), "{said}");
        assert!(
            said.contains("users, line 3: this kind of hash is not known"),
            "{said}"
        );
        assert!(!said.contains("bob"), "{said}");
        let said = mistakes(&config(&dir.path().join("none"), ""));
        assert!(said.contains("none cannot be read: "), "{said}");
        let said = mistakes(&config(dir.path(), ""));
        assert!(said.contains("it is no regular file"), "{said}");
    }
}
