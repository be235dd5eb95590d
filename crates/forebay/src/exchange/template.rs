//! Templates: text with variables, filled in from an exchange.
//!
//! What a variable brings was chosen by a remote, more often than not. Where it lands decides what
//! it could do there: in a field it could end the field (`Fields` refuses that), in a URL it could
//! begin a query or name another host ([`expand_url`]), in a path it could lead out of a directory
//! ([`expand_path`]).

use std::borrow::Cow;
use std::io::Write as _;
use std::net::IpAddr;

use forebay_config::{Part, Template, Variable};
use forebay_fields::append_decimal;

use super::{Exchange, Fault, Reason, Response};

/// Appends the template's text for this exchange to `out`. An absent value is the empty text.
pub fn expand(
    template: &Template,
    exchange: &Exchange,
    response: Option<&Response>,
    out: &mut Vec<u8>,
) {
    for part in &template.parts {
        match part {
            Part::Text(text) => out.extend_from_slice(text.as_bytes()),
            Part::Var(variable) => append_variable(variable, exchange, response, out),
        }
    }
}

/// Appends what a variable stands for.
pub fn append_variable(
    variable: &Variable,
    exchange: &Exchange,
    response: Option<&Response>,
    out: &mut Vec<u8>,
) {
    let request = &exchange.request;
    let mut text = |bytes: &[u8]| out.extend_from_slice(bytes);
    match variable {
        Variable::Method => text(request.method.as_str().as_bytes()),
        Variable::Scheme => text(exchange.scheme().as_bytes()),
        Variable::Host => text(request.host().as_bytes()),
        Variable::Port => append_decimal(out, u64::from(exchange.port())),
        Variable::Path => text(request.path().as_bytes()),
        Variable::QueryString => text(request.query().unwrap_or("").as_bytes()),
        Variable::Uri => request.write_uri(out),
        Variable::OriginalUri => text(request.original_uri().as_bytes()),
        Variable::Rest => text(exchange.rest().as_bytes()),
        Variable::ClientIp | Variable::ClientPort if !exchange.has_client_ip() => {}
        // Writing into a vector cannot fail.
        Variable::ClientIp => drop(write!(out, "{}", exchange.client_ip())),
        Variable::ClientNet => text(exchange.client_net().as_bytes()),
        Variable::ClientPort => append_decimal(out, u64::from(exchange.remote.address.port())),
        Variable::Id => drop(write!(out, "{:016x}", exchange.id)),
        Variable::Header(name) => text(request.fields.get(&**name).unwrap_or(b"")),
        Variable::Cookie(name) => text(request.fields.cookie(name.as_bytes()).unwrap_or(b"")),
        Variable::Query(name) => text(&query_value(request.query().unwrap_or(""), name)),
        Variable::Param(name) => text(exchange.captures.param(name).unwrap_or("").as_bytes()),
        Variable::Var(name) => text(exchange.var(name).unwrap_or(b"")),
        Variable::Capture(number) => {
            let index = usize::from(*number).wrapping_sub(1);
            let group = exchange.captures.groups.get(index);
            text(group.map_or("", |group| group).as_bytes());
        }
        Variable::Status => {
            append_decimal(
                out,
                response.map_or(0, |response| u64::from(response.status)),
            );
        }
        Variable::Duration => {
            let ms = exchange.worker.now_ms().saturating_sub(exchange.started_ms);
            drop(write!(out, "{}.{:03}", ms / 1000, ms % 1000));
        }
        Variable::Bytes => {
            let len = response.and_then(|response| response.body.len_bytes());
            append_decimal(out, len.unwrap_or(0));
        }
        Variable::Site => text(exchange.site_name().as_bytes()),
        Variable::Peer => text(exchange.peer_label().unwrap_or("").as_bytes()),
        Variable::Time => crate::access::push_time(exchange, out),
        Variable::Cache => text(
            exchange
                .outcome
                .cached
                .map_or("", |c| c.how.name())
                .as_bytes(),
        ),
        // No TLS listeners yet.
        _ => {}
    }
}

// --- Queries -----------------------------------------------------------------------------------

