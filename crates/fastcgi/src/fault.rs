//! Why what a peer sent was not taken.

use std::fmt;

macro_rules! faults {
    ($($(#[doc = $doc:literal])+ $variant:ident $goes_on:literal $name:literal $sentence:literal,)+) => {
        /// Why what a peer sent was not taken: a closed list that feeds logs and metrics.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Fault { $($(#[doc = $doc])+ $variant,)+ }

        impl Fault {
            /// Every fault.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Whether the connection can go on: only one request is spoiled. Otherwise nobody
            /// knows what the next bytes are, or whose.
            #[must_use]
            pub const fn connection_goes_on(self) -> bool {
                match self { $(Self::$variant => $goes_on,)+ }
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

faults! {
    /// §3.3: `version` is not 1.
    WrongVersion false "wrong_version"
        "a FastCGI record is not of version 1",
    /// §3.3, §8: a type that does not go in this direction, was not asked for, or is unknown and
    /// belongs to a request.
    UnexpectedType false "unexpected_type"
        "a FastCGI record has a type that does not belong there",
    /// §3.3: a request that is not under way; or id 0 where a request is needed; or another one
    /// where none may be.
    UnexpectedId false "unexpected_id"
        "a FastCGI record names a request that is not under way",
    /// §3.3: a request is begun while one with the same id is under way.
    DuplicateId false "duplicate_id"
        "a FastCGI request was begun with an id that is in use",
    /// §5.1, §5.5, §4.2: the content of a record of fixed size has another size.
    BadLength false "bad_length"
        "a FastCGI record has a length that its type cannot have",
    /// §5.5: a protocol status that FastCGI 1.0 does not know.
    UnknownProtocolStatus false "unknown_protocol_status"
        "a FastCGI request was ended with an unknown protocol status",
    /// §4: a management record over `max_management`.
    ManagementTooLong false "management_too_long"
        "a FastCGI management record is too long",
    /// §3.4, §4.1: variables that are not name-value pairs, or have values they cannot have.
    BadValues false "bad_values"
        "the variables of FastCGI's GET_VALUES are malformed",
    /// The stream of bytes ended within a record or a request.
    Truncated false "truncated"
        "the FastCGI connection was closed in the middle of a request",
    /// §3.3: data on a stream that was ended.
    DataAfterEnd true "data_after_end"
        "there are data on a FastCGI stream that was ended",
    /// §6.1: a stream that starts before the one in front of it has ended, or that the role does
    /// not have.
    OutOfOrder true "out_of_order"
        "a FastCGI stream came before its turn",
    /// §3.4: a length that points behind the end of the parameters.
    BadParams true "bad_params"
        "the FastCGI parameters are malformed",
    /// §5.2: the parameters are over `max_params_bytes`.
    ParamsTooLarge true "params_too_large"
        "the FastCGI parameters are too large",
    /// §5.2: more parameters than `max_params`.
    TooManyParams true "too_many_params"
        "there are too many FastCGI parameters",
    /// §3.4: a name over `max_name`.
    NameTooLong true "name_too_long"
        "the name of a FastCGI parameter is too long",
    /// §3.4: a value over `max_value`.
    ValueTooLong true "value_too_long"
        "the value of a FastCGI parameter is too long",
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sentence())
    }
}

impl std::error::Error for Fault {}
