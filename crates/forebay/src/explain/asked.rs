//! The request that is asked about: from the command line to what a connection would bring.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use forebay_config::{Address, Call, Host, Node};
use forebay_fields::{is_token, is_value};
use forebay_http1::{Authority, HeadParser, Limits, Progress, RequestHead};

use crate::control::declarations::{Bind, SITE};
use crate::exchange::{Body, Exchange, Fault, Pulled, Reason, Stream};
use crate::protocol::h1;

/// What was asked about.
#[derive(Clone, Debug)]
pub struct Asked {
    /// As it was written.
    pub url: String,
    /// Its method.
    pub method: String,
    /// Whether it comes over TLS.
    pub tls: bool,
    /// The port of the URL; none if it is a path alone.
    pub port: Option<u16>,
    /// What goes into `Host`.
    pub host: Option<String>,
    /// Path and query.
    pub target: String,
    /// Its fields, as they were given.
    pub fields: Vec<(String, String)>,
    /// Who asks.
    pub client: Option<SocketAddr>,
}

impl Asked {
    /// Reads what the command line says. The error is a sentence for who wrote it.
    pub fn new(
        url: &str,
        method: Option<&str>,
        fields: &[String],
        client: Option<&str>,
    ) -> Result<Asked, String> {
        let method = method.unwrap_or("GET");
        if !is_token(method.as_bytes()) {
            return Err(format!("\"{}\" is no method", method.escape_debug()));
        }
        let fields: Result<Vec<_>, _> = fields.iter().map(|line| field(line)).collect();
        let mut asked = Asked {
            url: url.to_owned(),
            method: method.to_owned(),
            tls: false,
            port: None,
            host: None,
            target: String::new(),
            fields: fields?,
            client: client.map(client_of).transpose()?,
        };
        asked.read_url(url)?;
        Ok(asked)
    }