/// The parameters of a query as names and values, decoded. Empty pairs (`a=1&&b=2`) are none.
pub fn query_pairs(query: &str) -> impl Iterator<Item = (Cow<'_, [u8]>, Cow<'_, [u8]>)> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (
                form_decoded(name.as_bytes()),
                form_decoded(value.as_bytes()),
            )
        })
}

fn query_value<'a>(query: &'a str, name: &str) -> Cow<'a, [u8]> {
    let mut pairs = query_pairs(query);
    pairs
        .find(|(found, _)| **found == *name.as_bytes())
        .map_or(Cow::Borrowed(b""), |pair| pair.1)
}

/// As forms are encoded: `+` is a blank, `%41` an `A`; a `%` that begins no escape stands for
/// itself.
pub fn form_decoded(bytes: &[u8]) -> Cow<'_, [u8]> {
    decoded(bytes, true)
}

/// Bytes without their escapes (RFC 3986 §2.1); what is no escape stays.
pub fn percent_decoded(bytes: &[u8]) -> Cow<'_, [u8]> {
    decoded(bytes, false)
}

fn decoded(bytes: &[u8], is_form: bool) -> Cow<'_, [u8]> {
    let is_written_so = |byte: &u8| *byte == b'%' || (is_form && *byte == b'+');
    if !bytes.iter().any(is_written_so) {
        return Cow::Borrowed(bytes);
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match (byte, escape_at(bytes, at)) {
            (b'%', Some(decoded)) => {
                out.push(decoded);
                at += 2;
            }
            (b'+', _) if is_form => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    Cow::Owned(out)
}

/// The byte that the escape at this place stands for, if there is one.
fn escape_at(bytes: &[u8], at: usize) -> Option<u8> {
    let &[b'%', high, low] = bytes.get(at..at + 3)? else {
        return None;
    };
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    Some(digit(high)? << 4 | digit(low)?)
}

// --- URLs --------------------------------------------------------------------------------------

/// How a value is written where a URL's text is wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Writing {
    /// It is a part of the request's target, or an address as a whole: as it is, but for what no
    /// URL may hold.
    AsIs,
    /// A part of a path in encoded form: `%2F` stays what it is.
    Encoded,
    /// Text that knows nothing of URLs: every `%` in it is one.
    Plain,
}

/// Appends the template's text to `out`, as a URL or reference whose form is that of the template:
/// what a variable brings can neither begin a query or a fragment, nor add a parameter, nor name
/// another host or scheme, nor end a line.
pub fn expand_url(template: &Template, exchange: &Exchange, out: &mut Vec<u8>) {
    let start = out.len();
    let mut value = Vec::new();
    for (at, part) in template.parts.iter().enumerate() {
        match part {
            Part::Text(text) => push_url(out, text.as_bytes(), |_| false, Writing::AsIs),
            Part::Var(variable) => {
                value.clear();
                append_variable(variable, exchange, None, &mut value);
                let in_query = out[start..].contains(&b'?');
                let writing = writing(variable, in_query, at == 0);
                let escaped: fn(u8) -> bool = match (writing, in_query) {
                    (Writing::AsIs, _) => |_| false,
                    (_, false) => |byte| matches!(byte, b'?' | b'#'),
                    (_, true) => |byte| matches!(byte, b'&' | b'+' | b'#'),
                };
                push_url(out, &value, escaped, writing);
            }
        }
    }
    keep_on_site(template, start, out);
}

fn writing(variable: &Variable, in_query: bool, is_first: bool) -> Writing {
    use Variable::{Capture, Cookie, Header, OriginalUri, Param, Path, Query, QueryString};
    match variable {
        QueryString => Writing::AsIs,
        // In a query, as in `/login?to=$uri`, the whole of it is one value.
        Variable::Uri | OriginalUri if in_query => Writing::Plain,
        Variable::Uri | OriginalUri => Writing::AsIs,
        Path | Variable::Rest | Param(_) | Capture(_) => Writing::Encoded,
        // With nothing written before it, it is the address.
        Variable::Var(_) | Header(_) | Cookie(_) | Query(_) if is_first => Writing::AsIs,
        Variable::Var(_) | Header(_) | Cookie(_) => Writing::Encoded,
        _ => Writing::Plain,
    }
}

