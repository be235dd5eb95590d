//! The parameters of a request: the variables of CGI (RFC 3875 §4.1), those that PHP and others
//! expect beside them, and the operator's.

use forebay_config::Template;
use forebay_fastcgi::{ParamsBuilder, PushError, Role, push_fields};
use forebay_fields::{Known, KnownSet, append_decimal};
use forebay_http1::Method;

use super::auth::Variables;
use super::find::Script;
use crate::exchange::{Body, Exchange, Fault, Reason, append_ip, expand, percent_decoded};
use crate::steps::proxy::{cookies_without, own_name};

/// Bytes of all parameters. A head has 64 KiB of fields and 16 KiB of a target, which stands in
/// several variables.
const MAX_BYTES: usize = 256 * 1024;

/// What no application learns of a request's fields: what it could be deceived by, and what is
/// between the client and this server.
const NOT_PASSED: KnownSet = KnownSet::FORWARDING.union(KnownSet::of(&[Known::Expect]));

const SOFTWARE: &str = concat!("forebay/", env!("CARGO_PKG_VERSION"));

/// The operator's parameters.
pub type Env = [(Box<str>, Template)];

/// A script with the directory it is in.
pub struct Placed<'a> {
    /// The directory, without a slash at its end.
    pub root: &'a [u8],
    /// The script.
    pub script: &'a Script,
    /// The query of its own that the try has.
    pub query: Option<Vec<u8>>,
}

/// What is being written, for one exchange.
struct Writing<'a> {
    params: ParamsBuilder,
    env: &'a Env,
    /// What authorizers have said.
    said: &'a [(Box<str>, Box<[u8]>)],
    /// There are variables of the operator's or of authorizers: those have to be looked at.
    has_own: bool,
    role: Role,
}

/// What an Authorizer is not told (FastCGI 1.0 §6.3).
const RESPONDERS_ONLY: [&str; 4] = [
    "CONTENT_LENGTH",
    "PATH_INFO",
    "PATH_TRANSLATED",
    "SCRIPT_NAME",
];

impl<'a> Writing<'a> {
    fn new(env: &'a Env, exchange: &'a Exchange, role: Role) -> Writing<'a> {
        let said = Variables::of(exchange);
        Writing {
            params: ParamsBuilder::with_room(exchange.worker.params_room(), MAX_BYTES),
            env,
            said,
            has_own: !env.is_empty() || !said.is_empty(),
            role,
        }
    }

    /// Adds one, unless the operator has one of that name.
    fn push(&mut self, name: &str, value: &[u8]) -> Result<(), PushError> {
        if self.is_left_out(name) {
            return Ok(());
        }
        self.params.push(name.as_bytes(), value)
    }

    /// The same of a value that has no NUL in it: of this program, or of a request that was parsed.
    fn push_fit(&mut self, name: &str, value: &[u8]) -> Result<(), PushError> {
        if self.is_left_out(name) {
            return Ok(());
        }
        self.params.push_fit(name.as_bytes(), value)
    }

    /// The same of a value that is being written.
    fn push_written(
        &mut self,
        name: &str,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), PushError> {
        if self.is_left_out(name) {
            return Ok(());
        }
        self.params.push_written(name.as_bytes(), write)
    }

    fn is_left_out(&self, name: &str) -> bool {
        self.role == Role::Authorizer && RESPONDERS_ONLY.contains(&name)
            || self.is_own(name.as_bytes())
    }

    /// The same of a value in parts.
    fn push_parts(&mut self, name: &str, parts: &[&[u8]]) -> Result<(), PushError> {
        if self.is_own(name.as_bytes()) {
            return Ok(());
        }
        self.params.push_parts(name.as_bytes(), parts)
    }

    fn is_own(&self, name: &[u8]) -> bool {
        self.has_own && is_own(self.env, self.said, name)
    }
}

fn is_own(env: &Env, said: &[(Box<str>, Box<[u8]>)], name: &[u8]) -> bool {
    env.iter().any(|(own, _)| own.as_bytes() == name)
        || said.iter().any(|(own, _)| own.as_bytes() == name)
}

/// All parameters of the exchange's request.
///
/// # Errors
/// A value cannot be passed, or there are too many bytes.
pub fn of(
    exchange: &Exchange,
    placed: Option<&Placed<'_>>,
    body: &Body,
    own_cookie: Option<&str>,
    env: &Env,
) -> Result<ParamsBuilder, Fault> {
    let mut writing = Writing::new(env, exchange, Role::Responder);
    write(exchange, placed, body, own_cookie, &mut writing).map_err(refused)?;
    Ok(writing.params)
}

/// What an Authorizer is told of it.
///
/// # Errors
/// As [`of`].
pub fn of_authorizer(exchange: &Exchange) -> Result<ParamsBuilder, Fault> {
    let mut writing = Writing::new(&[], exchange, Role::Authorizer);
    write(exchange, None, &Body::Empty, None, &mut writing).map_err(refused)?;
    Ok(writing.params)
}

fn refused(error: PushError) -> Fault {
    let reason = match error {
        PushError::TooLarge => Reason::HeadTooLarge,
        PushError::BadName | PushError::BadValue => Reason::BadRequest,
    };
    Fault::with(reason, error.to_string())
}

