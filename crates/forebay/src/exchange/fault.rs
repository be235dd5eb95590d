//! What can go wrong with an exchange, each reason once: who is at fault, which status answers
//! it, whether another try is allowed, and the sentence that logs, metrics, error pages and
//! `explain` show.

use std::fmt;

use forebay_balance::Failure;

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

macro_rules! reasons {
    ($($variant:ident $by:ident $status:literal $name:literal $sentence:literal;)*) => {
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
    BadRequest Client 400 "bad_request" "The request is malformed.";
    TargetTooLong Client 414 "target_too_long" "The request line is too long.";
    HeadTooLarge Client 431 "head_too_large" "The head of the request is too large.";
    CodingUnknown Client 501 "coding_unknown" "The body of the request is coded in a way that this server does not know.";
    VersionUnknown Client 505 "version_unknown" "This server does not speak this version of HTTP.";
    BadPath Client 400 "bad_path" "The path holds an escape that is not allowed.";
    PathAboveRoot Client 400 "path_above_root" "The path leads out of the site.";
    BodyMalformed Client 400 "body_malformed" "The body of the request is malformed.";
    BodyTooLarge Client 413 "body_too_large" "The body of the request is too large.";
    BodyTooSlow Client 408 "body_too_slow" "The body of the request came too slowly.";
    HeadTooSlow Client 408 "head_too_slow" "The head of the request came too slowly.";
    ClientGone Client 0 "client_gone" "The client left before the answer was complete.";
    ClientTooSlow Client 0 "client_too_slow" "The client read the answer too slowly.";
    LengthRequired Client 411 "length_required" "The length of the body must be known before the application gets it.";
    NotAcceptable Client 406 "not_acceptable" "The client takes no form of this that the server has.";
    MethodRefused Client 405 "method_refused" "This server does not take this method.";
    Forbidden Client 403 "forbidden" "This client may not see this.";
    Unauthorized Client 401 "unauthorized" "This needs a name and a password, or a token, that is right.";
    Limited Client 429 "limited" "This client asks for more than it may.";
    NotFound Client 404 "not_found" "There is nothing here.";
    UnknownHost Client 404 "unknown_host" "No site answers for this host name.";
    NotStored Client 504 "not_stored" "Nothing is stored for this, and the client wants nothing else.";
    Loop Client 508 "loop" "The request has passed through this server before.";
    Overloaded Us 503 "overloaded" "The server has more to do than it can.";
    Internal Us 500 "internal" "The server made a mistake.";
    NonParsed Operator 501 "non_parsed" "Programs that write whole HTTP responses (nph-) are not run.";
    ProgramFailed Operator 500 "program_failed" "A program cannot be started.";
    FileFailed Operator 500 "file_failed" "A file could not be read.";
    FileChanged Operator 0 "file_changed" "The file changed while it was sent.";
    PurgeNotWritten Operator 500 "purge_not_written" "The purge could not be written to a disk.";
    NoAddress Upstream 502 "no_address" "The name of the application's server cannot be resolved.";
    ConnectFailed Upstream 502 "connect_failed" "The application's server cannot be reached.";
    ConnectTimeout Upstream 504 "connect_timeout" "The application's server could not be reached in time.";
    TlsFailed Upstream 502 "tls_failed" "No secure connection to the application's server came about.";
    CertificateRefused Upstream 502 "certificate_refused" "The certificate of the application's server is not to be trusted.";
    UpstreamReset Upstream 502 "upstream_reset" "The application broke off the connection.";
    FirstByteTimeout Upstream 504 "first_byte_timeout" "The application did not answer in time.";
    ReadTimeout Upstream 504 "read_timeout" "The application stopped in the middle of its answer.";
    TotalTimeout Upstream 504 "total_timeout" "The application took longer than it may.";
    BadResponse Upstream 502 "bad_response" "The application's answer cannot be understood.";
    Truncated Upstream 502 "truncated" "The application's answer ended too early.";
    PeerRefused Upstream 503 "peer_refused" "The application does not take the request.";
    StatusRetried Upstream 502 "status_retried" "The application answered with an error.";
    TunnelIdle Client 0 "tunnel_idle" "Nothing has passed through the tunnel for too long.";
    PoolFull Upstream 503 "pool_full" "The application is busy.";
    PoolTimeout Upstream 503 "pool_timeout" "The application was busy for too long.";
    KeysMissing Upstream 503 "keys_missing" "The keys that tokens are checked with could not be fetched.";
    NoPeer Upstream 503 "no_peer" "No server of the application is in service.";
}

impl Reason {
    /// What it is to a pool of peers, which decides by it whether another one is tried; `None` for
    /// what no other peer would do better.
    pub fn of_peer(self) -> Option<Failure> {
        match self {
            Reason::NoAddress
            | Reason::ConnectFailed
            | Reason::ConnectTimeout
            | Reason::TlsFailed
            | Reason::CertificateRefused
            | Reason::PeerRefused => Some(Failure::Connect),
            Reason::UpstreamReset | Reason::Truncated => Some(Failure::Reset),
            Reason::FirstByteTimeout | Reason::ReadTimeout | Reason::TotalTimeout => {
                Some(Failure::Timeout)
            }
            Reason::BadResponse => Some(Failure::Garbage),
            _ => None,
        }
    }
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
