//! From what a file has built to checked calls: every value against the type in the directive's
//! table, every mistake with its place, in one pass over plain data.

mod call;
mod describe;
mod literal;
mod order;
mod tables;
mod types;

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::directive::Opt;
use crate::matching::Match;
use crate::place::Place;
use crate::raw::{Raw, RawValue, Use};
use crate::registry::Spec;
use crate::report::{Code, Report};
use crate::value::{Call, Node};

pub(crate) use call::usage;
pub(crate) use describe::kind;
pub(crate) use literal::literal;

/// Values looked at in one load: a few tables that hold each other many times over could stand for
/// more than any machine has room for.
const MAX_VALUES: usize = 5_000_000;

/// Checks uses and keeps what came out.
pub(crate) struct Checker {
    /// Where relative paths start.
    pub(crate) dir: PathBuf,
    pub(crate) report: Report,
    specs: Vec<Arc<Spec>>,
    uses: Vec<Use>,
    /// Later calls of declarations, by the declaration's number.
    completed: FxHashMap<usize, Vec<usize>>,
    /// What became of each use.
    states: Vec<State>,
    /// How often each use stands somewhere.
    used: Vec<bool>,
    /// Defaults of records' options.
    record_defaults: FxHashMap<*const Opt, Option<Node>>,
    regexes: FxHashMap<Rc<str>, Result<Match, String>>,
    /// Routes in which a step keeps clients out.
    guards: FxHashSet<u32>,
    /// Conditions that look at the response, themselves or in what they hold.
    responses: FxHashSet<u32>,
    /// Steps within steps, by the call's number.
    depths: FxHashMap<u32, usize>,
    next_id: u32,
    budget: usize,
    depth: usize,
}

#[derive(Clone)]
enum State {
    Open,
    /// Being checked: meeting it again means that it holds itself.
    Busy,
    /// Wrong, and reported.
    Wrong,
    Done(Arc<Call>),
}

/// What a value is given for: how messages name it.
#[derive(Clone, Copy)]
pub(crate) struct Slot<'a> {
    /// The directive, as messages call it.
    subject: &'a dyn Fn() -> String,
    /// The option that this one is a part of.
    parent: Option<&'a Slot<'a>>,
    /// An option's name, or an argument's in capitals.
    name: &'a str,
}

impl<'a> Slot<'a> {
    fn below(&'a self, name: &'a str) -> Slot<'a> {
        Slot {
            subject: self.subject,
            parent: Some(self),
            name,
        }
    }

    /// "`health.every`", or `TARGET`.
    fn label(&self) -> String {
        let mut names = vec![self.name];
        let mut slot = self.parent;
        while let Some(above) = slot {
            names.push(above.name);
            slot = above.parent;
        }
        names.retain(|name| !name.is_empty());
        // Within an argument, only what is wrong in it is of interest.
        let inner = names.iter().any(|name| !is_argument(name));
        names.retain(|name| !(inner && is_argument(name)));
        names.reverse();
        let joined = names.join(".").replace(".[", "[");
        if inner { format!("`{joined}`") } else { joined }
    }
}

fn is_argument(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_uppercase())
}

impl Checker {
    pub(crate) fn new(dir: PathBuf, report: Report, specs: Vec<Arc<Spec>>) -> Checker {
        Checker {
            dir,
            report,
            specs,
            uses: Vec::new(),
            completed: FxHashMap::default(),
            states: Vec::new(),
            used: Vec::new(),
            record_defaults: FxHashMap::default(),
            regexes: FxHashMap::default(),
            guards: FxHashSet::default(),
            responses: FxHashSet::default(),
            depths: FxHashMap::default(),
            next_id: 0,
            budget: MAX_VALUES,
            depth: 0,
        }
    }

