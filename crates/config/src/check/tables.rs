//! Types with parts of their own: tables of header fields, and tables of options.

use std::rc::Rc;

use crate::check::describe::expected;
use crate::check::{Checker, Slot};
use crate::directive::{Opt, RecordType, Type, Unset, Vars};
use crate::raw::{Entry, Made, Raw, RawTable, RawValue};
use crate::report::Code;
use crate::template::Template;
use crate::value::{Edit, FieldEdit, Node, Record, Value};

impl Checker {
    pub(super) fn fields(&mut self, raw: &Raw, vars: Vars, slot: &Slot<'_>) -> Option<Value> {
        let RawValue::Table(table) = &raw.value else {
            self.bad_value(raw, slot, &expected(&Type::Fields(vars)));
            return None;
        };
        let mut right = self.no_items(table, slot);
        let mut edits: Vec<FieldEdit> = Vec::with_capacity(table.keys.len());
        for entry in &table.keys {
            let place = entry.key.place;
            let key = self.key_text(&entry.key);
            let name = key.replace('_', "-");
            if entry.key.text().is_none() || !is_field_name(&name) {
                let message = format!("{}: `{key}` is no field name", (slot.subject)());
                self.mistake(
                    place,
                    Code::BadValue,
                    &message,
                    "expected letters, digits, `_`, `-`",
                );
                right = false;
                continue;
            }
            if edits
                .iter()
                .any(|edit| edit.name.eq_ignore_ascii_case(&name))
            {
                let message = format!("{}: the field `{name}` is given twice", (slot.subject)());
                self.mistake(place, Code::Duplicate, &message, "give its lines as a list");
                right = false;
                continue;
            }
            match self.edit(&entry.value, vars, &slot.below(&key)) {
                Some(edit) => edits.push(FieldEdit {
                    name: name.into(),
                    edit,
                    place,
                }),
                None => right = false,
            }
        }
        right.then_some(Value::Fields(edits))
    }

    fn edit(&mut self, raw: &Raw, vars: Vars, slot: &Slot<'_>) -> Option<Edit> {
        match &raw.value {
            RawValue::Boolean(false) => Some(Edit::Remove),
            RawValue::Text(text) => self
                .field_value(raw, text, vars, slot)
                .map(|line| Edit::Set(vec![line])),
            RawValue::Made(Made::Add, text) => {
                self.field_value(raw, text, vars, slot).map(Edit::Add)
            }
            RawValue::Made(Made::Default, text) => {
                self.field_value(raw, text, vars, slot).map(Edit::Default)
            }
            RawValue::Table(table) if table.refused.is_none() => {
                let mut right = self.only_items(table, slot);
                let mut lines = Vec::with_capacity(table.items.len());
                for item in &table.items {
                    let line = match item.text() {
                        Some(text) => self.field_value(item, text, vars, slot),
                        None => {
                            self.bad_value(item, slot, "expected a text");
                            None
                        }
                    };
                    right &= line.map(|line| lines.push(line)).is_some();
                }
                right.then_some(Edit::Set(lines))
            }
            RawValue::Function => {
                self.no_functions(raw.place, slot);
                None
            }
            _ => {
                let help =
                    "expected a text, a list of texts, `false`, `add \"…\"` or `default \"…\"`";
                self.bad_value(raw, slot, help);
                None
            }
        }
    }

    /// A field's value holds no control characters: a line break in one would be a field of its
    /// own, chosen by whoever wrote the text (RFC 9110 §5.5).
    fn field_value(
        &mut self,
        raw: &Raw,
        text: &str,
        vars: Vars,
        slot: &Slot<'_>,
    ) -> Option<Template> {
        if text.chars().any(|c| c.is_control() && c != '\t') {
            self.bad_value(
                raw,
                slot,
                "a field's value is one line without control characters",
            );
            return None;
        }
        match Template::parse(text, vars) {
            Ok(template) => Some(template),
            Err(wrong) => {
                self.wrong(raw, wrong, slot);
                None
            }
        }
    }

    pub(super) fn record(
        &mut self,
        raw: &Raw,
        record: &'static RecordType,
        slot: &Slot<'_>,
    ) -> Option<Value> {
        let given = match &raw.value {
            RawValue::Table(table) => Rc::clone(table),
            // A target alone is a peer without options.
            _ if !record.args.is_empty() => Rc::new(RawTable {
                items: vec![raw.clone()],
                ..RawTable::default()
            }),
            _ => {
                self.bad_value(raw, slot, &expected(&Type::Record(record)));
                return None;
            }
        };
        let mut right = self.no_hole(&given, slot);
        let mut fields: Vec<(&'static str, Option<Node>)> = Vec::new();
        for (index, arg) in record.args.iter().enumerate() {
            let node = given
                .items
                .get(index)
                .map(|item| self.value(item, &arg.ty, slot));
            right &= self.present(
                node.is_some(),
                arg.required,
                arg.name,
                raw.place,
                &arg.ty,
                slot,
            );
            right &= !matches!(node, Some(None));
            fields.push((arg.name, node.flatten()));
        }
        if let Some(extra) = given.items.get(record.args.len()) {
            let what = self.shown(extra);
            let message = format!(
                "{}: {}: {what} is one too many",
                (slot.subject)(),
                slot.label()
            );
            self.mistake(extra.place, Code::BadValue, &message, "");
            right = false;
        }
        right &= self.known_options(&given.keys, record, slot);
        for option in record.options {
            let entry = given
                .keys
                .iter()
                .find(|entry| entry.key.text() == Some(option.name));
            let node = match (entry, option.unset) {
                (Some(entry), _) => {
                    let node = self.value(&entry.value, &option.ty, &slot.below(option.name));
                    right &= node.is_some();
                    node
                }
                (None, Unset::Default(text)) => self.record_default(text, option),
                (None, unset) => {
                    let required = unset == Unset::Required;
                    let below = slot.below(option.name);
                    right &= self.present(false, required, "", raw.place, &option.ty, &below);
                    None
                }
            };
            fields.push((option.name, node));
        }
        right.then_some(Value::Record(Record { fields }))
    }

    /// A default, read once: a record may be built for each of thousands of peers.
    fn record_default(&mut self, text: &'static str, option: &'static Opt) -> Option<Node> {
        let key = std::ptr::from_ref(option);
        if let Some(known) = self.record_defaults.get(&key) {
            return known.clone();
        }
        let node = super::literal(text, &option.ty, &self.dir).ok();
        self.record_defaults.insert(key, node.clone());
        node
    }

    fn known_options(
        &mut self,
        keys: &[Entry],
        record: &'static RecordType,
        slot: &Slot<'_>,
    ) -> bool {
        let mut right = true;
        for entry in keys {
            let names = || record.options.iter().map(|option| option.name);
            let key = self.key_text(&entry.key);
            if !names().any(|name| name == key) {
                let label = slot.label();
                let message = format!("{}: {label} has no option `{key}`", (slot.subject)());
                let help = super::call::option_help(&key, names());
                self.mistake(entry.key.place, Code::UnknownOption, &message, &help);
                right = false;
            }
        }
        right
    }
}

/// A token of RFC 9110 §5.6.2, of a length that a head has room for.
fn is_field_name(name: &str) -> bool {
    let byte = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    (1..=256).contains(&name.len()) && name.bytes().all(byte)
}
