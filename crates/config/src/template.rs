//! Text with variables.

use std::path::{Component, Path, PathBuf};

use crate::directive::Vars;

/// Text with variables, parsed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Template {
    /// Its parts, in order; no two texts follow one another, none is empty.
    pub parts: Vec<Part>,
}

/// A part of a template.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// As it stands.
    Text(Box<str>),
    /// To be replaced by the variable's value; the empty text if it is absent.
    Var(Variable),
}

/// A variable: a field of the request object, and in some places of the response.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Variable {
    /// `$method`
    Method,
    /// `$scheme`
    Scheme,
    /// `$host`
    Host,
    /// `$port`
    Port,
    /// `$path`, normalised.
    Path,
    /// `$query_string`
    QueryString,
    /// `$uri`: path and query.
    Uri,
    /// `$original_uri`, before any `rewrite`.
    OriginalUri,
    /// `$rest`: what `*` matched, without the leading slash; outside of a route the path.
    Rest,
    /// `$client_ip`
    ClientIp,
    /// `$client_net`: IPv4 /32, IPv6 /64.
    ClientNet,
    /// `$client_port`
    ClientPort,
    /// `$id` of the request.
    Id,
    /// `$headers.NAME`: the field's name in lower case, with `-` for `_`.
    Header(Box<str>),
    /// `$cookies.NAME`
    Cookie(Box<str>),
    /// `$query.NAME`
    Query(Box<str>),
    /// `$params.NAME`
    Param(Box<str>),
    /// `$vars.NAME`
    Var(Box<str>),
    /// `$tls.version`
    TlsVersion,
    /// `$tls.sni`
    TlsSni,
    /// `$tls.client_subject`
    TlsClientSubject,
    /// `$1` to `$9`
    Capture(u8),
    /// `$status`
    Status,
    /// `$bytes`
    Bytes,
    /// `$duration`
    Duration,
    /// `$cache`
    Cache,
    /// `$peer`
    Peer,
    /// `$site`
    Site,
    /// `$time`, as RFC 3339 has it.
    Time,
}

/// A variable without a name of its own behind a dot, and where it may stand.
const PLAIN: [(&str, Variable, bool); 20] = [
    ("method", Variable::Method, false),
    ("scheme", Variable::Scheme, false),
    ("host", Variable::Host, false),
    ("port", Variable::Port, false),
    ("path", Variable::Path, false),
    ("query_string", Variable::QueryString, false),
    ("uri", Variable::Uri, false),
    ("original_uri", Variable::OriginalUri, false),
    ("rest", Variable::Rest, false),
    ("client_ip", Variable::ClientIp, false),
    ("client_net", Variable::ClientNet, false),
    ("client_port", Variable::ClientPort, false),
    ("id", Variable::Id, false),
    ("status", Variable::Status, true),
    ("bytes", Variable::Bytes, true),
    ("duration", Variable::Duration, true),
    ("cache", Variable::Cache, true),
    ("peer", Variable::Peer, true),
    ("site", Variable::Site, true),
    ("time", Variable::Time, true),
];

const FAMILIES: [&str; 6] = ["headers", "cookies", "query", "params", "vars", "tls"];
const TLS: [&str; 3] = ["tls.version", "tls.sni", "tls.client_subject"];

/// What is wrong with a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongTemplate {
    /// The variable, with its `$`, if one is what is wrong.
    pub variable: Option<String>,
    /// Whether there is such a variable, but not here.
    pub misplaced: bool,
    /// What was expected, or the nearest name.
    pub help: String,
}

impl WrongTemplate {
    /// Something else than a variable is wrong.
    pub(crate) fn text(help: impl Into<String>) -> WrongTemplate {
        WrongTemplate {
            variable: None,
            misplaced: false,
            help: help.into(),
        }
    }
}

