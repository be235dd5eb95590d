//! Why something is so: closed lists, a token, a sentence and the place in the RFC for each.
//!
//! The same lists feed the log, the `detail` of `Cache-Status`, the metrics and `explain`.

/// Declares an enum of reasons.
macro_rules! reasons {
    (
        $(#[$doc:meta])*
        $name:ident { $($variant:ident $token:literal $section:literal $text:literal,)+ }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $name {
            $(#[doc = concat!($text, " (", $section, ")")] $variant,)+
        }

        impl $name {
            /// Every one of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// A short name: a token in metrics, in logs and in `Cache-Status`.
            #[must_use]
            pub const fn token(self) -> &'static str {
                match self { $(Self::$variant => $token,)+ }
            }

            /// Where it is laid down: a section of an RFC, or "configuration".
            #[must_use]
            pub const fn section(self) -> &'static str {
                match self { $(Self::$variant => $section,)+ }
            }

            /// A sentence.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{} ({})", self.text(), self.section())
            }
        }
    };
}

reasons! {
    /// Why a request goes round the cache: it is neither answered from it nor is its response
    /// stored.
    WhyAround {
        Method "method" "RFC 9111 §3" "this method is not cached",
        Body "request-body" "RFC 9110 §9.3.1"
            "a request with content asks for more than its URI says",
        Upgrade "upgrade" "RFC 9110 §7.8" "the request wants to leave HTTP",
        Bypass "bypass" "configuration" "a condition of bypass is true",
        Precondition "precondition" "RFC 9111 §4.3.2"
            "If-Match and If-Unmodified-Since are for the origin to evaluate",
    }
}

reasons! {
    /// Why a response is not stored.
    WhyNot {
        Around "bypassed" "configuration" "the request went round the cache",
        Head "head" "RFC 9110 §9.3.2" "a response to HEAD has no content to store",
        RequestNoStore "request-no-store" "RFC 9111 §5.2.1.5" "the request says no-store",
        NotFinal "not-final" "RFC 9111 §3" "only final responses are stored",
        NotModified "not-modified" "RFC 9111 §4.3.4" "304 updates a stored response, it is none",
        Own "own-error" "configuration" "the server's own errors are not stored",
        ForbiddenStatus "status-forbidden" "RFC 6585 §3"
            "a response with this status must not be stored",
        ZeroTtl "ttl-zero" "configuration" "the configured ttl for this status is 0",
        NotUnderstood "status-not-understood" "RFC 9111 §5.2.2.3"
            "must-understand, and this status is not understood",
        NoStore "no-store" "RFC 9111 §5.2.2.5" "the response says no-store",
        Private "private" "RFC 9111 §5.2.2.7" "the response is for its user alone",
        Authorization "authorization" "RFC 9111 §3.5"
            "the request had Authorization, and the response does not allow to share it",
        NotCacheable "not-cacheable" "RFC 9111 §3"
            "nothing allows to store a response with this status",
        SetCookie "set-cookie" "configuration" "the response sets a cookie",
        VaryStar "vary-star" "RFC 9111 §4.1" "Vary: * matches no other request",
        VaryTooLong "vary-too-long" "configuration" "Vary names more fields than are compared",
        Multipart "multipart" "RFC 9111 §3.3" "several ranges in one response are not taken apart",
        BadRange "bad-content-range" "RFC 9110 §14.4"
            "206 without a Content-Range that can be right",
        PartialMethod "partial-method" "RFC 9111 §3.3"
            "a part is stored only if GET has asked for it",
        NeverUsable "never-usable" "RFC 9111 §4.2" "it is stale at once and has no validator",
        TooLarge "too-large" "configuration" "it is larger than max_object",
        TooFewUses "too-few-uses" "configuration" "it was not asked for often enough yet",
    }
}

impl WhyNot {
    /// Whether it lies in the request, so that another one for the same may bring in what is
    /// stored. If not, the next ones need not wait for each other either.
    #[must_use]
    pub const fn is_of_request(self) -> bool {
        matches!(
            self,
            Self::Around
                | Self::Head
                | Self::RequestNoStore
                | Self::Authorization
                | Self::PartialMethod
                | Self::TooFewUses
        )
    }
}

reasons! {
    /// What allows a response to be stored (RFC 9111 §3, the last item of its list).
    WhyStored {
        Forced "forced" "configuration" "the configured ttl replaces what the response states",
        Targeted "cdn-cache-control" "RFC 9213 §2.2" "CDN-Cache-Control gives its freshness",
        Explicit "explicit" "RFC 9111 §3" "the response states its freshness",
        Public "public" "RFC 9111 §5.2.2.9" "the response says public",
        Operator "ttl" "configuration" "the configured ttl is for this status",
        Heuristic "heuristic" "RFC 9110 §15.1" "this status is cacheable by default",
    }
}

