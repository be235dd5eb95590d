//! Which site answers for a host name.

use std::fmt;
use std::net::Ipv6Addr;

use crate::names::{NameMap, index};

/// A host name as the configuration writes it: `example.com`, `*.example.com` (every name below
/// it), `*` (every other name), an IPv4 address, or an IPv6 address in brackets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPattern {
    kind: Kind,
    text: Box<str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Exact,
    Below,
    Any,
    V6(Ipv6Addr),
}

/// Why a text is not a host name. Its `Display` is a sentence without subject, to stand behind
/// the text it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HostError {
    /// Nothing is written.
    Empty,
    /// More than [`MAX_HOST_BYTES`].
    TooLong,
    /// A port, a scheme or a path is written with it.
    NotOnlyAName,
    /// A `*` that is not the whole name or its first label.
    Star,
    /// `*.` before an address.
    StarBeforeAddress,
    /// An empty label, or one of more than 63 bytes.
    Label,
    /// A character that no host name has.
    Character(char),
    /// Brackets that do not hold an IPv6 address.
    Address,
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostError::Empty => f.write_str("a host name cannot be empty"),
            HostError::TooLong => write!(f, "a host name has at most {MAX_HOST_BYTES} letters"),
            HostError::NotOnlyAName => {
                f.write_str("a host name has no scheme, port or path; the port belongs to `listen`")
            }
            HostError::Star => {
                f.write_str("`*` can only be the whole name or its first part, as in *.example.com")
            }
            HostError::StarBeforeAddress => f.write_str("no names are below an address"),
            HostError::Label => {
                f.write_str("between the dots of a host name stand 1 to 63 letters")
            }
            HostError::Character(c) if !c.is_ascii() => write!(
                f,
                "a host name cannot hold {c:?}; write an international name in its xn-- form"
            ),
            HostError::Character(c) => write!(f, "a host name cannot hold {c:?}"),
            HostError::Address => f.write_str("the brackets do not hold an IPv6 address"),
        }
    }
}

impl std::error::Error for HostError {}

impl HostPattern {
    /// Reads a host name: upper case is lowered, a dot at the end is dropped, an IPv6 address is
    /// brought into its one form.
    ///
    /// # Errors
    ///
    /// See [`HostError`].
    pub fn parse(text: &str) -> Result<HostPattern, HostError> {
        if text == "*" {
            return Ok(HostPattern {
                kind: Kind::Any,
                text: text.into(),
            });
        }
        if let Some(rest) = text.strip_prefix('[') {
            let address = rest.strip_suffix(']').ok_or(match rest.contains("]:") {
                true => HostError::NotOnlyAName,
                false => HostError::Address,
            })?;
            let address: Ipv6Addr = address.parse().map_err(|_| HostError::Address)?;
            let text = format!("[{address}]").into();
            return Ok(HostPattern {
                kind: Kind::V6(address),
                text,
            });
        }
        let lower = text.to_lowercase();
        let name = lower.strip_suffix('.').unwrap_or(&lower);
        let (kind, base) = match name.strip_prefix("*.") {
            Some(base) => (Kind::Below, base),
            None => (Kind::Exact, name),
        };
        check_name(base)?;
        if kind == Kind::Below && is_numeric(base.rsplit('.').next().unwrap_or(base)) {
            return Err(HostError::StarBeforeAddress);
        }
        Ok(HostPattern {
            kind,
            text: name.into(),
        })
    }

    /// As it is shown to people.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is `*`.
    pub fn is_any(&self) -> bool {
        self.kind == Kind::Any
    }

    /// Whether it stands for more names than one.
    pub fn is_wildcard(&self) -> bool {
        matches!(self.kind, Kind::Any | Kind::Below)
    }

