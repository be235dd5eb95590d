//! What only shows between calls: pipelines whose steps are never reached, names given twice.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::check::call::usage;
use crate::check::describe::expected;
use crate::check::{Checker, Slot};
use crate::directive::{Answers, Role, Type};
use crate::matching::Pattern;
use crate::place::Place;
use crate::raw::{MAX_DEPTH, Raw, RawValue};
use crate::report::Code;
use crate::value::{Call, Node, Value};

/// Where each value that may occur once has occurred, with its scope; by directive and value.
type Seen<'a> = FxHashMap<(&'a str, String), Vec<(Vec<String>, Place)>>;

impl Checker {
    /// A step or a list of steps, lists within lists laid flat.
    pub(super) fn pipeline(&mut self, raw: &Raw, slot: &Slot<'_>) -> Option<Vec<Arc<Call>>> {
        let mut steps = Vec::new();
        let right = self.pipeline_into(raw, slot, &mut steps);
        self.check_order(&steps, slot);
        right.then(|| steps.into_iter().filter_map(|(call, _)| call).collect())
    }

    fn pipeline_into(
        &mut self,
        raw: &Raw,
        slot: &Slot<'_>,
        steps: &mut Vec<(Option<Arc<Call>>, Place)>,
    ) -> bool {
        match &raw.value {
            RawValue::Table(table) if table.refused.is_none() => {
                let mut right = self.only_items(table, slot);
                for item in &table.items {
                    if !self.nested(item, raw) {
                        return false;
                    }
                    self.depth += 1;
                    right &= self.pipeline_into(item, slot, steps);
                    self.depth -= 1;
                }
                right
            }
            RawValue::Use(_) | RawValue::Bare(_) => {
                let step = self.spec_of(raw).is_some_and(|spec| spec.is_step());
                if !step {
                    self.not_a_step(raw, slot);
                    return false;
                }
                let call = self.called(raw);
                let right = call.is_some();
                steps.push((call, raw.place));
                right
            }
            RawValue::Unknown => false,
            RawValue::Function => {
                self.no_functions(raw.place, slot);
                false
            }
            _ => {
                self.not_a_step(raw, slot);
                false
            }
        }
    }

    fn not_a_step(&mut self, raw: &Raw, slot: &Slot<'_>) {
        let help = match self.spec_of(raw).map(|spec| spec.directive) {
            Some(directive) if directive.namespace == Some("upstream") => {
                "expected a step, as `proxy(…)`".to_owned()
            }
            Some(directive) if directive.role == Role::Condition => {
                "a condition stands in the `when` of a step".to_owned()
            }
            _ => expected(&Type::Pipeline),
        };
        self.bad_value(raw, slot, &help);
    }

    /// Steps behind one that always answers, routes behind one that takes all they match, access
    /// control below a cache.
    fn check_order(&mut self, steps: &[(Option<Arc<Call>>, Place)], slot: &Slot<'_>) {
        let mut cache = false;
        let mut routes: Vec<(&Pattern, &Call)> = Vec::new();
        for (at, (call, place)) in steps.iter().enumerate() {
            let Some(call) = call else { continue };
            let directive = call.directive();
            if cache && let Some(guard) = self.guard_in(call) {
                let where_ = if guard == call.place { *place } else { guard };
                let message = format!("{}: access control below `cache`", (slot.subject)());
                let help = "what is answered from the store would not be asked: move it above";
                self.mistake(where_, Code::Conflict, &message, help);
            }
            cache |= directive.caches;
            if directive.role == Role::Route {
                if self.covered(call, *place, &routes) {
                    continue;
                }
                if call.when.is_empty() {
                    routes.extend(patterns(call).map(|pattern| (pattern, &**call)));
                }
            }
            if ends(call)
                && let Some((next, next_place)) = steps.get(at + 1)
            {
                let name = next.as_ref().map_or("this step", |next| next.name());
                let message = format!("{}: `{name}` is never reached", (slot.subject)());
                let help = match directive.role {
                    Role::Route => "the route above takes every request".to_owned(),
                    _ => format!("`{}` above answers every request", directive.name),
                };
                self.mistake(*next_place, Code::Unreachable, &message, &help);
                return;
            }
        }
    }

    /// Reports a route all of whose patterns are taken by routes above it.
    fn covered(&mut self, call: &Call, place: Place, above: &[(&Pattern, &Call)]) -> bool {
        // The common case is one pattern per route and hundreds of routes: with a limit, the check
        // stays linear, and what it overlooks is only a message.
        const LOOKED_AT: usize = 64;
        let taken = |pattern: &Pattern| {
            above
                .iter()
                .rev()
                .take(LOOKED_AT)
                .find(|(one, _)| one.covers(pattern))
        };
        let mut by = None;
        for pattern in patterns(call) {
            match taken(pattern) {
                Some((one, _)) => by = Some(one.text().to_owned()),
                None => return false,
            }
        }
        let Some(by) = by else { return false };
        let first = patterns(call).next().map_or("", |pattern| pattern.text());
        let message = format!("route \"{first}\" is never reached");
        let help = format!("route \"{by}\" above takes its requests");
        self.mistake(place, Code::Unreachable, &message, &help);
        true
    }

    /// Where access control stands in a step, if it does.
    fn guard_in(&mut self, call: &Call) -> Option<Place> {
        if call.directive().access_control {
            return Some(call.place);
        }
        if !self.guards.contains(&call.id) {
            return None;
        }
        call.steps.iter().find_map(|inner| self.guard_in(inner))
    }

