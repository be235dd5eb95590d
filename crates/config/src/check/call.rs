//! One use of a directive: its arguments, options, items and entries.

use std::rc::Rc;
use std::sync::Arc;

use crate::check::types::NO_FUNCTIONS;
use crate::check::{Checker, Slot};
use crate::directive::{Directive, Role, Type, Unset};
use crate::place::Place;
use crate::raw::{Entry, Raw, RawTable, RawValue, quoted};
use crate::registry::Spec;
use crate::report::Code;
use crate::value::{Call, Node};

/// Calls of one step, one after the other: a loop could make a chain without end.
const MAX_CHAIN: usize = 100;

/// What the calls of one use have given, before any of it is checked.
#[derive(Default)]
struct Given {
    /// Positional values; a list-like argument is one of them.
    positional: Vec<Raw>,
    /// By the option's number; `when` is the number behind the last.
    options: Vec<(usize, Raw)>,
    items: Vec<Raw>,
    keyed: Vec<Entry>,
    /// Something was wrong, and reported.
    wrong: bool,
    /// An unknown name stands among the values: nothing is missing for certain.
    unknown: bool,
}

impl Checker {
    /// Checks a use with all its calls.
    pub(super) fn call(&mut self, index: usize) -> Option<Arc<Call>> {
        let chain = self.chain(index)?;
        let spec = Arc::clone(&self.specs[self.uses[index].spec]);
        let segments: Vec<(Place, Vec<Raw>)> = chain
            .iter()
            .map(|at| {
                (
                    self.uses[*at].place,
                    std::mem::take(&mut self.uses[*at].args),
                )
            })
            .collect();
        let subject = || subject(&spec, &segments);
        let mut given = Given::default();
        for (place, args) in &segments {
            self.collect(&spec, *place, args, &subject, &mut given);
        }
        let place = self.uses[index].place;
        let id = u32::try_from(index).unwrap_or(u32::MAX);
        let call = self.build(&spec, id, place, given, &subject);
        // Others may vary the same step: what it was called with stays where it was.
        for (at, (_, args)) in chain.into_iter().zip(segments) {
            self.uses[at].args = args;
        }
        call
    }

    /// A directive as it stands, `compress`.
    fn bare(&mut self, spec: usize, place: Place) -> Option<Arc<Call>> {
        let spec = Arc::clone(&self.specs[spec]);
        let subject = || spec.directive.name.to_owned();
        let id = self.next_id;
        self.next_id = self.next_id.saturating_add(1);
        self.build(&spec, id, place, Given::default(), &subject)
    }

    /// The call that a value of a pipeline or list of conditions stands for.
    pub(super) fn called(&mut self, raw: &Raw) -> Option<Arc<Call>> {
        match raw.value {
            RawValue::Use(index) => {
                let root = if self.is_declaration(self.uses[index].spec) {
                    self.root(index)
                } else {
                    index
                };
                self.used[root] = true;
                self.resolve(root)
            }
            RawValue::Bare(spec) => self.bare(spec, raw.place),
            _ => None,
        }
    }

    pub(super) fn spec_of(&self, raw: &Raw) -> Option<&Spec> {
        match raw.value {
            RawValue::Use(index) => Some(&self.specs[self.uses[index].spec]),
            RawValue::Bare(spec) => Some(&self.specs[spec]),
            _ => None,
        }
    }

    /// The first call of a declaration.
    pub(super) fn root(&self, index: usize) -> usize {
        self.uses[index].of.unwrap_or(index)
    }

    /// The uses whose calls make up this one, the first first.
    fn chain(&mut self, index: usize) -> Option<Vec<usize>> {
        let mut chain = vec![index];
        if self.is_declaration(self.uses[index].spec) {
            chain.extend(self.completed.get(&index).into_iter().flatten());
            return Some(chain);
        }
        let mut at = index;
        while let Some(of) = self.uses[at].of {
            if chain.len() == MAX_CHAIN {
                let message = format!("a step varied more than {MAX_CHAIN} times");
                self.mistake(self.uses[index].place, Code::Conflict, &message, "");
                return None;
            }
            chain.push(of);
            at = of;
        }
        chain.reverse();
        Some(chain)
    }

