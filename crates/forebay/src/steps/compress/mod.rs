//! `compress`: responses in a coding that the client takes.
//!
//! Who may get a coded response and who may not has to be told apart by every cache on the way, so
//! `Vary` is set wherever another client would have got another coding.

mod best;
mod encoder;
mod stream;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use forebay_config::{Call, Directive, Match, Node, Opt, Type};
use forebay_fields::{Fields, Known, KnownSet};
use forebay_http1::Method;

use crate::control::build::Builder;
use crate::exchange::conditional;
use crate::exchange::{Accepts, Body, Coding, Exchange, Flow, Reason, Response, Step, Up};
use crate::explain::{Notes, Told};
use encoder::Encoder;
use stream::{Broken, Coded, TURN_BYTES, Unmeasured};

pub static DIRECTIVE: Directive = Directive::filter(
    "compress",
    "Sends responses in a coding that the client takes, by `Accept-Encoding`, as they come: what an \
     application has written leaves at once. Left alone are responses that are coded already, \
     parts, those with `Cache-Control: no-transform`, and those that set a cookie for a client \
     that has shown one or has logged in (their length would tell of the secrets in them). A \
     client that refuses every coding and none at all gets 406.",
)
.options(&[
    Opt::new(
        "encodings",
        Type::List(&Type::OneOf(&["zstd", "br", "gzip"])),
        "In order of preference, where the client has none.",
    )
    .default(r#"{ "zstd", "br", "gzip" }"#),
    Opt::new(
        "types",
        Type::List(&Type::Match),
        "Media types, in lower case and without parameters.",
    )
    .default(
        r#"{ "text/*", "*json", "*xml", "*javascript", "application/wasm", "font/otf", "font/ttf", "application/vnd.ms-fontobject" }"#,
    ),
    Opt::new("min_size", Type::SIZE, "Smaller bodies are left alone.").default(r#""1KB""#),
    Opt::new(
        "set_cookie",
        Type::OneOf(&["refuse", "compress"]),
        "What becomes of a response that sets a cookie for a client that has shown one or has \
         logged in. `compress` is for applications that send a cookie with every response and \
         nothing secret beside what clients choose.",
    )
    .default(r#""refuse""#),
])
.stateless()
.example("compress { types = { \"text/*\", \"*json\" }, min_size = \"2KB\" }");

/// Said of the bytes that were not coded.
const OF_BYTES: KnownSet = KnownSet::of(&[Known::AcceptRanges, Known::ContentMd5]);

/// The same (RFC 9530); names that are met too rarely to be known ones.
const DIGESTS: [&str; 3] = ["content-digest", "repr-digest", "digest"];

/// Codes responses.
struct Compress {
    codings: Box<[Coding]>,
    types: Box<[Match]>,
    min_bytes: u64,
    /// Also beside new cookies.
    codes_secrets: bool,
}

pub fn build(call: &Call, _: &mut Builder<'_>) -> Option<Box<dyn Step>> {
    let codings = call.get::<&[Node]>("encodings").iter();
    let types = call.get::<&[Node]>("types").iter();
    Some(Box::new(Compress {
        codings: codings
            .filter_map(|node| Coding::of(node.get::<&str>().as_bytes()))
            .collect(),
        types: types.map(|node| node.get::<&Match>().clone()).collect(),
        min_bytes: call.get("min_size"),
        codes_secrets: call.get::<&str>("set_cookie") == "compress",
    }))
}

impl Step for Compress {
    fn name(&self) -> &'static str {
        DIRECTIVE.name
    }

    fn on_request(&self, exchange: &mut Exchange) -> Flow {
        let fields = &exchange.request.fields;
        if refuses_something(fields)
            && Accepts::of(fields).refuses_all(self.codings.iter().copied())
        {
            return Flow::Fail(Reason::NotAcceptable.into());
        }
        exchange.wants_kept = true;
        Flow::Next
    }

    fn explain(&self, exchange: &mut Exchange, notes: &mut Notes<'_>) -> Told {
        let accepts = Accepts::of(&exchange.request.fields);
        let text = match accepts.choose(self.codings.iter().copied()) {
            Some(coding) => format!("the client would have {}", coding.name()),
            None => "the client takes none of the codings".to_owned(),
        };
        notes.add("accepts", text);
        Told::Runs
    }

    fn sees_response(&self) -> bool {
        true
    }

    fn on_response(&self, exchange: &mut Exchange, response: &mut Response) -> Up {
        match self.decide(exchange, response) {
            Verdict::Unmodified => {
                // Of what type it is does not stand in it: to say too much harms nobody.
                response.vary("Accept-Encoding");
                weaken_as_asked(&exchange.request.fields, response);
            }
            Verdict::Alone(why) => {
                if why.varies() {
                    response.vary("Accept-Encoding");
                }
            }
            Verdict::Code(coding) => {
                response.vary("Accept-Encoding");
                let is_head = exchange.request.method == Method::Head;
                code(exchange, response, coding, is_head);
            }
        }
        Up::Done
    }

    fn explain_response(
        &self,
        exchange: &Exchange,
        response: Option<&Response>,
        notes: &mut Notes<'_>,
    ) {
        let text = match response.map(|response| self.decide(exchange, response)) {
            Some(Verdict::Unmodified) => "304 has nothing to code".to_owned(),
            Some(Verdict::Alone(why)) => format!("none: {}", why.sentence()),
            Some(Verdict::Code(coding)) => format!("{}: the client takes it", coding.name()),
            None => {
                let accepts = Accepts::of(&exchange.request.fields);
                match accepts.choose(self.codings.iter().copied()) {
                    Some(coding) => format!("{}, if type and size are right", coding.name()),
                    None => format!("none: {}", Why::Unwanted.sentence()),
                }
            }
        };
        notes.add("coding", text);
    }
}

/// What becomes of a response.
enum Verdict {
    /// It is a 304, which stands for one in a coding or not.
    Unmodified,
    /// It is left as it is.
    Alone(Why),
    /// It is coded.
    Code(Coding),
}

/// Why a response is left as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// It has no body that could be coded, or one that is coded already.
    Bodiless,
    /// `no-transform`.
    Refused,
    /// It is of another type.
    Type,
    /// It is too small.
    Size,
    /// It is a part.
    Part,
    /// BREACH: what an attacker makes the client ask for, beside a secret that changes with each
    /// answer, shows in the length.
    Secret,
    /// The client takes none of the codings.
    Unwanted,
}

impl Why {
    /// Whether another client would have got it in a coding, or might have.
    fn varies(self) -> bool {
        matches!(self, Why::Part | Why::Secret | Why::Unwanted)
    }

    fn sentence(self) -> &'static str {
        match self {
            Why::Bodiless => "it has no body, or one that is coded already",
            Why::Refused => "`no-transform` forbids it",
            Why::Type => "its media type is not among `types`",
            Why::Size => "it is smaller than `min_size`",
            Why::Part => "it is a part",
            Why::Secret => "it sets a cookie for a client that is known",
            Why::Unwanted => "the client takes none of the codings",
        }
    }
}

