//! Steps, pipelines, and the loop that runs an exchange through them.
//!
//! ```text
//!            on_request: Next          Next         Answer
//!   client ──▶ [ headers ] ──▶ [ route ] ──▶ [ proxy ]
//!          ◀── on_response ◀────────────────────┘
//! ```
//!
//! Down to the answer, then back up through the visited steps that look at responses. A step that
//! must wait says [`Flow::Wait`]; only then is anything allocated: the loop goes on inside a boxed
//! future that owns the exchange. An exchange that nothing keeps waiting never leaves the stack of
//! its connection's task.

use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;

use smallvec::SmallVec;

use super::{Condition, Exchange, Fault, Reason, Response};
use crate::explain::{Notes, Told};
use crate::worker::HeldSite;

/// A future on the worker's thread.
pub type Local<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// What a step does with a request.
pub enum Flow {
    /// The next step shall see it.
    Next,
    /// This is the answer.
    Answer(Response),
    /// This pipeline takes the request for good.
    Enter(Arc<Pipeline>),
    /// [`Step::wait`] says.
    Wait,
    /// No answer can be given, for this reason.
    Fail(Fault),
}

/// What a step does with a response.
pub enum Up {
    /// It has looked at it, and perhaps changed it.
    Done,
    /// [`Step::replace`] makes another one.
    Replace,
}

/// One element of a pipeline: a filter, a handler or a set of routes.
///
/// Steps are frozen: they hold what the configuration says and the shared halves of resources.
/// What belongs to a worker they find through [`Exchange::worker`].
pub trait Step: Send + Sync {
    /// The directive's name.
    fn name(&self) -> &'static str;

    /// Looks at a request on its way down.
    fn on_request(&self, exchange: &mut Exchange) -> Flow;

    /// Goes on where [`on_request`](Step::on_request) said [`Flow::Wait`]. Must not say it again.
    fn wait<'a>(&'a self, exchange: &'a mut Exchange) -> Local<'a, Flow> {
        let _ = exchange;
        Box::pin(async { Flow::Fail(Reason::Internal.into()) })
    }

    /// Whether [`on_response`](Step::on_response) is to be called.
    fn sees_response(&self) -> bool {
        false
    }

    /// Looks at the response on its way up.
    fn on_response(&self, exchange: &mut Exchange, response: &mut Response) -> Up {
        let _ = (exchange, response);
        Up::Done
    }

    /// Goes on where [`on_response`](Step::on_response) said [`Up::Replace`].
    fn replace<'a>(
        &'a self,
        exchange: &'a mut Exchange,
        response: Response,
    ) -> Local<'a, Response> {
        let _ = exchange;
        Box::pin(async move { response })
    }

    /// Tells of a request, before anything is done with it, what decides about it; and how much of
    /// the above may be run to find out, since `forebay explain` sends nothing.
    fn explain(&self, exchange: &mut Exchange, notes: &mut Notes<'_>) -> Told {
        let _ = (exchange, notes);
        Told::Runs
    }

    /// Tells what it will do with a response on its way up; without one, with whatever another
    /// server makes.
    fn explain_response(
        &self,
        exchange: &Exchange,
        response: Option<&Response>,
        notes: &mut Notes<'_>,
    ) {
        let _ = (exchange, response, notes);
    }
}

/// A step where it stands.
pub struct Entry {
    /// The step applies to requests for which this holds.
    pub when: Option<Condition>,
    /// What it does.
    pub step: Box<dyn Step>,
    /// The number of its kind, by which the times are counted for which steps wait.
    pub kind: u8,
    /// The number of the call in the configuration that it was made of.
    pub call: u32,
}

/// A list of steps.
pub struct Pipeline {
    /// In the order of the configuration, lists inside lists taken apart.
    pub entries: Box<[Entry]>,
}

impl Pipeline {
    /// A pipeline of these steps.
    pub fn new(entries: Vec<Entry>) -> Arc<Pipeline> {
        Arc::new(Pipeline {
            entries: entries.into_boxed_slice(),
        })
    }
}