    fn read_url(&mut self, url: &str) -> Result<(), String> {
        let wrong = |why: &str| Err(format!("\"{}\" is no URL: {why}", url.escape_debug()));
        // The parser would take what stands behind a line's end for another field.
        if url.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
            return wrong("spaces and control characters are escaped in one, as %20");
        }
        // A fragment is never sent (RFC 9110 §7.1).
        let url = url.split('#').next().unwrap_or_default();
        if url.starts_with('/') || (url == "*" && self.method == "OPTIONS") {
            url.clone_into(&mut self.target);
            return Ok(());
        }
        let Some((scheme, rest)) = url.split_once("://") else {
            return wrong("expected http://HOST/PATH, https://HOST/PATH, or /PATH");
        };
        self.tls = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return wrong("expected http or https"),
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        let Some(parsed) = Authority::parse(authority.as_bytes()) else {
            return wrong("expected a host name or an address, and perhaps a port");
        };
        self.port = Some(parsed.port.unwrap_or(if self.tls { 443 } else { 80 }));
        self.host = Some(authority.to_owned());
        self.target = match target.starts_with('/') {
            true => target.to_owned(),
            false => format!("/{target}"),
        };
        Ok(())
    }

    /// Whether a field says the host.
    fn has_host(&self) -> bool {
        let mut fields = self.fields.iter();
        fields.any(|(name, _)| name.eq_ignore_ascii_case("host"))
    }

    /// Gives a path alone the host of the only site there is.
    pub fn complete(&mut self, declarations: &[Arc<Call>]) -> Result<(), String> {
        if self.host.is_some() || self.has_host() {
            return Ok(());
        }
        let mut sites = declarations.iter().filter(|call| call.name() == SITE.name);
        let (first, more) = (sites.next(), sites.next());
        let hosts: &[Node] = first.map_or(&[], |site| site.get("HOST"));
        let mut hosts = hosts.iter().map(|node| node.get::<&Host>());
        let exact = hosts.clone().find_map(|host| match host {
            Host::Exact(name) => Some(name.to_string()),
            _ => None,
        });
        if more.is_some() {
            let example = exact.unwrap_or_else(|| "example.com".to_owned());
            let example = format!("http://{example}{}", self.target);
            return Err(format!(
                "there are several sites: a host is needed, as in {}",
                example.escape_debug()
            ));
        }
        self.host = Some(match (exact, hosts.next()) {
            (Some(name), _) => name,
            (None, Some(Host::Below(base))) => format!("www.{base}"),
            _ => "localhost".to_owned(),
        });
        Ok(())
    }

    /// The listener that takes it: its place in `binds`, and what is to be said of that.
    pub fn listener(&self, binds: &[Bind]) -> (usize, Vec<String>) {
        let mut notes = Vec::new();
        let Some(port) = self.port else {
            if binds.len() > 1 {
                notes.push("the URL names no port: the first listener is taken".to_owned());
            }
            return (0, notes);
        };
        let authority = self.host.as_deref().unwrap_or_default();
        let bare = authority.trim_start_matches('[');
        let end = bare.find(']').or_else(|| bare.rfind(':'));
        let ip: Option<IpAddr> = match bare.parse() {
            Ok(ip) => Some(ip),
            Err(_) => end.and_then(|end| bare[..end].parse().ok()),
        };
        // How exactly an address is meant: the very one, one of a name's, every one.
        let fit = |bind: &Bind| match (&bind.address, ip) {
            (Address::Socket(at), Some(ip)) if at.port() == port && at.ip() == ip => Some(0),
            (Address::Socket(at), None) if at.port() == port => Some(1),
            (Address::Socket(at), Some(_)) if at.port() == port && at.ip().is_unspecified() => {
                Some(1)
            }
            (Address::Port(at), _) if *at == port => Some(2),
            _ => None,
        };
        let mut fits: Vec<(u8, usize)> = binds
            .iter()
            .enumerate()
            .filter_map(|(at, bind)| Some((fit(bind)?, at)))
            .collect();
        fits.sort_unstable();
        let Some((best, at)) = fits.first().copied() else {
            let shown = &binds.first().map(|bind| bind.address.to_string());
            let shown = shown.as_deref().unwrap_or_default();
            notes.push(format!(
                "nothing listens on port {port} there: told as if it came to {shown}"
            ));
            return (0, notes);
        };
        if let Some((_, other)) = fits.get(1).filter(|(fit, _)| ip.is_none() && *fit == best) {
            notes.push(format!(
                "it may also come to {}, by the address of the name",
                binds[*other].address
            ));
        }
        (at, notes)
    }

    /// Its head as the parser of a connection reads it, in the exchange; or why it is refused.
    pub fn fill(&self, exchange: &mut Exchange, limits: &Limits) -> Result<(), Fault> {
        let mut text = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        if let Some(host) = self.host.as_ref().filter(|_| !self.has_host()) {
            // Writing to a text cannot fail.
            let _ = write!(text, "Host: {host}\r\n");
        }
        for (name, value) in &self.fields {
            let _ = write!(text, "{name}: {value}\r\n");
        }
        text.push_str("\r\n");
        let mut input = BytesMut::from(text.as_bytes());
        let mut head = RequestHead::default();
        match HeadParser::new().request(&mut input, limits, &mut head) {
            Ok(Progress::Complete) => {}
            Ok(Progress::Partial) => return Err(Reason::BadRequest.into()),
            Err(error) => return Err(h1::refused(error)),
        }
        let len_bytes = h1::take(&mut head, exchange);
        if len_bytes != Some(0) {
            let body = Unsent { len_bytes };
            exchange.request.set_body(Body::Stream(Box::new(body)));
        }
        Ok(())
    }
}

/// A body that is announced and never comes: nobody reads it, since nothing is sent.
struct Unsent {
    len_bytes: Option<u64>,
}

impl Stream for Unsent {
    fn poll_pull(&mut self, _: &mut Context<'_>) -> Poll<Pulled> {
        Poll::Ready(Pulled::Abort(Reason::ClientGone.into()))
    }

    fn len_bytes(&self) -> Option<u64> {
        self.len_bytes
    }
}

