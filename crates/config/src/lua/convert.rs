//! From Lua's tables to plain data: once, when all code has run.

use std::ffi::c_void;
use std::rc::Rc;

use mlua::{Table, Value};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::lua::Machine;
use crate::lua::state::{Located, State, place};
use crate::place::Place;
use crate::raw::{Entry, MAX_DEPTH, Made, Raw, RawTable, RawValue, Use};
use crate::registry::Registry;
use crate::report::Code;
use crate::scan::{Key, Part};

/// Longest text of one value.
const MAX_TEXT: usize = 16 << 20;

/// Bytes of all texts, and number of all values, of one configuration.
const MAX_TEXTS: usize = 256 << 20;
const MAX_VALUES: usize = 5_000_000;

/// What the values that the prelude has made stand for.
#[derive(Clone)]
enum Known {
    Use(usize),
    Bare(usize),
    Made(Made, Rc<str>),
    Unknown,
    Other(&'static str),
}

pub(super) struct Converter<'a> {
    machine: &'a Machine,
    known: FxHashMap<*const c_void, Known>,
    /// The number in the result of each use, by its number in Lua; for those that are uses.
    numbers: Vec<usize>,
    tables: FxHashMap<*const c_void, Rc<RawTable>>,
    /// Tables that are being looked at: meeting one again is a circle.
    open: FxHashSet<*const c_void>,
    texts: FxHashMap<*const c_void, Rc<str>>,
    text_bytes: usize,
    values: usize,
}