fn write(
    exchange: &Exchange,
    placed: Option<&Placed<'_>>,
    body: &Body,
    own_cookie: Option<&str>,
    to: &mut Writing<'_>,
) -> Result<(), PushError> {
    let request = &exchange.request;
    match placed {
        Some(placed) => script(exchange, placed, to)?,
        None => whole_path(exchange, to)?,
    }
    let query = placed.and_then(|placed| placed.query.as_deref());
    let query = query.unwrap_or_else(|| request.query().unwrap_or("").as_bytes());
    to.push("QUERY_STRING", query)?;
    to.push_fit("REQUEST_METHOD", request.method.as_str().as_bytes())?;
    to.push_fit("REQUEST_URI", request.original_uri().as_bytes())?;
    to.push_fit("REQUEST_SCHEME", exchange.scheme().as_bytes())?;
    if exchange.remote.tls {
        to.push_fit("HTTPS", b"on")?;
    }
    to.push_fit("GATEWAY_INTERFACE", b"CGI/1.1")?;
    to.push_fit("SERVER_SOFTWARE", SOFTWARE.as_bytes())?;
    to.push_fit("SERVER_PROTOCOL", exchange.protocol.as_bytes())?;
    // php-cgi runs nothing without it, lest it is called by somebody directly.
    to.push_fit("REDIRECT_STATUS", b"200")?;
    addresses(exchange, to)?;
    if let Some(user) = &exchange.user {
        to.push_fit("AUTH_TYPE", b"Basic")?;
        to.push("REMOTE_USER", user)?;
    }
    if let Some(kind) = request.fields.get(Known::ContentType) {
        to.push_fit("CONTENT_TYPE", kind)?;
    }
    let len = body.len_bytes().unwrap_or(0);
    if len > 0 || matches!(request.method, Method::Post | Method::Put | Method::Patch) {
        to.push_written("CONTENT_LENGTH", |out| append_decimal(out, len))?;
    }
    fields(exchange, own_cookie, to)?;
    for (name, value) in to.said {
        // The operator's word is the last.
        if !is_own(to.env, &[], name.as_bytes()) {
            to.params.push(name.as_bytes(), value)?;
        }
    }
    let mut value = Vec::new();
    for (name, template) in to.env {
        value.clear();
        expand(template, exchange, None, &mut value);
        to.params.push(name.as_bytes(), &value)?;
    }
    Ok(())
}

fn script(exchange: &Exchange, placed: &Placed<'_>, to: &mut Writing<'_>) -> Result<(), PushError> {
    let Placed { root, script, .. } = placed;
    let prefix = exchange.request.prefix.as_deref().unwrap_or("");
    let (prefix, name, path_info) = (prefix.as_bytes(), &*script.name, &*script.path_info);
    to.push_parts("SCRIPT_FILENAME", &[root, b"/", name])?;
    to.push_parts("SCRIPT_NAME", &[prefix, b"/", name])?;
    to.push_parts("DOCUMENT_URI", &[prefix, b"/", name, path_info])?;
    to.push("DOCUMENT_ROOT", root)?;
    if !path_info.is_empty() {
        to.push("PATH_INFO", path_info)?;
        to.push_parts("PATH_TRANSLATED", &[root, path_info])?;
    }
    Ok(())
}

/// An application without scripts is mounted where the path begins that it gets (RFC 3875 §4.1.13).
fn whole_path(exchange: &Exchange, to: &mut Writing<'_>) -> Result<(), PushError> {
    let request = &exchange.request;
    let prefix = request.prefix.as_deref().unwrap_or("");
    to.push("SCRIPT_NAME", prefix.as_bytes())?;
    // RFC 3875 §4.1.5. A path is in its one form already: `..` and NUL are not in it.
    let path = percent_decoded(request.path().as_bytes());
    to.push("PATH_INFO", &path)?;
    to.push_parts("DOCUMENT_URI", &[prefix.as_bytes(), &path])
}

fn addresses(exchange: &Exchange, to: &mut Writing<'_>) -> Result<(), PushError> {
    if exchange.has_client_ip() {
        let port = exchange.remote.address.port();
        to.push_written("REMOTE_ADDR", |out| append_ip(exchange.client_ip(), out))?;
        to.push_written("REMOTE_PORT", |out| append_decimal(out, port.into()))?;
    } else {
        // A must (§4.1.8), and there is none.
        to.push_fit("REMOTE_ADDR", b"")?;
    }
    let local = exchange.remote.local.ip();
    let address = |out: &mut Vec<u8>| {
        if !local.is_unspecified() {
            append_ip(local, out);
        }
    };
    to.push_written("SERVER_ADDR", address)?;
    match exchange.request.host() {
        "" => to.push_written("SERVER_NAME", address)?,
        host => to.push_fit("SERVER_NAME", host.as_bytes())?,
    }
    to.push_written("SERVER_PORT", |out| {
        append_decimal(out, exchange.port().into());
    })
}

fn fields(
    exchange: &Exchange,
    own_cookie: Option<&str>,
    to: &mut Writing<'_>,
) -> Result<(), PushError> {
    let fields = &exchange.request.fields;
    let own = own_cookie.filter(|own| fields.cookie(own.as_bytes()).is_some());
    let mut skip = NOT_PASSED.union(KnownSet::of(&[Known::CdnLoop]));
    if own.is_some() {
        skip.insert(Known::Cookie);
    }
    let (env, said) = (to.env, to.said);
    if to.has_own {
        let may = |name: &[u8]| !is_own(env, said, name);
        push_fields(fields, skip, may, &mut to.params)?;
    } else {
        push_fields(fields, skip, |_| true, &mut to.params)?;
    }
    if let Some(own) = own {
        let left = cookies_without(own.as_bytes(), fields).join(b"; ".as_slice());
        if !left.is_empty() {
            to.push("HTTP_COOKIE", &left)?;
        }
    }
    // RFC 8586: an application that leads back here is told from one that does not.
    if to.is_own(b"HTTP_CDN_LOOP") {
        return Ok(());
    }
    let loops = fields.all(Known::CdnLoop);
    let loops = loops.chain([own_name().as_bytes()]);
    to.params.push_joined(b"HTTP_CDN_LOOP", loops, b", ")
}
