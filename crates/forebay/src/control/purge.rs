//! What an operator has the caches forget while the server runs.

use std::time::{Duration, Instant};

use forebay_cache_policy::Key;
use forebay_http1::Authority;
use forebay_route::{normalize, split_target};
use forebay_store::Swept;
use forebay_store::rules::Rule;

use super::orders::unknown;
use crate::exchange::query_pairs;
use crate::snapshot::Snapshot;
use crate::steps::cache::stores::Kept;
use crate::steps::cache::{MAX_TAG, QuerySpec};

/// `forebay purge`, as the admin socket gets it.
#[derive(Debug, PartialEq, Eq)]
pub struct Purge {
    what: Vec<What>,
    /// What it meets has to be validated, rather than gone.
    soft: bool,
    /// In one store only.
    store: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
enum What {
    Url(String),
    Prefix(String),
    Host(String),
    Tag(String),
    All,
}

/// A purge that is known to mean something.
pub struct Prepared {
    purge: Purge,
    stores: Vec<std::sync::Arc<Kept>>,
    rules: Vec<Rule>,
    begun: Instant,
}

/// Why a purge is not done.
#[derive(Debug)]
pub enum NotDone {
    /// It means nothing.
    Mistake(String),
    /// It is in force, but might not be after a restart.
    NotWritten(String),
}

/// A purge that is in force; what is left to do is to give the memory back.
pub struct InForce {
    stores: Vec<std::sync::Arc<Kept>>,
    soft: bool,
    begun: Instant,
    took: Duration,
}

impl Purge {
    /// From a query: `url=https%3A%2F%2Fa.example%2Fx&soft=1`. The error says what is wrong with it.
    pub fn parse(query: &str) -> Result<Purge, String> {
        let mut purge = Purge {
            what: Vec::new(),
            soft: false,
            store: None,
        };
        for (name, value) in query_pairs(query) {
            let value = String::from_utf8(value.into_owned());
            let value = value.map_err(|_| "a value is no text".to_owned())?;
            match &*name {
                b"url" => purge.what.push(What::Url(value)),
                b"prefix" => purge.what.push(What::Prefix(value)),
                b"host" => purge.what.push(What::Host(value)),
                b"tag" => purge.what.push(What::Tag(value)),
                b"all" => purge.what.push(What::All),
                b"soft" => purge.soft = true,
                b"store" => purge.store = Some(value),
                _ => return Err("expected url, prefix, host, tag, all, soft or store".to_owned()),
            }
        }
        match purge.what.is_empty() {
            true => Err("expected one of url, prefix, host, tag and all".to_owned()),
            false => Ok(purge),
        }
    }

    /// What it means for this configuration.
    pub fn prepare(self, snapshot: &Snapshot) -> Result<Prepared, String> {
        let begun = Instant::now();
        let named = |kept: &&std::sync::Arc<Kept>| {
            self.store.as_deref().is_none_or(|name| *kept.name == *name)
        };
        let stores: Vec<_> = snapshot
            .caches
            .stores
            .iter()
            .filter(named)
            .cloned()
            .collect();
        if let (true, Some(name)) = (stores.is_empty(), &self.store) {
            let names = snapshot.caches.stores.iter().map(|kept| &*kept.name);
            return Err(unknown("cache_store", name, names));
        }
        if stores.is_empty() {
            return Err("nothing is cached: the configuration has no `cache`".to_owned());
        }
        let mut rules = Vec::new();
        for what in &self.what {
            what.rules(&mut rules, snapshot)?;
        }
        Ok(Prepared {
            purge: self,
            stores,
            rules,
            begun,
        })
    }
}

impl Prepared {
    /// Puts it in force: from here on nothing that was asked for before it is used, nor after a
    /// restart. Waits for the disks of the stores.
    pub fn put_in_force(self) -> Result<InForce, NotDone> {
        let Prepared {
            purge,
            stores,
            rules,
            begun,
        } = self;
        let mut written = Ok(());
        for kept in &stores {
            if let Err(error) = kept.purge(&rules, purge.soft) {
                let text = format!(
                    "purged, but not written: {error}; after a restart it may be there again, \
                     unless that directory is emptied before"
                );
                written = Err(NotDone::NotWritten(text));
            }
        }
        tracing::info!(what = ?purge.what, soft = purge.soft, "an operator has purged");
        written.map(|()| InForce {
            stores,
            soft: purge.soft,
            begun,
            took: begun.elapsed(),
        })
    }
}

impl InForce {
    /// Takes away what is dead; says what became of how much, and how many bytes it were. Takes a
    /// while with many objects.
    pub fn sweep(self) -> (serde_json::Value, u64) {
        let mut sum = Swept::default();
        for kept in &self.stores {
            let swept = kept.store.sweep();
            sum.gone += swept.gone;
            sum.stale += swept.stale;
            sum.bytes += swept.bytes;
        }
        let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let done = serde_json::json!({
            "objects": if self.soft { sum.stale } else { sum.gone },
            "bytes": sum.bytes,
            "soft": self.soft,
            "on_disks": self.stores.iter().any(|kept| kept.disks.spec().is_some()),
            "in_force_us": us(self.took),
            "swept_us": us(self.begun.elapsed()),
        });
        (done, sum.bytes)
    }
}

impl What {
    /// The rules that it comes to.
    fn rules(&self, rules: &mut Vec<Rule>, snapshot: &Snapshot) -> Result<(), String> {
        match self {
            What::All => rules.push(Rule::All),
            What::Tag(tag) => {
                let separates = |byte: u8| matches!(byte, b' ' | b',' | b'\t');
                if tag.is_empty() || tag.len() > MAX_TAG || tag.bytes().any(separates) {
                    return Err(format!(
                        "\"{}\" is no tag: expected 1 to {MAX_TAG} bytes without spaces and commas",
                        tag.escape_debug()
                    ));
                }
                rules.push(Rule::Tag(tag.as_bytes().into()));
            }
            What::Host(host) => {
                for host in hosts(host)? {
                    rules.push(Rule::Host(host.into_bytes().into()));
                }
            }
            What::Url(url) => {
                for url in urls(url, false)? {
                    let mut keyed = keyed(&url, &snapshot.caches.queries);
                    rules.extend(keyed.drain(..).map(|url| Rule::Url(url.into())));
                }
            }
            What::Prefix(url) => {
                for url in urls(url, true)? {
                    rules.push(Rule::Prefix(url.written().into()));
                }
            }
        }
        Ok(())
    }
}

/// A URL, taken apart as keys are put together.
#[derive(Debug)]
pub struct Parts {
    scheme: &'static str,
    host: String,
    port: u16,
    path: Vec<u8>,
    query: Option<Vec<u8>>,
}

impl Parts {
    /// As it stands in keys of caches that leave the query alone.
    fn written(&self) -> Vec<u8> {
        self.with_query(self.query.as_deref())
    }

