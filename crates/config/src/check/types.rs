//! One value against one type.

use std::rc::Rc;
use std::sync::Arc;

use crate::address::{Address, Host, Prefix, Target};
use crate::check::describe::expected;
use crate::check::{Checker, Slot};
use crate::directive::{Type, Vars};
use crate::matching::{Match, Pattern};
use crate::place::Place;
use crate::raw::{Entry, MAX_DEPTH, Made, Raw, RawTable, RawValue, quoted};
use crate::report::Code;
use crate::scalar::{self, Status};
use crate::template::{PathTemplate, Template, WrongTemplate};
use crate::url::Url;
use crate::value::{Call, Node, Value};

/// Why functions are refused everywhere.
pub(super) const NO_FUNCTIONS: &str = "functions are not built yet";

impl Checker {
    /// Checks a value; none if it is wrong, and then that is reported.
    pub(super) fn value(&mut self, raw: &Raw, ty: &Type, slot: &Slot<'_>) -> Option<Node> {
        if !self.spend(raw.place) || matches!(raw.value, RawValue::Unknown) {
            return None;
        }
        if self.depth >= MAX_DEPTH {
            self.too_deep(raw.place);
            return None;
        }
        self.depth += 1;
        let value = self.value_within(raw, ty, slot);
        self.depth -= 1;
        value.map(|value| Node {
            value,
            place: raw.place,
        })
    }

    fn value_within(&mut self, raw: &Raw, ty: &Type, slot: &Slot<'_>) -> Option<Value> {
        if matches!(raw.value, RawValue::Function) {
            self.no_functions(raw.place, slot);
            return None;
        }
        if let RawValue::Table(table) = &raw.value
            && table.refused.is_some()
        {
            self.bad_value(raw, slot, &expected(ty));
            return None;
        }
        match ty {
            Type::Or(types) => self.alternatives(raw, types, slot),
            Type::List(item) => self.list(raw, item, slot).map(Value::List),
            Type::Pair(first, second) => self.pair(raw, first, second, slot),
            Type::Map { key, value } => self.map(raw, key, value, slot),
            Type::Fields(vars) => self.fields(raw, *vars, slot),
            Type::Record(record) => self.record(raw, record, slot),
            Type::Pipeline => self.pipeline(raw, slot).map(Value::Pipeline),
            Type::Condition { response } => {
                self.conditions(raw, *response, slot).map(Value::Conditions)
            }
            Type::Declared(names) => self.declared(raw, names, slot),
            scalar => match self.scalar(raw, scalar) {
                Ok(value) => Some(value),
                Err(wrong) => {
                    self.wrong(raw, wrong, slot);
                    None
                }
            },
        }
    }

    pub(super) fn no_functions(&mut self, place: Place, slot: &Slot<'_>) {
        let message = format!("{}: {NO_FUNCTIONS}", (slot.subject)());
        self.mistake(
            place,
            Code::BadValue,
            &message,
            "use a directive or a plain value",
        );
    }

    pub(super) fn wrong(&mut self, raw: &Raw, wrong: WrongTemplate, slot: &Slot<'_>) {
        let Some(variable) = wrong.variable else {
            return self.bad_value(raw, slot, &wrong.help);
        };
        let (subject, label) = ((slot.subject)(), slot.label());
        let what = if wrong.misplaced {
            "misplaced"
        } else {
            "unknown"
        };
        let message = format!("{subject}: {label}: {what} variable `{variable}`");
        self.mistake(raw.place, Code::UnknownName, &message, &wrong.help);
    }

    /// A type without parts, and without side effects: the error is the help of a message.
    fn scalar(&mut self, raw: &Raw, ty: &Type) -> Result<Value, WrongTemplate> {
        let plain = |help: String| WrongTemplate::text(help);
        let not = || plain(expected(ty));
        match (&raw.value, ty) {
            (RawValue::Boolean(value), Type::Boolean) => return Ok(Value::Boolean(*value)),
            (RawValue::Boolean(false), Type::False) => return Ok(Value::Boolean(false)),
            (RawValue::Number(number), Type::Count { min, max }) => {
                let count = whole(*number).filter(|count| (*min..=*max).contains(count));
                return count.map(Value::Count).ok_or_else(not);
            }
            (RawValue::Number(number), Type::Status | Type::StatusCode) => {
                let (min, max) = match ty {
                    Type::StatusCode => (200, 599),
                    _ => (100, 599),
                };
                let code = whole(*number).filter(|code| (min..=max).contains(code));
                let code = code.and_then(|code| u16::try_from(code).ok());
                return code
                    .map(|code| Value::Status(Status::Code(code)))
                    .ok_or_else(not);
            }
            (RawValue::Made(Made::Regex, text), Type::Match | Type::Regex) => {
                return self.regex(text).map(Value::Match).map_err(plain);
            }
            _ => {}
        }
        let Some(text) = raw.text() else {
            return Err(not());
        };
        self.textual(text, ty)
            .and_then(|value| value.ok_or_else(not))
    }

