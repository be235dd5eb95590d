//! A panic in a step below a cache: it costs those who wait for what it was to make, and nobody
//! after them.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::task::LocalSet;

use crate::exchange::{
    Body, Entry, Exchange, Flow, Local, Pipeline, Pulled, Reason, Remote, Response, Step, Stream,
    Up, guard, step,
};
use crate::snapshot::Site;
use crate::steps::testing::Bench;

/// When a step panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Asked,
    Waiting,
    /// After a piece of the body.
    Sending,
}

/// Panics the first time, and answers from then on.
struct Fragile {
    asked: Arc<AtomicUsize>,
    when: When,
    fields: &'static [(&'static str, &'static str)],
}

impl Fragile {
    fn answer(&self, exchange: &mut Exchange, body: Body) -> Flow {
        let mut response = Response::new(exchange, 200);
        for (name, value) in self.fields {
            response.fields.append(*name, value).expect("a field");
        }
        response.body = body;
        response.from_upstream = true;
        Flow::Answer(response)
    }
}

impl Step for Fragile {
    fn name(&self) -> &'static str {
        "fragile"
    }

    fn on_request(&self, exchange: &mut Exchange) -> Flow {
        if self.asked.fetch_add(1, Relaxed) > 0 {
            let body = Pieces {
                pulls: 0,
                breaks: false,
            };
            return self.answer(exchange, Body::Stream(Box::new(body)));
        }
        assert!(self.when != When::Asked, "a panic when it is asked");
        Flow::Wait
    }

    fn wait<'a>(&'a self, exchange: &'a mut Exchange) -> Local<'a, Flow> {
        Box::pin(async move {
            // Others have come by then.
            tokio::task::yield_now().await;
            assert!(self.when != When::Waiting, "a panic while it waits");
            let body = Pieces {
                pulls: 0,
                breaks: true,
            };
            self.answer(exchange, Body::Stream(Box::new(body)))
        })
    }
}

/// Two pieces, the second of which may be a panic, after a while in which others get their turn.
struct Pieces {
    pulls: u32,
    breaks: bool,
}

impl Stream for Pieces {
    fn poll_pull(&mut self, cx: &mut Context<'_>) -> Poll<Pulled> {
        self.pulls += 1;
        Poll::Ready(match self.pulls {
            1 => Pulled::Data(Bytes::from_static(b"one, ")),
            2..1000 if self.breaks => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            1000 => panic!("a panic in a body"),
            2 => Pulled::Data(Bytes::from_static(b"two")),
            _ => Pulled::End(None),
        })
    }

    fn len_bytes(&self) -> Option<u64> {
        None
    }
}

/// The cache of a site, to stand in another pipeline.
struct CacheOf(Arc<Site>);

impl CacheOf {
    fn step(&self) -> &dyn Step {
        &*self.0.pipeline.entries[0].step
    }
}

impl Step for CacheOf {
    fn name(&self) -> &'static str {
        self.step().name()
    }

    fn on_request(&self, exchange: &mut Exchange) -> Flow {
        self.step().on_request(exchange)
    }

    fn wait<'a>(&'a self, exchange: &'a mut Exchange) -> Local<'a, Flow> {
        self.step().wait(exchange)
    }

    fn sees_response(&self) -> bool {
        self.step().sees_response()
    }

    fn on_response(&self, exchange: &mut Exchange, response: &mut Response) -> Up {
        self.step().on_response(exchange, response)
    }
}

fn entry(step: impl Step + 'static) -> Entry {
    Entry {
        when: None,
        step: Box::new(step),
        kind: 0,
        call: 0,
    }
}

/// What a client has got.
#[derive(Debug, PartialEq, Eq)]
enum Got {
    Whole(u16, String),
    BrokenOff(u16, String, Reason),
}

