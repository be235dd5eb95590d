//! `respond`: an answer of the configuration's own.

use std::sync::Arc;

use bytes::Bytes;
use forebay_config::{Arg, Call, Code, Directive, Opt, Report, Template, Type, Vars};
use forebay_fields::Known;

use super::FilePage;
use super::edits::Edits;
use crate::control::build::Builder;
use crate::exchange::{Body, Exchange, Fault, Flow, Local, Response, Step, expand};
use crate::explain::{Notes, Told};

pub static DIRECTIVE: Directive = Directive::handler(
    "respond",
    "Answers with this status and text. Without a text or a file, an error gets the built-in page.",
)
.args(&[
    Arg::required("STATUS", Type::StatusCode),
    Arg::optional("TEXT", Type::Template(Vars::Request)),
])
.options(&[
    Opt::new(
        "headers",
        Type::Fields(Vars::Response),
        "Fields of the response. A text is `text/plain` unless `content_type` says otherwise.",
    ),
    Opt::new(
        "file",
        Type::PathTemplate,
        "The body is this file, looked at again at most once a second.",
    ),
])
.check(check)
.stateless()
.example(r#"respond(503) { file = "/srv/down.html", headers = { retry_after = "600" } }"#);

fn check(call: &Call, report: &mut Report) {
    Edits::check(call, "headers", report);
    let status: u16 = call.get("STATUS");
    let (text, file) = (call.is_set("TEXT"), call.is_set("file"));
    if text && file {
        let message = "respond: a text and a `file`";
        report.mistake(
            call.place_of("file"),
            Code::Conflict,
            message,
            "one of them is the body",
        );
    }
    // RFC 9110 §15.3.5, §15.3.6, §15.4.5.
    if matches!(status, 204 | 205 | 304) && (text || file) {
        let message = format!("respond: a response with status {status} has no body");
        report.mistake(call.place, Code::Conflict, message, "");
    }
}

/// Answers.
struct Respond {
    status: u16,
    content: Content,
    headers: Option<Edits>,
    /// What the text is said to be, unless `headers` says so.
    kind: Option<&'static str>,
}

enum Content {
    None,
    /// Costs no allocation: a reference to these bytes is counted.
    Literal(Bytes),
    Template(Template),
    File(Arc<FilePage>),
}

pub fn build(call: &Call, builder: &mut Builder<'_>) -> Option<Box<dyn Step>> {
    let content = match (call.find::<&Template>("TEXT"), call.node("file")) {
        (Some(text), _) => match text.as_literal() {
            Some(text) => Content::Literal(Bytes::copy_from_slice(text.as_bytes())),
            None => Content::Template(text.clone()),
        },
        (None, Some(file)) => Content::File(builder.page(file)),
        (None, None) => Content::None,
    };
    let headers = Edits::new(call, "headers");
    let kind = match &content {
        _ if headers
            .as_ref()
            .is_some_and(|edits| edits.sets("content-type")) =>
        {
            None
        }
        Content::None => None,
        Content::File(page) => Some(page.kind()),
        Content::Literal(_) | Content::Template(_) => Some("text/plain; charset=utf-8"),
    };
    Some(Box::new(Respond {
        status: call.get("STATUS"),
        content,
        headers,
        kind,
    }))
}

impl Respond {
    fn answer(&self, exchange: &mut Exchange, body: Option<Result<Body, Fault>>) -> Response {
        let mut response = Response::new(exchange, self.status);
        match body {
            Some(Ok(body)) => {
                if let Some(kind) = self.kind {
                    response.set(Known::ContentType, kind.as_bytes());
                }
                response.body = body;
            }
            // The status stands even where its page is missing.
            Some(Err(fault)) => {
                response.wants_page = true;
                response.fault = Some(Box::new(fault));
            }
            None => response.wants_page = true,
        }
        if let Some(edits) = &self.headers {
            edits.apply(exchange, Some(&mut response));
        }
        response
    }
}

impl Step for Respond {
    fn name(&self) -> &'static str {
        DIRECTIVE.name
    }

    fn on_request(&self, exchange: &mut Exchange) -> Flow {
        let body = match &self.content {
            Content::None => None,
            Content::Literal(text) => Some(Ok(text.clone().into())),
            Content::Template(template) => {
                let mut text = Vec::new();
                expand(template, exchange, None, &mut text);
                Some(Ok(Bytes::from(text).into()))
            }
            Content::File(page) => match page.now(exchange) {
                Some(found) => Some(found.map(Body::from)),
                None => return Flow::Wait,
            },
        };
        Flow::Answer(self.answer(exchange, body))
    }

    fn wait<'a>(&'a self, exchange: &'a mut Exchange) -> Local<'a, Flow> {
        Box::pin(async move {
            let body = match &self.content {
                Content::File(page) => Some(page.read(exchange).await),
                _ => None,
            };
            Flow::Answer(self.answer(exchange, body))
        })
    }

    fn explain(&self, _: &mut Exchange, _: &mut Notes<'_>) -> Told {
        // For its file.
        Told::RunsAndWaits
    }
}