    fn collect(
        &mut self,
        spec: &Spec,
        place: Place,
        args: &[Raw],
        subject: &dyn Fn() -> String,
        given: &mut Given,
    ) {
        if args.is_empty() {
            let message = format!("{}: an empty call", subject());
            let help = format!("write `{}` without `()`", spec.directive.name);
            self.mistake(place, Code::Missing, &message, &help);
            given.wrong = true;
        }
        let before = given.positional.len();
        for raw in args {
            match &raw.value {
                RawValue::Unknown => {
                    given.unknown = true;
                    given.positional.push(raw.clone());
                }
                RawValue::Table(table) => self.collect_table(spec, raw, table, subject, given),
                RawValue::Use(_) | RawValue::Bare(_) if self.is_item(spec, raw) => {
                    given.items.push(raw.clone());
                }
                // Several values for one list are that list, `method("GET", "HEAD")`, but only in
                // one call: a later one has its own meaning or none.
                _ if before < given.positional.len() && is_full(spec, given) => {
                    append_to_last(given, raw);
                }
                _ => given.positional.push(raw.clone()),
            }
        }
    }

    /// Whether a step or condition, given as an argument, is one of the directive's items.
    fn is_item(&self, spec: &Spec, raw: &Raw) -> bool {
        let role = self.spec_of(raw).map(|spec| spec.directive.role);
        match spec.directive.items.map(|items| items.ty) {
            Some(Type::Pipeline) => {
                matches!(role, Some(Role::Filter | Role::Handler | Role::Route))
            }
            Some(Type::Condition { .. }) => role == Some(Role::Condition),
            _ => false,
        }
    }

    fn collect_table(
        &mut self,
        spec: &Spec,
        raw: &Raw,
        table: &Rc<RawTable>,
        subject: &dyn Fn() -> String,
        given: &mut Given,
    ) {
        let slot = Slot {
            subject,
            parent: None,
            name: "",
        };
        if let Some(reason) = table.refused {
            let message = format!("{}: this table {reason}", subject());
            self.mistake(
                raw.place,
                Code::BadValue,
                &message,
                "expected a plain table",
            );
            given.wrong = true;
            return;
        }
        given.wrong |= !self.no_hole(table, &slot);
        self.collect_options(spec, table, subject, given);
        self.collect_list(spec, raw, table, subject, given);
    }

    fn collect_options(
        &mut self,
        spec: &Spec,
        table: &RawTable,
        subject: &dyn Fn() -> String,
        given: &mut Given,
    ) {
        let options = spec.directive.options;
        for entry in &table.keys {
            let name = entry.key.text().unwrap_or_default();
            let index = match spec.option_index(name) {
                Some(index) => Some(index),
                None if name == "when" && spec.when.is_some() => Some(options.len()),
                None => None,
            };
            if let Some(index) = index {
                given.options.retain(|(at, _)| *at != index);
                given.options.push((index, entry.value.clone()));
                continue;
            }
            // A key that is a number can only be an entry; a text is first taken for a slip.
            let near = crate::nearest(name, spec.option_names());
            if spec.directive.keyed.is_some() && (entry.key.text().is_none() || near.is_none()) {
                given.keyed.push(entry.clone());
                continue;
            }
            let key = self.key_text(&entry.key);
            let message = format!("{} has no option `{key}`", subject());
            let mut instead = spec.directive.instead.iter();
            let instead = instead.find(|(known, _)| *known == name);
            let help = match (instead, entry.key.text()) {
                (Some((_, help)), _) => (*help).to_owned(),
                (None, Some(name)) => option_help(name, spec.option_names()),
                (None, None) => option_help("", spec.option_names()),
            };
            self.mistake(entry.key.place, Code::UnknownOption, &message, &help);
            given.wrong = true;
        }
    }

