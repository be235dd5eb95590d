//! What can go wrong with an exchange, each reason once: who is at fault, which status answers
//! it, whether another try is allowed, and the sentence that logs, metrics, error pages and
//! `explain` show.

use std::fmt;

/// Who is to blame for a failed exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Party {
    /// The remote that sent the request.
    Client,
    /// The server that the request was passed on to.
    Upstream,
    /// Whoever wrote the configuration or keeps the machine.
    Operator,
    /// A defect or a limit of this server.
    Us,
}

impl Party {
    /// The word used in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Party::Client => "client",
            Party::Upstream => "upstream",
            Party::Operator => "operator",
            Party::Us => "us",
        }
    }
}

/// When a request that failed in this way may be sent again, to another peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Another try cannot help or would not be safe.
    Never,
    /// Only while no byte of the request has left, or for an idempotent method.
    IfNothingSent,
    /// Always: the request cannot have been seen.
    Yes,
}

macro_rules! reasons {
    ($($variant:ident $by:ident $status:literal $retry:ident $name:literal $sentence:literal;)*) => {
        /// Why an exchange failed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Reason { $(#[doc = $sentence] $variant,)* }

        impl Reason {
            /// Every reason, in the order of their numbers.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant,)*];

            /// Who is at fault.
            pub fn by(self) -> Party { match self { $(Reason::$variant => Party::$by,)* } }

            /// The status that answers it where no response has begun; 0 where nobody is left to
            /// answer.
            pub fn status(self) -> u16 { match self { $(Reason::$variant => $status,)* } }

            /// Whether the request may be tried again.
            pub fn retry(self) -> Retry { match self { $(Reason::$variant => Retry::$retry,)* } }

            /// The name in logs and metrics.
            pub fn name(self) -> &'static str { match self { $(Reason::$variant => $name,)* } }

            /// What happened, for people.
            pub fn sentence(self) -> &'static str {
                match self { $(Reason::$variant => $sentence,)* }
            }
        }
    };
}

reasons! {
    BadRequest Client 400 Never "bad_request" "The request is malformed.";
    TargetTooLong Client 414 Never "target_too_long" "The request line is too long.";
    HeadTooLarge Client 431 Never "head_too_large" "The head of the request is too large.";
    CodingUnknown Client 501 Never "coding_unknown" "The body of the request is coded in a way that this server does not know.";
    VersionUnknown Client 505 Never "version_unknown" "This server does not speak this version of HTTP.";
    BadPath Client 400 Never "bad_path" "The path holds an escape that is not allowed.";
    PathAboveRoot Client 400 Never "path_above_root" "The path leads out of the site.";
    BodyMalformed Client 400 Never "body_malformed" "The body of the request is malformed.";
    BodyTooLarge Client 413 Never "body_too_large" "The body of the request is too large.";
    BodyTooSlow Client 408 Never "body_too_slow" "The body of the request came too slowly.";
    HeadTooSlow Client 408 Never "head_too_slow" "The head of the request came too slowly.";
    ClientGone Client 0 Never "client_gone" "The client left before the answer was complete.";
    ClientTooSlow Client 0 Never "client_too_slow" "The client read the answer too slowly.";
    MethodRefused Client 405 Never "method_refused" "This server does not take this method.";
    Forbidden Client 403 Never "forbidden" "This client may not see this.";
    NotFound Client 404 Never "not_found" "There is nothing here.";
    UnknownHost Client 404 Never "unknown_host" "No site answers for this host name.";
    Loop Client 508 Never "loop" "The request has passed through this server before.";
    Overloaded Us 503 Never "overloaded" "The server has more to do than it can.";
    Internal Us 500 Never "internal" "The server made a mistake.";
    FileFailed Operator 500 Never "file_failed" "A file could not be read.";
    FileChanged Operator 0 Never "file_changed" "The file changed while it was sent.";
    NoAddress Upstream 502 Yes "no_address" "The name of the application's server cannot be resolved.";
    ConnectFailed Upstream 502 Yes "connect_failed" "The application's server cannot be reached.";
    ConnectTimeout Upstream 504 Yes "connect_timeout" "The application's server could not be reached in time.";
    UpstreamReset Upstream 502 IfNothingSent "upstream_reset" "The application broke off the connection.";
    FirstByteTimeout Upstream 504 IfNothingSent "first_byte_timeout" "The application did not answer in time.";
    ReadTimeout Upstream 504 Never "read_timeout" "The application stopped in the middle of its answer.";
    TotalTimeout Upstream 504 Never "total_timeout" "The application took longer than it may.";
    BadResponse Upstream 502 IfNothingSent "bad_response" "The application's answer cannot be understood.";
    Truncated Upstream 502 Never "truncated" "The application's answer ended too early.";
    StatusRetried Upstream 502 IfNothingSent "status_retried" "The application answered with an error.";
    PoolFull Upstream 503 Never "pool_full" "The application is busy.";
    PoolTimeout Upstream 503 Never "pool_timeout" "The application was busy for too long.";
    NoPeer Upstream 503 Never "no_peer" "No server of the application is in service.";
}

/// One failure: its reason and, where there is more to say, what exactly.
///
/// The detail may hold text that came from a remote; whoever prints it escapes it.
#[derive(Clone, Debug)]
pub struct Fault {
    /// The kind of failure.
    pub reason: Reason,
    /// More for the log: an address, an error of the system.
    pub detail: Option<Box<str>>,
}

impl Fault {
    /// A failure with nothing to add to its reason.
    pub fn new(reason: Reason) -> Fault {
        Fault {
            reason,
            detail: None,
        }
    }

    /// A failure with a word on what exactly happened.
    pub fn with(reason: Reason, detail: impl Into<String>) -> Fault {
        Fault {
            reason,
            detail: Some(detail.into().into_boxed_str()),
        }
    }
}

impl From<Reason> for Fault {
    fn from(reason: Reason) -> Fault {
        Fault::new(reason)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason.sentence())?;
        match &self.detail {
            Some(detail) => write!(f, " ({})", detail.escape_debug()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_name_and_a_sentence() {
        let mut names: Vec<_> = Reason::ALL.iter().map(|r| r.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            assert!(reason.sentence().ends_with('.'), "{reason:?}");
            assert!(matches!(reason.status(), 0 | 400..=599), "{reason:?}");
        }
    }

    #[test]
    fn a_detail_from_a_remote_cannot_reach_the_terminal_raw() {
        let fault = Fault::with(Reason::BadResponse, "\x1b[2Jx");
        assert_eq!(
            fault.to_string(),
            "The application's answer cannot be understood. (\\u{1b}[2Jx)"
        );
    }
}