async fn ask(bench: &Bench, pipeline: Arc<Pipeline>) -> Got {
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    let remote = Remote {
        address,
        local: address,
        tls: false,
    };
    let mut exchange = Exchange::new(&bench.worker, remote);
    exchange.request.set_target("/page");
    exchange.request.set_host("test", None);
    exchange.site = Some(bench.worker.sites.hold(bench.site("test")));
    exchange.course.start(step::Rest::from(pipeline));
    let mut response = match guard::run(&mut exchange) {
        Some(response) => response,
        None => guard::finish(&mut exchange).await,
    };
    let mut text = Vec::new();
    let mut stream = match std::mem::take(&mut response.body) {
        Body::Stream(stream) => stream,
        Body::Bytes(bytes) => {
            let text = String::from_utf8(bytes.into()).unwrap();
            return Got::Whole(response.status, text);
        }
        _ => return Got::Whole(response.status, String::new()),
    };
    loop {
        match poll_fn(|cx| stream.poll_pull(cx)).await {
            Pulled::Data(bytes) => text.extend_from_slice(&bytes),
            Pulled::End(_) => {
                return Got::Whole(response.status, String::from_utf8(text).unwrap());
            }
            Pulled::Abort(fault) => {
                let text = String::from_utf8(text).unwrap();
                return Got::BrokenOff(response.status, text, fault.reason);
            }
        }
    }
}

/// What three clients get who ask at once, and one that asks after them.
fn check(when: When, options: &str, fields: &'static [(&'static str, &'static str)]) -> Vec<Got> {
    let config = format!("site {{ \"*\", cache {options}, respond(200) }}");
    let bench = Rc::new(Bench::new(&config));
    let asked = Arc::new(AtomicUsize::new(0));
    let fragile = Fragile {
        asked: asked.clone(),
        when,
        fields,
    };
    let cache = CacheOf(bench.site("test").clone());
    let pipeline = Pipeline::new(vec![entry(cache), entry(fragile)]);
    let local = LocalSet::new();
    let runs = {
        let (bench, pipeline) = (bench.clone(), pipeline.clone());
        async move {
            let first = ask(&bench, pipeline.clone());
            let second = ask(&bench, pipeline.clone());
            let third = ask(&bench, pipeline.clone());
            let (first, second, third) = tokio::join!(first, second, third);
            assert_eq!(bench.worker.counters.panics.get(), 1, "{when:?}");
            assert_eq!(asked.load(Relaxed), 1, "{when:?}: one for all");
            let stores = &bench.built.snapshot.caches.stores;
            let usage = stores[0].store.usage();
            assert_eq!((usage.fills, usage.flights, usage.objects), (0, 0, 0));
            assert_eq!(stores[0].lives.usage().streams, 0);
            let last = ask(&bench, pipeline).await;
            assert_eq!(asked.load(Relaxed), 2, "{when:?}: it was asked for anew");
            assert_eq!(bench.worker.counters.panics.get(), 1, "{when:?}");
            vec![first, second, third, last]
        }
    };
    bench.block_on(local.run_until(runs))
}

#[test]
fn a_panic_below_costs_those_who_wait_and_nobody_after_them() {
    let stored = &[("Cache-Control", "max-age=60")];
    for when in [When::Asked, When::Waiting] {
        let got = check(when, "", stored);
        for one in &got[..3] {
            assert_eq!(*one, Got::Whole(500, String::new()), "{when:?}");
        }
        assert_eq!(got[3], Got::Whole(200, "one, two".into()), "{when:?}");
    }
}

#[test]
fn a_panic_in_a_fill_is_seen_by_all_who_read_it() {
    let stored = &[("Cache-Control", "max-age=60")];
    let live = &[
        ("Content-Type", "audio/mpeg"),
        ("Cache-Control", "no-store"),
    ];
    for (options, fields) in [("", &stored[..]), ("{ live = \"drop\" }", &live[..])] {
        let got = check(When::Sending, options, fields);
        for one in &got[..3] {
            let Got::BrokenOff(200, text, _) = one else {
                panic!("{fields:?}: {one:?}");
            };
            // Of a stream, who has come later gets what comes from then on.
            assert!(text == "one, " || text.is_empty(), "{fields:?}: {text}");
        }
        assert_eq!(got[3], Got::Whole(200, "one, two".into()), "{fields:?}");
    }
}