reasons! {
    /// Where the freshness lifetime of a stored response comes from (RFC 9111 §4.2.1).
    LifetimeBy {
        Nothing "none" "RFC 9111 §4.2.2" "nothing says how long it is fresh, so it is not",
        Heuristic "heuristic" "RFC 9111 §4.2.2" "a tenth of the time for which it had not changed",
        Operator "ttl" "configuration" "the configured ttl, since the response states none",
        Forced "forced" "configuration" "the configured ttl, whatever the response states",
        Expires "expires" "RFC 9111 §5.3" "Expires minus Date",
        MaxAge "max-age" "RFC 9111 §5.2.2.1" "max-age",
        SMaxAge "s-maxage" "RFC 9111 §5.2.2.10" "s-maxage",
        TargetedMaxAge "cdn-max-age" "RFC 9213 §2.2" "max-age of CDN-Cache-Control",
        TargetedSMaxAge "cdn-s-maxage" "RFC 9213 §2.2" "s-maxage of CDN-Cache-Control",
    }
}

reasons! {
    /// What allows a stale response to be used.
    WhyStale {
        MaxStale "max-stale" "RFC 9111 §5.2.1.2" "the request accepts stale responses",
        WhileRevalidate "stale-while-revalidate" "RFC 5861 §3"
            "it may be used while it is validated in the background",
        IfError "stale-if-error" "RFC 5861 §4" "it may be used where the origin fails",
        Disconnected "disconnected" "RFC 9111 §4.2.4" "the origin cannot be reached",
    }
}

impl WhyStale {
    /// Whether a validation is to be started, without waiting for it, where none is under way.
    #[must_use]
    pub const fn validate_in_background(self) -> bool {
        matches!(self, Self::WhileRevalidate)
    }
}

reasons! {
    /// Why a stored response has to be validated before it is used.
    WhyValidate {
        Invalidated "invalidated" "RFC 9111 §4.4" "an unsafe request has made it invalid",
        NoCache "no-cache" "RFC 9111 §5.2.2.4" "the response says no-cache",
        RequestNoCache "request-no-cache" "RFC 9111 §5.2.1.4" "the request says no-cache",
        Stale "stale" "RFC 9111 §4.2" "it is no longer fresh",
        RequestMaxAge "request-max-age" "RFC 9111 §5.2.1.1" "it is older than the request accepts",
        RequestMinFresh "request-min-fresh" "RFC 9111 §5.2.1.3"
            "it will not be fresh for as long as the request asks",
    }
}

reasons! {
    /// Why a stored response is not used although the origin has failed.
    WhyForbidden {
        Invalidated "invalidated" "RFC 9111 §4.4" "an unsafe request has made it invalid",
        NoCache "no-cache" "RFC 9111 §5.2.2.4" "the response says no-cache",
        RequestNoCache "request-no-cache" "RFC 9111 §5.2.1.4" "the request says no-cache",
        MustRevalidate "must-revalidate" "RFC 9111 §5.2.2.2" "the response says must-revalidate",
        ProxyRevalidate "proxy-revalidate" "RFC 9111 §5.2.2.8" "the response says proxy-revalidate",
        SMaxAge "s-maxage" "RFC 9111 §5.2.2.10"
            "s-maxage forbids to use it stale, and nothing allows it",
        TooStale "too-stale" "RFC 9111 §4.2.4"
            "nothing allows to use it for as long as it has been stale",
    }
}

reasons! {
    /// Why a part is not put together with what is stored.
    WhyApart {
        NoPart "no-part" "RFC 9111 §3.4" "it is no single part with a Content-Range",
        NoStrongValidator "no-strong-validator" "RFC 9111 §3.4"
            "only what has a strong validator is put together",
        OtherValidator "validator-changed" "RFC 9111 §3.4"
            "it is a part of something else than what is stored",
        OtherLength "length-changed" "RFC 9110 §14.4"
            "its whole has another length than what is stored",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_reason_has_a_token_of_its_own_a_sentence_and_a_section() {
        fn check(all: &[(&'static str, &'static str, &'static str)]) {
            let mut seen = HashSet::new();
            for (token, section, text) in all {
                assert!(forebay_fields::is_token(token.as_bytes()), "{token}");
                assert!(seen.insert(token), "{token} stands twice");
                assert!(section.contains('§') || *section == "configuration");
                assert!(!text.is_empty() && !text.ends_with('.'), "{text}");
            }
        }
        macro_rules! all {
            ($($name:ident),+) => { $(check(
                &$name::ALL.iter().map(|r| (r.token(), r.section(), r.text())).collect::<Vec<_>>(),
            );)+ };
        }
        all!(WhyAround, WhyNot, WhyStored, LifetimeBy);
        all!(WhyStale, WhyValidate, WhyForbidden, WhyApart);
        assert_eq!(
            WhyNot::NoStore.to_string(),
            "the response says no-store (RFC 9111 §5.2.2.5)"
        );
    }
}