/// `Name: value`.
fn field(line: &str) -> Result<(String, String), String> {
    let wrong = |why: &str| format!("\"{}\" is no field: {why}", line.escape_debug());
    let (name, value) = line
        .split_once(':')
        .ok_or_else(|| wrong("expected \"Name: value\""))?;
    let value = value.trim();
    if !is_token(name.as_bytes()) {
        return Err(wrong("expected a name before the colon"));
    }
    if !is_value(value.as_bytes()) {
        return Err(wrong("its value cannot stand in one line"));
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// `192.0.2.1`, `192.0.2.1:1234`, `2001:db8::1`, `[2001:db8::1]:1234`.
fn client_of(text: &str) -> Result<SocketAddr, String> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let address = text
        .parse()
        .or_else(|_| bare.parse().map(|ip| SocketAddr::new(ip, CLIENT_PORT)));
    let address = address.map_err(|_| {
        let shown = text.escape_debug();
        format!("\"{shown}\" is no address: expected one as 192.0.2.1 or 2001:db8::1")
    })?;
    Ok(forebay_sys::net::to_unmapped(address))
}

/// The port of a client that none is given for.
pub const CLIENT_PORT: u16 = 40_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steps::testing::built;

    fn asked(url: &str) -> Result<Asked, String> {
        Asked::new(url, None, &[], None)
    }

    #[test]
    fn urls() {
        for (url, tls, port, host, target) in [
            ("http://a.test", false, Some(80), Some("a.test"), "/"),
            ("http://a.test?x", false, Some(80), Some("a.test"), "/?x"),
            ("HTTPS://A.test/b#c", true, Some(443), Some("A.test"), "/b"),
            ("http://[::1]:81/", false, Some(81), Some("[::1]:81"), "/"),
            ("/a?b#c", false, None, None, "/a?b"),
            ("//x", false, None, None, "//x"),
        ] {
            let asked = asked(url).expect(url);
            let got = (asked.tls, asked.port, asked.host.as_deref(), &*asked.target);
            assert_eq!(got, (tls, port, host, target), "{url}");
        }
        for url in [
            "",
            "a.test/x",
            "ftp://a.test/",
            "http://",
            "http://u:p@a.test/",
            "http://a.test:x/",
            "/a b",
            "/a\r\nHost: b",
            "*",
        ] {
            assert!(asked(url).is_err(), "{url}");
        }
        assert!(Asked::new("*", Some("OPTIONS"), &[], None).is_ok());
        assert!(Asked::new("/", Some("G T"), &[], None).is_err());
    }

    #[test]
    fn fields_and_clients() {
        let fields = |line: &str| Asked::new("/", None, &[line.to_owned()], None);
        let right = fields("X-A:  1 ").expect("a field");
        assert_eq!(right.fields, [("X-A".to_owned(), "1".to_owned())]);
        for line in ["X-A", "X A: 1", ": 1", "X-A: 1\r\nX-B: 2"] {
            assert!(fields(line).is_err(), "{line}");
        }
        let client = |text: &str| Asked::new("/", None, &[], Some(text)).map(|a| a.client);
        for (text, expected) in [
            ("192.0.2.1", "192.0.2.1:40000"),
            ("192.0.2.1:7", "192.0.2.1:7"),
            ("::ffff:192.0.2.1", "192.0.2.1:40000"),
            ("2001:db8::1", "[2001:db8::1]:40000"),
            ("[2001:db8::1]:9", "[2001:db8::1]:9"),
        ] {
            let expected: SocketAddr = expected.parse().expect("an address");
            assert_eq!(client(text), Ok(Some(expected)), "{text}");
        }
        assert!(client("localhost").is_err());
    }

    #[test]
    fn the_listener_of_the_port_and_of_the_address() {
        let built = built(
            r#"listen ":80" listen "127.0.0.1:81" listen "127.0.0.2:81" listen ":81" listen "unix:/nowhere"
               site { "*", respond(200) }"#,
        );
        let check = |url: &str, expected: usize, notes: usize| {
            let (at, said) = asked(url).expect(url).listener(&built.binds);
            assert_eq!((at, said.len()), (expected, notes), "{url} {said:?}");
        };
        check("http://a.test/", 0, 0);
        check("http://a.test:81/", 1, 1);
        check("http://127.0.0.2:81/", 2, 0);
        check("http://127.0.0.3:81/", 3, 0);
        check("http://[::1]:81/", 3, 0);
        check("https://a.test/", 0, 1);
        check("/", 0, 1);
    }
}
