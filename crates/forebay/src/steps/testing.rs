//! What the tests of steps run on: a worker and exchanges without a socket, from a configuration
//! as an operator would write it.

use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use forebay_config::Report;
use forebay_http1::Method;

use crate::control::build::{Built, build};
use crate::counters::Counters;
use crate::exchange::{Body, Exchange, Lease, Pulled, Remote, Response, Stream, dress, step};
use crate::files::FileStream;
use crate::listen::Listener;
use crate::snapshot::{Served, Site};
use crate::worker::{Process, Worker};

/// What this configuration builds, and what is said about it.
pub fn try_build(config: &str) -> (Option<Built>, Report) {
    build_after(config, None)
}

/// The same with another configuration in service.
pub fn build_after(config: &str, previous: Option<&Built>) -> (Option<Built>, Report) {
    let path = std::path::Path::new("/nowhere/forebay.lua");
    let text = config.as_bytes().to_vec();
    let options = forebay_config::LoadOptions::default();
    match forebay_config::load_text(path, text, super::registry(), &options) {
        Ok(mut loaded) => {
            let built = build(&loaded.declarations, &mut loaded.report, previous);
            (built, loaded.report)
        }
        Err(report) => (None, report),
    }
}

/// What this configuration builds.
#[track_caller]
pub fn built(config: &str) -> Built {
    let (built, report) = try_build(config);
    match built {
        Some(built) => built,
        None => panic!("{config}\n{}", report.render()),
    }
}

/// The mistakes in this configuration, as text.
#[track_caller]
pub fn mistakes(config: &str) -> String {
    let (built, report) = try_build(config);
    assert!(built.is_none(), "{config}: no mistake is found");
    report.render()
}

/// A worker that serves a configuration.
pub struct Bench {
    pub worker: Rc<Worker>,
    pub built: Built,
    listener: Rc<Listener>,
    runtime: tokio::runtime::Runtime,
}

fn start(index: usize, built: &Built, process: &Arc<Process>) -> Rc<Worker> {
    let counters = Arc::new(Counters::default());
    process.all.lock().push(counters.clone());
    Worker::new(index, built.snapshot.clone(), counters, process.clone())
}

/// A worker for one condition: a request for which it holds gets 200, any other 204.
#[track_caller]
pub fn condition(text: &str) -> Bench {
    Bench::new(&format!(
        "site {{ \"*\", respond(200) {{ when = {text} }}, respond(204) }}"
    ))
}

impl Bench {
    /// Serves this configuration.
    #[track_caller]
    pub fn new(config: &str) -> Bench {
        Bench::of(built(config))
    }

    /// Serves what was built.
    pub fn of(built: Built) -> Bench {
        let process = Arc::new(Process::default());
        let worker = start(0, &built, &process);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let id = built.binds[0].id;
        let served = built.snapshot.served[&id].clone();
        Bench {
            listener: Listener::new(id, served, &worker),
            worker,
            built,
            runtime: runtime.expect("a runtime"),
        }
    }

    /// A second worker of the same process.
    pub fn another_worker(&self) -> Rc<Worker> {
        start(1, &self.built, &self.worker.process)
    }

    /// What its first listener serves.
    pub fn served(&self) -> &Arc<Served> {
        &self.built.snapshot.served[&self.built.binds[0].id]
    }

    /// The site that answers for a host.
    pub fn site(&self, host: &str) -> &Arc<Site> {
        self.served().hosts.get(host.as_bytes()).expect("a site")
    }

    /// A GET for this target.
    pub fn get(&self, target: &str) -> Ask<'_> {
        self.request("GET", target)
    }

    /// A request.
    pub fn request(&self, method: &str, target: &str) -> Ask<'_> {
        let remote = Remote {
            address: SocketAddr::from(([127, 0, 0, 1], 40_000)),
            local: SocketAddr::from(([127, 0, 0, 1], 80)),
            tls: false,
        };
        let mut exchange = Exchange::new(&self.worker, remote);
        exchange.listener = Some(self.listener.clone());
        exchange.request.method = Method::new(method.as_bytes()).expect("a method");
        exchange.request.set_target(target);
        exchange.request.set_host("test", None);
        exchange.started_ms = self.worker.now_ms();
        Ask {
            bench: self,
            exchange,
        }
    }

    /// Runs a future to its end.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// Whether the condition that [`condition`] was made of holds.
    pub fn holds(&self, ask: Ask<'_>) -> bool {
        ask.run().status() == 200
    }

    /// Waits until something is true, for as long as a test may take.
    #[track_caller]
    pub fn until(&self, mut is_true: impl FnMut() -> bool) {
        let start = Instant::now();
        while !is_true() {
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "it does not become true"
            );
            // The time in which threads that may wait get their turn.
            self.runtime
                .block_on(async { tokio::time::sleep(Duration::from_millis(5)).await });
        }
    }
}