/// The rest of a pipeline, from some step on: an owned value that holds what its steps hold. A
/// cache's fill and a Lua function's `next` run one with a request of their own.
#[derive(Clone)]
pub struct Rest {
    /// The pipeline.
    pub pipeline: Arc<Pipeline>,
    /// Its first step that belongs to the rest.
    pub at: usize,
}

impl From<Arc<Pipeline>> for Rest {
    fn from(pipeline: Arc<Pipeline>) -> Rest {
        Rest { pipeline, at: 0 }
    }
}

/// A pipeline that an exchange is in.
#[derive(Clone)]
enum Held {
    /// That of its site, with which it is held already: nothing that workers share is counted.
    Site(HeldSite),
    Own(Arc<Pipeline>),
}

impl Held {
    fn pipeline(&self) -> &Arc<Pipeline> {
        match self {
            Held::Site(site) => &site.pipeline,
            Held::Own(pipeline) => pipeline,
        }
    }
}

impl Deref for Held {
    type Target = Pipeline;

    fn deref(&self) -> &Pipeline {
        self.pipeline()
    }
}

/// Where an exchange stands in its pipeline, and the steps it has come through that want to see
/// the response.
#[derive(Default)]
pub struct Course {
    /// The pipelines entered, the current one last.
    entered: SmallVec<[Held; 3]>,
    /// The current step of the current pipeline.
    at: usize,
    /// (index into `entered`, index into its entries) of the steps on the way back up.
    visited: SmallVec<[(u16, u16); 8]>,
    /// The response, while a step makes another one of it.
    pending: Option<Response>,
}

/// At most this many pipelines deep: routes in routes.
pub const MAX_DEPTH: usize = 32;

impl Course {
    /// Starts with the first step of the rest.
    pub fn start(&mut self, rest: Rest) {
        self.clear();
        self.entered.push(Held::Own(rest.pipeline));
        self.at = rest.at;
    }

    /// Starts with the first step of a site.
    pub fn start_site(&mut self, site: HeldSite) {
        self.clear();
        self.entered.push(Held::Site(site));
    }

    /// Forgets where it was and gives the pipelines back.
    pub fn clear(&mut self) {
        self.entered.clear();
        self.visited.clear();
        self.pending = None;
        self.at = 0;
    }

    /// What comes below the current step.
    pub fn rest(&self) -> Option<Rest> {
        let pipeline = self.entered.last()?.pipeline().clone();
        Some(Rest {
            pipeline,
            at: self.at + 1,
        })
    }

    fn pass(&mut self, step: &dyn Step) {
        if step.sees_response() {
            self.visited
                .push((narrow(self.entered.len() - 1), narrow(self.at)));
        }
        self.at += 1;
    }
}

/// Runs the exchange down its pipeline and back as far as it goes without waiting. `None`: it
/// stands at a step that waits; go on with [`finish`].
pub fn run(exchange: &mut Exchange) -> Option<Response> {
    let response = descend(exchange)?;
    ascend(exchange, response)
}

/// Goes on with a run that waits, to its end.
pub async fn finish(exchange: &mut Exchange) -> Response {
    exchange.begin_waiting_unless_begun();
    // The step that has waited. Its time is taken when the next one waits, or at the end: so no
    // clock is read that would not be read anyway where there is only one, as nearly always.
    let mut waited = None;
    loop {
        if let Some(kind) = waited.take() {
            exchange.note_wait(kind);
        }
        let done = match exchange.course.pending.take() {
            Some(response) => {
                let response = match current(exchange) {
                    Some((pipeline, at)) => {
                        pipeline.entries[at].step.replace(exchange, response).await
                    }
                    None => Response::fault(exchange, Reason::Internal.into()),
                };
                ascend(exchange, response)
            }
            None => {
                let answer = match current(exchange) {
                    Some((pipeline, at)) => {
                        let step = &*pipeline.entries[at].step;
                        let flow = step.wait(exchange).await;
                        waited = Some(pipeline.entries[at].kind);
                        match flow {
                            Flow::Next => {
                                exchange.course.pass(step);
                                descend(exchange)
                            }
                            // A step waits once; saying it again would spin.
                            Flow::Wait => Some(Response::fault(exchange, Reason::Internal.into())),
                            flow => settle(exchange, flow).or_else(|| descend(exchange)),
                        }
                    }
                    None => Some(Response::fault(exchange, Reason::Internal.into())),
                };
                answer.and_then(|response| ascend(exchange, response))
            }
        };
        if let Some(response) = done {
            if let Some(kind) = waited {
                exchange.note_wait(kind);
            }
            return response;
        }
    }
}

