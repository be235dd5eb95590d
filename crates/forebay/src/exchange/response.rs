//! The response as steps see it, whatever protocol will carry it.

use std::io;
use std::rc::Rc;

use bytes::Bytes;
use forebay_fields::{Fields, Known};

use super::{Body, Coding, Exchange, Fault, Reason};

/// A response on its way up.
///
/// It holds no framing: `Content-Length`, `Transfer-Encoding`, `Connection` and `Date` are the
/// protocol's, which knows the body's length and how to send it.
#[derive(Default)]
pub struct Response {
    /// 200 to 599; 101 with a tunnel for its body.
    pub status: u16,
    /// Its fields, without those of the framing.
    ///
    /// In a box: a response is moved from step to step, and its worker uses the box again.
    pub fields: Box<Fields>,
    /// What it carries.
    pub body: Body,
    /// The length that a response without a body (to HEAD, or a 304) says it would have.
    pub announced_len: Option<u64>,
    /// Why this is not what was asked for, if a failure was the cause.
    pub fault: Option<Box<Fault>>,
    /// An application made it; `errors` leaves such ones alone unless told otherwise.
    pub from_upstream: bool,
    /// Where it is stored, if a step has said that it would keep something beside it.
    pub kept: Option<Rc<dyn Keeps>>,
    /// It has no body of its own: where the status is an error, a built-in page stands in.
    pub wants_page: bool,
}

/// A response that is stored: what is made of its body is kept beside it, and goes with it.
pub trait Keeps {
    /// The whole body in a coding, if it has been put into that; and how long it is, in bytes.
    fn coded(&self, coding: Coding) -> Option<(Body, u64)>;

    /// Has the whole body put into a coding, behind everything else there is to do, if it is all
    /// there and nobody does so already.
    fn code(&self, coding: Coding, code: CodeAll);
}

/// Puts a body, which comes in pieces, into a coding.
pub type CodeAll = fn(Coding, &[Bytes]) -> io::Result<Vec<u8>>;

impl Response {
    /// A response of this status, without a body.
    pub fn new(exchange: &mut Exchange, status: u16) -> Response {
        Response::of(status, exchange.worker.fields())
    }

    /// The same with these fields. (The rest of a default response would be one with a box of its own.)
    pub fn of(status: u16, fields: Box<Fields>) -> Response {
        Response {
            status,
            fields,
            body: Body::default(),
            announced_len: None,
            fault: None,
            from_upstream: false,
            kept: None,
            wants_page: false,
        }
    }

    /// A response with a built-in page for its body.
    pub fn page(exchange: &mut Exchange, status: u16) -> Response {
        Response {
            wants_page: true,
            ..Response::new(exchange, status)
        }
    }

    /// A response with a text.
    pub fn text(
        exchange: &mut Exchange,
        status: u16,
        kind: &str,
        text: impl Into<Bytes>,
    ) -> Response {
        let mut response = Response::new(exchange, status);
        response.set(Known::ContentType, kind.as_bytes());
        response.body = text.into().into();
        response
    }

    /// What a failure is answered with.
    pub fn fault(exchange: &mut Exchange, fault: Fault) -> Response {
        let status = match fault.reason.status() {
            0 => 500,
            status => status,
        };
        let mut response = Response::page(exchange, status);
        if status == 503 {
            response.set(Known::RetryAfter, b"1");
        }
        if let (405, Some(methods)) = (status, exchange.allowed_methods.take()) {
            response.set(Known::Allow, methods.as_bytes());
        }
        response.fault = Some(Box::new(fault));
        response
    }

    /// The answer where a pipeline has come to its end: 404, or 405 where only the method was
    /// wrong.
    pub fn nothing_answered(exchange: &mut Exchange) -> Response {
        let reason = match exchange.allowed_methods {
            Some(_) => Reason::MethodRefused,
            None => Reason::NotFound,
        };
        Response::fault(exchange, reason.into())
    }

    /// Sets a field to a value of our own making, replacing every line of that name.
    ///
    /// The value is one that this program made or has checked; one that cannot stand in a field is
    /// left out rather than sent.
    pub fn set(&mut self, name: Known, value: &[u8]) {
        let kept = self.fields.set(name, value);
        debug_assert!(kept.is_ok(), "a field of our own making is refused");
    }

    /// Says that the answer depends on this field of the request (RFC 9110 §12.5.5).
    pub fn vary(&mut self, name: &str) {
        let fields = &mut self.fields;
        if !fields.has_token(Known::Vary, name) && !fields.has_token(Known::Vary, "*") {
            // Too much was added to the head already: then it is not kept by anybody anyway.
            let _ = fields.append(Known::Vary, name);
        }
    }
}