impl<'a> Converter<'a> {
    pub(super) fn new(machine: &'a Machine, registry: &Registry) -> mlua::Result<Converter<'a>> {
        let mut known = FxHashMap::default();
        let prelude = &machine.prelude;
        for (index, directive) in registry.directives().enumerate() {
            let value: Value = prelude.known.raw_get(directive.name)?;
            known.insert(value.to_pointer(), Known::Bare(index));
        }
        for name in crate::helpers::NAMES {
            let value: Value = prelude.known.raw_get(name)?;
            known.insert(
                value.to_pointer(),
                Known::Other("a helper that was not called"),
            );
        }
        known.insert(prelude.unknown.to_pointer(), Known::Unknown);
        Ok(Converter {
            machine,
            known,
            numbers: vec![usize::MAX],
            tables: FxHashMap::default(),
            open: FxHashSet::default(),
            texts: FxHashMap::default(),
            text_bytes: 0,
            values: 0,
        })
    }

    pub(super) fn run(mut self) -> mlua::Result<Vec<Use>> {
        let mut uses = Vec::new();
        // In one go: reading a part of a table on its own costs three times as much.
        let mut all = Vec::new();
        self.machine
            .prelude
            .uses
            .for_each(|index: usize, one: Table| {
                all.push((index, one));
                Ok(())
            })?;
        all.sort_by_key(|(index, _)| *index);
        for (_, one) in all {
            let noted = Noted::read(&one)?;
            let known = match (noted.made(), usize::try_from(noted.kind)) {
                (Some(made), _) => {
                    self.numbers.push(usize::MAX);
                    self.made(made, &noted)?
                }
                (None, Ok(spec)) => {
                    let of = self
                        .numbers
                        .get(noted.of)
                        .copied()
                        .filter(|of| *of != usize::MAX);
                    self.numbers.push(uses.len());
                    let place = self.machine.state.borrow().call_place(noted.site);
                    let args = self.arguments(&noted)?;
                    uses.push(Use {
                        spec,
                        of,
                        place,
                        args,
                    });
                    Known::Use(uses.len() - 1)
                }
                (None, Err(_)) => continue,
            };
            self.known.insert(one.to_pointer(), known);
        }
        Ok(uses)
    }

    fn made(&mut self, made: Made, noted: &Noted) -> mlua::Result<Known> {
        let args = self.arguments(noted)?;
        if let [
            Raw {
                value: RawValue::Text(text),
                ..
            },
        ] = args.as_slice()
        {
            return Ok(Known::Made(made, Rc::clone(text)));
        }
        if !args
            .iter()
            .any(|raw| matches!(raw.value, RawValue::Unknown))
        {
            let place = args.first().map(|raw| raw.place);
            let mut state = self.machine.state.borrow_mut();
            let place = place.unwrap_or_else(|| state.call_place(noted.site));
            let message = format!("{} takes one text", made.name());
            let help = format!("expected `{} \"…\"`", made.name());
            state.mistake(place, Code::BadValue, message, help);
        }
        Ok(Known::Unknown)
    }

    fn arguments(&mut self, noted: &Noted) -> mlua::Result<Vec<Raw>> {
        let mut args = Vec::with_capacity(noted.args.len());
        for (index, value) in noted.args.iter().enumerate() {
            let place = self
                .machine
                .state
                .borrow()
                .argument_place(noted.site, index);
            args.push(self.value(value, place, 0)?);
        }
        Ok(args)
    }

    fn value(&mut self, value: &Value, place: Place, depth: usize) -> mlua::Result<Raw> {
        self.values += 1;
        if self.values > MAX_VALUES {
            if self.values == MAX_VALUES + 1 {
                let message = format!("the configuration holds more than {MAX_VALUES} values");
                self.machine
                    .state
                    .borrow_mut()
                    .mistake(place, Code::Conflict, message, "");
            }
            return Ok(Raw {
                value: RawValue::Unknown,
                place,
            });
        }
        let value = match value {
            Value::Nil => RawValue::Nil,
            Value::Boolean(value) => RawValue::Boolean(*value),
            Value::Integer(number) => match i32::try_from(*number) {
                Ok(small) => RawValue::Number(f64::from(small)),
                // Whole numbers beyond that are no less exact: Luau has nothing but doubles.
                Err(_) => RawValue::Number(number.to_string().parse().unwrap_or(f64::NAN)),
            },
            Value::Number(number) => RawValue::Number(*number),
            Value::String(text) => self.text(text, place),
            Value::Table(table) => self.table(table, place, depth)?,
            Value::Function(function) => match self.known.get(&function.to_pointer()) {
                Some(Known::Other(what)) => RawValue::Other(what),
                _ => RawValue::Function,
            },
            Value::Buffer(_) => RawValue::Other("a buffer"),
            Value::Vector(_) => RawValue::Other("a vector"),
            _ => RawValue::Other("a value of Lua's own"),
        };
        Ok(Raw { value, place })
    }

    fn text(&mut self, text: &mlua::LuaString, place: Place) -> RawValue {
        let pointer = text.to_pointer();
        if let Some(known) = self.texts.get(&pointer) {
            return RawValue::Text(Rc::clone(known));
        }
        let bytes = text.as_bytes();
        if bytes.len() > MAX_TEXT {
            return RawValue::Other("a text of more than 16MB");
        }
        let Ok(text) = std::str::from_utf8(&bytes) else {
            return RawValue::Other("a text that is not UTF-8");
        };
        if self.text_bytes + text.len() > MAX_TEXTS {
            let message = "the configuration holds more than 256MB of text";
            self.machine
                .state
                .borrow_mut()
                .mistake(place, Code::Conflict, message, "");
            return RawValue::Unknown;
        }
        self.text_bytes += text.len();
        let text: Rc<str> = text.into();
        self.texts.insert(pointer, Rc::clone(&text));
        RawValue::Text(text)
    }

    fn table(&mut self, table: &Table, place: Place, depth: usize) -> mlua::Result<RawValue> {
        let pointer = table.to_pointer();
        if let Some(known) = self.known.get(&pointer) {
            return Ok(match known {
                Known::Use(index) => RawValue::Use(*index),
                Known::Bare(spec) => RawValue::Bare(*spec),
                Known::Made(made, text) => RawValue::Made(*made, Rc::clone(text)),
                Known::Unknown => RawValue::Unknown,
                Known::Other(what) => RawValue::Other(what),
            });
        }
        if let Some(known) = self.tables.get(&pointer) {
            return Ok(RawValue::Table(Rc::clone(known)));
        }
        let refused = |reason| {
            let table = RawTable {
                refused: Some(reason),
                ..RawTable::default()
            };
            Ok(RawValue::Table(Rc::new(table)))
        };
        if table.has_metatable() {
            return refused("has a metatable");
        }
        if depth >= MAX_DEPTH {
            return refused("is nested too deep");
        }
        if !self.open.insert(pointer) {
            return refused("holds itself");
        }
        let converted = self.plain_table(table, place, depth);
        self.open.remove(&pointer);
        let converted = Rc::new(converted?);
        self.tables.insert(pointer, Rc::clone(&converted));
        Ok(RawValue::Table(converted))
    }

    fn plain_table(&mut self, table: &Table, outer: Place, depth: usize) -> mlua::Result<RawTable> {
        let machine = self.machine;
        let site: Option<usize> = machine.prelude.sites.raw_get(table)?;
        let spans = Spans::new(&mut machine.state.borrow_mut(), site, outer);
        let (mut items, mut keys) = (Vec::new(), Vec::new());
        table.for_each(|key: Value, value: Value| {
            match &key {
                Value::Integer(index) if *index > 0 => {
                    let index = usize::try_from(*index).unwrap_or(usize::MAX);
                    items.push((index, value));
                }
                _ => keys.push((key, value)),
            }
            Ok(())
        })?;
        items.sort_by_key(|(index, _)| *index);
        let hole: Option<usize> = machine.prelude.holes.raw_get(table)?;
        let mut raw = RawTable::default();
        // Numbers with gaps are keys, `{ [404] = "x" }`, unless the list was written with a nil.
        let run = items
            .iter()
            .zip(1..)
            .take_while(|((index, _), at)| index == at)
            .count();
        let (listed, rest) = items.split_at(run);
        for (index, value) in listed {
            let place = spans.item(*index);
            raw.items.push(self.value(value, place, depth + 1)?);
        }
        if let Some(hole) = hole.filter(|hole| *hole > run) {
            raw.hole = Some((hole, spans.item(hole)));
        }
        for (index, value) in rest {
            if raw.hole.is_some() && spans.is_item(*index) {
                continue;
            }
            let key = Value::Integer(i64::try_from(*index).unwrap_or(i64::MAX));
            keys.push((key, value.clone()));
        }
        for (key, value) in keys {
            let (key_place, value_place) = spans.entry(&machine.state.borrow(), &key);
            let key = self.value(&key, key_place, depth + 1)?;
            let value = self.value(&value, value_place, depth + 1)?;
            raw.keys.push(Entry { key, value });
        }
        // Lua keeps no order; that of the source is the best there is, then that of the alphabet.
        raw.keys.sort_by_cached_key(|entry| order(entry, outer));
        Ok(raw)
    }
}

fn order(entry: &Entry, outer: Place) -> (bool, Place, String) {
    let unknown = entry.key.place == outer;
    let name = match &entry.key.value {
        _ if !unknown => String::new(),
        RawValue::Text(text) => text.to_string(),
        RawValue::Number(number) => format!("{number:020}"),
        _ => String::new(),
    };
    (unknown, entry.key.place, name)
}

/// A use as `prelude.luau` has noted it.
#[derive(Default)]
struct Noted {
    kind: i64,
    site: usize,
    of: usize,
    args: Vec<Value>,
}

impl Noted {
    fn read(one: &Table) -> mlua::Result<Noted> {
        let mut noted = Noted::default();
        let mut count = 0;
        one.for_each(|key: usize, value: Value| {
            let number = value.as_usize().unwrap_or(0);
            match key {
                1 => noted.kind = value.as_i64().unwrap_or(i64::MIN),
                2 => {}
                3 => noted.site = number,
                4 => noted.of = number,
                5 => count = number,
                _ => {
                    // What is nil is left out.
                    noted.args.resize(key - 6, Value::Nil);
                    noted.args.push(value);
                }
            }
            Ok(())
        })?;
        noted.args.resize(count, Value::Nil);
        Ok(noted)
    }

