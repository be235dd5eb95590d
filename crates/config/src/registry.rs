//! The directives of one binary, with their defaults parsed.

use std::path::Path;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::check::literal;
use crate::directive::{Directive, Opt, Role, Type, Unset, When};
use crate::value::Node;

/// What a step's `when` is in the table, where it is not written.
static WHEN_REQUEST: Opt = Opt::new(
    "when",
    Type::CONDITION,
    "Only for requests of which this is true.",
)
.unset("always");
static WHEN_RESPONSE: Opt = Opt::new(
    "when",
    Type::Condition { response: true },
    "Only for requests, and responses, of which this is true.",
)
.unset("always");

/// All directives that a file may use.
#[derive(Debug)]
pub struct Registry {
    specs: Vec<Arc<Spec>>,
    by_name: FxHashMap<&'static str, usize>,
}

/// A directive with what is worked out of its table once.
#[derive(Debug)]
pub(crate) struct Spec {
    pub(crate) directive: &'static Directive,
    pub(crate) when: Option<&'static Opt>,
    defaults: Vec<Option<Node>>,
}

impl Registry {
    /// The directives with these tables, in the order of the reference.
    ///
    /// # Panics
    /// If a name is given twice or taken by a helper, or if a default is not of its option's type:
    /// mistakes of the program, which its first test finds.
    pub fn new(directives: impl IntoIterator<Item = &'static Directive>) -> Registry {
        let mut registry = Registry {
            specs: Vec::new(),
            by_name: FxHashMap::default(),
        };
        for directive in directives {
            let index = registry.specs.len();
            let twice = registry.by_name.insert(directive.name, index).is_some();
            assert!(!twice, "two directives are named `{}`", directive.name);
            let taken = crate::helpers::NAMES.contains(&directive.name);
            assert!(!taken, "`{}` is the name of a helper", directive.name);
            registry.specs.push(Arc::new(Spec::new(directive)));
        }
        registry
    }

    /// All of them, in order.
    pub fn directives(&self) -> impl Iterator<Item = &'static Directive> {
        self.specs.iter().map(|spec| spec.directive)
    }

    /// The one with this name.
    pub fn get(&self, name: &str) -> Option<&'static Directive> {
        self.by_name
            .get(name)
            .map(|index| self.specs[*index].directive)
    }

    pub(crate) fn specs(&self) -> &[Arc<Spec>] {
        &self.specs
    }
}

impl Spec {
    fn new(directive: &'static Directive) -> Spec {
        let default = |option: &Opt| match option.unset {
            Unset::Default(text) => match literal(text, &option.ty, Path::new("/")) {
                Ok(node) => Some(node),
                Err(wrong) => {
                    panic!(
                        "the default of `{}` of `{}`: {wrong}",
                        option.name, directive.name
                    )
                }
            },
            Unset::Absent | Unset::Described(_) | Unset::Required => None,
        };
        for record in directive.records() {
            record
                .options
                .iter()
                .for_each(|option| drop(default(option)));
        }
        Spec {
            directive,
            when: match directive.when {
                When::No => None,
                When::Request => Some(&WHEN_REQUEST),
                When::Response => Some(&WHEN_RESPONSE),
            },
            defaults: directive.options.iter().map(default).collect(),
        }
    }

    pub(crate) fn option_index(&self, name: &str) -> Option<usize> {
        self.directive
            .options
            .iter()
            .position(|option| option.name == name)
    }

    pub(crate) fn default(&self, option: usize) -> Option<&Node> {
        self.defaults.get(option).and_then(Option::as_ref)
    }

    /// Every name that may stand as a key of its tables.
    pub(crate) fn option_names(&self) -> impl Iterator<Item = &'static str> {
        self.directive
            .options
            .iter()
            .chain(self.when)
            .map(|option| option.name)
    }

    pub(crate) fn is_step(&self) -> bool {
        matches!(
            self.directive.role,
            Role::Filter | Role::Handler | Role::Route
        )
    }
}
