//! `redirect`: sends the client elsewhere.

use forebay_config::{Arg, Call, Code, Directive, Report, Template, Type, Vars};
use forebay_fields::Known;

use crate::control::build::Builder;
use crate::exchange::{Exchange, Flow, Reason, Response, Step, expand_url};

pub static DIRECTIVE: Directive = Directive::handler(
    "redirect",
    "Sends the client to TO, with 302 unless STATUS says otherwise. What variables bring is \
     escaped, so that it can neither end the field nor lead to another host.",
)
.args(&[
    Arg::required("TO", Type::Template(Vars::Captures)),
    Arg::optional("STATUS", Type::StatusCode),
])
.check(check)
.stateless()
.example(r#"redirect("https://example.com$uri", 301)"#);

fn check(call: &Call, report: &mut Report) {
    if let Some(status) = call.find::<u16>("STATUS")
        && !matches!(status, 301 | 302 | 303 | 307 | 308)
    {
        let message = format!("redirect: STATUS cannot be {status}");
        let help = "expected 301, 302, 303, 307 or 308";
        report.mistake(call.place_of("STATUS"), Code::BadValue, message, help);
    }
    if call.get::<&Template>("TO").parts.is_empty() {
        let message = "redirect: TO cannot be \"\"";
        report.mistake(
            call.place_of("TO"),
            Code::BadValue,
            message,
            "expected a URL or a path",
        );
    }
}

/// Redirects.
struct Redirect {
    to: Template,
    status: u16,
}

pub fn build(call: &Call, _: &mut Builder<'_>) -> Option<Box<dyn Step>> {
    let to = call.get::<&Template>("TO").clone();
    Some(Box::new(Redirect {
        to,
        status: call.find("STATUS").unwrap_or(302),
    }))
}

impl Step for Redirect {
    fn name(&self) -> &'static str {
        DIRECTIVE.name
    }

    fn on_request(&self, exchange: &mut Exchange) -> Flow {
        let mut to = Vec::new();
        expand_url(&self.to, exchange, &mut to);
        let mut response = Response::page(exchange, self.status);
        // All that could not stand in a field has been escaped; only its length is left.
        match response.fields.set(Known::Location, &to) {
            Ok(()) => Flow::Answer(response),
            Err(_) => Flow::Fail(Reason::TargetTooLong.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::steps::testing::{Bench, mistakes};

    #[track_caller]
    fn check(pipeline: &str, target: &str, status: u16, location: &str) {
        let got = Bench::new(&format!("site {{ \"*\", {pipeline} }}"))
            .get(target)
            .run();
        assert_eq!(
            (got.status(), got.field("location")),
            (status, Some(location)),
            "{target}"
        );
    }

    #[test]
    fn where_it_leads() {
        check(r#"redirect "/b""#, "/a?x", 302, "/b");
        check(
            r#"redirect("https://$host$uri", 301)"#,
            "/p?x=1",
            301,
            "https://test/p?x=1",
        );
        check(
            r#"route "/old/*" { redirect "/new/$rest" }"#,
            "/old/a/b?c",
            302,
            "/new/a/b",
        );
        check(
            r#"redirect "b?$query_string""#,
            "/a?x=1&y=%20",
            302,
            "b?x=1&y=%20",
        );
        check(r#"redirect("?page=2", 303)"#, "/", 303, "?page=2");
    }

    #[test]
    fn what_variables_bring_is_escaped() {
        let path = r#"redirect "$path""#;
        check(path, "//evil.example/x", 302, "/evil.example/x");
        check(path, "/\\evil.example", 302, "/%5Cevil.example");
        check(
            r#"redirect "/$path""#,
            "/evil.example",
            302,
            "/evil.example",
        );
        check(
            r#"route "/r/*" { redirect "/$rest" }"#,
            "/r//evil.example",
            302,
            "/evil.example",
        );
        check(
            r#"route "/r/*" { redirect "$rest" }"#,
            "/r/https://evil.example",
            302,
            "./https://evil.example",
        );
        check(
            r#"set("v", "$query.v"), redirect "/x/$vars.v""#,
            "/?v=a%0d%0aSet-Cookie:b",
            302,
            "/x/a%0D%0ASet-Cookie:b",
        );
        check(
            r#"redirect "/x/$query.v""#,
            "/?v=a%3Fb%23c%25",
            302,
            "/x/a%3Fb%23c%25",
        );
        check(
            r#"redirect "/x?u=$query.v""#,
            "/?v=a%26b%2Bc%25",
            302,
            "/x?u=a%26b%2Bc%25",
        );
        check(r#"redirect "/x?id=$path""#, "/a&b=1", 302, "/x?id=/a%26b=1");
        check(
            r#"redirect "https://sso/?to=https://$host$uri""#,
            "/a%20b?c=d&e",
            302,
            "https://sso/?to=https://test/a%2520b?c=d%26e",
        );
    }

    #[test]
    fn an_address_in_a_variable_is_kept_as_it_is() {
        check(
            r#"set("to", "https://a.example/?b=c&d#e"), redirect "$vars.to""#,
            "/",
            302,
            "https://a.example/?b=c&d#e",
        );
    }

    #[test]
    fn statuses_that_redirect() {
        let said = mistakes(r#"site { "*", redirect("/x", 200) }"#);
        assert!(said.contains("redirect: STATUS cannot be 200"), "{said}");
    }
}
