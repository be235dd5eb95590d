//! `forward_auth`: asks another server whether a request may go on.
//!
//! ```text
//!   request ──▶ GET, without the body ──▶ 2xx ──▶ some of its fields into the request ──▶ next step
//!                                     └─▶ anything else: that is the answer
//!                                     └─▶ none in time: 502 or 504, never the next step
//! ```

use std::rc::Rc;

use forebay_config::{
    Arg, Call, Code, Directive, Node, Opt, Part, Report, Template, Type, Variable, Vars,
};
use forebay_fields::{Fields, Known, is_token};
use forebay_http1::Method;

use super::edits::refused;
use super::errors::CONDITIONS;
use super::proxy::Proxy;
use crate::control::build::Builder;
use crate::exchange::{
    Exchange, Fault, Flow, Interim, Local, Reason, Request, Response, Step, expand_url,
};
use crate::explain::{Notes, Told};

pub static DIRECTIVE: Directive = Directive::filter(
    "forward_auth",
    "Asks a server by a request of its own: GET, with the request's fields and without its body; \
     `X-Forwarded-Method` and `X-Forwarded-Uri` say what the client asked for. An answer 2xx lets \
     the request go on; any other is the answer to the client. Where none comes, the request does \
     not go on.",
)
.args(&[Arg::required(
    "TARGET",
    Type::Or(&[Type::Declared(&["upstream", "processes"]), Type::TARGET]),
)])
.options(&[
    Opt::new(
        "uri",
        Type::Template(Vars::Request),
        "Its request target: a path.",
    )
    .default(r#""$uri""#),
    Opt::new(
        "copy",
        Type::List(&Type::Text),
        "Fields of the answer to copy into the request, in which the client's own are removed.",
    ),
])
.check(check)
.access_control()
.example(r#"forward_auth "127.0.0.1:9091" { uri = "/verify", copy = { "Remote-User" } }"#);

fn check(call: &Call, report: &mut Report) {
    let is_path = match call.get::<&Template>("uri").parts.first() {
        Some(Part::Text(text)) => text.starts_with('/'),
        Some(Part::Var(variable)) => matches!(
            variable,
            Variable::Uri | Variable::OriginalUri | Variable::Path
        ),
        None => false,
    };
    if !is_path {
        let message = "forward_auth: `uri` is no path";
        let help = "expected a template that begins with a slash, as \"/verify\"";
        report.mistake(call.place_of("uri"), Code::BadValue, message, help);
    }
    for node in call.find::<&[Node]>("copy").unwrap_or_default() {
        let name: &str = node.get();
        let why = match is_token(name.as_bytes()) {
            true => refused(name, true),
            false => Some("expected the name of a field"),
        };
        if let Some(help) = why {
            let message = format!("forward_auth: `copy` cannot be \"{}\"", name.escape_debug());
            report.mistake(node.place, Code::BadValue, message, help);
        }
    }
}

/// See the module.
struct ForwardAuth {
    server: Proxy,
    uri: Template,
    copy: Box<[Box<str>]>,
}

pub fn build(call: &Call, builder: &mut Builder<'_>) -> Option<Box<dyn Step>> {
    let upstream = builder.upstream(call.node("TARGET")?)?;
    let copy: &[Node] = call.find("copy").unwrap_or_default();
    Some(Box::new(ForwardAuth {
        server: Proxy::asking(upstream),
        uri: call.get::<&Template>("uri").clone(),
        copy: copy.iter().map(|node| node.get::<&str>().into()).collect(),
    }))
}

impl ForwardAuth {
    /// The request that asks.
    fn question(&self, exchange: &Exchange) -> Result<Request, Fault> {
        let asked = &exchange.request;
        let mut uri = Vec::new();
        expand_url(&self.uri, exchange, &mut uri);
        let uri = String::from_utf8(uri)
            .ok()
            .filter(|uri| uri.starts_with('/'));
        let Some(uri) = uri else {
            return Err(Fault::with(Reason::BadPath, "`uri` of forward_auth"));
        };
        let mut question = Request::default();
        question.method = Method::Get;
        question.set_target(&uri);
        question.set_host(asked.host(), asked.port);
        question.prefix = asked.prefix.clone();
        question.fields = asked.fields.clone();
        let fields = &mut question.fields;
        // An answer 304 or 206 would be none to this question.
        fields.remove_all(CONDITIONS);
        for (name, value) in [
            ("X-Forwarded-Method", asked.method.as_str()),
            ("X-Forwarded-Uri", asked.original_uri()),
        ] {
            if fields.set(name, value).is_err() {
                return Err(Reason::HeadTooLarge.into());
            }
        }
        Ok(question)
    }

    /// The answer of the server, with the exchange's own request back in its place.
    async fn ask(&self, exchange: &mut Exchange) -> Result<Response, Fault> {
        let question = self.question(exchange)?;
        let asking = Asking {
            asked: std::mem::replace(&mut exchange.request, question),
            // Its 103 Early Hints are no hints for this client.
            interim: exchange.interim.take(),
            exchange,
        };
        self.server.ask(&mut *asking.exchange).await
    }

    /// Copies what the server says of the client. What the client says of itself is gone, also
    /// where the server says nothing.
    fn copy(&self, from: &Fields, to: &mut Fields) -> Result<(), Fault> {
        for name in &self.copy {
            // Else the field would be taken off again further on, as one of the client's connection
            // (RFC 9110 §7.6.1), and the application would see nobody.
            if to.has_token(Known::Connection, name) {
                let detail = "`Connection` names a field of forward_auth";
                return Err(Fault::with(Reason::BadRequest, detail));
            }
            to.remove(&**name);
            for value in from.all(&**name) {
                // An application must not take somebody for nobody because a field was left out.
                to.append(&**name, value)
                    .map_err(|_| Reason::HeadTooLarge)?;
            }
        }
        Ok(())
    }
}

/// An exchange whose request is our question for a while. It gets its own back also where its client
/// leaves meanwhile: its line in the access log is about what the client has asked for.
struct Asking<'a> {
    exchange: &'a mut Exchange,
    asked: Request,
    interim: Option<Rc<dyn Interim>>,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        std::mem::swap(&mut self.exchange.request, &mut self.asked);
        self.exchange.interim = self.interim.take();
    }
}