    /// Whether it stands for `host`, which is lower case and without port. For one name alone;
    /// [`HostTable`] is for many. Used by the condition `host(…)`.
    pub fn matches(&self, host: &[u8]) -> bool {
        match self.kind {
            Kind::Any => true,
            Kind::Exact => self.text.as_bytes() == host,
            Kind::V6(address) => ipv6_literal(host) == Some(address),
            Kind::Below => {
                // The suffix with its dot, and something before it.
                let suffix = &self.text.as_bytes()[1..];
                host.len() > suffix.len() && host.ends_with(suffix) && host[0] != b'['
            }
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn check_name(name: &str) -> Result<(), HostError> {
    if name.is_empty() {
        return Err(HostError::Empty);
    }
    if name.len() > MAX_HOST_BYTES {
        return Err(HostError::TooLong);
    }
    if name.contains([':', '/']) {
        return Err(HostError::NotOnlyAName);
    }
    for c in name.chars() {
        match c {
            'a'..='z' | '0'..='9' | '-' | '_' | '.' => {}
            '*' => return Err(HostError::Star),
            _ => return Err(HostError::Character(c)),
        }
    }
    match name.split('.').all(|label| (1..=63).contains(&label.len())) {
        true => Ok(()),
        false => Err(HostError::Label),
    }
}

fn is_numeric(label: &str) -> bool {
    label.bytes().all(|byte| byte.is_ascii_digit())
}

fn ipv6_literal(host: &[u8]) -> Option<Ipv6Addr> {
    let inner = host.strip_prefix(b"[")?.strip_suffix(b"]")?;
    std::str::from_utf8(inner).ok()?.parse().ok()
}

/// Values by host name; the most exact name wins, in whatever order they were inserted: the name
/// itself, then the longest `*.…` that it is below, then `*`.
///
/// A lookup costs one probe for the name and one for each number of labels that some wildcard
/// has: not more with more names. It does not allocate.
#[derive(Clone, Debug)]
pub struct HostTable<T> {
    /// Apart from the values: a request needs only those.
    patterns: Vec<HostPattern>,
    values: Vec<T>,
    /// Places in both by name, under the tags below.
    names: NameMap,
    any: Option<u32>,
    /// Bit n: there is a wildcard whose base has n + 1 labels.
    depths: u128,
}

const TAG_EXACT: u32 = 0;
const TAG_BELOW: u32 = 1;
const TAG_V6: u32 = 2;

/// A host name was inserted a second time; it is handed back with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DuplicateHost<T> {
    /// The name.
    pub pattern: HostPattern,
    /// The value that was not inserted.
    pub value: T,
}

/// What [`HostTable::lookup`] found.
#[derive(Debug, PartialEq, Eq)]
pub struct HostMatch<'a, T> {
    /// The name as it was configured.
    pub pattern: &'a HostPattern,
    /// What was inserted for it.
    pub value: &'a T,
}

impl<T> Default for HostTable<T> {
    fn default() -> Self {
        HostTable {
            patterns: Vec::new(),
            values: Vec::new(),
            names: NameMap::default(),
            any: None,
            depths: 0,
        }
    }
}

impl<T> HostTable<T> {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many names it holds.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// All names with their values, in the order of insertion.
    pub fn iter(&self) -> impl Iterator<Item = HostMatch<'_, T>> {
        self.patterns
            .iter()
            .zip(&self.values)
            .map(|(pattern, value)| HostMatch { pattern, value })
    }

    /// Adds a name.
    ///
    /// # Errors
    ///
    /// Gives name and value back if the table has that name already.
    ///
    /// # Panics
    ///
    /// With more than 16 million names, which is beyond any configuration that loads.
    pub fn insert(&mut self, pattern: HostPattern, value: T) -> Result<(), DuplicateHost<T>> {
        assert!(self.values.len() < 1 << 24, "too many host names");
        let place = u32::try_from(self.values.len()).expect("checked above");
        let name = pattern.text.as_bytes();
        let now = match pattern.kind {
            Kind::Any => *self.any.get_or_insert(place),
            Kind::Exact => self.names.get_or_insert(TAG_EXACT, name, place),
            Kind::V6(address) => self.names.get_or_insert(TAG_V6, &address.octets(), place),
            Kind::Below => {
                let base = &name[2..];
                self.depths |= 1 << count_dots(base);
                self.names.get_or_insert(TAG_BELOW, base, place)
            }
        };
        if now != place {
            return Err(DuplicateHost { pattern, value });
        }
        self.patterns.push(pattern);
        self.values.push(value);
        Ok(())
    }

