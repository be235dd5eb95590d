//! Checked values and the calls that hold them: what the binary builds its steps of.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::address::{Address, Host, Prefix, Target};
use crate::directive::{Directive, Role};
use crate::matching::{Match, Pattern};
use crate::place::Place;
use crate::registry::Spec;
use crate::scalar::{Rate, Status};
use crate::template::{PathTemplate, Template};
use crate::url::Url;

/// A checked value with the place where it is written.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it is.
    pub value: Value,
    /// Where it is written; [`Place::NONE`] for a default.
    pub place: Place,
}

/// A checked value. The type in the directive's table says which variant it is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Value {
    /// Of `Type::Boolean`.
    Boolean(bool),
    /// Of `Type::Duration`.
    Duration(Duration),
    /// Of `Type::Size` in bytes, of `Type::Bandwidth` in bytes per second.
    Size(u64),
    /// Of `Type::Rate`.
    Rate(Rate),
    /// Of `Type::Count`.
    Count(u64),
    /// Of `Type::Percent`: 0 to 100.
    Percent(f64),
    /// Of `Type::Address`.
    Address(Address),
    /// Of `Type::Target`.
    Target(Target),
    /// Of `Type::Prefix`.
    Prefix(Prefix),
    /// Of `Type::Host`.
    Host(Host),
    /// Of `Type::Pattern`.
    Pattern(Pattern),
    /// Of `Type::Match` and `Type::Regex`.
    Match(Match),
    /// Of `Type::Template` and `Type::PathUnder`.
    Template(Template),
    /// Of `Type::Path`, and of `Type::PathOrUrl` if it is none: absolute.
    Path(PathBuf),
    /// Of `Type::PathOrUrl`.
    Url(Url),
    /// Of `Type::PathTemplate`: absolute.
    PathTemplate(PathTemplate),
    /// Of `Type::Status` and `Type::StatusCode`.
    Status(Status),
    /// Of `Type::Text` and `Type::Name`.
    Text(Box<str>),
    /// Of `Type::OneOf`.
    Keyword(&'static str),
    /// Of `Type::List` and `Type::Pair`.
    List(Vec<Node>),
    /// Of `Type::Map`, in the order of the source, as far as it is known.
    Map(Vec<(Node, Node)>),
    /// Of `Type::Fields`, in the order of the source.
    Fields(Vec<FieldEdit>),
    /// Of `Type::Condition`: true when one of them is.
    Conditions(Vec<Arc<Call>>),
    /// Of `Type::Pipeline`: flat, in order.
    Pipeline(Vec<Arc<Call>>),
    /// Of `Type::Declared`.
    Declared(Arc<Call>),
    /// Of `Type::Record`.
    Record(Record),
}

/// One entry of a table of header fields.
#[derive(Clone, Debug)]
pub struct FieldEdit {
    /// The field's name, with `-` for `_`, in the case in which it is written.
    pub name: Box<str>,
    /// What to do with it.
    pub edit: Edit,
    /// Of the key.
    pub place: Place,
}

/// What a table of fields does with one of them.
#[derive(Clone, Debug)]
pub enum Edit {
    /// Replaces all its lines by these, leaving out those that come out empty.
    Set(Vec<Template>),
    /// Appends a line.
    Add(Template),
    /// Sets it if it is absent.
    Default(Template),
    /// Removes it.
    Remove,
}

/// A table with options of its own, defaults filled in.
#[derive(Clone, Debug)]
pub struct Record {
    pub(crate) fields: Vec<(&'static str, Option<Node>)>,
}

impl Record {
    /// The value of an argument or option by its name; none if it is unset and has no default.
    ///
    /// # Panics
    /// If the record's type has no option of this name: a mistake of the program.
    pub fn node(&self, name: &str) -> Option<&Node> {
        match self.fields.iter().find(|(field, _)| *field == name) {
            Some((_, node)) => node.as_ref(),
            None => panic!("the record has no option `{name}`"),
        }
    }

    /// The same, as the type that is asked for.
    ///
    /// # Panics
    /// As [`Record::node`], or if the option is of another type.
    pub fn find<'a, T: FromValue<'a>>(&'a self, name: &str) -> Option<T> {
        self.node(name).map(|node| node.get())
    }