    /// A type that is written as text; `None` where only the type's own description helps.
    fn textual(&mut self, text: &str, ty: &Type) -> Result<Option<Value>, WrongTemplate> {
        let help = |help: String| WrongTemplate::text(help);
        Ok(match ty {
            Type::Duration { min, max } => match scalar::duration(text) {
                Some(duration) => {
                    let fits = (*min..=*max).contains(&duration);
                    fits.then_some(Value::Duration(duration))
                }
                None if scalar::is_too_long(text) => {
                    let most = crate::scalar::show_duration(*max);
                    return Err(help(format!("the longest is \"{most}\"")));
                }
                None => None,
            },
            Type::Size { min, max } => scalar::size(text)
                .filter(|size| (*min..=*max).contains(size))
                .map(Value::Size),
            Type::Bandwidth => scalar::bandwidth(text).map(Value::Size),
            Type::Rate => scalar::rate(text).map(Value::Rate),
            Type::Percent => scalar::percent(text).map(Value::Percent),
            Type::Address => Address::parse(text, &self.dir).map(Value::Address),
            Type::Target { schemes, variables } => {
                let target = Target::parse(text, *schemes, *variables, &self.dir);
                Some(Value::Target(target.map_err(help)?))
            }
            Type::Prefix => Prefix::parse(text).map(Value::Prefix),
            Type::Host => Host::parse(text).map(Value::Host),
            Type::Pattern => {
                let pattern = Pattern::parse(text).map_err(|wrong| help(wrong.to_owned()))?;
                Some(Value::Pattern(pattern))
            }
            Type::Match => Match::parse(text).map(Value::Match),
            Type::Template(vars) => Some(Value::Template(Template::parse(text, *vars)?)),
            Type::PathOrUrl if text.contains("://") => Url::parse(text).map(Value::Url),
            Type::Path | Type::PathOrUrl => {
                let right = !text.is_empty() && !text.contains('\0');
                right.then(|| Value::Path(self.dir.join(text)))
            }
            Type::PathTemplate => Some(Value::PathTemplate(PathTemplate::parse(text, &self.dir)?)),
            Type::PathUnder { query } => Some(Value::Template(path_under(text, *query)?)),
            Type::Status => scalar::status_class(text).map(Value::Status),
            Type::Text => Some(Value::Text(text.into())),
            Type::Name => scalar::is_name(text).then(|| Value::Text(text.into())),
            Type::OneOf(words) => match words.iter().find(|word| **word == text) {
                Some(word) => Some(Value::Keyword(word)),
                None => {
                    let near = crate::nearest(text, words.iter().copied());
                    let near = near.map(|near| help(format!("did you mean \"{near}\"?")));
                    return near.map_or(Ok(None), Err);
                }
            },
            _ => None,
        })
    }

    fn regex(&mut self, text: &Rc<str>) -> Result<Match, String> {
        if let Some(known) = self.regexes.get(text) {
            return known.clone();
        }
        let compiled = Match::regex(text).map_err(|wrong| format!("not an expression: {wrong}"));
        self.regexes.insert(Rc::clone(text), compiled.clone());
        compiled
    }

    fn alternatives(&mut self, raw: &Raw, types: &[Type], slot: &Slot<'_>) -> Option<Value> {
        let mut tried: Option<WrongTemplate> = None;
        let mut fitting = 0;
        for ty in types {
            if is_compound(ty) {
                if self.fits(raw, ty) {
                    return self.value_within(raw, ty, slot);
                }
                continue;
            }
            match self.scalar(raw, ty) {
                Ok(value) => return Some(value),
                Err(wrong) if may_be(raw, ty) => {
                    // A near miss says more than what the others expected.
                    let near = wrong.help.starts_with("did you mean");
                    fitting += 1;
                    if near {
                        tried = Some(wrong);
                        fitting = 1;
                        break;
                    }
                    tried = Some(wrong);
                }
                Err(_) => {}
            }
        }
        // With one type of the right shape, its own words help more than the list of all.
        let own = if fitting == 1 { tried } else { None };
        let all = || {
            // A number without its unit is met more often than the other shapes.
            let time = types.iter().find(|ty| matches!(ty, Type::Duration { .. }));
            WrongTemplate::text(match (&raw.value, time) {
                (RawValue::Number(_), Some(time)) => expected(time),
                _ => format!("expected {}", all_of(types)),
            })
        };
        self.wrong(raw, own.unwrap_or_else(all), slot);
        None
    }