    /// Notes what is asked of a call by those that hold it: how deep its steps are nested, whether
    /// they guard, whether they look at the response. Once for each call, because the same steps
    /// may stand in many places. False if they are too deep, and then that is reported.
    pub(super) fn note_inner(&mut self, call: &Call) -> bool {
        let inner = || call.steps.iter();
        let deepest = inner()
            .chain(&call.when)
            .map(|inner| self.depth_of(inner))
            .max();
        let depth = deepest.unwrap_or(0) + 1;
        if depth > MAX_DEPTH {
            self.too_deep(call.place);
            return false;
        }
        if depth > 1 {
            self.depths.insert(call.id, depth);
        }
        if inner().any(|inner| inner.directive().access_control || self.guards.contains(&inner.id))
        {
            self.guards.insert(call.id);
        }
        if call.directive().response_only || inner().any(|inner| self.looks_at_response(inner)) {
            self.responses.insert(call.id);
        }
        true
    }

    pub(super) fn looks_at_response(&self, call: &Call) -> bool {
        self.responses.contains(&call.id)
    }

    fn depth_of(&self, call: &Call) -> usize {
        self.depths.get(&call.id).copied().unwrap_or(1)
    }

    /// `once`, names, and values that may occur once.
    pub(super) fn check_declarations(&mut self, declarations: &[Arc<Call>]) {
        let mut once: FxHashMap<&str, Place> = FxHashMap::default();
        let mut names: FxHashMap<(&str, &str), &Call> = FxHashMap::default();
        let mut distinct: Seen<'_> = FxHashMap::default();
        for call in declarations {
            let directive = call.directive();
            if directive.once
                && let Some(first) = once.insert(directive.name, call.place)
            {
                let message = format!("{} is given twice", usage(directive));
                self.twice(call.place, &message, first);
                once.insert(directive.name, first);
            }
            if let (Some(space), Some(Value::Text(name))) = (directive.namespace, first_arg(call)) {
                match names.get(&(space, &**name)) {
                    Some(first) => {
                        let (place, first) = (arg_place(call), arg_place(first));
                        let message = format!("{} is declared twice", call.subject());
                        self.twice(place, &message, first);
                    }
                    None => {
                        names.insert((space, &**name), call);
                    }
                }
            }
            self.check_distinct(call, &mut distinct);
        }
    }

    fn check_distinct<'a>(&mut self, call: &'a Call, seen: &mut Seen<'a>) {
        let Some(rule) = call.directive().distinct else {
            return;
        };
        let Some(Value::List(values)) = call.node(rule.arg).map(|node| &node.value) else {
            return;
        };
        let scope = rule
            .scope
            .and_then(|scope| call.node(scope))
            .map_or_else(Vec::new, texts);
        for node in values {
            let Some(text) = text_of(node) else { continue };
            let others = seen.entry((call.name(), text)).or_default();
            let same = |(other, _): &&(Vec<String>, Place)| {
                (other.is_empty() && scope.is_empty())
                    || other.iter().any(|place| scope.contains(place))
            };
            if let Some((_, first)) = others.iter().find(same) {
                let first = *first;
                let text = text_of(node).unwrap_or_default();
                let message = format!("{}: \"{text}\" is declared twice", call.name());
                self.twice(node.place, &message, first);
            } else {
                others.push((scope.clone(), node.place));
            }
        }
    }

    fn twice(&mut self, place: Place, message: &str, first: Place) {
        let span = self.report.sources().span(first);
        let help = format!("first at {}:{}", span.file, span.line);
        self.mistake(place, Code::Duplicate, message, &help);
    }
}

fn patterns(call: &Call) -> impl Iterator<Item = &Pattern> {
    let first = call.args.first().and_then(Option::as_ref);
    let list = match first.map(|node| &node.value) {
        Some(Value::List(list)) => list.as_slice(),
        _ => &[],
    };
    list.iter().filter_map(Node::as_a)
}

/// Whether no request goes on behind this step.
fn ends(call: &Call) -> bool {
    let directive = call.directive();
    if !call.when.is_empty() {
        return false;
    }
    match (directive.role, directive.answers) {
        (Role::Route, _) => patterns(call).any(|pattern| pattern.text() == "/*"),
        (_, Answers::Always) => true,
        (_, Answers::Without(option)) => call.node(option).is_none(),
        (_, Answers::Sometimes) => false,
    }
}

fn first_arg(call: &Call) -> Option<&Value> {
    call.args
        .first()
        .and_then(Option::as_ref)
        .map(|node| &node.value)
}

fn arg_place(call: &Call) -> Place {
    call.args
        .first()
        .and_then(Option::as_ref)
        .map_or(call.place, |node| node.place)
}

/// The comparable text of a value that must be distinct.
fn text_of(node: &Node) -> Option<String> {
    match &node.value {
        Value::Host(host) => Some(host.to_string()),
        Value::Address(address) => Some(address.to_string()),
        Value::Text(text) => Some(text.to_string()),
        _ => None,
    }
}

fn texts(node: &Node) -> Vec<String> {
    match &node.value {
        Value::List(list) => list.iter().filter_map(text_of).collect(),
        _ => text_of(node).into_iter().collect(),
    }
}