    fn made(&self) -> Option<Made> {
        match self.kind {
            -1 => Some(Made::Regex),
            -2 => Some(Made::Add),
            -3 => Some(Made::Default),
            _ => None,
        }
    }
}

/// The places of a table's parts.
struct Spans {
    file: u32,
    outer: Place,
    items: Vec<Place>,
    named: Vec<Part>,
    /// For a table of many keys, the last part of each.
    by_key: Option<FxHashMap<Vec<u8>, usize>>,
}

/// From how many named parts on a table is looked into by hash.
const MANY: usize = 16;

impl Spans {
    fn new(state: &mut State, site: Option<usize>, outer: Place) -> Spans {
        let mut spans = Spans {
            file: 0,
            outer,
            items: Vec::new(),
            named: Vec::new(),
            by_key: None,
        };
        let Some(Located { file, site }) = site.and_then(|site| state.located(site)) else {
            return spans;
        };
        spans.file = file;
        for part in state.parts_of(site) {
            match part.key {
                Key::Item => spans.items.push(place(file, part.value_span)),
                _ => spans.named.push(*part),
            }
        }
        spans.report_twice(state);
        spans
    }

    /// Two entries under one key: Lua keeps the last, and says nothing.
    fn report_twice(&mut self, state: &mut State) {
        if self.named.len() < 2 {
            return;
        }
        let many = self.named.len() > MANY;
        let mut by_key: FxHashMap<Vec<u8>, usize> = FxHashMap::default();
        let mut twice = Vec::new();
        for (at, part) in self.named.iter().enumerate() {
            let Some(key) = key_of(state, self.file, part) else {
                continue;
            };
            let known = match many {
                true => by_key.insert(key.to_vec(), at).is_some(),
                false => self.named[..at]
                    .iter()
                    .any(|other| key_of(state, self.file, other) == Some(key)),
            };
            if known {
                let shown = String::from_utf8_lossy(key).into_owned();
                twice.push((place(self.file, part.key_span), shown));
            }
        }
        for (place, key) in twice {
            let message = format!("`{key}` is given twice");
            state.mistake(
                place,
                Code::Duplicate,
                message,
                "the second would replace the first",
            );
        }
        self.by_key = many.then_some(by_key);
    }

