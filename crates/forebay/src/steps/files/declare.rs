//! The directive, and from a checked call to the step.

use std::sync::Arc;
use std::time::Duration;

use forebay_config::{Answers, Arg, Call, Code, Directive, Match, Node, Opt, PathTemplate, Type};
use forebay_sys::files::Links;

use super::find::Indexes;
use super::types::Types;
use super::{FilesStep, Try, path};
use crate::control::build::Builder;
use crate::exchange::Step;
use crate::snapshot::resource_id;

pub static DIRECTIVE: Directive = Directive::handler(
    "files",
    "Sends the file that ROOT followed by the path names, for GET and HEAD, with preconditions and \
     ranges; a directory that has an index is redirected to its `/`. What it does not find it \
     passes on. Files and directories whose names begin with a dot, `.well-known` apart, are never \
     found.",
)
.args(&[Arg::required("ROOT", Type::PathTemplate)])
.options(&[
    Opt::new(
        "try",
        Type::List(&Type::PathUnder { query: false }),
        "Tried in order under ROOT.",
    )
    .default(r#""$path""#),
    Opt::new(
        "index",
        Type::List(&Type::Text),
        "The file that stands for its directory.",
    )
    .default(r#""index.html""#),
    Opt::new(
        "listing",
        Type::Boolean,
        "A directory without an index is listed, as a page or as JSON, by `Accept`; sorted by \
         `?sort=name`, `size` or `time`, and `&order=desc`. At most 10,000 entries are shown.",
    )
    .default("false"),
    Opt::new(
        "max_age",
        Type::DURATION,
        "`Cache-Control: public, max-age`; `0s` is `no-cache`.",
    ),
    Opt::new(
        "immutable",
        Type::Boolean,
        "Files never change while they are fresh.",
    )
    .default("false"),
    Opt::new(
        "hide",
        Type::List(&Type::Match),
        "Names of files that are passed over; and always those that a `fastcgi` of the same site \
         runs, executable files beside a `cgi`, and copies of them (`~`, `.bak`).",
    )
    .default(r#"{ "*.php", "*.phtml", "*.phar", "*.cgi" }"#),
    Opt::new(
        "symlinks",
        Type::OneOf(&["inside", "any", "none"]),
        "Which links are followed: those that stay under ROOT at every step, all, or none.",
    )
    .default(r#""inside""#),
    Opt::new(
        "types",
        Type::Map {
            key: &Type::Text,
            value: &Type::Text,
        },
        "Media types by the ending of a file's name, before the usual ones.",
    ),
])
.answers(Answers::Sometimes)
.example(r#"files "/srv/www" { max_age = "1h" }"#);

pub fn build(call: &Call, builder: &mut Builder<'_>) -> Option<Box<dyn Step>> {
    let max_age: Option<Duration> = call.find("max_age");
    let immutable: bool = call.get("immutable");
    if immutable && max_age.is_none_or(|age| age.is_zero()) {
        let message = "files: `immutable` without a `max_age` means nothing";
        let help = "files are immutable while they are fresh";
        builder
            .report
            .mistake(call.place_of("immutable"), Code::Conflict, message, help);
    }
    for node in call.get::<&[Node]>("index") {
        let name: &str = node.get();
        if !path::is_plain(name.as_bytes()) {
            let message = format!("files: `index` cannot be \"{name}\"");
            let help = "expected the name of a file";
            builder
                .report
                .mistake(node.place, Code::BadValue, message, help);
        }
    }
    let patterns = call
        .get::<&[Node]>("hide")
        .iter()
        .map(|node| node.get::<&Match>().clone());
    let names = call.get::<&[Node]>("index").iter();
    let types = Types::new(call, builder);
    Some(Box::new(FilesStep {
        id: resource_id(),
        root: call.get::<&PathTemplate>("ROOT").clone(),
        tries: call
            .get::<&[Node]>("try")
            .iter()
            .map(|node| Try::new(node.get()))
            .collect(),
        indexes: Arc::new(Indexes {
            names: names
                .map(|node| node.get::<&str>().as_bytes().into())
                .collect(),
            hide: path::Hide::new(patterns).and_scripts(builder.scripts.clone()),
            listing: call.get("listing"),
            beside_programs: builder.runs_programs,
        }),
        links: match call.get("symlinks") {
            "any" => Links::Any,
            "none" => Links::None,
            _ => Links::Inside,
        },
        cache_control: max_age.map(|age| match (age.as_secs(), immutable) {
            (0, _) => "no-cache".into(),
            (age, true) => format!("public, max-age={age}, immutable").into(),
            (age, false) => format!("public, max-age={age}").into(),
        }),
        types,
    }))
}
