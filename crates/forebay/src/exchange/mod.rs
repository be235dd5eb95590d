//! The exchange: one request and its response, whatever protocol carried it.
//!
//! A protocol fills in a [`Request`], runs the exchange through its site's pipeline ([`step`]) and
//! sends the [`Response`]. *Invariant*: nothing in here, and no step, knows the protocol.

mod body;
mod cached;
pub mod coding;
mod condition;
pub mod conditional;
pub mod errand;
mod fault;
pub mod guard;
mod outcome;
mod page;
mod remains;
mod request;
mod response;
pub mod step;
mod template;
mod trust;
mod tunnel;

use std::any::Any;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::sync::Arc;

use forebay_fields::{Fields, Known};
use forebay_http1::Method;

pub use body::{Body, FileRange, Pulled, Stream};
pub use cached::{Cached, How, Why};
pub use coding::{Accepts, Coding, Codings};
pub use condition::{Condition, Test};
pub use fault::{Fault, Party, Reason};
pub use outcome::{CLIENT_LEFT, Outcome, Peered};
pub use page::{dress, prefers_json};
pub use remains::Remains;
pub use request::{Captures, Request};
pub use response::{CodeAll, Keeps, Response};
pub use step::{Entry, Flow, Local, Pipeline, Step, Up};
pub use template::{
    append_ip, append_variable, expand, expand_path, expand_url, form_decoded, percent_decoded,
    query_pairs,
};
pub use trust::Trust;
pub use tunnel::Tunnel;

use crate::access::Log;
use crate::counters::SiteCounts;
use crate::listen::Listener;
use crate::snapshot::Served;
use crate::worker::{HeldSite, Worker};

/// Who sent a request, and over what.
#[derive(Clone, Copy, Debug)]
pub struct Remote {
    /// The client: the other end of the connection, or whom a trusted one speaks for. Where it has
    /// no address, as on a Unix socket: an unspecified one, port 0.
    pub address: SocketAddr,
    /// The address it came to.
    pub local: SocketAddr,
    /// The client uses TLS, with us or with a trusted server before us.
    pub tls: bool,
}

/// Sends what comes before the response: 103 Early Hints and kin.
pub trait Interim {
    /// Sends one 1xx response, if the client's protocol has them; never waits.
    fn interim(&self, status: u16, fields: &Fields);

    /// From now on a client that closes its sending side counts as gone (else it is a half-close,
    /// and it still gets its answer).
    fn end_of_input_is_leaving(&self);
}

/// One request on its way, with all that steps note about it.
///
/// Reused by its worker: [`Exchange::clear`] keeps the room that its buffers have taken.
pub struct Exchange {
    /// The worker it runs on.
    pub worker: Rc<Worker>,
    /// What was asked.
    pub request: Request,
    /// Who asked.
    pub remote: Remote,
    /// The site that answers.
    pub site: Option<HeldSite>,
    /// What the patterns of the routes taken have matched.
    pub captures: Captures,
    /// `$vars`, in the order in which they were set; at most [`MAX_VARS`].
    pub vars: Vec<(Arc<str>, Box<[u8]>)>,
    /// What steps hold until the exchange has ended, by their numbers.
    kept: Vec<(u64, Box<dyn Any>)>,
    /// Where steps have refused the method only: what they would have taken.
    pub allowed_methods: Option<&'static str>,
    /// At most this many bytes of body, by what `limit` says; else [`DEFAULT_MAX_BODY`].
    pub max_body_bytes: Option<u64>,
    /// Where 1xx responses go, for a protocol that can send them.
    pub interim: Option<Rc<dyn Interim>>,
    /// The client has closed its sending side and steps that mind may take it for gone.
    pub half_closed: bool,
    /// Its number; unique enough to find it in a log.
    pub id: u64,
    /// When its head was complete, on the worker's clock.
    pub started_ms: u64,
    /// Where it came in.
    pub listener: Option<Rc<Listener>>,
    /// Since when it has been waiting for something, on the precise clock; 0: it has not.
    waits_since_ns: u64,
    /// When the precise clock was looked at last, and in which of the worker's turns.
    looked_ns: u64,
    looked_in_turn: u64,
    /// The version of the protocol that carries it, for logs: no step goes by it.
    pub protocol: &'static str,
    /// Where it is logged when it is over.
    pub logs: Vec<Arc<Log>>,
    /// What came of it.
    pub outcome: Outcome,
    /// Who has been recognised by name and password.
    pub user: Option<Box<[u8]>>,
    /// The peer that it was passed on to.
    peer: Option<Peered>,
    /// Where it is counted, once its site is let go.
    counts: Option<Arc<SiteCounts>>,
    /// Who runs pipelines in the middle of others, if not the usual loop.
    pub aside: Option<Rc<dyn step::Aside>>,
    /// A step above would keep what it makes of a stored response beside that.
    pub wants_kept: bool,
    /// It is one of the server's own, on behalf of another: not counted as a client's.
    is_errand: bool,
    /// An application has led it on to another path of its site.
    led_on: bool,
    /// Its place in the pipeline.
    pub(crate) course: step::Course,
}

