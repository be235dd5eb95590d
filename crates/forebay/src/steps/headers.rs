//! `headers`: changes fields, on the way down and on the way up.

use forebay_config::{Call, Code, Directive, Opt, Report, Type, Vars, When};

use super::edits::Edits;
use crate::control::build::{Builder, looks_at_response};
use crate::exchange::{Condition, Exchange, Flow, Response, Step, Up};
use crate::explain::Notes;

pub static DIRECTIVE: Directive = Directive::filter(
    "headers",
    "Changes fields. A text sets a field, a list sets several lines, `false` removes it, \
     `add \"…\"` appends a line, `default \"…\"` sets it if it is absent; an empty value is not \
     sent. A `when` with `status` looks at the response, and then only `response` can be given.",
)
.options(&[
    Opt::new(
        "request",
        Type::Fields(Vars::Request),
        "Of the request, on its way down.",
    ),
    Opt::new(
        "response",
        Type::Fields(Vars::Response),
        "Of the response, on its way up.",
    ),
])
.when(When::Response)
.check(check)
.stateless()
.example(r#"headers { response = { x_frame_options = "DENY", server = false } }"#);

fn check(call: &Call, report: &mut Report) {
    Edits::check(call, "request", report);
    Edits::check(call, "response", report);
    if !call.is_set("request") && !call.is_set("response") {
        let help = "expected `request = { … }` or `response = { … }`";
        report.mistake(
            call.place,
            Code::Missing,
            "headers: it changes nothing",
            help,
        );
    }
    if call.is_set("request") && looks_at_response(&call.when) {
        let message = "headers: `request` cannot go by the response";
        let help = "its `when` has `status`, which is only known on the way up";
        report.mistake(call.place_of("request"), Code::Conflict, message, help);
    }
}

/// Changes fields.
struct Headers {
    request: Option<Edits>,
    response: Option<Edits>,
    /// The step's condition, where that looks at the response.
    when: Option<Condition>,
}

pub fn build(call: &Call, builder: &mut Builder<'_>) -> Option<Box<dyn Step>> {
    let own = looks_at_response(&call.when);
    Some(Box::new(Headers {
        request: Edits::new(call, "request"),
        response: Edits::new(call, "response"),
        when: if own {
            builder.condition(&call.when)
        } else {
            None
        },
    }))
}

impl Step for Headers {
    fn name(&self) -> &'static str {
        DIRECTIVE.name
    }

    fn on_request(&self, exchange: &mut Exchange) -> Flow {
        if let Some(edits) = &self.request {
            edits.apply(exchange, None);
        }
        Flow::Next
    }

    fn sees_response(&self) -> bool {
        self.response.is_some()
    }

    fn on_response(&self, exchange: &mut Exchange, response: &mut Response) -> Up {
        if let Some(edits) = &self.response
            && self
                .when
                .as_ref()
                .is_none_or(|when| when.holds_for(exchange, response))
        {
            edits.apply(exchange, Some(response));
        }
        Up::Done
    }

    fn explain_response(
        &self,
        exchange: &Exchange,
        response: Option<&Response>,
        notes: &mut Notes<'_>,
    ) {
        match (response, &self.response) {
            (Some(response), _) => {
                notes.own_condition("when", self.when.as_ref(), exchange, response);
            }
            (None, Some(edits)) => edits.tell(notes),
            (None, None) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::steps::testing::{Bench, mistakes};

    fn request_fields(edits: &str, sent: &[(&str, &str)]) -> Vec<String> {
        let bench = Bench::new(&format!(
            "site {{ \"*\", set(\"bad\", \"$query.q\"), headers {{ request = {{ {edits} }} }}, respond(200) }}"
        ));
        let mut request = bench.get("/?q=a%0D%0Ab");
        for (name, value) in sent {
            request = request.field(name, value);
        }
        request.run().request_fields()
    }

    #[test]
    fn every_kind_of_change() {
        let sent = [("X-A", "1"), ("X-A", "2"), ("X-B", "3")];
        let check = |edits: &str, expected: &[&str]| {
            assert_eq!(request_fields(edits, &sent), expected, "{edits}");
        };
        check(r#"x_a = "n""#, &["x-a: n", "X-B: 3"]);
        check(r#"x_a = "<$headers.x_a>""#, &["x-a: <1>", "X-B: 3"]);
        check(
            r#"x_a = { "$headers.x_a", "", "z$path" }"#,
            &["X-B: 3", "x-a: 1", "x-a: z/"],
        );
        check(r#"x_a = false"#, &["X-B: 3"]);
        check(r#"x_a = """#, &["X-B: 3"]);
        check(
            r#"x_b = add "4""#,
            &["X-A: 1", "X-A: 2", "X-B: 3", "x-b: 4"],
        );
        check(
            r#"x_b = default "4", x_c = default "5""#,
            &["X-A: 1", "X-A: 2", "X-B: 3", "x-c: 5"],
        );
        check(
            r#"x_b = add "", x_c = default """#,
            &["X-A: 1", "X-A: 2", "X-B: 3"],
        );
    }

    #[test]
    fn a_value_that_could_end_the_field_leaves_none() {
        let got = request_fields(r#"x_user = "$vars.bad""#, &[("X-User", "forged")]);
        assert_eq!(got, [""; 0]);
        let got = request_fields(r#"x_user = { "$vars.bad", "b" }"#, &[("X-User", "forged")]);
        assert_eq!(got, ["x-user: b"]);
    }

    #[test]
    fn responses_change_on_their_way_up() {
        let bench = Bench::new(
            r#"site { "*", headers { response = { x_last = "$status $bytes", x_gone = false } },
                 headers { response = { x_err = "1" }, when = status "4xx" },
                 headers { response = { x_fine = "1" }, when = { status(200), path "/b" } },
                 headers { response = { x_b = "1" }, when = path "/b" },
                 route "/a" { respond(200, "abc") { headers = { x_gone = "1" } } },
                 route "/b" { respond(404) } }"#,
        );
        let a = bench.get("/a").run();
        assert_eq!(a.field("x-last"), Some("200 3"));
        assert_eq!(
            (a.field("x-gone"), a.field("x-err"), a.field("x-b")),
            (None, None, None)
        );
        assert_eq!(a.field("x-fine"), Some("1"));
        let b = bench.get("/b").run();
        assert_eq!(
            (b.field("x-err"), b.field("x-fine")),
            (Some("1"), Some("1"))
        );
        assert_eq!(b.field("x-b"), Some("1"));
    }

    #[test]
    fn what_frames_a_message_cannot_be_changed() {
        for edit in [
            "request = { host = \"a\" }",
            "request = { content_length = \"1\" }",
            "response = { transfer_encoding = false }",
            "response = { connection = \"close\" }",
        ] {
            let said = mistakes(&format!(
                "site {{ \"*\", headers {{ {edit} }}, respond(200) }}"
            ));
            assert!(said.contains("cannot be changed"), "{edit}: {said}");
        }
    }

    #[test]
    fn a_condition_on_the_response_is_for_the_response() {
        let said = mistakes(
            r#"site { "*", headers { request = { x = "1" }, when = status "4xx" }, respond(200) }"#,
        );
        assert!(
            said.contains("`request` cannot go by the response"),
            "{said}"
        );
        assert!(mistakes("site { \"*\", headers, respond(200) }").contains("changes nothing"));
    }
}