    /// The value for `host`: lower case, without port and without a dot at the end, IPv6
    /// addresses in brackets. Anything else that a remote may send finds at most the `*`.
    pub fn get(&self, host: &[u8]) -> Option<&T> {
        self.find(host).map(|place| &self.values[index(place)])
    }

    /// Like [`HostTable::get`], with the name that matched.
    pub fn lookup(&self, host: &[u8]) -> Option<HostMatch<'_, T>> {
        let place = index(self.find(host)?);
        Some(HostMatch {
            pattern: &self.patterns[place],
            value: &self.values[place],
        })
    }

    fn find(&self, host: &[u8]) -> Option<u32> {
        if host.len() > MAX_HOST_BYTES {
            return self.any;
        }
        if host.first() == Some(&b'[') {
            let address = ipv6_literal(host);
            return address
                .and_then(|address| self.names.get(TAG_V6, &address.octets()))
                .or(self.any);
        }
        self.names
            .get(TAG_EXACT, host)
            .or_else(|| self.find_below(host))
            .or(self.any)
    }

    /// From the shortest suffix to the longest, no further than there are wildcards; the last one
    /// found is the longest. A suffix with n dots has n + 1 labels.
    fn find_below(&self, host: &[u8]) -> Option<u32> {
        let (mut found, mut depths) = (None, self.depths);
        let mut end = host.len();
        while depths != 0 {
            // A suffix begins behind a dot that has something before it.
            let dot = host[..end]
                .iter()
                .rposition(|&byte| byte == b'.')
                .filter(|&dot| dot > 0);
            let Some(dot) = dot else { break };
            if depths & 1 == 1 {
                found = self.names.get(TAG_BELOW, &host[dot + 1..]).or(found);
            }
            depths >>= 1;
            end = dot;
        }
        found
    }
}

fn count_dots(name: &[u8]) -> usize {
    name.iter().filter(|&&byte| byte == b'.').count()
}

/// RFC 1035 §3.1: 255 bytes on the wire are 253 in text.
pub const MAX_HOST_BYTES: usize = 253;

#[cfg(test)]
mod tests {
    use super::*;