impl Template {
    /// Reads a template that may hold these variables.
    pub fn parse(text: &str, vars: Vars) -> Result<Template, WrongTemplate> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(dollar) = rest.find('$') {
            plain.push_str(&rest[..dollar]);
            rest = &rest[dollar + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                plain.push('$');
                rest = after;
                continue;
            }
            let (name, after) = variable_name(rest)?;
            rest = after;
            flush(&mut plain, &mut parts);
            parts.push(Part::Var(Variable::parse(name, vars)?));
        }
        plain.push_str(rest);
        flush(&mut plain, &mut parts);
        Ok(Template { parts })
    }

    /// A template of this text alone.
    pub fn literal(text: &str) -> Template {
        let mut parts = Vec::new();
        flush(&mut text.to_owned(), &mut parts);
        Template { parts }
    }

    /// Its text, if it holds no variable.
    pub fn as_literal(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The variables in it, in order.
    pub fn variables(&self) -> impl Iterator<Item = &Variable> {
        self.parts.iter().filter_map(|part| match part {
            Part::Text(_) => None,
            Part::Var(variable) => Some(variable),
        })
    }
}

fn flush(plain: &mut String, parts: &mut Vec<Part>) {
    if !plain.is_empty() {
        parts.push(Part::Text(std::mem::take(plain).into_boxed_str()));
    }
}

/// Splits what follows a `$` into the variable's name and the rest of the text.
fn variable_name(text: &str) -> Result<(&str, &str), WrongTemplate> {
    let lone = || WrongTemplate::text("write `$$` for a dollar sign");
    if let Some(inner) = text.strip_prefix('{') {
        return inner
            .split_once('}')
            .ok_or_else(|| WrongTemplate::text("a `}` is missing behind `${`"));
    }
    let bytes = text.as_bytes();
    if bytes.first().is_some_and(u8::is_ascii_digit) {
        return Ok(text.split_at(1));
    }
    let word = |from: usize| {
        let letters = bytes[from..].iter();
        from + letters
            .take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_')
            .count()
    };
    let mut end = word(0);
    if end == 0 {
        return Err(lone());
    }
    // Only these have names below them: "$path.html" is a path and a suffix.
    if FAMILIES.contains(&&text[..end]) && bytes.get(end) == Some(&b'.') && word(end + 1) > end + 1
    {
        end = word(end + 1);
    }
    Ok(text.split_at(end))
}

impl Variable {
    fn parse(name: &str, vars: Vars) -> Result<Variable, WrongTemplate> {
        if let Some(plain) = PLAIN.iter().find(|(plain, ..)| *plain == name) {
            if plain.2 && vars != Vars::Response {
                return Err(misplaced(name, "a request has no response yet"));
            }
            return Ok(plain.1.clone());
        }
        match name {
            "tls.version" => return Ok(Variable::TlsVersion),
            "tls.sni" => return Ok(Variable::TlsSni),
            "tls.client_subject" => return Ok(Variable::TlsClientSubject),
            _ => {}
        }
        if let [digit @ b'1'..=b'9'] = name.as_bytes() {
            return match vars {
                Vars::Captures => Ok(Variable::Capture(digit - b'0')),
                _ => Err(misplaced(
                    name,
                    "`$1` to `$9` stand in `rewrite` and `redirect`",
                )),
            };
        }
        let below = name.split_once('.').filter(|(_, below)| is_below(below));
        match below {
            Some(("headers", name)) => Ok(Variable::Header(
                name.to_ascii_lowercase().replace('_', "-").into(),
            )),
            Some(("cookies", name)) => Ok(Variable::Cookie(name.into())),
            Some(("query", name)) => Ok(Variable::Query(name.into())),
            Some(("params", name)) => Ok(Variable::Param(name.into())),
            Some(("vars", name)) => Ok(Variable::Var(name.into())),
            _ => Err(unknown(name, vars)),
        }
    }
}

/// The name of a field, cookie or parameter; in braces also with `-` and `.`.
fn is_below(name: &str) -> bool {
    let byte = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    !name.is_empty() && name.bytes().all(byte)
}

fn misplaced(name: &str, help: &str) -> WrongTemplate {
    WrongTemplate {
        variable: Some(format!("${name}")),
        misplaced: true,
        help: help.to_owned(),
    }
}