    /// The same for what is required or has a default.
    ///
    /// # Panics
    /// As [`Record::find`], or if it is unset.
    pub fn get<'a, T: FromValue<'a>>(&'a self, name: &str) -> T {
        match self.find(name) {
            Some(value) => value,
            None => panic!("`{name}` has neither a value nor a default"),
        }
    }
}

/// One use of a directive, checked.
#[derive(Debug)]
pub struct Call {
    pub(crate) spec: Arc<Spec>,
    pub(crate) args: Vec<Option<Node>>,
    pub(crate) options: Vec<(usize, Node)>,
    /// Number of this use: equal for the same step kept in a local and used in several places,
    /// different for every variation of it.
    pub id: u32,
    /// Where it was called last: the name, up to the end of its arguments' line.
    pub place: Place,
    /// The items of its tables: peers, commands. A pipeline or list of conditions is in
    /// [`Call::steps`].
    pub items: Vec<Node>,
    /// The pipeline of a site or route, the conditions of `all` and `none`.
    pub steps: Vec<Arc<Call>>,
    /// Entries of [`Directive::keyed`], in the order of the source.
    pub keyed: Vec<(Node, Node)>,
    /// Its condition: a list that is true when one of it is; empty for "always".
    pub when: Vec<Arc<Call>>,
}

impl Call {
    /// The directive that was called.
    pub fn directive(&self) -> &'static Directive {
        self.spec.directive
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.spec.directive.name
    }

    /// How messages call it: the directive's name, for a declaration with its first argument,
    /// `upstream "app"`.
    pub fn subject(&self) -> String {
        let first = self
            .args
            .first()
            .and_then(Option::as_ref)
            .map(|node| &node.value);
        match (self.spec.directive.role, first) {
            (crate::Role::Declaration, Some(Value::Text(name))) => {
                format!("{} \"{name}\"", self.name())
            }
            _ => self.name().to_owned(),
        }
    }

    /// Shows `visit` every step that stands in it, in whatever of its pipelines, at any depth.
    pub fn visit_steps(&self, visit: &mut dyn FnMut(&Call)) {
        let of_steps = [self.steps.as_slice()];
        let given = self.options.iter().map(|(_, node)| node);
        let keyed = self.keyed.iter().map(|(_, node)| node);
        let in_values = given.chain(keyed).filter_map(|node| match &node.value {
            Value::Pipeline(steps) => Some(steps.as_slice()),
            _ => None,
        });
        for step in of_steps.into_iter().chain(in_values).flatten() {
            visit(step);
            step.visit_steps(visit);
        }
    }

    /// The value of an argument (`"TARGET"`) or option; its default if it is not given; none if
    /// there is no default either.
    ///
    /// # Panics
    /// If the directive has no argument or option of this name: a mistake of the program.
    pub fn node(&self, name: &str) -> Option<&Node> {
        if let Some(index) = self
            .spec
            .directive
            .args
            .iter()
            .position(|arg| arg.name == name)
        {
            return self.args.get(index).and_then(Option::as_ref);
        }
        let Some(index) = self.spec.option_index(name) else {
            panic!("`{}` has no option `{name}`", self.name());
        };
        match self.options.iter().find(|(at, _)| *at == index) {
            Some((_, node)) => Some(node),
            None => self.spec.default(index),
        }
    }

    /// Whether an option was given, rather than left to its default.
    ///
    /// # Panics
    /// As [`Call::node`].
    pub fn is_set(&self, name: &str) -> bool {
        self.node(name).is_some_and(|node| node.place.is_known())
    }

    /// The place of an option's value; of the call if it was not given.
    ///
    /// # Panics
    /// As [`Call::node`].
    pub fn place_of(&self, name: &str) -> Place {
        self.node(name)
            .map(|node| node.place)
            .filter(|place| place.is_known())
            .unwrap_or(self.place)
    }

    /// The value of an argument or option as the type that is asked for: its default if it is not
    /// given, none if there is no default.
    ///
    /// # Panics
    /// As [`Call::node`], or if the option is of another type.
    pub fn find<'a, T: FromValue<'a>>(&'a self, name: &str) -> Option<T> {
        self.node(name).map(|node| node.get())
    }

    /// The same for what is required or has a default: `let t: Duration = call.get("timeout")`.
    ///
    /// # Panics
    /// As [`Call::find`], or if it is unset and has no default.
    pub fn get<'a, T: FromValue<'a>>(&'a self, name: &str) -> T {
        match self.find(name) {
            Some(value) => value,
            None => panic!(
                "`{name}` of `{}` has neither a value nor a default",
                self.name()
            ),
        }
    }
}

impl Call {
    /// What it says, whoever says it wherever: two uses of one directive with equal forms mean the
    /// same. What is declared, and pipelines, are told by their own calls' numbers.
    pub fn form(&self) -> String {
        let mut form = String::new();
        self.write_form(&mut form);
        form
    }

