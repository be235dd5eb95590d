//! `errors`: pages of the site's own for errors.

use std::sync::Arc;

use forebay_config::{Call, Code, Directive, Opt, PathTemplate, Report, Status, Type};
use forebay_fields::{Fields, Known, KnownSet};
use forebay_http1::Method;

use super::FilePage;
use crate::control::build::Builder;
use crate::exchange::{Body, Exchange, Flow, Local, Pipeline, Response, Step, Up, step};
use crate::explain::{Notes, show_status};

pub static DIRECTIVE: Directive = Directive::filter(
    "errors",
    "Replaces responses with these statuses: by a file, and then the status is kept; or by what a \
     pipeline answers, which sees a GET without conditions and ranges. Where that fails, the \
     response stays as it was. The innermost `errors` counts.",
)
.keyed(
    "STATUS = PAGE",
    Type::Status,
    Type::Or(&[Type::PathTemplate, Type::Pipeline]),
)
.options(&[Opt::new(
    "intercept",
    Type::Boolean,
    "Also those that an application made, not only the server's own.",
)
.default("false")])
.check(check)
.stateless()
.example(r#"errors { [404] = "/srv/www/404.html", ["5xx"] = respond(503, "Back soon.") }"#);

fn check(call: &Call, report: &mut Report) {
    for (key, _) in &call.keyed {
        let right = match key.get::<Status>() {
            Status::Code(code) => (400..600).contains(&code),
            Status::Class(class) => class == 4 || class == 5,
        };
        if !right {
            let message = "errors: this status is no error";
            report.mistake(
                key.place,
                Code::BadValue,
                message,
                "expected 400 to 599, 4xx or 5xx",
            );
        }
    }
}

/// What describes a representation: gone with it when another takes its place.
const REPRESENTATION: KnownSet = KnownSet::of(&[
    Known::AcceptRanges,
    Known::ContentDisposition,
    Known::ContentEncoding,
    Known::ContentLanguage,
    Known::ContentLocation,
    Known::ContentMd5,
    Known::ContentRange,
    Known::ContentType,
    Known::Etag,
    Known::LastModified,
]);

/// They were about what was asked for, not about the error's page: a 304 or 206 would be wrong.
pub const CONDITIONS: KnownSet = KnownSet::of(&[
    Known::IfMatch,
    Known::IfModifiedSince,
    Known::IfNoneMatch,
    Known::IfRange,
    Known::IfUnmodifiedSince,
    Known::Range,
]);

/// What an answer of some status must or may say to be understood as that (RFC 9110 §15.5.2,
/// §15.5.6, §10.2.3). A page of the same status that does not say it has it from the response in
/// whose place it stands.
const PART_OF_STATUS: [Known; 3] = [Known::WwwAuthenticate, Known::Allow, Known::RetryAfter];

/// Replaces errors.
struct Errors {
    /// Single statuses before classes.
    pages: Box<[(Status, Page)]>,
    intercept: bool,
}

enum Page {
    File(Arc<FilePage>),
    Pipeline(Arc<Pipeline>),
}

pub fn build(call: &Call, builder: &mut Builder<'_>) -> Option<Box<dyn Step>> {
    let mut pages = Vec::with_capacity(call.keyed.len());
    for (key, node) in &call.keyed {
        let page = match node.as_a::<&PathTemplate>() {
            Some(_) => Page::File(builder.page(node)),
            None => Page::Pipeline(builder.pipeline(node.get())),
        };
        pages.push((key.get::<Status>(), page));
    }
    pages.sort_by_key(|(status, _)| matches!(status, Status::Class(_)));
    Some(Box::new(Errors {
        pages: pages.into(),
        intercept: call.get("intercept"),
    }))
}

impl Errors {
    fn page_for(&self, response: &Response) -> Option<&Page> {
        self.entry_for(response).map(|(_, page)| page)
    }

    fn entry_for(&self, response: &Response) -> Option<&(Status, Page)> {
        if response.status < 400 || (response.from_upstream && !self.intercept) {
            return None;
        }
        let mut pages = self.pages.iter();
        pages.find(|(status, _)| status.matches(response.status))
    }
}

/// Puts a page in the place of the response's body; status and all other fields stay.
fn put(response: &mut Response, page: &FilePage, body: Body) {
    response.fields.remove_all(REPRESENTATION);
    response.set(Known::ContentType, page.kind().as_bytes());
    response.body = body;
    response.announced_len = None;
    response.wants_page = false;
    settle(response);
}

/// Gives a page of the same status what belongs to that.
fn complete(answer: &mut Response, response: &Response) {
    if answer.status != response.status {
        return;
    }
    for name in PART_OF_STATUS {
        if !answer.fields.contains(name) {
            for value in response.fields.all(name) {
                // Refused only if the head is too large.
                let _ = answer.fields.append(name, value);
            }
        }
    }
}

/// From here on it counts as somebody's own: an outer `errors` must not replace it again.
fn settle(response: &mut Response) {
    response.from_upstream = true;
}

/// Runs the pipeline of a page.
async fn run(pipeline: &Arc<Pipeline>, exchange: &mut Exchange) -> Response {
    let request = &mut exchange.request;
    let aside = Aside {
        method: request.method,
        fields: request.fields.clone(),
        // Kept aside, not dropped: that would break the connection off before the answer.
        body: request.take_body(u64::MAX).unwrap_or_default(),
        exchange,
    };
    let request = &mut aside.exchange.request;
    if request.method != Method::Head {
        request.method = Method::Get;
    }
    request.fields.remove_all(CONDITIONS);
    aside.exchange.allowed_methods = None;
    step::run_aside(&mut *aside.exchange, pipeline.clone().into()).await
}

/// An exchange whose request is another one for a while. It gets its own back also where its client
/// leaves meanwhile: its line in the access log is about what the client has asked for.
struct Aside<'a> {
    exchange: &'a mut Exchange,
    method: Method,
    fields: Fields,
    body: Body,
}