    /// The list of a table: values for a list-like argument first, then items.
    fn collect_list(
        &mut self,
        spec: &Spec,
        raw: &Raw,
        table: &Rc<RawTable>,
        subject: &dyn Fn() -> String,
        given: &mut Given,
    ) {
        let directive = spec.directive;
        let open = directive.args.get(given.positional.len());
        let takes_list = open.is_some_and(|arg| matches!(arg.ty, Type::List(_)));
        // Without items, the whole list is the argument; an empty one too: `deny(lines "none")`.
        if takes_list && directive.items.is_none() {
            let bare_options = table.items.is_empty() && !table.keys.is_empty();
            if !bare_options {
                given.positional.push(list_of(raw, table.items.clone()));
            }
            return;
        }
        // Called again, `site` and `route` take more hosts and patterns.
        let steps = matches!(directive.items.map(|items| items.ty), Some(Type::Pipeline));
        let takes_more = steps && is_full(spec, given);
        let leading = match takes_list || takes_more {
            true => table
                .items
                .iter()
                .take_while(|item| self.is_plain(item, 0))
                .count(),
            false => 0,
        };
        let (plain, rest) = table.items.split_at(leading);
        if takes_more {
            plain.iter().for_each(|item| append_to_last(given, item));
        } else if !plain.is_empty() {
            given.positional.push(list_of(raw, plain.to_vec()));
        }
        if rest.is_empty() {
            return;
        }
        if directive.items.is_some() {
            given.unknown |= rest
                .iter()
                .any(|item| matches!(item.value, RawValue::Unknown));
            given.items.extend_from_slice(rest);
            return;
        }
        let message = format!(
            "{} takes no list, but has {}",
            subject(),
            self.shown(&rest[0])
        );
        let help = format!("expected {}", usage(directive));
        self.mistake(rest[0].place, Code::BadValue, &message, &help);
        given.wrong = true;
    }

    /// Whether an item is a plain value, or a list of them: a host, not a step.
    fn is_plain(&self, raw: &Raw, depth: usize) -> bool {
        match &raw.value {
            RawValue::Text(_) | RawValue::Number(_) | RawValue::Made(..) => true,
            RawValue::Table(table) => {
                depth < 4
                    && table.keys.is_empty()
                    && !table.items.is_empty()
                    && table
                        .items
                        .iter()
                        .all(|item| self.is_plain(item, depth + 1))
            }
            _ => false,
        }
    }

    fn build(
        &mut self,
        spec: &Arc<Spec>,
        id: u32,
        place: Place,
        given: Given,
        subject: &dyn Fn() -> String,
    ) -> Option<Arc<Call>> {
        let directive = spec.directive;
        let slot = Slot {
            subject,
            parent: None,
            name: "",
        };
        let mut right = !given.wrong;
        let args = self.arguments(spec, &given, place, subject, &mut right);
        let (options, when) = self.options(spec, &given, place, subject, &mut right);
        let mut call = Call {
            spec: Arc::clone(spec),
            args,
            options,
            id,
            place,
            items: Vec::new(),
            steps: Vec::new(),
            keyed: Vec::with_capacity(given.keyed.len()),
            when,
        };
        right &= self.items(&given, &mut call, &slot);
        if let Some(keyed) = directive.keyed {
            for entry in &given.keyed {
                match self.entry(entry, &keyed.key, &keyed.value, &slot) {
                    Some(pair) => call.keyed.push(pair),
                    None => right = false,
                }
            }
            if keyed.required && given.keyed.is_empty() && right && !given.unknown {
                let message = format!("{}: it has no entry", subject());
                let help = format!("expected `{}`", keyed.name);
                self.mistake(place, Code::Missing, &message, &help);
                right = false;
            }
        }
        if !right || given.unknown {
            return None;
        }
        self.finish(call)
    }