    /// The place of an item, from 1; the last one may be a function that gave several.
    fn item(&self, index: usize) -> Place {
        self.items
            .get(index - 1)
            .or(self.items.last())
            .copied()
            .unwrap_or(self.outer)
    }

    fn is_item(&self, index: usize) -> bool {
        index <= self.items.len()
    }

    /// The places of a key and its value.
    fn entry(&self, state: &State, key: &Value) -> (Place, Place) {
        let text = match key {
            Value::String(text) => text.as_bytes().to_vec(),
            Value::Integer(number) => number.to_string().into_bytes(),
            Value::Number(number) => number.to_string().into_bytes(),
            _ => return (self.outer, self.outer),
        };
        let found = match &self.by_key {
            Some(by_key) => by_key.get(&text).and_then(|at| self.named.get(*at)),
            None => {
                let same = |part: &&Part| key_of(state, self.file, part) == Some(&text);
                self.named.iter().rev().find(same)
            }
        };
        match found {
            Some(part) => (
                place(self.file, part.key_span),
                place(self.file, part.value_span),
            ),
            None => (self.outer, self.outer),
        }
    }
}

/// A key as it is written, without quotes; none for one that is computed.
fn key_of<'a>(state: &'a State, file: u32, part: &Part) -> Option<&'a [u8]> {
    let offset = |at: u32| usize::try_from(at).unwrap_or(usize::MAX);
    let text = state.sources.text(file);
    let written = text.get(offset(part.key_span.0)..offset(part.key_span.1))?;
    match (part.key, written) {
        (Key::Name, name) => Some(name),
        (Key::Literal, [b'"', inner @ .., b'"'] | [b'\'', inner @ .., b'\'']) => Some(inner),
        (Key::Literal, number) => Some(number),
        (Key::Item | Key::Computed, _) => None,
    }
}