impl Drop for Aside<'_> {
    fn drop(&mut self) {
        let request = &mut self.exchange.request;
        request.set_body(std::mem::take(&mut self.body));
        request.fields = std::mem::take(&mut self.fields);
        request.method = self.method;
    }
}

impl Step for Errors {
    fn name(&self) -> &'static str {
        DIRECTIVE.name
    }

    fn on_request(&self, _: &mut Exchange) -> Flow {
        Flow::Next
    }

    fn sees_response(&self) -> bool {
        true
    }

    fn on_response(&self, exchange: &mut Exchange, response: &mut Response) -> Up {
        match self.page_for(response) {
            None => Up::Done,
            Some(Page::Pipeline(_)) => Up::Replace,
            Some(Page::File(page)) => match page.now(exchange) {
                Some(Ok(bytes)) => {
                    put(response, page, bytes.into());
                    Up::Done
                }
                // The page is missing: the response stays as it was.
                Some(Err(_)) => Up::Done,
                None => Up::Replace,
            },
        }
    }

    fn explain_response(&self, _: &Exchange, response: Option<&Response>, notes: &mut Notes<'_>) {
        let Some(response) = response else {
            let text = match self.intercept {
                true => "replaces what an application answers with one of its statuses",
                false => "leaves alone what an application answers",
            };
            return notes.add("page", text);
        };
        match self.entry_for(response) {
            Some((status, Page::File(page))) => {
                let status = show_status(*status);
                let text = match page.path() {
                    None => format!("for {status}: a file"),
                    Some(path) => match path.metadata() {
                        Ok(_) => format!("for {status}: {}", path.display()),
                        // The response stays as it is.
                        Err(error) => format!("for {status}: {}: {error}", path.display()),
                    },
                };
                notes.add("page", text);
            }
            Some((status, Page::Pipeline(_))) => {
                notes.add("page", format!("for {}: a pipeline", show_status(*status)));
            }
            None if response.status >= 400 && response.from_upstream && !self.intercept => {
                notes.add("page", "an answer of somebody's own is left alone");
            }
            None => notes.add("page", format!("none for {}", response.status)),
        }
    }

    fn replace<'a>(
        &'a self,
        exchange: &'a mut Exchange,
        mut response: Response,
    ) -> Local<'a, Response> {
        Box::pin(async move {
            match self.page_for(&response) {
                None => response,
                Some(Page::File(page)) => {
                    if let Ok(body) = page.read(exchange).await {
                        put(&mut response, page, body);
                    }
                    response
                }
                Some(Page::Pipeline(pipeline)) => {
                    let mut answer = run(pipeline, exchange).await;
                    if answer.fault.is_some() {
                        exchange.worker.give_back_fields(answer.fields);
                        return response;
                    }
                    // What went wrong is counted and logged even if the client does not see it.
                    answer.fault = response.fault.take();
                    complete(&mut answer, &response);
                    settle(&mut answer);
                    exchange.worker.give_back_fields(response.fields);
                    answer
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::steps::testing::{Bench, mistakes};

    #[test]
    fn a_file_takes_the_place_of_the_page_and_the_status_stays() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("404.html"), "<p>own").expect("a file");
        let bench = Bench::new(&format!(
            "site {{ \"*\", errors {{ [404] = \"{0}/404.html\", [\"5xx\"] = \"{0}/missing.html\" }},
               route \"/a\" {{ respond(404, \"text\") {{ headers = {{ etag = '\"x\"', x_kept = \"1\" }} }} }},
               route \"/b\" {{ respond(503) }}, route \"/c\" {{ respond(403) }} }}",
            dir.path().display()
        ));
        for _ in 0..2 {
            let got = bench.get("/a").run();
            assert_eq!((got.status(), got.text()), (404, "<p>own".into()));
            assert_eq!(got.field("content-type"), Some("text/html; charset=utf-8"));
            assert_eq!((got.field("etag"), got.field("x-kept")), (None, Some("1")));
            assert_eq!(bench.get("/nothing").run().text(), "<p>own");
            // A page that is missing does no harm, the first time nor later.
            assert!(bench.get("/b").run().text().starts_with("503 "));
            assert!(bench.get("/c").run().text().starts_with("403 "));
        }
        assert!(!bench.get("/a").run().waited, "the page is in memory");
    }

    #[test]
    fn a_pipeline_answers_in_its_place() {
        let bench = Bench::new(
            r#"site { "*",
                 errors { ["4xx"] = respond(200, "any $method $original_uri [$headers.range]"),
                          [403] = { headers { response = { x_inner = "1" } }, respond(410, "gone") },
                          [500] = { route "/none" { respond(200) } } },
                 route "/b" { respond(403) }, route "/c" { respond(500, "kept") } }"#,
        );
        let got = bench
            .request("POST", "/a?b")
            .field("Range", "bytes=0-1")
            .body(vec![1])
            .run();
        assert_eq!((got.status(), got.text()), (200, "any GET /a?b []".into()));
        assert_eq!(got.exchange.request.method.as_str(), "POST");
        assert_eq!(got.exchange.request.body().len_bytes(), Some(1));
        assert_eq!(got.request_fields(), ["Range: bytes=0-1"]);
        let got = bench.get("/b").run();
        assert_eq!(
            (got.status(), got.text(), got.field("x-inner")),
            (410, "gone".into(), Some("1"))
        );
        // A pipeline that does not answer leaves the response as it was.
        let got = bench.get("/c").run();
        assert_eq!((got.status(), got.text()), (500, "kept".into()));
        assert_eq!(bench.request("HEAD", "/x").run().text(), "any HEAD /x []");
    }

    #[test]
    fn a_page_of_the_same_status_says_what_belongs_to_it() {
        let bench = Bench::new(
            r#"site { "*", errors { [503] = respond(503, "page"), [401] = respond(403, "page") },
                 route "/own" { respond(503) { headers = { retry_after = "9", x_gone = "1" } } },
                 respond(401) { headers = { www_authenticate = "Basic" } } }"#,
        );
        let own = bench.get("/own").run();
        assert_eq!(
            (own.text(), own.field("retry-after")),
            ("page".into(), Some("9"))
        );
        assert_eq!(own.field("x-gone"), None);
        let other = bench.get("/").run();
        assert_eq!(
            (other.status(), other.field("www-authenticate")),
            (403, None)
        );
    }

    #[test]
    fn the_innermost_counts_and_none_sees_its_own_page_again() {
        let bench = Bench::new(
            r#"site { "*", errors { ["4xx"] = respond(404, "outer") },
                 route "/in/*" { errors { [404] = respond(404, "inner") } } }"#,
        );
        assert_eq!(bench.get("/in/x").run().text(), "inner");
        assert_eq!(bench.get("/x").run().text(), "outer");
        // In a pipeline of a page, another one: each runs once.
        let bench = Bench::new(
            r#"site { "*", errors { [404] = { errors { [404] = respond(404, "last") }, respond(404, "first") } } }"#,
        );
        assert_eq!(bench.get("/x").run().text(), "last");
    }

    #[test]
    fn only_errors_are_replaced() {
        let said =
            mistakes(r#"site { "*", errors { [200] = "/x", ["3xx"] = "/y" }, respond(200) }"#);
        assert_eq!(said.matches("this status is no error").count(), 2, "{said}");
    }
}