/// A request to be run.
pub struct Ask<'a> {
    bench: &'a Bench,
    exchange: Lease,
}

impl Ask<'_> {
    /// With a field.
    pub fn field(mut self, name: &str, value: &str) -> Self {
        self.exchange
            .request
            .fields
            .append(name, value)
            .expect("a field");
        self
    }

    /// To this host.
    pub fn host(mut self, host: &str) -> Self {
        self.exchange.request.set_host(host, None);
        self
    }

    /// From this address.
    pub fn from(mut self, address: &str) -> Self {
        let address: IpAddr = address.parse().expect("an address");
        self.exchange.remote.address.set_ip(address);
        self
    }

    /// With a body.
    pub fn body(mut self, body: Vec<u8>) -> Self {
        self.exchange.request.set_body(Bytes::from(body).into());
        self
    }

    /// Runs it to its end.
    pub fn run(mut self) -> Got {
        let _runtime = self.bench.runtime.enter();
        let exchange = &mut *self.exchange;
        let (mut response, waited) = match exchange.enter(self.bench.served()) {
            Some(response) => (response, false),
            None => match step::run(exchange) {
                Some(response) => (response, false),
                None => {
                    // Its time goes on while it waits.
                    let time = crate::wheel::driver(exchange.worker.wheel.clone()).unwrap();
                    let steps = async {
                        tokio::select! {
                            response = step::finish(exchange) => response,
                            () = time => unreachable!("time does not end"),
                        }
                    };
                    (self.bench.runtime.block_on(steps), true)
                }
            },
        };
        dress(exchange, &mut response);
        Got {
            response,
            exchange: self.exchange,
            waited,
        }
    }
}

/// What came of a request.
pub struct Got {
    pub response: Response,
    pub exchange: Lease,
    /// A step had to wait.
    pub waited: bool,
}

impl Got {
    pub fn status(&self) -> u16 {
        self.response.status
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        let value = self.response.fields.get(name)?;
        Some(std::str::from_utf8(value).expect("a text"))
    }

    /// The body, which is in memory.
    pub fn bytes(&self) -> Bytes {
        match &self.response.body {
            Body::Empty => Bytes::new(),
            Body::Bytes(bytes) => bytes.clone(),
            Body::File(_) | Body::Stream(_) | Body::Tunnel(_) => {
                panic!("the body is not in memory")
            }
        }
    }

    /// The whole body, pulled where it streams; it must come to its end.
    #[track_caller]
    pub fn pulled(mut self, bench: &Bench) -> Vec<u8> {
        let mut stream: Box<dyn Stream> = match std::mem::take(&mut self.response.body) {
            Body::Stream(stream) => stream,
            Body::File(range) => Box::new(FileStream::new(&bench.worker, range)),
            body => {
                self.response.body = body;
                return self.bytes().into();
            }
        };
        let mut all = Vec::new();
        loop {
            match bench.block_on(poll_fn(|cx| stream.poll_pull(cx))) {
                Pulled::Data(bytes) => all.extend_from_slice(&bytes),
                Pulled::End(_) => return all,
                Pulled::Abort(fault) => panic!("broken off: {:?}", fault.reason),
            }
        }
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.bytes().into()).expect("a text")
    }

    /// The request's fields as the last step has left them.
    pub fn request_fields(&self) -> Vec<String> {
        let line = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let fields = self.exchange.request.fields.iter();
        fields
            .map(|field| line(field.name) + ": " + &line(field.value))
            .collect()
    }
}
