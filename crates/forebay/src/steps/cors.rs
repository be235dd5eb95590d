//! `cors`: which other origins' pages may read the responses (the Fetch standard, §3.2).

use forebay_config::{Call, Code, Directive, Match, Node, Opt, Report, Type};
use forebay_fields::{Known, append_decimal, is_token};
use forebay_http1::Method;

use crate::control::build::Builder;
use crate::exchange::{Exchange, Flow, Response, Step, Up};
use crate::explain::{Notes, Told, shown};

pub static DIRECTIVE: Directive = Directive::filter(
    "cors",
    "Says which other origins' pages may read the responses. It answers preflights with 204 and \
     sets the `Access-Control` fields of all other responses, whatever an application says in \
     them; `Vary` is added wherever the answer depends on the origin. Preflights carry no \
     credentials, so it stands above what asks for some.",
)
.options(&[
    Opt::new(
        "origins",
        Type::List(&Type::Match),
        "As browsers write them, `https://app.example.com`; `\"*\"` for all.",
    )
    .required(),
    Opt::new(
        "methods",
        Type::List(&Type::Text),
        "Those that pages may use.",
    )
    .default(r#"{ "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE" }"#),
    Opt::new(
        "headers",
        Type::List(&Type::Text),
        "Request fields that pages may set.",
    )
    .unset("as asked"),
    Opt::new(
        "expose",
        Type::List(&Type::Text),
        "Response fields that pages may read, beside the usual ones.",
    ),
    Opt::new(
        "credentials",
        Type::Boolean,
        "Requests may carry cookies and other credentials. Not with all origins: every page in \
         the world could act for whoever looks at it.",
    )
    .default("false"),
    Opt::new(
        "max_age",
        Type::DURATION,
        "For how long a browser keeps the answer to a preflight.",
    )
    .default(r#""1d""#),
])
.check(check)
.stateless()
.example(r#"cors { origins = "https://app.example.com", credentials = true }"#);

fn check(call: &Call, report: &mut Report) {
    for option in ["methods", "headers", "expose"] {
        for node in call.find::<&[Node]>(option).unwrap_or_default() {
            let text: &str = node.get();
            if !is_token(text.as_bytes()) {
                let message = format!("cors: `{option}` cannot be \"{}\"", text.escape_debug());
                report.mistake(node.place, Code::BadValue, message, "expected a name");
            }
        }
    }
    for node in call.get::<&[Node]>("origins") {
        let text = node.get::<&Match>().text();
        if is_loose(text) {
            let message = format!("cors: \"{}\" lets strangers in", text.escape_debug());
            let help = "names of others have that form, too: expected names, or \"*.example.com\"";
            report.warning(node.place, message, help);
        }
    }
    let all = call
        .get::<&[Node]>("origins")
        .iter()
        .find(|node| is_all(node.get()));
    if let (Some(all), true) = (all, call.get::<bool>("credentials")) {
        let message = "cors: `credentials` cannot go with all origins";
        let help = "name the origins whose pages may act for your users";
        report.mistake(all.place, Code::Conflict, message, help);
    }
}

/// Whether a name of somebody else's fits as well: `https://a.test*` is also
/// `https://a.test.evil.example`, and `*a.test` also `https://evila.test`.
fn is_loose(origin: &str) -> bool {
    match (origin.strip_prefix('*'), origin.strip_suffix('*')) {
        (Some(end), None) => !end.starts_with('.') && !end.contains("://"),
        (None, Some(start)) => !start.ends_with(':') && !start.ends_with("://"),
        _ => false,
    }
}

/// Whether a match is for everything that there is.
fn is_all(origin: &Match) -> bool {
    matches!(origin.text(), "*" | "**")
}

/// See the module.
struct Cors {
    /// Empty: all of them.
    origins: Box<[Match]>,
    methods: Box<[u8]>,
    /// `None`: whatever is asked for.
    headers: Option<Box<[u8]>>,
    expose: Option<Box<[u8]>>,
    credentials: bool,
    max_age: Box<[u8]>,
}

pub fn build(call: &Call, _: &mut Builder<'_>) -> Option<Box<dyn Step>> {
    let list = |option: &str| {
        let nodes: &[Node] = call.find(option)?;
        let names: Vec<&str> = nodes.iter().map(Node::get).collect();
        Some(names.join(", ").into_bytes().into_boxed_slice())
    };
    let origins: &[Node] = call.get("origins");
    let mut origins: Vec<Match> = origins
        .iter()
        .map(|node| node.get::<&Match>().clone())
        .collect();
    if origins.iter().any(is_all) {
        origins.clear();
    }
    let mut max_age = Vec::new();
    append_decimal(
        &mut max_age,
        call.get::<std::time::Duration>("max_age").as_secs(),
    );
    Some(Box::new(Cors {
        origins: origins.into(),
        methods: list("methods").unwrap_or_default(),
        headers: list("headers"),
        expose: list("expose"),
        credentials: call.get("credentials"),
        max_age: max_age.into(),
    }))
}

impl Cors {
    /// Sets who may read this response.
    fn allow(&self, exchange: &Exchange, response: &mut Response) -> bool {
        let fields = &mut response.fields;
        fields.remove(Known::AccessControlAllowOrigin);
        fields.remove(ALLOW_CREDENTIALS);
        if !self.origins.is_empty() {
            vary(response, "Origin");
        }
        // Several lines are no origin that a browser has sent.
        let Some(origin) = exchange.request.fields.get_only(Known::Origin) else {
            return false;
        };
        let allowed: &[u8] = if self.origins.is_empty() {
            b"*"
        } else if self.takes(origin) {
            origin
        } else {
            return false;
        };
        response.set(Known::AccessControlAllowOrigin, allowed);
        if self.credentials {
            set(response, ALLOW_CREDENTIALS, b"true");
        }
        true
    }

    /// Whether pages of this origin are among those that may.
    fn takes(&self, origin: &[u8]) -> bool {
        self.origins.is_empty() || self.origins.iter().any(|one| one.matches(origin))
    }

    fn preflight(&self, exchange: &mut Exchange) -> Response {
        let mut response = Response::new(exchange, 204);
        let asked = Known::AccessControlRequestHeaders;
        if self.allow(exchange, &mut response) {
            set(&mut response, "Access-Control-Allow-Methods", &self.methods);
            let headers = match &self.headers {
                Some(headers) => Some(&**headers),
                None => exchange.request.fields.get_only(asked),
            };
            if let Some(headers) = headers {
                set(&mut response, "Access-Control-Allow-Headers", headers);
            }
            set(&mut response, "Access-Control-Max-Age", &self.max_age);
        }
        if self.headers.is_none() {
            vary(&mut response, asked.name());
        }
        response
    }
}

const ALLOW_CREDENTIALS: &str = "Access-Control-Allow-Credentials";

fn set(response: &mut Response, name: &str, value: &[u8]) {
    // What a client has asked for is a field's value already.
    let _ = response.fields.set(name, value);
}

fn vary(response: &mut Response, name: &str) {
    let fields = &mut response.fields;
    if !fields.has_token(Known::Vary, name) && !fields.has_token(Known::Vary, "*") {
        let _ = fields.append(Known::Vary, name);
    }
}

fn is_preflight(exchange: &Exchange) -> bool {
    let request = &exchange.request;
    request.method == Method::Options
        && request.fields.contains(Known::Origin)
        && request.fields.contains(Known::AccessControlRequestMethod)
}

impl Step for Cors {
    fn name(&self) -> &'static str {
        DIRECTIVE.name
    }

    fn on_request(&self, exchange: &mut Exchange) -> Flow {
        match is_preflight(exchange) {
            true => Flow::Answer(self.preflight(exchange)),
            false => Flow::Next,
        }
    }

    fn explain(&self, exchange: &mut Exchange, notes: &mut Notes<'_>) -> Told {
        let is = if is_preflight(exchange) {
            "is"
        } else {
            "is not"
        };
        notes.add("preflight", format!("it {is} one"));
        match exchange.request.fields.get_only(Known::Origin) {
            None => notes.add("origin", "it has none"),
            Some(origin) => {
                let may = if self.takes(origin) { "may" } else { "may not" };
                notes.add(
                    "origin",
                    format!("pages of {} {may} read it", shown(origin)),
                );
            }
        }
        Told::Runs
    }

    fn explain_response(&self, _: &Exchange, response: Option<&Response>, notes: &mut Notes<'_>) {
        if response.is_none() {
            notes.add(
                "field",
                "sets the Access-Control fields, whatever stands in them",
            );
        }
    }

    fn sees_response(&self) -> bool {
        true
    }

    fn on_response(&self, exchange: &mut Exchange, response: &mut Response) -> Up {
        if self.allow(exchange, response)
            && let Some(expose) = &self.expose
        {
            set(response, "Access-Control-Expose-Headers", expose);
        }
        Up::Done
    }
}

#[cfg(test)]
mod tests {
    use crate::steps::testing::{Bench, Got, mistakes, try_build};

    fn bench(options: &str) -> Bench {
        Bench::new(&format!(
            "site {{ \"*\", cors {{ {options} }}, route \"/no\" {{ respond(403) }},
               respond(200) {{ headers = {{ access_control_allow_origin = \"https://app\", vary = \"Accept\" }} }} }}"
        ))
    }

    fn field(got: &Got, name: &str) -> String {
        let values: Vec<String> = got
            .response
            .fields
            .all(name)
            .map(|value| String::from_utf8_lossy(value).into_owned())
            .collect();
        values.join("|")
    }

    #[test]
    fn the_origins_that_are_named() {
        let bench = bench(r#"origins = { "https://a.test", "https://*", "*.b.test" }"#);
        for (origin, allowed) in [
            ("https://a.test", true),
            ("https://c.test", true),
            ("http://x.b.test", true),
            ("http://c.test", false),
            ("null", false),
        ] {
            for path in ["/", "/no"] {
                let got = bench.get(path).field("Origin", origin).run();
                let expected = if allowed { origin } else { "" };
                let seen = field(&got, "access-control-allow-origin");
                assert_eq!(seen, expected, "{origin} {path}");
                assert!(field(&got, "vary").contains("Origin"));
            }
        }
        let none = bench.get("/").run();
        assert_eq!(field(&none, "access-control-allow-origin"), "");
        assert_eq!(field(&none, "vary"), "Accept|Origin");
    }

    #[test]
    fn all_origins() {
        let bench = bench(r#"origins = "*", expose = { "X-A", "X-B" }"#);
        let got = bench.get("/").field("Origin", "https://x").run();
        assert_eq!(field(&got, "access-control-allow-origin"), "*");
        assert_eq!(field(&got, "access-control-expose-headers"), "X-A, X-B");
        assert_eq!(field(&got, "vary"), "Accept");
    }

    #[test]
    fn preflights() {
        let options = r#"origins = "https://a.test", credentials = true, methods = { "PUT", "GET" }, max_age = "10m""#;
        let bench = bench(options);
        let ask = |origin: &str, method: &str| {
            bench
                .request(method, "/no")
                .field("Origin", origin)
                .field("Access-Control-Request-Method", "PUT")
                .field("Access-Control-Request-Headers", "x-one,x-two")
                .run()
        };
        let got = ask("https://a.test", "OPTIONS");
        assert_eq!(got.status(), 204);
        for (name, expected) in [
            ("access-control-allow-origin", "https://a.test"),
            ("access-control-allow-credentials", "true"),
            ("access-control-allow-methods", "PUT, GET"),
            ("access-control-allow-headers", "x-one,x-two"),
            ("access-control-max-age", "600"),
            ("vary", "Origin|Access-Control-Request-Headers"),
        ] {
            assert_eq!(field(&got, name), expected, "{name}");
        }
        let refused = ask("https://b.test", "OPTIONS");
        assert_eq!(refused.status(), 204);
        assert_eq!(field(&refused, "access-control-allow-origin"), "");
        assert_eq!(field(&refused, "access-control-allow-methods"), "");
        // Only `OPTIONS` with both fields is a preflight.
        assert_eq!(ask("https://a.test", "GET").status(), 403);
        let plain = bench
            .request("OPTIONS", "/no")
            .field("Origin", "https://a.test");
        assert_eq!(plain.run().status(), 403);
    }

    #[test]
    fn origins_that_others_may_have_are_warned_of() {
        for (origin, loose) in [
            ("https://a.test*", true),
            ("*a.test", true),
            ("https://a.*", true),
            ("*.a.test", false),
            ("https://*", false),
            ("http://localhost:*", false),
            ("https://a.test", false),
            ("*", false),
        ] {
            let config =
                format!("site {{ \"*\", cors {{ origins = \"{origin}\" }}, respond(200) }}");
            let said = try_build(&config).1.render_warnings();
            assert_eq!(
                said.contains("lets strangers in"),
                loose,
                "{origin}: {said}"
            );
        }
    }

    #[test]
    fn mistakes_in_it() {
        let said = |options: &str| {
            mistakes(&format!(
                "site {{ \"*\", cors {{ {options} }}, respond(200) }}"
            ))
        };
        for (options, expected) in [
            ("max_age = '1h'", "`origins` is missing"),
            (
                r#"origins = { "https://a", "*" }, credentials = true"#,
                "`credentials` cannot go with all origins",
            ),
            (
                r#"origins = "*", methods = "G T""#,
                "`methods` cannot be \"G T\"",
            ),
            (
                r#"origins = "*", expose = "a:b""#,
                "`expose` cannot be \"a:b\"",
            ),
        ] {
            let said = said(options);
            assert!(said.contains(expected), "{options}: {said}");
        }
    }
}
