//! What the binary declares of each directive: the table that checking, messages, the reference
//! and the editor types all come from.

use std::time::Duration;

use crate::report::Report;
use crate::value::Call;

/// The longest duration: 10 years of 365 days.
pub const MAX_DURATION: Duration = Duration::from_secs(10 * 365 * 86_400);

/// The largest count where no narrower limit is given.
pub const MAX_COUNT: u64 = 1_000_000_000;

/// The largest size: what fits `1024TB` and every file system.
pub const MAX_SIZE: u64 = 1 << 50;

/// What a directive is, and so where it may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Makes something exist: `listen`, `site`, `upstream`.
    Declaration,
    /// A step that passes the request on.
    Filter,
    /// A step that answers.
    Handler,
    /// `route`: a step with patterns and a pipeline of its own.
    Route,
    /// Says which requests: `path`, `cookie`.
    Condition,
}

/// When a step ends the way down of a pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// It passes every request on, or it may (a filter; a handler that looks for something).
    Sometimes,
    /// It answers every request.
    Always,
    /// It answers every request unless it has this option: `fastcgi` without `root`.
    Without(&'static str),
}

/// The `when` that a step has without declaring it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// None: a declaration, a condition, `cache`.
    No,
    /// A condition of requests.
    Request,
    /// One that may look at the response too (`status`): `access_log`, `headers`.
    Response,
}

/// Which variables a template may hold, beside those of every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vars {
    /// Those of the request.
    Request,
    /// Also `$1` to `$9`, from a `regex`.
    Captures,
    /// Also those of the response: `$status $bytes $duration $cache $peer $site $time`.
    Response,
}