/// Appends bytes as a URL may hold them (RFC 3986 §2): all others are escaped, and those that the
/// place asks for.
fn push_url(out: &mut Vec<u8>, bytes: &[u8], escaped: impl Fn(u8) -> bool, writing: Writing) {
    for (at, &byte) in bytes.iter().enumerate() {
        let is_right = match byte {
            b'%' => writing != Writing::Plain && escape_at(bytes, at).is_some(),
            // Some browsers take `\` for a slash: `/\evil.example` is another host to them.
            b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' => false,
            byte => matches!(byte, 0x21..=0x7e) && !escaped(byte),
        };
        if is_right {
            out.push(byte);
        } else {
            const HEX: &[u8; 16] = b"0123456789ABCDEF";
            let digits = [byte >> 4, byte & 15].map(|digit| HEX[usize::from(digit)]);
            out.extend_from_slice(&[b'%', digits[0], digits[1]]);
        }
    }
}

/// A reference that begins with a path keeps beginning with one: `//evil.example` (RFC 3986 §4.2)
/// and `evil:` would lead elsewhere.
fn keep_on_site(template: &Template, start: usize, out: &mut Vec<u8>) {
    use Variable::{Capture, OriginalUri, Param, Path, Rest, Uri};
    let (literal, of_path) = match template.parts.first() {
        Some(Part::Text(text)) => (&**text, false),
        Some(Part::Var(variable)) => {
            let of_path = matches!(
                variable,
                Path | Rest | Uri | OriginalUri | Param(_) | Capture(_)
            );
            ("", of_path)
        }
        None => return,
    };
    if (of_path || literal.starts_with('/')) && !literal.starts_with("//") {
        let slashes = out[start..]
            .iter()
            .take_while(|byte| **byte == b'/')
            .count();
        out.drain(start..start + slashes.saturating_sub(1));
    }
    if of_path {
        let ends = |byte: &u8| matches!(byte, b'/' | b'?' | b'#');
        let first = out[start..]
            .iter()
            .position(ends)
            .unwrap_or(out.len() - start);
        if out[start..start + first].contains(&b':') {
            out.splice(start..start, *b"./");
        }
    }
}

// --- Paths in the file system ------------------------------------------------------------------

/// Appends the template's text to `out` as a path below some directory: without a slash at its
/// beginning, decoded once, and not leading out of that directory.
///
/// # Errors
/// [`BadPath`](Reason::BadPath) if a value holds a segment `..`, NUL or `\`, or an encoded slash;
/// `out` may have grown then.
pub fn expand_path(
    template: &Template,
    exchange: &Exchange,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    let start = out.len();
    let mut value = Vec::new();
    for part in &template.parts {
        match part {
            Part::Text(text) => out.extend_from_slice(text.as_bytes()),
            Part::Var(variable) => {
                value.clear();
                append_variable(variable, exchange, None, &mut value);
                // These are parts of the request's path, and so encoded; all others are not.
                let encoded = matches!(
                    variable,
                    Variable::Path | Variable::Rest | Variable::Param(_)
                );
                push_path(&value, encoded, out)?;
            }
        }
        // An absolute path would not start at the directory, whoever wrote the first slash.
        let slashes = out[start..]
            .iter()
            .take_while(|byte| **byte == b'/')
            .count();
        out.drain(start..start + slashes);
    }
    // Looked at as a whole: two values can make up one segment.
    match out[start..]
        .split(|byte| *byte == b'/')
        .any(|segment| segment == b"..")
    {
        true => Err(Fault::with(
            Reason::BadPath,
            "it leads out of its directory",
        )),
        false => Ok(()),
    }
}

fn push_path(value: &[u8], encoded: bool, out: &mut Vec<u8>) -> Result<(), Fault> {
    let mut at = 0;
    while let Some(&byte) = value.get(at) {
        let escape = if encoded { escape_at(value, at) } else { None };
        let decoded = escape.unwrap_or(byte);
        if matches!(decoded, 0 | b'\\') || (escape.is_some() && decoded == b'/') {
            return Err(Fault::with(Reason::BadPath, "a file name cannot hold this"));
        }
        out.push(decoded);
        at += if escape.is_some() { 3 } else { 1 };
    }
    Ok(())
}