#[cfg(test)]
mod tests {
    use crate::steps::testing::{Bench, mistakes};

    #[test]
    fn texts_and_fields() {
        let bench = Bench::new(
            r#"site { "*", route "/a" { respond(200, "text") }, route "/b" { respond(204) },
                 route "/c" { respond(418, "I am $host") { headers = { content_type = "text/x", x_s = "$status" } } },
                 route "/d" { respond(200, "") }, respond(410) }"#,
        );
        let a = bench.get("/a").run();
        assert_eq!((a.status(), a.text()), (200, "text".into()));
        assert_eq!(a.field("content-type"), Some("text/plain; charset=utf-8"));
        let b = bench.get("/b").run();
        assert_eq!((b.status(), b.text()), (204, String::new()));
        let c = bench.get("/c").run();
        assert_eq!((c.status(), c.text()), (418, "I am test".into()));
        assert_eq!(
            (c.field("content-type"), c.field("x-s")),
            (Some("text/x"), Some("418"))
        );
        assert_eq!(bench.get("/d").run().text(), "");
        assert!(bench.get("/e").run().text().starts_with("410 Gone"));
    }

    #[test]
    fn a_literal_text_is_not_copied() {
        let bench = Bench::new(r#"site { "*", respond(200, "the same bytes") }"#);
        let (one, two) = (bench.get("/").run(), bench.get("/").run());
        assert_eq!(one.bytes().as_ptr(), two.bytes().as_ptr());
    }

    #[test]
    fn a_file_is_read_once_and_again_when_it_may_have_changed() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("down.html");
        let bench = Bench::new(&format!(
            "site {{ \"*\", respond(503) {{ file = \"{}\" }} }}",
            path.display()
        ));
        let missing = bench.get("/").run();
        assert_eq!(missing.status(), 503);
        assert!(missing.text().starts_with("503 "), "{}", missing.text());
        std::fs::write(&path, "<p>down").expect("a file");
        // What is known stands for a second.
        bench.until(|| bench.get("/").run().text() == "<p>down");
        let down = bench.get("/").run();
        assert_eq!((down.status(), down.text()), (503, "<p>down".into()));
        assert_eq!(down.field("content-type"), Some("text/html; charset=utf-8"));
        assert!(!down.waited, "it is in memory now");
    }

    #[test]
    fn a_large_file_is_not_kept_in_memory() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("large.txt");
        std::fs::write(&path, vec![b'x'; 300 << 10]).expect("a file");
        let bench = Bench::new(&format!(
            "site {{ \"*\", respond(200) {{ file = \"{}\" }} }}",
            path.display()
        ));
        for _ in 0..2 {
            let got = bench.get("/").run();
            assert_eq!(got.response.body.len_bytes(), Some(300 << 10));
            assert!(matches!(got.response.body, crate::exchange::Body::File(_)));
        }
    }

    #[test]
    fn variables_cannot_lead_out_of_the_directory() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(dir.path().join("in")).expect("a directory");
        std::fs::write(dir.path().join("in/a b.txt"), "inside").expect("a file");
        std::fs::write(dir.path().join("out.txt"), "outside").expect("a file");
        std::os::unix::fs::symlink("../out.txt", dir.path().join("in/link.txt")).expect("a link");
        let bench = Bench::new(&format!(
            "site {{ \"*\", set(\"v\", \"$query.v\"),
               route \"/v\" {{ respond(200) {{ file = \"{0}/in/$vars.v\" }} }},
               respond(200) {{ file = \"{0}/in/$path\" }} }}",
            dir.path().display()
        ));
        assert_eq!(bench.get("/a%20b.txt").run().text(), "inside");
        for path in [
            "/%2E%2E/out.txt",
            "/..%2Fout.txt",
            "/x%2F..%2F../out.txt",
            "/..%5Cout.txt",
            "/link.txt",
            "/v?v=../out.txt",
            "/v?v=%2E%2E%2Fout.txt",
            "/v?v=a/../../out.txt",
            "/v?v=link.txt",
        ] {
            let got = bench.get(path).run();
            assert!(!got.text().contains("outside"), "{path}: {}", got.text());
        }
        assert_eq!(bench.get("/v?v=a+b.txt").run().text(), "inside");
        // An absolute path starts at the directory, too.
        let absolute = format!("/v?v={}/out.txt", dir.path().display());
        assert!(!bench.get(&absolute).run().text().contains("outside"));
    }

    #[test]
    fn what_has_no_body_is_given_none() {
        let one = |text: &str| mistakes(&format!("site {{ \"*\", {text} }}"));
        assert!(one(r#"respond(204, "x")"#).contains("status 204 has no body"));
        assert!(one(r#"respond(200, "x") { file = "/x" }"#).contains("a text and a `file`"));
    }
}