/// The type of a value: how it is written, what it means, its limits.
#[derive(Clone, Copy, Debug)]
pub enum Type {
    /// `true` or `false`. → [`Value::Boolean`](crate::Value::Boolean)
    Boolean,
    /// `false`, beside another type: switches it off. → `Value::Boolean`
    False,
    /// `"250ms"`, within these limits. → `Value::Duration`
    Duration {
        /// The least.
        min: Duration,
        /// The most.
        max: Duration,
    },
    /// `"64KB"`, in bytes, within these limits. → `Value::Size`
    Size {
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// `"1MB/s"`, in bytes per second. → `Value::Size`
    Bandwidth,
    /// `"100/s"`. → `Value::Rate`
    Rate,
    /// A whole number within these limits. → `Value::Count`
    Count {
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// `"10%"`. → `Value::Percent`
    Percent,
    /// `":443"`: where to listen. → `Value::Address`
    Address,
    /// `"10.0.0.1:8080"`, `"https://origin"`: where to connect. → `Value::Target`
    Target {
        /// Whether a scheme may be written; FastCGI has none.
        schemes: bool,
        /// Whether it may hold variables, `"https://$host"`.
        variables: bool,
    },
    /// `"10.0.0.0/8"`, `"private"`. → `Value::Prefix`
    Prefix,
    /// `"example.com"`, `"*.example.com"`, `"*"`. → `Value::Host`
    Host,
    /// `"/x/*"`. → `Value::Pattern`
    Pattern,
    /// `"abc*"` or a `regex`. → `Value::Match`
    Match,
    /// A `regex`, and nothing else. → `Value::Match`
    Regex,
    /// Text with variables. → `Value::Template`
    Template(Vars),
    /// A path in the file system, absolute when it comes out. → `Value::Path`
    Path,
    /// The same, or an `http` or `https` URL. → `Value::Path` or `Value::Url`
    PathOrUrl,
    /// A path, with the variables that cannot lead out of the directory written before them.
    /// → `Value::PathTemplate`
    PathTemplate,
    /// A path template that is looked up under a directory given elsewhere, so not made absolute;
    /// with a `?query` behind it if `query`. → `Value::Template`
    PathUnder {
        /// Whether a query may follow.
        query: bool,
    },
    /// `404` or `"4xx"`. → `Value::Status`
    Status,
    /// `404`: one status, 200 to 599. → `Value::Status`
    StatusCode,
    /// Any text, in UTF-8. → `Value::Text`
    Text,
    /// 1 to 64 letters, digits, `-`, `_`, `.`. → `Value::Text`
    Name,
    /// One of these words. → `Value::Keyword`
    OneOf(&'static [&'static str]),
    /// `T…`: one of it or a list, at least one. → `Value::List`
    List(&'static Type),
    /// A list of exactly two. → `Value::List`
    Pair(&'static Type, &'static Type),
    /// `{ KEY = VALUE }`. → `Value::Map`
    Map {
        /// Of the keys: a textual type or `Status`.
        key: &'static Type,
        /// Of the values.
        value: &'static Type,
    },
    /// A table of header fields: text sets, a list sets several lines, `false` removes, `add` and
    /// `default`. → `Value::Fields`
    Fields(Vars),
    /// One condition or a list; `response` if it may look at the response. → `Value::Conditions`
    Condition {
        /// Whether `status` is allowed in it.
        response: bool,
    },
    /// A step or a list of steps. → `Value::Pipeline`
    Pipeline,
    /// A declaration by one of these directives. → `Value::Declared`
    Declared(&'static [&'static str]),
    /// A table with options of its own: `health`, a peer with its weight. → `Value::Record`
    Record(&'static RecordType),
    /// The first of these that takes the value.
    Or(&'static [Type]),
    /// A Lua function: refused, because functions are not built yet.
    Function,
}

impl Type {
    /// A duration without narrower limits.
    pub const DURATION: Type = Type::Duration {
        min: Duration::ZERO,
        max: MAX_DURATION,
    };
    /// A size without narrower limits.
    pub const SIZE: Type = Type::Size {
        min: 0,
        max: MAX_SIZE,
    };
    /// A count without narrower limits.
    pub const COUNT: Type = Type::Count {
        min: 0,
        max: MAX_COUNT,
    };
    /// A target of HTTP.
    pub const TARGET: Type = Type::Target {
        schemes: true,
        variables: false,
    };
    /// A condition of requests.
    pub const CONDITION: Type = Type::Condition { response: false };
}

/// A table of options that is a value itself.
#[derive(Debug)]
pub struct RecordType {
    /// What the reference calls it: `health`.
    pub name: &'static str,
    /// Its positional part, in order: the target in `{ TARGET, weight = 2 }`.
    pub args: &'static [Arg],
    /// Its options.
    pub options: &'static [Opt],
}

/// A positional argument.
#[derive(Clone, Copy, Debug)]
pub struct Arg {
    /// In capitals, as the reference shows it: `TARGET`.
    pub name: &'static str,
    /// Its type. A `List` takes one or a table of them.
    pub ty: Type,
    /// Whether it must be given.
    pub required: bool,
}

impl Arg {
    /// One that must be given.
    pub const fn required(name: &'static str, ty: Type) -> Arg {
        Arg {
            name,
            ty,
            required: true,
        }
    }

    /// One that may be left out.
    pub const fn optional(name: &'static str, ty: Type) -> Arg {
        Arg {
            name,
            ty,
            required: false,
        }
    }
}

/// What holds where an option is not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unset {
    /// Nothing; the reference shows `none`.
    Absent,
    /// Nothing, and the reference says so in these words: `cores`, `the listener's`.
    Described(&'static str),
    /// This value, written in the language (`"10s"` with its quotes, `true`, `{ 1, 2 }`) and parsed
    /// by the option's own type, so that reference and behaviour cannot differ.
    Default(&'static str),
    /// It must be given.
    Required,
}

/// An option.
#[derive(Clone, Copy, Debug)]
pub struct Opt {
    /// As it is written.
    pub name: &'static str,
    /// Its type.
    pub ty: Type,
    /// What holds without it.
    pub unset: Unset,
    /// A sentence for the reference.
    pub about: &'static str,
}

impl Opt {
    /// An option that may be left out.
    pub const fn new(name: &'static str, ty: Type, about: &'static str) -> Opt {
        Opt {
            name,
            ty,
            unset: Unset::Absent,
            about,
        }
    }

    /// With a default, written in the language.
    pub const fn default(mut self, literal: &'static str) -> Opt {
        self.unset = Unset::Default(literal);
        self
    }

    /// Without a default, in these words.
    pub const fn unset(mut self, words: &'static str) -> Opt {
        self.unset = Unset::Described(words);
        self
    }

    /// One that must be given.
    pub const fn required(mut self) -> Opt {
        self.unset = Unset::Required;
        self
    }
}

/// The items of a directive's tables: the pipeline of `site`, the peers of `upstream`.
#[derive(Clone, Copy, Debug)]
pub struct Items {
    /// In capitals, as the reference shows it: `PIPELINE`, `PEER`.
    pub name: &'static str,
    /// [`Type::Pipeline`], [`Type::Condition`], or the type of one item.
    pub ty: Type,
    /// Whether there must be at least one.
    pub required: bool,
}

/// Entries under keys that are no option names: `errors { [404] = … }`.
#[derive(Clone, Copy, Debug)]
pub struct Keyed {
    /// What the reference calls an entry: `STATUS = PAGE`.
    pub name: &'static str,
    /// Of the keys.
    pub key: Type,
    /// Of the values.
    pub value: Type,
    /// Whether there must be at least one.
    pub required: bool,
}

/// Values that may occur only once among all declarations of a directive.
#[derive(Clone, Copy, Debug)]
pub struct Distinct {
    /// The argument that holds them: `HOST`.
    pub arg: &'static str,
    /// The option that says where they count; equal values in different scopes are fine.
    pub scope: Option<&'static str>,
}

/// A check of one call, once its types are right.
pub type Check = fn(&Call, &mut Report);

/// A directive of the language.
///
/// A static of each step's file in the binary, made with the constructors below:
///
/// ```
/// use forebay_config::{Arg, Directive, Opt, Type};
///
/// static FILES: Directive = Directive::filter("files", "The file that ROOT and the path name.")
///     .args(&[Arg::required("ROOT", Type::PathTemplate)])
///     .options(&[Opt::new("listing", Type::Boolean, "List directories.").default("false")])
///     .example(r#"files "/srv/www" { listing = true }"#);
/// ```
#[derive(Debug)]
pub struct Directive {
    /// As it is written.
    pub name: &'static str,
    /// Where it may stand.
    pub role: Role,
    /// A sentence or two for the reference.
    pub about: &'static str,
    /// Positional arguments, in order.
    pub args: &'static [Arg],
    /// The items of its tables.
    pub items: Option<Items>,
    /// Other keys of its tables.
    pub keyed: Option<Keyed>,
    /// Its options, `when` apart.
    pub options: &'static [Opt],
    /// Whether it has `when`.
    pub when: When,
    /// When a request ends here.
    pub answers: Answers,
    /// Only one such declaration: `server`.
    pub once: bool,
    /// Its first argument is a name that no other declaration of a directive with the same word
    /// here may have: `upstream` and `processes` say `Some("upstream")`.
    pub namespace: Option<&'static str>,
    /// Values that may occur once.
    pub distinct: Option<Distinct>,
    /// Whether it keeps clients out, and so may not stand below a cache.
    pub access_control: bool,
    /// Whether what stands below it runs only to fill it: `cache`.
    pub caches: bool,
    /// Whether it looks at the response: the condition `status`.
    pub response_only: bool,
    /// Whether its uses keep nothing between requests, so that equal ones may be one: a `limit`
    /// counts for itself, a `respond` does not.
    pub stateless: bool,
    /// What is said of options that somebody may look for here in vain: their names, and the help.
    pub instead: &'static [(&'static str, &'static str)],
    /// More checks of one call.
    pub check: Option<Check>,
    /// How it is used, in the language.
    pub example: &'static str,
}

impl Directive {
    const fn new(name: &'static str, role: Role, about: &'static str) -> Directive {
        Directive {
            name,
            role,
            about,
            args: &[],
            items: None,
            keyed: None,
            options: &[],
            when: match role {
                Role::Filter | Role::Handler | Role::Route => When::Request,
                Role::Declaration | Role::Condition => When::No,
            },
            answers: match role {
                Role::Handler => Answers::Always,
                _ => Answers::Sometimes,
            },
            once: false,
            namespace: None,
            distinct: None,
            access_control: false,
            caches: false,
            response_only: false,
            stateless: false,
            instead: &[],
            check: None,
            example: "",
        }
    }

    /// Something that exists.
    pub const fn declaration(name: &'static str, about: &'static str) -> Directive {
        Directive::new(name, Role::Declaration, about)
    }

    /// A step that passes the request on.
    pub const fn filter(name: &'static str, about: &'static str) -> Directive {
        Directive::new(name, Role::Filter, about)
    }

    /// A step that answers every request, unless `answers` says otherwise.
    pub const fn handler(name: &'static str, about: &'static str) -> Directive {
        Directive::new(name, Role::Handler, about)
    }

    /// A step with patterns (its first argument) and a pipeline (its items).
    pub const fn route(name: &'static str, about: &'static str) -> Directive {
        Directive::new(name, Role::Route, about)
    }

    /// A condition.
    pub const fn condition(name: &'static str, about: &'static str) -> Directive {
        Directive::new(name, Role::Condition, about)
    }

    /// With these arguments.
    pub const fn args(mut self, args: &'static [Arg]) -> Directive {
        self.args = args;
        self
    }

    /// With items, of which there must be at least one.
    pub const fn items(mut self, name: &'static str, ty: Type) -> Directive {
        self.items = Some(Items {
            name,
            ty,
            required: true,
        });
        self
    }

    /// With items, or none.
    pub const fn optional_items(mut self, name: &'static str, ty: Type) -> Directive {
        self.items = Some(Items {
            name,
            ty,
            required: false,
        });
        self
    }

    /// With entries under keys of this type, at least one.
    pub const fn keyed(mut self, name: &'static str, key: Type, value: Type) -> Directive {
        self.keyed = Some(Keyed {
            name,
            key,
            value,
            required: true,
        });
        self
    }

    /// With these options.
    pub const fn options(mut self, options: &'static [Opt]) -> Directive {
        self.options = options;
        self
    }

    /// Keeps nothing between requests.
    pub const fn stateless(mut self) -> Directive {
        self.stateless = true;
        self
    }

    /// With this kind of `when`.
    pub const fn when(mut self, when: When) -> Directive {
        self.when = when;
        self
    }

    /// Answering then.
    pub const fn answers(mut self, answers: Answers) -> Directive {
        self.answers = answers;
        self
    }

    /// At most one.
    pub const fn once(mut self) -> Directive {
        self.once = true;
        self
    }

    /// With a name of its own in this namespace.
    pub const fn namespace(mut self, namespace: &'static str) -> Directive {
        self.namespace = Some(namespace);
        self
    }

    /// With values that may occur once per scope.
    pub const fn distinct(mut self, arg: &'static str, scope: Option<&'static str>) -> Directive {
        self.distinct = Some(Distinct { arg, scope });
        self
    }

    /// Keeping clients out.
    pub const fn access_control(mut self) -> Directive {
        self.access_control = true;
        self
    }

    /// Being a cache.
    pub const fn caches(mut self) -> Directive {
        self.caches = true;
        self
    }

    /// Looking at the response.
    pub const fn response_only(mut self) -> Directive {
        self.response_only = true;
        self
    }

    /// With help for who looks for these options.
    pub const fn instead(mut self, instead: &'static [(&'static str, &'static str)]) -> Directive {
        self.instead = instead;
        self
    }

    /// With more checks.
    pub const fn check(mut self, check: Check) -> Directive {
        self.check = Some(check);
        self
    }

    /// With an example for the reference.
    pub const fn example(mut self, example: &'static str) -> Directive {
        self.example = example;
        self
    }

    /// The tables of options that its values have, each once.
    pub(crate) fn records(&self) -> Vec<&'static RecordType> {
        let mut found = Vec::new();
        let items = self.items.map(|items| items.ty);
        let keyed = self.keyed.map(|keyed| keyed.value);
        let args = self.args.iter().map(|arg| arg.ty);
        let options = self.options.iter().map(|option| option.ty);
        for ty in items.into_iter().chain(keyed).chain(args).chain(options) {
            ty.add_records(&mut found);
        }
        found
    }
}

impl Type {
    fn add_records(self, found: &mut Vec<&'static RecordType>) {
        match self {
            Type::Record(record) if !found.iter().any(|known| std::ptr::eq(*known, record)) => {
                found.push(record);
                let args = record.args.iter().map(|arg| arg.ty);
                let options = record.options.iter().map(|option| option.ty);
                args.chain(options).for_each(|ty| ty.add_records(found));
            }
            Type::List(item) => item.add_records(found),
            Type::Map { value, .. } => value.add_records(found),
            Type::Pair(first, second) => {
                first.add_records(found);
                second.add_records(found);
            }
            Type::Or(types) => types.iter().for_each(|ty| ty.add_records(found)),
            _ => {}
        }
    }
}