    /// What can only be looked at in a call whose values are right.
    fn finish(&mut self, call: Call) -> Option<Arc<Call>> {
        let directive = call.directive();
        if !self.note_inner(&call) {
            return None;
        }
        if let Some(check) = directive.check {
            let before = self.report.count();
            check(&call, &mut self.report);
            if self.report.count() > before {
                return None;
            }
        }
        Some(Arc::new(call))
    }

    fn arguments(
        &mut self,
        spec: &Spec,
        given: &Given,
        place: Place,
        subject: &dyn Fn() -> String,
        right: &mut bool,
    ) -> Vec<Option<Node>> {
        let args = spec.directive.args;
        let required = args.iter().filter(|arg| arg.required).count();
        // `rewrite [FROM] TO`: one value is TO. Optional ones are filled from the left with what
        // the required ones leave.
        let mut spare = given.positional.len().saturating_sub(required);
        let mut values = given.positional.iter();
        let mut nodes = Vec::with_capacity(args.len());
        for arg in args {
            let slot = Slot {
                subject,
                parent: None,
                name: arg.name,
            };
            let take = arg.required || spare > 0;
            if !arg.required && spare > 0 {
                spare -= 1;
            }
            let value = if take { values.next() } else { None };
            let node = value.map(|raw| self.value(raw, &arg.ty, &slot));
            let missing = node.is_none() && !given.unknown && !given.wrong;
            *right &= !matches!(node, Some(None));
            *right &= self.present(!missing, arg.required, "", place, &arg.ty, &slot);
            nodes.push(node.flatten());
        }
        for extra in values {
            *right = false;
            if matches!(extra.value, RawValue::Function) {
                let message = format!("{}: {NO_FUNCTIONS}", subject());
                self.mistake(extra.place, Code::BadValue, &message, "");
                continue;
            }
            if matches!(extra.value, RawValue::Unknown) {
                continue;
            }
            let message = format!("{}: {} is one too many", subject(), self.shown(extra));
            let help = format!("expected {}", usage(spec.directive));
            self.mistake(extra.place, Code::BadValue, &message, &help);
        }
        nodes
    }

    fn options(
        &mut self,
        spec: &Spec,
        given: &Given,
        place: Place,
        subject: &dyn Fn() -> String,
        right: &mut bool,
    ) -> (Vec<(usize, Node)>, Vec<Arc<Call>>) {
        let all = spec.directive.options;
        let mut options = Vec::with_capacity(given.options.len());
        let mut when = Vec::new();
        for (index, raw) in &given.options {
            let Some(option) = all.get(*index).or(spec.when) else {
                continue;
            };
            let slot = Slot {
                subject,
                parent: None,
                name: option.name,
            };
            if *index == all.len() {
                let response = matches!(option.ty, Type::Condition { response: true });
                match self.conditions(raw, response, &slot) {
                    // An empty list would be "always" here, but no item of it is true.
                    Some(list) if list.is_empty() => {
                        self.bad_value(raw, &slot, "expected at least one condition");
                        *right = false;
                    }
                    Some(list) => when = list,
                    None => *right = false,
                }
                continue;
            }
            match self.value(raw, &option.ty, &slot) {
                Some(node) => options.push((*index, node)),
                None => *right = false,
            }
        }
        for (index, option) in all.iter().enumerate() {
            if option.unset != Unset::Required || given.options.iter().any(|(at, _)| *at == index) {
                continue;
            }
            let slot = Slot {
                subject,
                parent: None,
                name: option.name,
            };
            *right &= self.present(false, !given.unknown, "", place, &option.ty, &slot);
        }
        (options, when)
    }