    /// Whether a value has the outer shape of a type with parts.
    fn fits(&self, raw: &Raw, ty: &Type) -> bool {
        let directive = match &raw.value {
            RawValue::Use(index) => Some(self.specs[self.uses[*index].spec].directive),
            RawValue::Bare(spec) => Some(self.specs[*spec].directive),
            _ => None,
        };
        let step = directive.is_some_and(|directive| {
            !matches!(
                directive.role,
                crate::Role::Declaration | crate::Role::Condition
            )
        });
        let condition = directive.is_some_and(|directive| directive.role == crate::Role::Condition);
        match (&raw.value, ty) {
            (RawValue::Table(table), Type::Pipeline | Type::Condition { .. }) => {
                table.items.first().is_none_or(|first| self.fits(first, ty))
            }
            (_, Type::Pipeline) => step,
            (_, Type::Condition { .. }) => condition,
            (_, Type::Declared(names)) => {
                directive.is_some_and(|directive| names.contains(&directive.name))
            }
            (RawValue::Table(_), _) => true,
            (RawValue::Boolean(false), _) => false,
            (_, Type::List(item)) => match item {
                item if is_compound(item) => self.fits(raw, item),
                item => may_be(raw, item),
            },
            _ => false,
        }
    }

    /// One value or a list; lists within lists count as if their items stood there.
    pub(super) fn list(&mut self, raw: &Raw, item: &Type, slot: &Slot<'_>) -> Option<Vec<Node>> {
        let mut nodes = Vec::new();
        let right = match &raw.value {
            // A table may be one item, `{ TARGET, weight = 2 }`, or a list of them.
            RawValue::Table(table) if !is_one_record(table, item) => {
                self.list_items(raw, table, item, slot, &mut nodes)
            }
            _ => match self.value(raw, item, slot) {
                Some(node) => {
                    nodes.push(node);
                    true
                }
                None => false,
            },
        };
        let needs_one = matches!(
            item,
            Type::Host | Type::Pattern | Type::Path | Type::PathUnder { .. }
        );
        if right && nodes.is_empty() && needs_one {
            self.bad_value(raw, slot, "expected at least one");
            return None;
        }
        right.then_some(nodes)
    }

    fn list_items(
        &mut self,
        raw: &Raw,
        table: &RawTable,
        item: &Type,
        slot: &Slot<'_>,
        nodes: &mut Vec<Node>,
    ) -> bool {
        let mut right = self.only_items(table, slot);
        for inner in &table.items {
            let flat =
                matches!(&inner.value, RawValue::Table(table) if !is_one_record(table, item));
            if flat && !matches!(item, Type::Pair(..) | Type::Map { .. } | Type::Fields(_)) {
                match self.nested(inner, raw) {
                    true => {
                        right &= self
                            .list(inner, item, slot)
                            .map(|n| nodes.extend(n))
                            .is_some()
                    }
                    false => right = false,
                }
            } else {
                right &= self
                    .value(inner, item, slot)
                    .map(|node| nodes.push(node))
                    .is_some();
            }
        }
        right
    }

    /// Whether one more list in a list is within limits.
    pub(super) fn nested(&mut self, inner: &Raw, _outer: &Raw) -> bool {
        if self.spend(inner.place) && self.depth < MAX_DEPTH {
            return true;
        }
        if self.depth >= MAX_DEPTH {
            self.too_deep(inner.place);
        }
        false
    }

    /// Reports the named entries of a table that is a list, and nil in its middle.
    pub(super) fn only_items(&mut self, table: &RawTable, slot: &Slot<'_>) -> bool {
        let mut right = self.no_hole(table, slot);
        for entry in &table.keys {
            right = false;
            let (subject, key) = ((slot.subject)(), self.key_text(&entry.key));
            let message = format!("{subject}: {} has no option `{key}`", slot.label());
            self.mistake(
                entry.key.place,
                Code::UnknownOption,
                &message,
                "expected a plain list",
            );
        }
        right
    }

