//! `security_headers`: the fields that make a browser careful.

use forebay_config::{Call, Code, Directive, Opt, Report, Type};
use forebay_fields::{Known, Name, is_value};

use crate::control::build::Builder;
use crate::exchange::{Exchange, Flow, Response, Step, Up};
use crate::explain::{Notes, shown};

pub static DIRECTIVE: Directive = Directive::filter(
    "security_headers",
    "Makes browsers careful with a response: `X-Content-Type-Options: nosniff`, always; \
     `Referrer-Policy: strict-origin-when-cross-origin`, `X-Frame-Options`, \
     `Cross-Origin-Opener-Policy: same-origin-allow-popups` and, if it is given, \
     `Content-Security-Policy`, each where the response has none of its own.",
)
.options(&[
    Opt::new(
        "frame",
        Type::Text,
        "The `X-Frame-Options`: who may show the page in a frame; an empty text sends none.",
    )
    .default(r#""SAMEORIGIN""#),
    Opt::new("csp", Type::Text, "The `Content-Security-Policy`."),
])
.check(check)
.stateless()
.example(r#"security_headers { frame = "DENY", csp = "default-src 'self'" }"#);

fn check(call: &Call, report: &mut Report) {
    for option in ["frame", "csp"] {
        if let Some(text) = call.find::<&str>(option)
            && !is_value(text.as_bytes())
        {
            let message = format!("security_headers: `{option}` cannot stand in a field");
            let help = "expected one line of text";
            report.mistake(call.place_of(option), Code::BadValue, message, help);
        }
    }
}

/// Adds what is missing.
struct SecurityHeaders {
    defaults: Box<[(Name<'static>, Box<[u8]>)]>,
}

pub fn build(call: &Call, _: &mut Builder<'_>) -> Option<Box<dyn Step>> {
    let given = |option: &str| call.find::<&str>(option).unwrap_or_default().trim();
    let defaults = [
        (
            Name::from("Referrer-Policy"),
            "strict-origin-when-cross-origin",
        ),
        (Name::from(Known::XFrameOptions), given("frame")),
        // With `same-origin`, pages that open a window to pay or to sign in would lose it.
        (
            Name::from("Cross-Origin-Opener-Policy"),
            "same-origin-allow-popups",
        ),
        (Name::from(Known::ContentSecurityPolicy), given("csp")),
    ];
    let defaults = defaults.into_iter().filter(|(_, value)| !value.is_empty());
    Some(Box::new(SecurityHeaders {
        defaults: defaults
            .map(|(name, value)| (name, value.as_bytes().into()))
            .collect(),
    }))
}

impl Step for SecurityHeaders {
    fn name(&self) -> &'static str {
        DIRECTIVE.name
    }

    fn on_request(&self, _: &mut Exchange) -> Flow {
        Flow::Next
    }

    fn sees_response(&self) -> bool {
        true
    }

    fn on_response(&self, _: &mut Exchange, response: &mut Response) -> Up {
        response.set(Known::XContentTypeOptions, b"nosniff");
        for (name, value) in &self.defaults {
            if !response.fields.contains(*name) {
                // Refused only if the head is too large already; the check has seen to the rest.
                let _ = response.fields.append(*name, &**value);
            }
        }
        Up::Done
    }

    fn explain_response(&self, _: &Exchange, response: Option<&Response>, notes: &mut Notes<'_>) {
        if response.is_none() {
            notes.add("field", "sets X-Content-Type-Options");
            for (name, _) in &self.defaults {
                let name = shown(name.as_bytes());
                notes.add("field", format!("sets, if it is absent, {name}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::steps::testing::{Bench, mistakes};

    #[test]
    fn what_is_added_and_what_stands() {
        let bench = Bench::new(
            r#"site { "*", security_headers,
                 route "/own" { respond(200) { headers = {
                   x_content_type_options = "x", referrer_policy = "no-referrer", x_frame_options = "DENY",
                   cross_origin_opener_policy = "unsafe-none", content_security_policy = "a" } } } }"#,
        );
        let names = [
            "x-content-type-options",
            "referrer-policy",
            "x-frame-options",
            "cross-origin-opener-policy",
            "content-security-policy",
        ];
        let plain = bench.get("/").run();
        assert_eq!(plain.status(), 404, "errors have them, too");
        assert_eq!(
            names.map(|name| plain.field(name)),
            [
                Some("nosniff"),
                Some("strict-origin-when-cross-origin"),
                Some("SAMEORIGIN"),
                Some("same-origin-allow-popups"),
                None
            ]
        );
        let own = bench.get("/own").run();
        assert_eq!(
            names.map(|name| own.field(name)),
            [
                Some("nosniff"),
                Some("no-referrer"),
                Some("DENY"),
                Some("unsafe-none"),
                Some("a")
            ]
        );
    }

    #[test]
    fn a_policy_and_no_word_on_frames() {
        let bench = Bench::new(
            r#"site { "*", security_headers { frame = "", csp = "default-src 'self'" }, respond(200) }"#,
        );
        let got = bench.get("/").run();
        assert_eq!(got.field("x-frame-options"), None);
        assert_eq!(
            got.field("content-security-policy"),
            Some("default-src 'self'")
        );
        let said = mistakes(r#"site { "*", security_headers { csp = "a\nb" }, respond(200) }"#);
        assert!(said.contains("`csp` cannot stand in a field"), "{said}");
    }
}