/// Appends an address. By hand for IPv4: the formatting machinery costs more than the rest of a log
/// line, and every proxied request has two.
pub fn append_ip(ip: IpAddr, out: &mut Vec<u8>) {
    match ip {
        IpAddr::V4(ip) => {
            for (index, octet) in ip.octets().into_iter().enumerate() {
                if index > 0 {
                    out.push(b'.');
                }
                append_decimal(out, u64::from(octet));
            }
        }
        // Writing into memory does not fail.
        IpAddr::V6(ip) => drop(write!(out, "{ip}")),
    }
}

#[cfg(test)]
mod tests {
    use forebay_config::Vars;

    use super::*;
    use crate::steps::testing::Bench;

    #[track_caller]
    fn check(pipeline: &str, target: &str, expected: &str) {
        let bench = Bench::new(&format!("site {{ \"*\", {pipeline} }}"));
        assert_eq!(
            bench.get(target).run().text(),
            expected,
            "{pipeline} {target}"
        );
    }

    #[test]
    fn every_variable_of_the_request() {
        let bench = Bench::new(
            r#"site { "*", name = "main", set("v", "set"), route "/u/:id/*" {
                 respond(200, "$method|$scheme|$host|$port|$path|$query_string|$uri|$original_uri|$rest|$client_ip|$client_net|$client_port|$headers.x_a|$cookies.c|$query.q|$params.id|$vars.v|$vars.none|$tls.version$tls.sni|$$1") } }"#,
        );
        let got = bench
            .get("/u/7/a%2Fb?q=1%202+3&r")
            .field("X-A", "field")
            .field("Cookie", "b=1; c=2");
        assert_eq!(
            got.run().text(),
            "GET|http|test|80|/u/7/a%2Fb|q=1%202+3&r|/u/7/a%2Fb?q=1%202+3&r|/u/7/a%2Fb?q=1%202+3&r|\
             a%2Fb|127.0.0.1|127.0.0.1|40000|field|2|1 2 3|7|set|||$1"
        );
        let got = bench.get("/u/7/").from("2001:db8:1:2:3::4").run().text();
        assert!(
            got.contains("|2001:db8:1:2:3::4|2001:db8:1:2::/64|"),
            "{got}"
        );
        let id = Bench::new(r#"site { "*", respond(200, "$id") }"#)
            .get("/")
            .run()
            .text();
        assert!(
            id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{id}"
        );
    }

    #[test]
    fn variables_of_the_response() {
        let bench = Bench::new(
            r#"site { "a.test", "*", headers { response = { x = "$status|$bytes|$site|$cache$peer|$duration" } },
                 respond(201, "abc") }"#,
        );
        assert_eq!(bench.get("/").run().field("x"), Some("201|3|a.test||0.000"));
    }

    #[test]
    fn parameters_are_decoded() {
        let q = r#"respond(200, "[$query.q]")"#;
        for (query, expected) in [
            ("?q=a", "[a]"),
            ("?x&q=1&q=2", "[1]"),
            ("?q", "[]"),
            ("", "[]"),
            ("?%71=%C3%A4", "[ä]"),
            ("?q=%zz%4", "[%zz%4]"),
            ("?q=%", "[%]"),
            ("?q=a=b", "[a=b]"),
        ] {
            check(q, &format!("/{query}"), expected);
        }
    }

    fn path(template: &str, target: &str) -> Result<String, Reason> {
        let template = Template::parse(template, Vars::Request).expect("a template");
        let bench = Bench::new(
            r#"site { "*", set("v", "$query.v"), set("w", "$query.w"),
                 route "/r/:p/*" { respond(200) }, respond(200) }"#,
        );
        let got = bench.get(target).run();
        let mut out = b"before".to_vec();
        expand_path(&template, &got.exchange, &mut out).map_err(|fault| fault.reason)?;
        Ok(String::from_utf8(out).expect("a text").split_off(6))
    }

    #[test]
    fn paths_stay_below_their_directory() {
        let bad = Err(Reason::BadPath);
        for (template, target, expected) in [
            ("$path", "/", Ok("")),
            ("$path", "/a/b", Ok("a/b")),
            ("$path", "//a//b/", Ok("a//b/")),
            ("$path/index.html", "/a%20b/%C3%A4", Ok("a b/ä/index.html")),
            ("/x$path", "/a", Ok("x/a")),
            ("$host$path", "/a", Ok("test/a")),
            ("$params.p.txt", "/r/a%2Eb%252E/x", Ok("a.b%2E.txt")),
            ("$rest", "/r/p/x/y", Ok("x/y")),
            ("$vars.v", "/?v=%2561", Ok("%61")),
            ("$vars.v", "/?v=a/b", Ok("a/b")),
            ("$vars.v", "/?v=/etc/passwd", Ok("etc/passwd")),
            ("$vars.none/x", "/", Ok("x")),
            ("$vars.v", "/?v=..", bad),
            ("$vars.v", "/?v=a/../b", bad),
            ("$vars.v$vars.w", "/?v=.&w=.", bad),
            ("$vars.v", "/?v=a%00", bad),
            ("$vars.v", "/?v=..%5Ca", bad),
            ("$path", "/a%2Fb", bad),
            ("$path", "/a%5Cb", bad),
            ("$path", "/a\\b", bad),
            ("$path", "/...", Ok("...")),
        ] {
            let got = path(template, target);
            assert_eq!(
                got.as_deref().map_err(|reason| *reason),
                expected,
                "{template} {target}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn no_value_leaves_its_place_in_a_url(
            value in proptest::collection::vec(proptest::num::u8::ANY, 0..40),
            template in proptest::sample::select(vec![
                "/a/$vars.v", "/a?b=$vars.v", "https://h/$vars.v", "a$vars.v/b?c", "$vars.v",
            ]),
        ) {
            let got = WORKER.with(|bench| bench.get("/").run());
            let mut exchange = got.exchange;
            exchange.set_var(&"v".into(), value);
            let template = Template::parse(template, Vars::Captures).expect("a template");
            let mut out = Vec::new();
            expand_url(&template, &exchange, &mut out);
            assert!(out.iter().all(|byte| (0x21..0x7f).contains(byte)), "{}", out.escape_ascii());
            assert!(!out.contains(&b'\\'));
            if let [Part::Text(before), ..] = &template.parts[..] {
                assert!(out.starts_with(before.as_bytes()));
                let count = |byte: u8| out.iter().filter(|b| **b == byte).count();
                let written = |c: char| template.parts.iter().map(|part| match part {
                    Part::Text(text) => text.matches(c).count(),
                    Part::Var(_) => 0,
                }).sum::<usize>();
                assert_eq!(count(b'#'), 0);
                if written('?') == 0 {
                    assert_eq!(count(b'?'), 0);
                } else if before.contains('?') {
                    assert_eq!(count(b'&'), 0);
                }
            }
        }

        #[test]
        fn no_path_leads_out_of_its_directory(
            one in "[a./\\\\%0-2eEfF]{0,12}",
            two in "[a./\\\\%0-2eEfF]{0,12}",
        ) {
            let template = Template::parse("$vars.v/$path$vars.w", Vars::Request);
            let got = WORKER.with(|bench| bench.get("/").run());
            let mut exchange = got.exchange;
            exchange.request.set_path(format!("/{one}"));
            exchange.set_var(&"v".into(), two.clone().into());
            exchange.set_var(&"w".into(), one.into());
            let mut out = Vec::new();
            if expand_path(&template.expect("a template"), &exchange, &mut out).is_ok() {
                assert_ne!(out.first(), Some(&b'/'));
                assert!(!out.iter().any(|byte| matches!(byte, 0 | b'\\')));
                assert!(out.split(|byte| *byte == b'/').all(|segment| segment != b".."));
            }
        }
    }

    thread_local! {
        static WORKER: Bench = Bench::new(r#"site { "*", respond(200) }"#);
    }
}