impl Compress {
    /// What is to be done with a response.
    fn decide(&self, exchange: &Exchange, response: &Response) -> Verdict {
        let fields = &exchange.request.fields;
        if response.status == 304 {
            return Verdict::Unmodified;
        }
        if !may_be_coded(response) {
            return Verdict::Alone(Why::Bodiless);
        }
        if transforms_are_refused(fields, response) {
            return Verdict::Alone(Why::Refused);
        }
        let insists = refuses_something(fields) && Accepts::of(fields).refuses_identity();
        let is_head = exchange.request.method == Method::Head;
        let is_part = response.status == 206 || response.fields.contains(Known::ContentRange);
        if !insists {
            if !self.has_type(response) {
                return Verdict::Alone(Why::Type);
            }
            if !is_part && !self.has_size(response, is_head) {
                return Verdict::Alone(Why::Size);
            }
        }
        let has_secret = !self.codes_secrets
            && response.fields.contains(Known::SetCookie)
            && (fields.contains(Known::Cookie) || fields.contains(Known::Authorization));
        if is_part || has_secret {
            return Verdict::Alone(if is_part { Why::Part } else { Why::Secret });
        }
        match Accepts::of(fields).choose(self.codings.iter().copied()) {
            Some(coding) => Verdict::Code(coding),
            None => Verdict::Alone(Why::Unwanted),
        }
    }