    fn table(hosts: &[&'static str]) -> HostTable<&'static str> {
        let mut table = HostTable::new();
        for host in hosts {
            table
                .insert(HostPattern::parse(host).unwrap(), *host)
                .unwrap();
        }
        table
    }

    #[test]
    fn the_most_exact_name_wins_in_any_order() {
        let mut hosts = [
            "*",
            "*.com",
            "*.example.com",
            "*.b.example.com",
            "example.com",
            "a.b.example.com",
        ];
        for _ in 0..hosts.len() {
            hosts.rotate_left(1);
            let table = table(&hosts);
            for (host, expected) in [
                ("example.com", "example.com"),
                ("www.example.com", "*.example.com"),
                ("x.y.example.com", "*.example.com"),
                ("a.b.example.com", "a.b.example.com"),
                ("c.b.example.com", "*.b.example.com"),
                ("d.c.b.example.com", "*.b.example.com"),
                ("b.example.com", "*.example.com"),
                ("other.com", "*.com"),
                ("com", "*"),
                ("localhost", "*"),
                ("10.0.0.1", "*"),
                ("[::1]", "*"),
                ("", "*"),
                (".", "*"),
                (".example.com", "*.com"),
            ] {
                assert_eq!(table.get(host.as_bytes()), Some(&expected), "for {host}");
                let found = table.lookup(host.as_bytes()).unwrap();
                assert!(found.pattern.matches(host.as_bytes()));
                assert_eq!(found.pattern.as_str(), expected);
            }
        }
    }

    #[test]
    fn without_a_star_other_names_find_nothing() {
        let table = table(&["example.com", "*.example.org"]);
        let long = format!("{}.example.org", "a.".repeat(130));
        for host in [
            "",
            "com",
            "www.example.com",
            "example.org",
            "xexample.org",
            "[::1]",
            &long,
        ] {
            assert_eq!(table.get(host.as_bytes()), None, "for {host}");
        }
        assert_eq!(table.get(b"a.example.org"), Some(&"*.example.org"));
        assert_eq!(HostTable::<u8>::new().get(b"a"), None);
    }

    #[test]
    fn addresses_are_names_too() {
        let table = table(&["[2001:DB8:0::1]", "127.0.0.1", "*.example.com"]);
        assert_eq!(table.get(b"[2001:db8::1]"), Some(&"[2001:DB8:0::1]"));
        assert_eq!(
            table.get(b"[2001:db8:0:0:0:0:0:1]"),
            Some(&"[2001:DB8:0::1]")
        );
        assert_eq!(table.get(b"127.0.0.1"), Some(&"127.0.0.1"));
        for host in [
            "[",
            "[]",
            "[::1",
            "2001:db8::1",
            "[::1].example.com",
            "[\u{fffd}]",
        ] {
            assert_eq!(table.get(host.as_bytes()), None, "for {host}");
        }
    }

    #[test]
    fn a_name_can_be_inserted_once() {
        let mut table = table(&["*", "*.example.com", "example.com", "[::1]"]);
        for host in ["*", "*.EXAMPLE.com", "Example.com.", "[0:0::1]"] {
            let pattern = HostPattern::parse(host).unwrap();
            let back = table.insert(pattern.clone(), "again").unwrap_err();
            assert_eq!((back.pattern, back.value), (pattern, "again"));
        }
        assert_eq!(table.len(), 4);
        assert_eq!(table.get(b"example.com"), Some(&"example.com"));
    }

    #[test]
    fn wrong_names_are_told_why() {
        let long = "a".repeat(64);
        let longer = format!("{}a", "ab.".repeat(85));
        for (text, error) in [
            ("", HostError::Empty),
            (".", HostError::Empty),
            ("*.", HostError::Star),
            ("a.com:80", HostError::NotOnlyAName),
            ("https://a.com", HostError::NotOnlyAName),
            ("a.com/x", HostError::NotOnlyAName),
            ("[::1]:80", HostError::NotOnlyAName),
            ("::1", HostError::NotOnlyAName),
            ("[::1", HostError::Address),
            ("[1.2.3.4]", HostError::Address),
            ("a.*.com", HostError::Star),
            ("*a.com", HostError::Star),
            ("**", HostError::Star),
            ("*.0.0.1", HostError::StarBeforeAddress),
            ("a..com", HostError::Label),
            (".a.com", HostError::Label),
            (&long, HostError::Label),
            (&longer, HostError::TooLong),
            ("a b.com", HostError::Character(' ')),
            ("b\u{fc}cher.example", HostError::Character('\u{fc}')),
        ] {
            assert_eq!(HostPattern::parse(text), Err(error), "for {text:?}");
            assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn many_labels_cost_no_more_than_the_wildcards_there_are() {
        let table = table(&["*.example.com", "*.a.b.c.d.e.f"]);
        let host = format!("{}example.com", "a.".repeat(120));
        assert!(host.len() <= MAX_HOST_BYTES);
        assert_eq!(table.get(host.as_bytes()), Some(&"*.example.com"));
        assert_eq!(table.get(b"x.a.b.c.d.e.f"), Some(&"*.a.b.c.d.e.f"));
        assert_eq!(table.get(&[b'.'; 253]), None);
    }
}