    pub(super) fn no_hole(&mut self, table: &RawTable, slot: &Slot<'_>) -> bool {
        let Some((index, place)) = table.hole else {
            return true;
        };
        let message = format!("{}: item {index} of the list is nil", (slot.subject)());
        self.mistake(
            place,
            Code::BadValue,
            &message,
            "has the name a value at this point?",
        );
        false
    }

    pub(super) fn key_text(&self, key: &Raw) -> String {
        match &key.value {
            RawValue::Text(text) => text.to_string(),
            _ => format!("[{}]", self.shown(key)),
        }
    }

    fn pair(&mut self, raw: &Raw, first: &Type, second: &Type, slot: &Slot<'_>) -> Option<Value> {
        if let RawValue::Table(table) = &raw.value
            && let [a, b] = table.items.as_slice()
        {
            let plain = self.only_items(table, slot);
            let (a, b) = (self.value(a, first, slot), self.value(b, second, slot));
            return Some(Value::List(vec![a?, b?])).filter(|_| plain);
        }
        let help = format!(
            "expected {{ {}, {} }}",
            super::kind(first),
            super::kind(second)
        );
        self.bad_value(raw, slot, &help);
        None
    }

    fn map(&mut self, raw: &Raw, key: &Type, value: &Type, slot: &Slot<'_>) -> Option<Value> {
        let RawValue::Table(table) = &raw.value else {
            let help = format!(
                "expected {{ {} = {} }}",
                super::kind(key),
                super::kind(value)
            );
            self.bad_value(raw, slot, &help);
            return None;
        };
        let mut right = self.no_items(table, slot);
        let mut pairs = Vec::with_capacity(table.keys.len());
        for entry in &table.keys {
            match self.entry(entry, key, value, slot) {
                Some(pair) => pairs.push(pair),
                None => right = false,
            }
        }
        right.then_some(Value::Map(pairs))
    }

    /// An entry whose key is no option's name.
    pub(super) fn entry(
        &mut self,
        entry: &Entry,
        key: &Type,
        value: &Type,
        slot: &Slot<'_>,
    ) -> Option<(Node, Node)> {
        let name = self.key_text(&entry.key);
        let below = slot.below(&name);
        let key = match self.key(&entry.key, key) {
            Ok(value) => Some(Node {
                value,
                place: entry.key.place,
            }),
            Err(wrong) => {
                let message = format!("{}: the key `{name}` cannot be used", (slot.subject)());
                self.mistake(entry.key.place, Code::BadValue, &message, &wrong.help);
                None
            }
        };
        let value = self.value(&entry.value, value, &below);
        key.zip(value)
    }

    /// A key, which may be of several types, but never one with parts.
    fn key(&mut self, raw: &Raw, ty: &Type) -> Result<Value, WrongTemplate> {
        let Type::Or(types) = ty else {
            return self.scalar(raw, ty);
        };
        for ty in *types {
            if let Ok(value) = self.scalar(raw, ty) {
                return Ok(value);
            }
        }
        Err(WrongTemplate::text(expected(ty)))
    }

    pub(super) fn no_items(&mut self, table: &RawTable, slot: &Slot<'_>) -> bool {
        let Some(first) = table.items.first() else {
            return self.no_hole(table, slot);
        };
        let message = format!(
            "{}: {} takes no list, but has {}",
            (slot.subject)(),
            slot.label(),
            self.shown(first)
        );
        self.mistake(
            first.place,
            Code::BadValue,
            &message,
            "expected `NAME = VALUE` only",
        );
        false
    }

    /// Reports what is required and not there.
    pub(super) fn present(
        &mut self,
        given: bool,
        required: bool,
        name: &str,
        place: Place,
        ty: &Type,
        slot: &Slot<'_>,
    ) -> bool {
        if given || !required {
            return true;
        }
        let label = if name.is_empty() {
            slot.label()
        } else {
            slot.below(name).label()
        };
        let message = format!("{}: {label} is missing", (slot.subject)());
        self.mistake(place, Code::Missing, &message, &expected(ty));
        false
    }

    fn declared(&mut self, raw: &Raw, names: &[&str], slot: &Slot<'_>) -> Option<Value> {
        if let RawValue::Use(index) = raw.value {
            // A later call of a declaration is the declaration.
            let directive = self.specs[self.uses[index].spec].directive;
            if names.contains(&directive.name) {
                let root = self.root(index);
                self.used[root] = true;
                return self.resolve(root).map(Value::Declared);
            }
        }
        let first = names.first().copied().unwrap_or_default();
        let help = format!(
            "expected what `{}` gives, as `local x = {first} …` and then `x`",
            names.join("` or `")
        );
        self.bad_value(raw, slot, &help);
        None
    }

