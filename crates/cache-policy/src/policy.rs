//! What the operator has laid down: the options of `cache`, as far as decisions need them.

use crate::time::MAX_SECONDS;

/// The options of one `cache` step.
///
/// Everything that a `cache` without options leaves to RFC 9111 is so by [`Policy::default`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// `ttl`: freshness where the response states none.
    pub ttl: Ttl,
    /// `force`: `ttl` replaces what the response states, `no-store` and `private` included.
    pub force: bool,
    /// `strip_cookies`: requests go on without `Cookie`, responses come back without `Set-Cookie`.
    pub strip_cookies: bool,
    /// `set_cookie = "store"`: a response with `Set-Cookie` is stored as RFC 9111 lets it be.
    pub store_set_cookie: bool,
    /// `stale_while_revalidate` in seconds, instead of what the response states.
    pub stale_while_revalidate: Option<u32>,
    /// `stale_if_error` in seconds, instead of what the response states.
    pub stale_if_error: Option<u32>,
    /// For how many seconds a stale response is used while the origin cannot be reached
    /// (RFC 9111 §4.2.4), where neither `stale_if_error` nor the response says it.
    pub stale_if_disconnected: u32,
    /// `methods`: what is cached, in capitals as sent; HEAD goes with GET.
    pub methods: Vec<Box<str>>,
    /// `max_object`, in bytes: larger ones pass.
    pub max_object: u64,
    /// `min_uses`: requests before storing.
    pub min_uses: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            ttl: Ttl::default(),
            force: false,
            strip_cookies: false,
            store_set_cookie: false,
            stale_while_revalidate: None,
            stale_if_error: None,
            stale_if_disconnected: 86_400,
            methods: vec!["GET".into()],
            max_object: 10 << 30,
            min_uses: 1,
        }
    }
}

impl Policy {
    /// Whether this method is one whose responses are stored and used.
    #[must_use]
    pub fn caches_method(&self, method: &str) -> bool {
        let wanted = if method == "HEAD" { "GET" } else { method };
        self.methods.iter().any(|method| **method == *wanted)
    }
}

/// The option `ttl`: seconds by status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ttl {
    /// For one status.
    exact: Vec<(u16, u32)>,
    /// For 1xx to 5xx; the first is never asked for.
    classes: [Option<u32>; 5],
    other: Option<u32>,
}

impl Ttl {
    /// The statuses that a duration alone is for.
    pub const USUAL: [u16; 6] = [200, 203, 301, 308, 404, 410];

    /// A duration alone.
    #[must_use]
    pub fn usual(seconds: u32) -> Self {
        let mut ttl = Self::default();
        for status in Self::USUAL {
            ttl.set(status, seconds);
        }
        ttl
    }

    /// For this status.
    pub fn set(&mut self, status: u16, seconds: u32) {
        let seconds = seconds.min(MAX_SECONDS);
        match self.exact.iter_mut().find(|(own, _)| *own == status) {
            Some(entry) => entry.1 = seconds,
            None => self.exact.push((status, seconds)),
        }
    }

    /// For each status of this class, 1 to 5, that has no duration of its own.
    pub fn set_class(&mut self, class: u8, seconds: u32) {
        let index = usize::from(class).wrapping_sub(1);
        if let Some(entry) = self.classes.get_mut(index) {
            *entry = Some(seconds.min(MAX_SECONDS));
        }
    }

    /// For every other status.
    pub fn set_other(&mut self, seconds: u32) {
        self.other = Some(seconds.min(MAX_SECONDS));
    }

    /// The duration for this status, if there is one. A part is what 200 is.
    #[must_use]
    pub fn of(&self, status: u16) -> Option<u32> {
        let status = if status == 206 { 200 } else { status };
        let exact = self.exact.iter().find(|(own, _)| *own == status);
        let class = || {
            let index = usize::from(status / 100).wrapping_sub(1);
            self.classes.get(index).copied().flatten()
        };
        exact
            .map(|(_, seconds)| *seconds)
            .or_else(class)
            .or(self.other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ttl_by_status_class_and_other() {
        let usual = Ttl::usual(60);
        for status in [200, 203, 206, 301, 308, 404, 410] {
            assert_eq!(usual.of(status), Some(60), "{status}");
        }
        for status in [204, 302, 307, 403, 500, 503, 999, 0] {
            assert_eq!(usual.of(status), None, "{status}");
        }
        let mut table = Ttl::default();
        table.set(200, 1);
        table.set(200, 2);
        table.set_class(4, 3);
        table.set_class(0, 9);
        table.set(404, 4);
        table.set_other(u32::MAX);
        for (status, expected) in [(200, 2), (403, 3), (404, 4), (500, MAX_SECONDS)] {
            assert_eq!(table.of(status), Some(expected), "{status}");
        }
    }

    #[test]
    fn head_goes_with_get() {
        let mut policy = Policy::default();
        assert!(policy.caches_method("GET") && policy.caches_method("HEAD"));
        assert!(!policy.caches_method("POST") && !policy.caches_method("get"));
        policy.methods = vec!["POST".into()];
        assert!(policy.caches_method("POST") && !policy.caches_method("HEAD"));
    }
}