    fn with_query(&self, query: Option<&[u8]>) -> Vec<u8> {
        let mut out = Vec::new();
        Key {
            scheme: self.scheme,
            host: &self.host,
            port: self.port,
            path: &self.path,
            query,
            extra: b"",
            content: None,
        }
        .write(&mut out);
        out
    }
}

/// What a URL is called in keys: as it is written, and as each cache makes it that leaves out or
/// sorts parameters.
pub fn keyed(url: &Parts, queries: &[std::sync::Arc<QuerySpec>]) -> Vec<Vec<u8>> {
    let mut keyed = vec![url.written()];
    for spec in queries {
        let query = url.query.as_deref().and_then(|query| spec.counts(query));
        let other = url.with_query(query.as_deref());
        if !keyed.contains(&other) {
            keyed.push(other);
        }
    }
    keyed
}

/// The URLs that are meant by one: without a scheme, both; and a name with the dot of the root at
/// its end is the same name, though a key keeps it, since an application is told it.
pub fn urls(url: &str, is_prefix: bool) -> Result<Vec<Parts>, String> {
    let wrong = |why: &str| format!("\"{}\" is no URL: {why}", url.escape_debug());
    if url.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return Err(wrong(
            "spaces and control characters are escaped in one, as %20",
        ));
    }
    // A fragment is never sent (RFC 9110 §7.1).
    let url_part = url.split('#').next().unwrap_or_default();
    let (schemes, rest): (&[&'static str], &str) = match url_part.split_once("://") {
        None => (&["http", "https"], url_part),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (&["http"], rest),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (&["https"], rest),
        Some(_) => return Err(wrong("expected http or https")),
    };
    let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let authority = Authority::parse(authority.as_bytes())
        .ok_or_else(|| wrong("expected a host name or an address, and perhaps a port"))?;
    let (path, query) = split_target(target.as_bytes());
    let (path, query) = (escaped(path), query.map(escaped));
    let path = path_of(&path, is_prefix && query.is_none()).map_err(|why| wrong(&why))?;
    let mut urls = Vec::new();
    for scheme in schemes {
        let usual = if *scheme == "https" { 443 } else { 80 };
        for host in names(authority.host) {
            urls.push(Parts {
                scheme,
                host,
                port: authority.port.unwrap_or(usual),
                path: path.clone(),
                query: query.clone(),
            });
        }
    }
    Ok(urls)
}

/// A path in its one form. What a prefix ends with may be the beginning of anything: dots at its
/// end are no segment yet.
fn path_of(path: &[u8], is_prefix: bool) -> Result<Vec<u8>, String> {
    if path.is_empty() {
        return Ok(b"/".to_vec());
    }
    let end = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0) + 1;
    let (above, last) = path.split_at(end);
    let dots = is_prefix && matches!(last, b"." | b"..");
    let (whole, behind): (&[u8], &[u8]) = if dots { (above, last) } else { (path, b"") };
    let mut out = normalize(whole)
        .map_err(|fault| fault.sentence().to_owned())?
        .into_owned();
    out.extend_from_slice(behind);
    Ok(out)
}

