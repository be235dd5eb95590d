//! Why a head was refused.

use std::fmt;

macro_rules! head_errors {
    ($($(#[doc = $doc:literal])+ $variant:ident $status:literal $name:literal $sentence:literal,)+) => {
        /// Why a head was refused: a closed list that feeds the answer, the log and the metrics.
        ///
        /// [`status`](Self::status) is what a *client* that sent such a request gets. From an
        /// upstream's response head the reason is the same, but the client gets a 502.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum HeadError { $($(#[doc = $doc])+ $variant,)+ }

        impl HeadError {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The status that answers a request with this fault.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)+ }
            }

            /// A name for metrics and machine-readable logs, in `snake_case`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The fault in a sentence, without its full stop.
            #[must_use]
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$variant => $sentence,)+ }
            }
        }
    };
}

head_errors! {
    /// RFC 9112 §3: not `method SP target SP version CRLF`.
    MalformedRequestLine 400 "malformed_request_line"
        "the request line is not a method, a target and a version",
    /// RFC 9112 §3: a method longer than any that is implemented.
    MethodTooLong 501 "method_too_long"
        "the method is longer than any that is known",
    /// RFC 9112 §3.2: in none of the four forms, or with bytes no URI has (`#` among them).
    BadTarget 400 "bad_target"
        "the request target is not a valid one",
    /// RFC 9112 §2.3: neither HTTP/1.0 nor HTTP/1.1.
    UnsupportedVersion 505 "unsupported_version"
        "the HTTP version is neither 1.0 nor 1.1",
    /// RFC 9112 §3: the request line is over `max_request_line`.
    RequestLineTooLong 414 "request_line_too_long"
        "the request line is too long",
    /// RFC 9112 §4: not `version SP status [SP reason] CRLF`.
    MalformedStatusLine 400 "malformed_status_line"
        "the status line is not a version, a status and a reason",
    /// RFC 9110 §5.1: a field name that is empty or no token, or a line without a colon.
    BadFieldName 400 "bad_field_name"
        "a field name has characters that are not allowed, or no colon behind it",
    /// RFC 9112 §5.1: white space between a field's name and its colon.
    SpaceBeforeColon 400 "space_before_colon"
        "there is white space between a field name and its colon",
    /// RFC 9110 §5.5: a control character in a value.
    BadFieldValue 400 "bad_field_value"
        "a field value contains a control character",
    /// RFC 9112 §5.2: a line that starts with white space.
    ObsFold 400 "obs_fold"
        "a field is continued on the next line",
    /// RFC 9112 §2.2: CR without LF.
    BareCr 400 "bare_cr"
        "there is a CR without LF",
    /// RFC 9112 §2.2: LF without CR.
    BareLf 400 "bare_lf"
        "a line ends with LF alone",
    /// RFC 9110 §5.5: NUL.
    Nul 400 "nul"
        "there is a NUL in the head",
    /// RFC 6585 §5: the field lines together are over `max_header`.
    HeadTooLarge 431 "head_too_large"
        "the fields are too large",
    /// RFC 6585 §5: more than `max_fields` lines.
    TooManyFields 431 "too_many_fields"
        "there are too many fields",
    /// RFC 9112 §3.2: HTTP/1.1 without `Host`.
    MissingHost 400 "missing_host"
        "there is no Host field",
    /// RFC 9112 §3.2: more than one `Host`.
    SeveralHosts 400 "several_hosts"
        "there is more than one Host field",
    /// RFC 9112 §3.2: a `Host` (or authority) that is not `host[:port]`.
    BadHost 400 "bad_host"
        "the host is not a valid name or address",
    /// RFC 9112 §3.2.2: an absolute target for another host than `Host` says.
    HostDiffers 400 "host_differs"
        "the target and the Host field name different hosts",
    /// RFC 9112 §6.3: not one plain decimal number below 2^63.
    BadContentLength 400 "bad_content_length"
        "Content-Length is not one decimal number",
    /// RFC 9112 §6.3: more than one `Content-Length` (in a response: of different values).
    SeveralContentLengths 400 "several_content_lengths"
        "there is more than one Content-Length field",
    /// RFC 9112 §6.1: both ways of framing at once.
    LengthAndTransferEncoding 400 "length_and_transfer_encoding"
        "there are Content-Length and Transfer-Encoding",
    /// RFC 9112 §6.1: any other coding than `chunked`, once.
    UnsupportedTransferEncoding 501 "unsupported_transfer_encoding"
        "the transfer encoding is not chunked",
    /// RFC 9112 §6.1: `Transfer-Encoding` in a version that has none.
    TransferEncodingInHttp10 400 "transfer_encoding_in_http10"
        "there is a Transfer-Encoding in an HTTP/1.0 message",
    /// RFC 9110 §7.6.1: `Connection` names a field that must reach the other end.
    ConnectionNamesField 400 "connection_names_field"
        "Connection names a field that is not the connection's",
    /// RFC 9110 §7.6.1: more than 32 options in `Connection`.
    TooManyConnectionOptions 400 "too_many_connection_options"
        "Connection has too many options",
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sentence())
    }
}

impl std::error::Error for HeadError {}