    pub(super) fn conditions(
        &mut self,
        raw: &Raw,
        response: bool,
        slot: &Slot<'_>,
    ) -> Option<Vec<Arc<Call>>> {
        let mut found = Vec::new();
        self.conditions_into(raw, response, slot, &mut found)
            .then_some(found)
    }

    fn conditions_into(
        &mut self,
        raw: &Raw,
        response: bool,
        slot: &Slot<'_>,
        found: &mut Vec<Arc<Call>>,
    ) -> bool {
        match &raw.value {
            RawValue::Table(table) if table.refused.is_none() => {
                let mut right = self.only_items(table, slot);
                for item in &table.items {
                    if !self.nested(item, raw) {
                        return false;
                    }
                    self.depth += 1;
                    right &= self.conditions_into(item, response, slot, found);
                    self.depth -= 1;
                }
                right
            }
            RawValue::Use(_) | RawValue::Bare(_) => {
                let spec = self.spec_of(raw);
                if spec.is_none_or(|spec| spec.directive.role != crate::Role::Condition) {
                    self.bad_value(raw, slot, &expected(&Type::CONDITION));
                    return false;
                }
                let Some(call) = self.called(raw) else {
                    return false;
                };
                let right = response || !self.looks_at_response(&call);
                if !right {
                    let name = call.name();
                    let message = format!("{}: `{name}` looks at the response", (slot.subject)());
                    let help = "here, nothing but the request is known";
                    self.mistake(raw.place, Code::Conflict, &message, help);
                }
                found.push(call);
                right
            }
            RawValue::Function => {
                self.no_functions(raw.place, slot);
                false
            }
            _ => {
                self.bad_value(raw, slot, &expected(&Type::CONDITION));
                false
            }
        }
    }
}

/// "A or B", behind "expected".
fn all_of(types: &[Type]) -> String {
    types
        .iter()
        .map(super::kind)
        .collect::<Vec<_>>()
        .join(" or ")
}

/// Whether a table is one record, not a list of records.
fn is_one_record(table: &RawTable, item: &Type) -> bool {
    let record = |ty: &Type| matches!(ty, Type::Record(_));
    let can_be = match item {
        Type::Or(types) => types.iter().any(record),
        ty => record(ty),
    };
    can_be && !table.keys.is_empty()
}

fn is_compound(ty: &Type) -> bool {
    matches!(
        ty,
        Type::List(_)
            | Type::Pair(..)
            | Type::Map { .. }
            | Type::Fields(_)
            | Type::Record(_)
            | Type::Pipeline
            | Type::Condition { .. }
            | Type::Declared(_)
            | Type::Or(_)
    )
}

/// Whether a value is written like this type, right or not.
fn may_be(raw: &Raw, ty: &Type) -> bool {
    match &raw.value {
        RawValue::Text(_) => !matches!(
            ty,
            Type::Boolean | Type::Count { .. } | Type::StatusCode | Type::Regex
        ),
        RawValue::Number(_) => matches!(ty, Type::Count { .. } | Type::Status | Type::StatusCode),
        RawValue::Boolean(_) => matches!(ty, Type::Boolean | Type::False),
        RawValue::Made(Made::Regex, _) => matches!(ty, Type::Match | Type::Regex),
        _ => false,
    }
}

/// A whole number from zero to what a double holds exactly.
pub(super) fn whole(number: f64) -> Option<u64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let right = number.fract() == 0.0 && (0.0..=EXACT).contains(&number);
    // Lua has no other numbers; the text of a whole one is its digits.
    if right {
        format!("{number:.0}").parse().ok()
    } else {
        None
    }
}

/// A path under a directory that is given elsewhere.
fn path_under(text: &str, query: bool) -> Result<Template, WrongTemplate> {
    let wrong = |help: &str| WrongTemplate::text(help.to_owned());
    let (path, rest) = match text.split_once('?') {
        Some((path, _)) if query => (path, true),
        _ => (text, false),
    };
    if path.is_empty() || path.contains('\0') {
        return Err(wrong("expected a path"));
    }
    // What it may hold and that it stays inside is the same as for a path of the file system.
    PathTemplate::parse(path, std::path::Path::new("/"))?;
    if path.split('/').any(|segment| segment == "..") {
        return Err(wrong("`..` leads out of the directory"));
    }
    if !rest && text.contains('?') {
        return Err(WrongTemplate::text(format!(
            "{} has no query",
            quoted(text)
        )));
    }
    Template::parse(text, Vars::Request)
}