    fn has_type(&self, response: &Response) -> bool {
        let Some(value) = response.fields.get_only(Known::ContentType) else {
            return false;
        };
        let kind = value.split(|byte| *byte == b';').next().unwrap_or(value);
        let kind = kind.trim_ascii();
        let matches = |kind: &[u8]| self.types.iter().any(|types| types.matches(kind));
        if kind.iter().any(u8::is_ascii_uppercase) {
            matches(&kind.to_ascii_lowercase())
        } else {
            matches(kind)
        }
    }

    /// Whether it is large enough, or may be; for HEAD as it would be for GET.
    fn has_size(&self, response: &Response, is_head: bool) -> bool {
        let len = match response.announced_len {
            Some(len) if is_head => Some(len),
            None if is_head && response.from_upstream => None,
            _ => response.body.len_bytes(),
        };
        len.is_none_or(|len| len >= self.min_bytes)
    }
}

/// A quick look, for every request: whether `Accept-Encoding` has weights at all.
fn refuses_something(fields: &Fields) -> bool {
    let mut lines = fields.all(Known::AcceptEncoding);
    lines.any(|line| memchr::memchr(b';', line).is_some())
}

/// Whether it is a representation in no coding yet, or a part of one.
fn may_be_coded(response: &Response) -> bool {
    response.status >= 200
        && !matches!(response.status, 204 | 205)
        && !response.fields.contains(Known::ContentEncoding)
}

/// RFC 9111 §5.2.1.6, §5.2.2.6.
fn transforms_are_refused(fields: &Fields, response: &Response) -> bool {
    let refuses = |fields: &Fields| fields.has_token(Known::CacheControl, "no-transform");
    refuses(&response.fields) || refuses(fields)
}

/// Puts the body into a coding.
fn code(exchange: &Exchange, response: &mut Response, coding: Coding, is_head: bool) {
    let kept = response.kept.take();
    let coded = kept.as_ref().and_then(|kept| kept.coded(coding));
    response.announced_len = None;
    response.body = if let Some((body, len)) = coded {
        response.announced_len = is_head.then_some(len);
        if is_head { Body::Empty } else { body }
    } else if is_head {
        Body::Stream(Box::new(Unmeasured))
    } else {
        // What is asked for again is worth more work, once and for all.
        if let Some(kept) = kept {
            kept.code(coding, best::code_all);
        }
        // Too many are being coded, or there is no memory: then it stays as it is.
        let Ok(encoder) = Encoder::new(coding, response.body.len_bytes()) else {
            return;
        };
        match std::mem::take(&mut response.body) {
            Body::Bytes(bytes) if bytes.len() <= TURN_BYTES => at_once(bytes, encoder),
            body => Body::Stream(Box::new(Coded::new(&exchange.worker, body, encoder))),
        }
    };
    response.fields.remove_all(OF_BYTES);
    for name in DIGESTS {
        response.fields.remove(name);
    }
    response.set(Known::ContentEncoding, coding.name().as_bytes());
    weaken(response);
}

/// Codes a small body here and now, so that it leaves in one write with its head.
fn at_once(bytes: Bytes, mut encoder: Encoder) -> Body {
    let mut out = Vec::new();
    let coded = encoder.write(&bytes, &mut out);
    match coded.and_then(|()| encoder.finish(&mut out)) {
        Ok(()) => Body::Bytes(out.into()),
        Err(error) => Body::Stream(Box::new(Broken::new(&error))),
    }
}

/// Other bytes than those that the tag was made for, but the same content (RFC 9110 §8.8.1).
fn weaken(response: &mut Response) {
    let weak = match response.fields.get(Known::Etag) {
        Some(tag @ [b'"', ..]) => [b"W/", tag].concat(),
        _ => return,
    };
    response.set(Known::Etag, &weak);
}

/// Whoever asks by the weak form of a tag has the coded form, and shall find it again by that tag
/// (RFC 9111 §4.3.4: a strong one would not be its).
fn weaken_as_asked(fields: &Fields, response: &mut Response) {
    if let Some(tag @ [b'"', ..]) = response.fields.get(Known::Etag)
        && conditional::lists_weak(fields, tag)
    {
        weaken(response);
    }
}
