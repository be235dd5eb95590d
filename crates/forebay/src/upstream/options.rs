//! The options that `upstream` and `processes` have in common.

use forebay_config::{Call, Code, Opt, Report, Type, Vars};

/// `balance`.
pub const BALANCE: Opt = Opt::new(
    "balance",
    Type::OneOf(&[
        "least_requests",
        "round_robin",
        "p2c_ewma",
        "hash",
        "random",
        "first",
        "score",
    ]),
    "How a peer is chosen: the one with the fewest requests for its weight; in turn; of two drawn \
         at random the one that answers sooner; by the hash of `by`, so that a client stays with \
         its peer; at random; the first that can be used; the least loaded by what they `report`.",
)
.default(r#""least_requests""#);

/// `by`.
pub const BY: Opt =
    Opt::new("by", Type::Template(Vars::Request), "What `hash` hashes.").unset("`$client_net`");

/// `sticky`.
pub const STICKY: Opt = Opt::new(
    "sticky",
    Type::Name,
    "The name of a signed cookie that leads a client back to its peer. Where that cannot be used, \
         the client is balanced anew. The peers do not see it.",
);

/// `slow_start`.
pub const SLOW_START: Opt = Opt::new(
    "slow_start",
    Type::DURATION,
    "How long a peer that is new or back takes to its full share.",
)
.default(r#""0s""#);

/// `queue`.
pub const QUEUE: Opt = Opt::new(
    "queue",
    Type::COUNT,
    "Requests that may wait for a full pool; then 503.",
)
.default("1024");

/// `queue_timeout`.
pub const QUEUE_TIMEOUT: Opt = Opt::new(
    "queue_timeout",
    Type::DURATION,
    "For how long they may wait; then 503.",
)
.default(r#""10s""#);

/// `slow_start` is for who shares.
pub fn check_slow_start(call: &Call, report: &mut Report) {
    let balance: &str = call.get("balance");
    if balance == "first" && call.is_set("slow_start") {
        let message = format!(
            "{}: `slow_start` has no meaning for \"first\"",
            call.subject()
        );
        let help = "there are no shares: the first that can be used gets all";
        report.mistake(call.place_of("slow_start"), Code::Conflict, message, help);
    }
}

/// `by` is for who hashes.
pub fn check_by(call: &Call, report: &mut Report) {
    let balance: &str = call.get("balance");
    if call.is_set("by") && balance != "hash" {
        let message = format!("{}: `by` has no meaning for \"{balance}\"", call.subject());
        let help = "it says what `balance = \"hash\"` hashes";
        report.mistake(call.place_of("by"), Code::Conflict, message, help);
    }
}