    fn items(&mut self, given: &Given, call: &mut Call, slot: &Slot<'_>) -> bool {
        let Some(items) = call.directive().items else {
            return true;
        };
        let named = slot.below(items.name);
        if given.items.is_empty() {
            let required = items.required && !given.unknown && !given.wrong;
            return self.present(false, required, "", call.place, &items.ty, &named);
        }
        let list = Raw {
            value: RawValue::Table(Rc::new(RawTable {
                items: given.items.clone(),
                ..RawTable::default()
            })),
            place: call.place,
        };
        match items.ty {
            Type::Pipeline => match self.pipeline(&list, &named) {
                Some(steps) => call.steps = steps,
                None => return false,
            },
            Type::Condition { response } => match self.conditions(&list, response, &named) {
                Some(steps) => call.steps = steps,
                None => return false,
            },
            ty => match self.list(&list, &ty, &named) {
                Some(nodes) => call.items = nodes,
                None => return false,
            },
        }
        true
    }
}

/// How messages call a use: the directive's name, with its first argument where that is a text.
fn subject(spec: &Spec, segments: &[(Place, Vec<Raw>)]) -> String {
    let name = spec.directive.name;
    if spec.directive.role != Role::Declaration && spec.directive.role != Role::Route {
        return name.to_owned();
    }
    let first = segments.first().and_then(|(_, args)| args.first());
    let text = match first.map(|raw| &raw.value) {
        Some(RawValue::Text(text)) => Some(&**text),
        // Of a table only a list of arguments can be taken: `processes { "php-cgi" }` has no name.
        Some(RawValue::Table(table)) => {
            let first = spec.directive.args.first();
            let is_list = first.is_some_and(|arg| matches!(arg.ty, Type::List(_)));
            table.items.first().filter(|_| is_list).and_then(Raw::text)
        }
        _ => None,
    };
    match text {
        Some(text) if !spec.directive.args.is_empty() => format!("{name} {}", quoted(text)),
        _ => name.to_owned(),
    }
}

/// "did you mean", or else all names if they are few.
pub(super) fn option_help<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    if let Some(near) = crate::nearest(name, names.iter().copied()) {
        return format!("did you mean `{near}`?");
    }
    match names.len() {
        0 => "it has no options".to_owned(),
        1..=8 => format!("it has `{}`", names.join("` `")),
        _ => String::new(),
    }
}

/// A directive as it is written: `proxy TARGET { … }`.
pub(crate) fn usage(directive: &Directive) -> String {
    let mut out = format!("`{}", directive.name);
    for arg in directive.args {
        let dots = if matches!(arg.ty, Type::List(_)) {
            "…"
        } else {
            ""
        };
        match arg.required {
            true => out += &format!(" {}{dots}", arg.name),
            false => out += &format!(" [{}{dots}]", arg.name),
        }
    }
    match (directive.items, directive.keyed) {
        (Some(items), _) => out += &format!(" {{ {}… }}", items.name),
        (None, Some(keyed)) => out += &format!(" {{ {} }}", keyed.name),
        (None, None) if !directive.options.is_empty() => out += " { OPTION = … }",
        (None, None) => {}
    }
    out + "`"
}

/// Whether every argument has a value and the last one is a list.
fn is_full(spec: &Spec, given: &Given) -> bool {
    let args = spec.directive.args;
    given.positional.len() >= args.len()
        && args
            .last()
            .is_some_and(|arg| matches!(arg.ty, Type::List(_)))
}

fn append_to_last(given: &mut Given, raw: &Raw) {
    let Some(last) = given.positional.pop() else {
        return;
    };
    let mut items = match &last.value {
        RawValue::Table(table) => table.items.clone(),
        _ => vec![last.clone()],
    };
    items.push(raw.clone());
    given.positional.push(list_of(&last, items));
}

fn list_of(raw: &Raw, items: Vec<Raw>) -> Raw {
    let table = RawTable {
        items,
        ..RawTable::default()
    };
    Raw {
        value: RawValue::Table(Rc::new(table)),
        place: raw.place,
    }
}