/// Bytes that no URL holds as they are: written so all the same by people.
fn escaped(text: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = Vec::with_capacity(text.len());
    for byte in text {
        match byte {
            0x80.. => out.extend_from_slice(&[
                b'%',
                DIGITS[usize::from(byte >> 4)],
                DIGITS[usize::from(byte & 15)],
            ]),
            byte => out.push(*byte),
        }
    }
    out
}

/// A name, in lower case, with and without the dot of the root.
fn names(host: &str) -> Vec<String> {
    let name = host.to_ascii_lowercase();
    let name = name.strip_suffix('.').unwrap_or(&name);
    match name.starts_with('[') {
        true => vec![name.to_owned()],
        false => vec![name.to_owned(), format!("{name}.")],
    }
}

/// A host as it stands in keys. Its port is not there where it is that of the scheme, so a port
/// that is some scheme's own is meant with and without it.
fn hosts(text: &str) -> Result<Vec<String>, String> {
    let Some(authority) = Authority::parse(text.as_bytes()) else {
        return Err(format!(
            "\"{}\" is no host: expected a name or an address, and perhaps a port",
            text.escape_debug()
        ));
    };
    let mut hosts = Vec::new();
    for name in names(authority.host) {
        match authority.port {
            None => hosts.push(name),
            Some(port) => {
                hosts.push(format!("{name}:{port}"));
                if matches!(port, 80 | 443) {
                    hosts.push(name);
                }
            }
        }
    }
    Ok(hosts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(url: &str, is_prefix: bool, expected: &[&str]) {
        let urls = urls(url, is_prefix).unwrap_or_else(|why| panic!("{why}"));
        let urls: Vec<String> = urls
            .iter()
            .map(|url| String::from_utf8(url.written()).expect("ASCII"))
            .collect();
        assert_eq!(urls, expected, "{url}");
    }

    #[test]
    fn urls_as_they_stand_in_keys() {
        for (url, path) in [
            ("http://A.Example:80/x?q=1", "/x?q=1"),
            ("http://a.example", "/"),
            ("http://a.example?q", "/?q"),
            ("HTTP://a.example/x/../y/%7ez%2f#top", "/y/~z%2F"),
            ("http://a.example./ü", "/%C3%BC"),
        ] {
            let (plain, dotted) = (
                format!("http://a.example{path}"),
                format!("http://a.example.{path}"),
            );
            check(url, false, &[&plain, &dotted]);
        }
        check("https://[::1]:8443/x", false, &["https://[::1]:8443/x"]);
        check(
            "a.example:443/x",
            false,
            &[
                "http://a.example:443/x",
                "http://a.example.:443/x",
                "https://a.example/x",
                "https://a.example./x",
            ],
        );
    }

    #[test]
    fn a_prefix_may_end_anywhere() {
        for (url, path) in [
            ("https://a.example", "/"),
            ("https://a.example/x/.", "/x/."),
            ("https://a.example/x/..", "/x/.."),
            ("https://a.example/y/../x/ab", "/x/ab"),
            ("https://a.example/x?page=", "/x?page="),
        ] {
            let (plain, dotted) = (
                format!("https://a.example{path}"),
                format!("https://a.example.{path}"),
            );
            check(url, true, &[&plain, &dotted]);
        }
    }

    #[test]
    fn what_is_no_url() {
        for url in [
            "",
            "/x",
            "ftp://a.example/",
            "http://",
            "http://a b/",
            "http://a.example/%0a",
            "http://a.example/%zz",
            "http://ann:secret@a.example/",
        ] {
            assert!(urls(url, false).is_err(), "{url}");
        }
    }

    #[test]
    fn hosts_as_they_stand_in_keys() {
        let named = |text| hosts(text).map(|hosts| hosts.join(" "));
        for (text, expected) in [
            ("A.example", "a.example a.example."),
            ("a.example.:8080", "a.example:8080 a.example.:8080"),
            (
                "a.example:443",
                "a.example:443 a.example a.example.:443 a.example.",
            ),
            ("[::1]:81", "[::1]:81"),
        ] {
            assert_eq!(named(text).as_deref(), Ok(expected), "{text}");
        }
        for text in ["", "*", "a.example/x", "http://a.example"] {
            assert!(named(text).is_err(), "{text}");
        }
    }

    #[test]
    fn purges_are_read() {
        let what = Purge::parse("tag=a&tag=b&soft=1&store=big").map(|purge| purge.what);
        let tags = ["a", "b"].map(|tag| What::Tag(tag.to_owned()));
        assert_eq!(what, Ok(tags.into()));
        for wrong in ["", "soft=1", "url=%ff", "all=1&hots=a"] {
            assert!(Purge::parse(wrong).is_err(), "{wrong}");
        }
    }
}