/// The most `$vars` one exchange may have. Set by the configuration, so this bounds mistakes only.
pub const MAX_VARS: usize = 64;

/// What is not refused whatever it is for.
const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// A request's body without any `limit { body = … }`.
pub const DEFAULT_MAX_BODY: u64 = 1 << 30;

/// An exchange in use; goes back to its worker when dropped.
pub struct Lease(Option<Box<Exchange>>);

impl Deref for Lease {
    type Target = Exchange;

    fn deref(&self) -> &Exchange {
        self.0.as_deref().expect("taken out only by drop")
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut Exchange {
        self.0.as_deref_mut().expect("taken out only by drop")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(mut exchange) = self.0.take() {
            exchange.end();
            exchange.clear();
            let worker = exchange.worker.clone();
            worker.end();
            worker.give_back_exchange(exchange);
        }
    }
}

impl Exchange {
    /// A fresh or reused exchange.
    #[allow(
        clippy::new_ret_no_self,
        reason = "exchanges are leased from their worker"
    )]
    pub fn new(worker: &Rc<Worker>, remote: Remote) -> Lease {
        worker.counters.requests.add(1);
        Exchange::lease(worker, remote)
    }

    /// One that is no client's.
    fn errand(worker: &Rc<Worker>, remote: Remote) -> Lease {
        let mut exchange = Exchange::lease(worker, remote);
        exchange.is_errand = true;
        exchange
    }

    fn lease(worker: &Rc<Worker>, remote: Remote) -> Lease {
        let mut exchange = worker
            .spare_exchange()
            .unwrap_or_else(|| Box::new(Exchange::blank(worker, remote)));
        exchange.remote = remote;
        exchange.id = worker.random();
        exchange.started_ms = worker.turn_ms();
        worker.begin();
        Lease(Some(exchange))
    }

    fn blank(worker: &Rc<Worker>, remote: Remote) -> Exchange {
        Exchange {
            worker: worker.clone(),
            request: Request::default(),
            remote,
            site: None,
            captures: Captures::default(),
            vars: Vec::new(),
            kept: Vec::new(),
            allowed_methods: None,
            max_body_bytes: None,
            interim: None,
            half_closed: false,
            id: 0,
            started_ms: 0,
            listener: None,
            waits_since_ns: 0,
            looked_ns: 0,
            looked_in_turn: 0,
            protocol: "HTTP/1.1",
            logs: Vec::new(),
            outcome: Outcome::default(),
            user: None,
            peer: None,
            counts: None,
            aside: None,
            wants_kept: false,
            is_errand: false,
            led_on: false,
            course: step::Course::default(),
        }
    }

    /// Makes it fit for the next request.
    fn clear(&mut self) {
        self.request.clear();
        self.site = None;
        self.captures.clear();
        self.vars.clear();
        self.kept.clear();
        self.allowed_methods = None;
        self.max_body_bytes = None;
        self.interim = None;
        self.half_closed = false;
        self.listener = None;
        self.waits_since_ns = 0;
        self.looked_in_turn = 0;
        self.logs.clear();
        self.outcome = Outcome::default();
        self.user = None;
        self.peer = None;
        self.counts = None;
        self.aside = None;
        self.wants_kept = false;
        self.is_errand = false;
        self.led_on = false;
        self.course.clear();
    }

    /// Finds the site that answers and stands at the top of its pipeline; or says at once what the
    /// answer is.
    pub fn enter(&mut self, served: &Served) -> Option<Response> {
        if let Some(trust) = &served.trust {
            trust.apply(self);
        }
        match self.find_site(served) {
            Ok(true) => None,
            Ok(false) => Some(self.options_of_server()),
            Err(fault) => Some(Response::fault(self, fault)),
        }
    }

    /// False: the request is about no path, but the server (`OPTIONS *`, RFC 9110 §9.3.7).
    fn find_site(&mut self, served: &Served) -> Result<bool, Fault> {
        if matches!(self.request.method, Method::Connect | Method::Trace) {
            // Neither a forward proxy nor an echo of somebody's secrets.
            self.allowed_methods = Some(METHODS);
            return Err(Reason::MethodRefused.into());
        }
        if self.request.original_uri() == "*" {
            return Ok(false);
        }
        self.request.normalize()?;
        // A name with the dot of the root at its end is the same name.
        let host = self.request.host();
        let host = host.strip_suffix('.').unwrap_or(host);
        let Some(site) = served.hosts.get(host.as_bytes()) else {
            return Err(Reason::UnknownHost.into());
        };
        let site = self.worker.sites.hold(site);
        self.course.start_site(site.clone());
        self.site = Some(site);
        Ok(true)
    }

    fn options_of_server(&mut self) -> Response {
        let mut response = Response::new(self, 204);
        response.set(Known::Allow, METHODS.as_bytes());
        response
    }

    /// An application leads on to another path of the site.
    pub fn lead_on(&mut self) {
        self.led_on = true;
    }

    /// Whether others wait for this, and what it comes by now may be what they wait for: it must
    /// not wait for what waits for others.
    pub fn must_not_join(&self) -> bool {
        self.is_errand && self.led_on
    }

    /// Takes the request's body, to read at most as much of it as the site allows.
    pub fn take_body(&mut self) -> Result<Body, Fault> {
        let max_bytes = self.max_body_bytes.unwrap_or(DEFAULT_MAX_BODY);
        self.request.take_body(max_bytes)
    }

    /// `"https"` or `"http"`.
    pub fn scheme(&self) -> &'static str {
        if self.remote.tls { "https" } else { "http" }
    }

    /// The port that the client asked for: as it wrote it, else that of the scheme.
    pub fn port(&self) -> u16 {
        self.request
            .port
            .unwrap_or(if self.remote.tls { 443 } else { 80 })
    }

    /// The client's address; the remote's, unless a trusted one speaks for another.
    pub fn client_ip(&self) -> IpAddr {
        self.remote.address.ip()
    }

    /// Whether the client has an address: who comes by a Unix socket has none of its own.
    pub fn has_client_ip(&self) -> bool {
        !self.client_ip().is_unspecified()
    }

    /// The client's network as one client counts: IPv4 /32, IPv6 /64.
    pub fn client_net(&self) -> String {
        if !self.has_client_ip() {
            return String::new();
        }
        match self.client_ip() {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => {
                let net = Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX));
                format!("{net}/64")
            }
        }
    }

    /// `$rest`: what `*` of the innermost route matched; outside of a route the path. Without the
    /// leading slashes: `//evil.example` in a redirect would be another host.
    pub fn rest(&self) -> &str {
        match self.captures.rest() {
            Some(rest) => rest,
            None => self.request.path().trim_start_matches('/'),
        }
    }

    /// Holds something of a step's until the exchange has ended, the sending of its response and a
    /// tunnel that it becomes included; `id` is a number of the step's own
    /// ([`resource_id`](crate::snapshot::resource_id)).
    pub fn keep(&mut self, id: u64, what: impl Any) {
        self.kept.push((id, Box::new(what)));
    }

    /// What the step with this number holds.
    pub fn kept<T: Any>(&self, id: u64) -> Option<&T> {
        let mut of_step = self.kept.iter().rev().filter(|(of, _)| *of == id);
        of_step.find_map(|(_, what)| what.downcast_ref())
    }

    /// Takes what the step with this number holds.
    pub fn take_kept<T: Any>(&mut self, id: u64) -> Option<T> {
        let at = self
            .kept
            .iter()
            .rposition(|(of, what)| *of == id && what.is::<T>())?;
        let (_, what) = self.kept.swap_remove(at);
        what.downcast().ok().map(|what| *what)
    }

    /// The value of `$vars.NAME`.
    pub fn var(&self, name: &str) -> Option<&[u8]> {
        let found = self.vars.iter().rev().find(|(n, _)| &**n == name);
        found.map(|(_, value)| &**value)
    }

    /// Gives `$vars.NAME` a value.
    pub fn set_var(&mut self, name: &Arc<str>, value: Vec<u8>) {
        let value = value.into_boxed_slice();
        if let Some(slot) = self.vars.iter_mut().find(|(n, _)| n == name) {
            slot.1 = value;
        } else if self.vars.len() < MAX_VARS {
            self.vars.push((name.clone(), value));
        }
    }
}