/// Runs another pipeline in the middle of this one, as `errors` does, and comes back.
pub async fn run_aside(exchange: &mut Exchange, rest: Rest) -> Response {
    if let Some(aside) = exchange.aside.clone() {
        return aside.run(exchange, rest).await;
    }
    let outer = std::mem::take(&mut exchange.course);
    exchange.course.start(rest);
    let response = match run(exchange) {
        Some(response) => response,
        None => Box::pin(finish(exchange)).await,
    };
    exchange.course = outer;
    response
}

/// Who runs pipelines in the middle of others in this module's place: `explain`, which sends
/// nothing.
pub trait Aside {
    /// Runs it and gives the answer.
    fn run<'a>(&'a self, exchange: &'a mut Exchange, rest: Rest) -> Local<'a, Response>;
}

fn current(exchange: &Exchange) -> Option<(Held, usize)> {
    let course = &exchange.course;
    let pipeline = course.entered.last()?.clone();
    (course.at < pipeline.entries.len()).then_some((pipeline, course.at))
}

/// Down to the answer; `None` where a step waits, with the course standing at it.
fn descend(exchange: &mut Exchange) -> Option<Response> {
    // The pipeline is held once more each time one is entered, so that its steps can be borrowed
    // while they borrow the exchange.
    loop {
        let Some(pipeline) = exchange.course.entered.last().cloned() else {
            return Some(Response::fault(exchange, Reason::Internal.into()));
        };
        loop {
            let Some(entry) = pipeline.entries.get(exchange.course.at) else {
                return Some(Response::nothing_answered(exchange));
            };
            if let Some(when) = &entry.when
                && !when.holds(exchange)
            {
                exchange.course.at += 1;
                continue;
            }
            match entry.step.on_request(exchange) {
                Flow::Next => exchange.course.pass(&*entry.step),
                Flow::Wait => return None,
                flow => match settle(exchange, flow) {
                    Some(response) => return Some(response),
                    None => break,
                },
            }
        }
    }
}

/// The flows that end a pipeline's walk. `None`: another pipeline was entered.
fn settle(exchange: &mut Exchange, flow: Flow) -> Option<Response> {
    match flow {
        Flow::Answer(response) => Some(response),
        Flow::Fail(fault) => Some(Response::fault(exchange, fault)),
        Flow::Enter(pipeline) => {
            let course = &mut exchange.course;
            if course.entered.len() == MAX_DEPTH {
                return Some(Response::fault(exchange, Reason::Internal.into()));
            }
            course.entered.push(Held::Own(pipeline));
            course.at = 0;
            None
        }
        Flow::Next | Flow::Wait => None,
    }
}

/// Back up through the visited steps; `None` where one of them makes another response.
fn ascend(exchange: &mut Exchange, mut response: Response) -> Option<Response> {
    while let Some((depth, at)) = exchange.course.visited.pop() {
        let (depth, at) = (usize::from(depth), usize::from(at));
        let pipeline = exchange.course.entered[depth].clone();
        let step = &*pipeline.entries[at].step;
        if let Up::Replace = step.on_response(exchange, &mut response) {
            exchange.course.entered.truncate(depth + 1);
            exchange.course.at = at;
            exchange.course.pending = Some(response);
            return None;
        }
    }
    exchange.course.clear();
    Some(response)
}

/// Depth and position fit: the configuration refuses longer pipelines.
fn narrow(index: usize) -> u16 {
    u16::try_from(index).unwrap_or(u16::MAX)
}
