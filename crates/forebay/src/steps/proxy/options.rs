//! The options that all steps share which pass requests on to an upstream.

use std::time::Duration;

use forebay_balance::{RetryBudget, RetryOn, RetryPolicy, Share};
use forebay_config::{Call, Node, Opt, Type};

use super::pass::Passing;
use super::send_files::SendFiles;
use crate::upstream::{Times, Upstream};
use std::sync::Arc;

const TIMEOUT: Type = Type::Duration {
    min: Duration::from_millis(1),
    max: Duration::from_secs(7 * 86_400),
};

pub const PRIORITY: Opt = Opt::new(
    "priority",
    Type::Count { min: 0, max: 9 },
    "Who leaves a full pool's queue first (0).",
)
.default("5");

pub const RETRIES: Opt = Opt::new(
    "retries",
    Type::Count { min: 0, max: 5 },
    "Tries on other peers, only while nothing was sent or the method is idempotent.",
)
.default("1");

pub const RETRY_ON: Opt = Opt::new(
    "retry_on",
    Type::List(&Type::Or(&[
        Type::OneOf(&["connect", "reset", "timeout"]),
        Type::StatusCode,
    ])),
    "After which failures.",
)
.default(r#"{ "connect", "reset" }"#);

pub const RETRY_BUDGET: Opt = Opt::new(
    "retry_budget",
    Type::Percent,
    "Retries' share of the pool's traffic; ten a second are always allowed.",
)
.default(r#""20%""#);

pub const SEND_FILES: Opt = Opt::new(
    "send_files",
    Type::List(&Type::Path),
    "Directories from which the application may have a file sent in place of its body, by \
     `X-Sendfile` (a path) or `X-Accel-Redirect` (a path, or one below these directories). The \
     fields are not sent on.",
);

pub const CONNECT_TIMEOUT: Opt =
    Opt::new("connect_timeout", TIMEOUT, "Until a peer is connected.").default(r#""5s""#);

pub const FIRST_BYTE_TIMEOUT: Opt = Opt::new(
    "first_byte_timeout",
    TIMEOUT,
    "From the end of the request to the first byte of the response.",
)
.default(r#""60s""#);

pub const READ_TIMEOUT: Opt = Opt::new(
    "read_timeout",
    TIMEOUT,
    "Between two bytes of the response.",
)
.default(r#""60s""#);

pub const TUNNEL_TIMEOUT: Opt = Opt::new(
    "tunnel_timeout",
    TIMEOUT,
    "In its place for tunnels (WebSocket) and event streams: with nothing passing either way.",
)
.default(r#""1h""#);

pub const TOTAL_TIMEOUT: Opt =
    Opt::new("total_timeout", TIMEOUT, "For the whole exchange.").default(r#""1d""#);

pub const BUFFER: Opt = Opt::new(
    "buffer",
    Type::Size {
        min: 16 << 10,
        max: 16 << 20,
    },
    "Of the response, held for a client that is slower than the peer.",
)
.default(r#""256KB""#);

pub const BUFFER_REQUEST: Opt = Opt::new(
    "buffer_request",
    Type::Size {
        min: 0,
        max: 16 << 20,
    },
    "Of the request's body, taken in before a peer is asked: a slow upload then keeps no peer busy.",
)
.default(r#""0B""#);

pub const ABORT_ON_CLOSE: Opt = Opt::new(
    "abort_on_close",
    Type::Boolean,
    "A client that closes its sending side has left (else it still gets its answer).",
)
.default("false");

/// What the options say of a step that passes on to this upstream.
pub fn passing(call: &Call, upstream: Arc<Upstream>) -> Passing {
    let percent: f64 = call.get("retry_budget");
    Passing {
        upstream,
        priority: call.get("priority"),
        policy: RetryPolicy {
            retries: call.get("retries"),
            on: retry_on(call.get("retry_on")),
        },
        budget: RetryBudget::new(Share::percent(percent_of(percent))),
        times: Times {
            connect: call.get("connect_timeout"),
            first_byte: call.get("first_byte_timeout"),
            read: call.get("read_timeout"),
            tunnel: call.get("tunnel_timeout"),
            total: call.get("total_timeout"),
        },
        buffer: call.get("buffer"),
        buffer_request: call.get("buffer_request"),
        abort_on_close: call.get("abort_on_close"),
        send_files: SendFiles::of(call),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the type has checked that it is 0 to 100"
)]
pub fn percent_of(percent: f64) -> u32 {
    percent.round() as u32
}

fn retry_on(nodes: &[Node]) -> RetryOn {
    let mut on = RetryOn::nothing();
    for node in nodes {
        match node.as_a::<&str>() {
            Some("connect") => on.connect = true,
            Some("reset") => on.reset = true,
            Some("timeout") => on.timeout = true,
            _ => {
                if let Some(status) = node.as_a::<u16>() {
                    on.add_status(status);
                }
            }
        }
    }
    on
}