fn unknown(name: &str, vars: Vars) -> WrongTemplate {
    let variable = Some(format!("${name}"));
    if FAMILIES.contains(&name) && name != "tls" {
        let help = format!("expected a name behind it, `${name}.NAME`");
        return WrongTemplate {
            variable,
            misplaced: false,
            help,
        };
    }
    let plain = PLAIN
        .iter()
        .filter(|plain| vars == Vars::Response || !plain.2);
    let names = plain.map(|plain| plain.0).chain(TLS);
    // "$hostname" is `$host` with a letter behind it more often than a slip of the pen.
    let glued = PLAIN
        .iter()
        .map(|plain| plain.0)
        .find(|plain| name.starts_with(plain));
    let help = match (crate::nearest(name, names), glued) {
        (Some(near), _) => format!("did you mean `${near}`?"),
        (None, Some(near)) => format!("write `${{{near}}}` where a letter follows"),
        (None, None) => match name.split_once('.') {
            Some((family, below)) => match crate::nearest(family, FAMILIES) {
                Some(near) => format!("did you mean `${near}.{below}`?"),
                None => String::new(),
            },
            None => match crate::nearest(name, FAMILIES) {
                Some(near) => format!("did you mean `${near}.NAME`?"),
                None => String::new(),
            },
        },
    };
    WrongTemplate {
        variable,
        misplaced: false,
        help,
    }
}

/// A path in the file system with variables.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PathTemplate {
    /// The directory written before the first variable, absolute; no variable may lead out of it.
    /// The whole path if there is no variable.
    pub base: PathBuf,
    /// What follows `base`; empty if there is no variable.
    pub rest: Template,
}

impl PathTemplate {
    /// Reads a path template; a relative one starts from `dir`.
    pub fn parse(text: &str, dir: &Path) -> Result<PathTemplate, WrongTemplate> {
        let wrong = |help: &str| Err(WrongTemplate::text(help));
        if text.is_empty() || text.contains('\0') {
            return wrong("expected a path");
        }
        let template = Template::parse(text, Vars::Request)?;
        let Some(first) = template
            .parts
            .iter()
            .position(|part| matches!(part, Part::Var(_)))
        else {
            let base = dir.join(template.as_literal().unwrap_or_default());
            return Ok(PathTemplate {
                base,
                rest: Template::default(),
            });
        };
        if let Some(variable) = template
            .variables()
            .find(|variable| !variable.is_safe_in_path())
        {
            let help = "in a path stand `$host` `$path` `$rest` `$params.NAME` `$vars.NAME`";
            return Err(misplaced(&variable.show()[1..], help));
        }
        let mut parts = template.parts;
        let mut base = "";
        let lead: Box<str>;
        if let (1, Some(Part::Text(text))) = (first, parts.first()) {
            lead = text.clone();
            let cut = lead.rfind('/').map_or(0, |slash| slash + 1);
            base = &lead[..cut];
            if lead[cut..].is_empty() {
                parts.remove(0);
            } else {
                parts[0] = Part::Text(lead[cut..].into());
            }
        }
        let up = |part: &Part| match part {
            Part::Text(text) => Path::new(&**text)
                .components()
                .any(|c| c == Component::ParentDir),
            Part::Var(_) => false,
        };
        if parts.iter().any(up) {
            return wrong("`..` behind a variable could lead out of the directory");
        }
        Ok(PathTemplate {
            base: dir.join(base),
            rest: Template { parts },
        })
    }
}

impl Variable {
    fn is_safe_in_path(&self) -> bool {
        use Variable::{Host, Param, Path, Rest, Var};
        matches!(self, Host | Path | Rest | Param(_) | Var(_))
    }