impl Step for ForwardAuth {
    fn name(&self) -> &'static str {
        DIRECTIVE.name
    }

    fn on_request(&self, _: &mut Exchange) -> Flow {
        Flow::Wait
    }

    fn explain(&self, exchange: &mut Exchange, notes: &mut Notes<'_>) -> Told {
        let question = match self.question(exchange) {
            Ok(question) => question,
            Err(fault) => return Told::Fails(fault),
        };
        let asked = std::mem::replace(&mut exchange.request, question);
        let told = self.server.tell(exchange, notes);
        exchange.request = asked;
        if let Told::Fails(_) = told {
            return told;
        }
        // What the answer would bring is not known, but that the client's own is gone.
        match self.copy(&Fields::new(), &mut exchange.request.fields) {
            Ok(()) => {
                for name in &self.copy {
                    notes.add("copy", format!("{name}, from the answer"));
                }
                Told::AsksLeave
            }
            Err(fault) => Told::Fails(fault),
        }
    }

    fn wait<'a>(&'a self, exchange: &'a mut Exchange) -> Local<'a, Flow> {
        Box::pin(async move {
            let answer = match self.ask(exchange).await {
                Ok(answer) => answer,
                Err(fault) => return Flow::Fail(fault),
            };
            if !(200..300).contains(&answer.status) {
                return Flow::Answer(answer);
            }
            match self.copy(&answer.fields, &mut exchange.request.fields) {
                Ok(()) => {
                    exchange.worker.give_back_fields(answer.fields);
                    // It has not answered this request.
                    exchange.forget_peer();
                    Flow::Next
                }
                Err(fault) => Flow::Fail(fault),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::steps::testing::{built, mistakes};

    #[test]
    fn mistakes_in_it() {
        let said = |options: &str| {
            mistakes(&format!(
                "site {{ \"*\", forward_auth \"127.0.0.1:1\" {{ {options} }}, respond(200) }}"
            ))
        };
        for (options, expected) in [
            (r#"uri = "verify""#, "`uri` is no path"),
            (r#"uri = "$headers.x""#, "`uri` is no path"),
            (r#"uri = """#, "`uri` is no path"),
            (r#"copy = "a b""#, "`copy` cannot be \"a b\""),
            (
                r#"copy = { "X-User", "Host" }"#,
                "`copy` cannot be \"Host\"",
            ),
            (
                r#"copy = "content-length""#,
                "`copy` cannot be \"content-length\"",
            ),
        ] {
            let said = said(options);
            assert!(said.contains(expected), "{options}: {said}");
        }
        built(r#"site { "*", forward_auth "127.0.0.1:1" { uri = "/a?to=$uri" }, respond(200) }"#);
    }
}