    /// Checks everything that was built and returns the declarations, in the order of their first
    /// call; those with a mistake are left out.
    pub(crate) fn run(&mut self, uses: Vec<Use>) -> Vec<Arc<Call>> {
        self.states = vec![State::Open; uses.len()];
        self.used = vec![false; uses.len()];
        self.next_id = u32::try_from(uses.len()).unwrap_or(u32::MAX);
        let mut varied = vec![false; uses.len()];
        for (index, one) in uses.iter().enumerate() {
            let Some(of) = one.of else { continue };
            if self.is_declaration(one.spec) {
                self.completed.entry(of).or_default().push(index);
            } else if let Some(varied) = varied.get_mut(of) {
                *varied = true;
            }
        }
        self.uses = uses;
        let mut declarations = Vec::new();
        // In order: what a use holds was made before it, so little is ever checked out of turn.
        for (index, varied) in varied.iter().enumerate() {
            let one = &self.uses[index];
            let declaration = self.is_declaration(one.spec);
            if *varied || (declaration && one.of.is_some()) {
                continue;
            }
            let call = self.resolve(index);
            declarations.extend(call.filter(|_| declaration));
        }
        self.check_declarations(&declarations);
        self.warn_of_unused(&varied);
        declarations
    }

    /// The checked call of a use; none if it is wrong.
    fn resolve(&mut self, index: usize) -> Option<Arc<Call>> {
        match self.states.get(index)?.clone() {
            State::Done(call) => return Some(call),
            State::Wrong => return None,
            State::Busy => {
                let place = self.uses[index].place;
                self.mistake(place, Code::Conflict, "it holds itself", "");
                return None;
            }
            State::Open => {}
        }
        if self.depth >= crate::raw::MAX_DEPTH {
            self.too_deep(self.uses[index].place);
            return None;
        }
        self.states[index] = State::Busy;
        self.depth += 1;
        let call = self.call(index);
        self.depth -= 1;
        self.states[index] = match &call {
            Some(call) => State::Done(Arc::clone(call)),
            None => State::Wrong,
        };
        call
    }

    fn is_declaration(&self, spec: usize) -> bool {
        self.specs[spec].directive.role == crate::Role::Declaration
    }

    /// Counts a value; false, with a mistake, once there are too many.
    fn spend(&mut self, place: Place) -> bool {
        if self.budget == 0 {
            let message = format!("the configuration holds more than {MAX_VALUES} values");
            self.mistake(place, Code::Conflict, &message, "");
            return false;
        }
        self.budget -= 1;
        true
    }

    fn too_deep(&mut self, place: Place) {
        let message = format!("nested more than {} deep", crate::raw::MAX_DEPTH);
        self.mistake(place, Code::BadValue, &message, "");
    }

    fn mistake(&mut self, place: Place, code: Code, message: &str, help: &str) {
        self.report.mistake(place, code, message, help);
    }

    /// "limit: `rate` cannot be "x"", with what was expected.
    fn bad_value(&mut self, raw: &Raw, slot: &Slot<'_>, help: &str) {
        if matches!(raw.value, RawValue::Unknown) {
            return;
        }
        let message = format!(
            "{}: {} cannot be {}",
            (slot.subject)(),
            slot.label(),
            self.shown(raw)
        );
        let refused = match &raw.value {
            RawValue::Table(table) => table.refused,
            _ => None,
        };
        let help = match refused {
            Some(reason) => format!("{help}, but this table {reason}"),
            None => help.to_owned(),
        };
        self.mistake(raw.place, Code::BadValue, &message, &help);
    }

    /// Steps and pools that stand nowhere.
    fn warn_of_unused(&mut self, varied: &[bool]) {
        for (index, varied) in varied.iter().enumerate() {
            let one = &self.uses[index];
            let spec = &self.specs[one.spec];
            let directive = spec.directive;
            let warned = spec.is_step() || directive.namespace.is_some();
            if !warned || *varied || self.used[index] || one.of.is_some_and(|_| !spec.is_step()) {
                continue;
            }
            let State::Done(call) = &self.states[index] else {
                continue;
            };
            // One without a name is the one that is used where none is named.
            let named = directive
                .args
                .first()
                .is_some_and(|arg| call.is_set(arg.name));
            if !spec.is_step() && !named {
                continue;
            }
            let message = match spec.is_step() {
                true => format!("nothing uses this `{}`", directive.name),
                false => format!("nothing uses {}", call.subject()),
            };
            let help = if spec.is_step() {
                "put it into a pipeline"
            } else {
                ""
            };
            self.report.warning(one.place, message, help);
        }
    }
}