    /// As the language writes it, with its `$`.
    pub fn show(&self) -> String {
        if let Some((name, ..)) = PLAIN.iter().find(|(_, plain, _)| plain == self) {
            return format!("${name}");
        }
        match self {
            Variable::Header(name) => format!("$headers.{name}"),
            Variable::Cookie(name) => format!("$cookies.{name}"),
            Variable::Query(name) => format!("$query.{name}"),
            Variable::Param(name) => format!("$params.{name}"),
            Variable::Var(name) => format!("$vars.{name}"),
            Variable::TlsVersion => "$tls.version".to_owned(),
            Variable::TlsSni => "$tls.sni".to_owned(),
            Variable::TlsClientSubject => "$tls.client_subject".to_owned(),
            Variable::Capture(digit) => format!("${digit}"),
            _ => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Part {
        Part::Text(text.into())
    }

    #[test]
    fn templates() {
        use Part::Var;
        let header = |name: &str| Var(Variable::Header(name.into()));
        let table = [
            ("", vec![]),
            ("plain", vec![text("plain")]),
            (
                "https://$host$uri",
                vec![text("https://"), Var(Variable::Host), Var(Variable::Uri)],
            ),
            ("$$1", vec![text("$1")]),
            ("a$$b$$", vec![text("a$b$")]),
            ("${host}name", vec![Var(Variable::Host), text("name")]),
            ("$path.html", vec![Var(Variable::Path), text(".html")]),
            ("$headers.X_Api_Key!", vec![header("x-api-key"), text("!")]),
            ("${headers.x-api-key}", vec![header("x-api-key")]),
            (
                "$vars.jwt_sub.",
                vec![Var(Variable::Var("jwt_sub".into())), text(".")],
            ),
            ("$query.A", vec![Var(Variable::Query("A".into()))]),
            ("$tls.sni", vec![Var(Variable::TlsSni)]),
        ];
        for (input, parts) in table {
            assert_eq!(
                Template::parse(input, Vars::Request),
                Ok(Template { parts }),
                "{input}"
            );
        }
        let captured = Template::parse("/$10", Vars::Captures).unwrap();
        assert_eq!(
            captured.parts,
            [text("/"), Var(Variable::Capture(1)), text("0")]
        );
        assert!(Template::parse("$status $site", Vars::Response).is_ok());
    }

    #[test]
    fn wrong_templates() {
        let table = [
            ("$hots", Some("$hots"), "did you mean `$host`?"),
            (
                "$cookie.a",
                Some("$cookie"),
                "did you mean `$cookies.NAME`?",
            ),
            (
                "$hostnamed",
                Some("$hostnamed"),
                "write `${host}` where a letter follows",
            ),
            ("$status", Some("$status"), "a request has no response yet"),
            (
                "$1",
                Some("$1"),
                "`$1` to `$9` stand in `rewrite` and `redirect`",
            ),
            (
                "$headers",
                Some("$headers"),
                "expected a name behind it, `$headers.NAME`",
            ),
            (
                "${header.x}",
                Some("$header.x"),
                "did you mean `$headers.x`?",
            ),
            ("$tls.snj", Some("$tls.snj"), "did you mean `$tls.sni`?"),
            ("$zzzzzz", Some("$zzzzzz"), ""),
            ("${a b}", Some("$a b"), ""),
            ("5 $", None, "write `$$` for a dollar sign"),
            ("$ x", None, "write `$$` for a dollar sign"),
            ("${host", None, "a `}` is missing behind `${`"),
        ];
        for (input, name, help) in table {
            let wrong = Template::parse(input, Vars::Request).unwrap_err();
            assert_eq!(
                (wrong.variable.as_deref(), &*wrong.help),
                (name, help),
                "{input}"
            );
        }
    }

    #[test]
    fn path_templates() {
        let parse = |text| PathTemplate::parse(text, Path::new("/conf"));
        let table = [
            ("/srv/www", "/srv/www", vec![]),
            ("www", "/conf/www", vec![]),
            (
                "/srv/$host/www",
                "/srv/",
                vec![Part::Var(Variable::Host), text("/www")],
            ),
            (
                "/srv/x-$host",
                "/srv/",
                vec![text("x-"), Part::Var(Variable::Host)],
            ),
            ("$host", "/conf/", vec![Part::Var(Variable::Host)]),
        ];
        for (input, base, parts) in table {
            let path = PathTemplate {
                base: base.into(),
                rest: Template { parts },
            };
            assert_eq!(parse(input), Ok(path), "{input}");
        }
        assert_eq!(
            parse("/srv/$uri").unwrap_err().variable.as_deref(),
            Some("$uri")
        );
        assert!(
            parse("/srv/$host/../x")
                .unwrap_err()
                .help
                .starts_with("`..`")
        );
        assert!(parse("").is_err() && parse("a\0").is_err());
        assert!(parse("/srv/../x/$host").is_ok());
    }
}