    fn write_form(&self, out: &mut String) {
        out.push_str(self.name());
        for arg in &self.args {
            match arg {
                Some(node) => node.value.write_form(out),
                None => out.push('-'),
            }
        }
        for (option, node) in &self.options {
            // Writing to a text cannot fail.
            let _ = write!(out, " {option}=");
            node.value.write_form(out);
        }
        out.push('{');
        for node in &self.items {
            node.value.write_form(out);
        }
        for (key, value) in &self.keyed {
            key.value.write_form(out);
            value.value.write_form(out);
        }
        out.push('|');
        for call in &self.steps {
            call.write_form_within(out);
        }
        out.push('|');
        for call in &self.when {
            call.write_form_within(out);
        }
        out.push('}');
    }

    /// A condition is what it says; a step may be more than that.
    fn write_form_within(&self, out: &mut String) {
        if self.directive().role == Role::Condition {
            self.write_form(out);
        } else {
            let _ = write!(out, "#{};", self.id);
        }
    }
}

impl Value {
    fn write_form(&self, out: &mut String) {
        fn calls(calls: &[Arc<Call>], out: &mut String) {
            for call in calls {
                call.write_form_within(out);
            }
        }
        out.push('(');
        match self {
            Value::List(nodes) => nodes.iter().for_each(|node| node.value.write_form(out)),
            Value::Map(entries) => {
                for (key, value) in entries {
                    key.value.write_form(out);
                    value.value.write_form(out);
                }
            }
            Value::Fields(edits) => {
                for field in edits {
                    let _ = write!(out, "{:?}{:?}", field.name, field.edit);
                }
            }
            Value::Conditions(list) | Value::Pipeline(list) => calls(list, out),
            Value::Declared(call) => call.write_form_within(out),
            Value::Record(record) => {
                for (name, node) in &record.fields {
                    out.push_str(name);
                    if let Some(node) = node {
                        node.value.write_form(out);
                    }
                }
            }
            // None of these knows its place, and each shows all that it is.
            plain => {
                let _ = write!(out, "{plain:?}");
            }
        }
        out.push(')');
    }
}

impl Node {
    /// The value as the type that is asked for.
    ///
    /// # Panics
    /// If it is of another type: the table and the code that uses it differ.
    pub fn get<'a, T: FromValue<'a>>(&'a self) -> T {
        match T::from_value(&self.value) {
            Some(value) => value,
            None => panic!("not a {}: {:?}", std::any::type_name::<T>(), self.value),
        }
    }

    /// The same, without panicking, for a type with alternatives.
    pub fn as_a<'a, T: FromValue<'a>>(&'a self) -> Option<T> {
        T::from_value(&self.value)
    }
}

/// A type that a value can be taken out as.
pub trait FromValue<'a>: Sized {
    /// The value, if it is of this type.
    fn from_value(value: &'a Value) -> Option<Self>;
}

macro_rules! from_value {
    ($($ty:ty: $($pattern:pat => $result:expr),+;)+) => {$(
        impl<'a> FromValue<'a> for $ty {
            fn from_value(value: &'a Value) -> Option<Self> {
                match value {
                    $($pattern => $result,)+
                    _ => None,
                }
            }
        }
    )+};
}

from_value! {
    bool: Value::Boolean(value) => Some(*value);
    Duration: Value::Duration(value) => Some(*value);
    Rate: Value::Rate(value) => Some(*value);
    f64: Value::Percent(value) => Some(*value);
    u64: Value::Count(value) | Value::Size(value) => Some(*value);
    u32: Value::Count(value) | Value::Size(value) => u32::try_from(*value).ok();
    u16: Value::Count(value) => u16::try_from(*value).ok(),
        Value::Status(Status::Code(code)) => Some(*code);
    u8: Value::Count(value) => u8::try_from(*value).ok();
    usize: Value::Count(value) | Value::Size(value) => usize::try_from(*value).ok();
    Status: Value::Status(value) => Some(*value);
    &'a Address: Value::Address(value) => Some(value);
    &'a Target: Value::Target(value) => Some(value);
    &'a Prefix: Value::Prefix(value) => Some(value);
    &'a Host: Value::Host(value) => Some(value);
    &'a Pattern: Value::Pattern(value) => Some(value);
    &'a Match: Value::Match(value) => Some(value);
    &'a Template: Value::Template(value) => Some(value);
    &'a Path: Value::Path(value) => Some(value);
    &'a PathTemplate: Value::PathTemplate(value) => Some(value);
    &'a Url: Value::Url(value) => Some(value);
    &'a str: Value::Text(value) => Some(value), Value::Keyword(value) => Some(value);
    &'a [Node]: Value::List(value) => Some(value);
    &'a [(Node, Node)]: Value::Map(value) => Some(value);
    &'a [FieldEdit]: Value::Fields(value) => Some(value);
    &'a [Arc<Call>]: Value::Pipeline(value) | Value::Conditions(value) => Some(value);
    &'a Arc<Call>: Value::Declared(value) => Some(value);
    &'a Record: Value::Record(value) => Some(value);
}
