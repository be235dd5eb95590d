//! The steps, one file each: its directive, its checks, its code, its tests.
//!
//! A step's file has
//! * `pub static DIRECTIVE: Directive` — its names, options, defaults, limits and docs, the one
//!   source of checks, messages, the reference and the editor types;
//! * `pub fn build(call: &Call, builder: &mut Builder<'_>) -> Option<Box<dyn Step>>` — a checked
//!   call into a step; what only the step can know to be wrong it reports at the place of the
//!   value and returns `None`;
//! * the step itself.
//!
//! Adding one is its file and one line in [`STEPS`].

mod access_log;
mod allow;
mod basic_auth;
pub mod cache;
mod cgi;
mod compress;
pub mod conditions;
mod cors;
mod deny;
mod edits;
mod errors;
pub mod fastcgi;
mod file_page;
pub mod files;
mod forward_auth;
mod headers;
mod jwt;
pub mod limit;
mod metrics;
pub mod networks;
pub mod patterns;
pub mod proxy;
mod redirect;
mod respond;
mod rewrite;
pub mod route;
mod security_headers;
mod set;
#[cfg(test)]
pub mod testing;
mod watched;

use std::sync::LazyLock;

use forebay_config::{Call, Directive, Match, Registry};

use crate::control::build::Builder;
use crate::control::declarations;
use crate::exchange::Step;

pub use file_page::FilePage;
pub use jwt::RemoteKeys;
pub use metrics::{Dialect, render as render_metrics};

type Build = fn(&Call, &mut Builder<'_>) -> Option<Box<dyn Step>>;

/// Every step but `route`, in the order of the reference: filters, then handlers.
static STEPS: &[(&Directive, Build)] = &[
    (&access_log::DIRECTIVE, access_log::build),
    (&allow::DIRECTIVE, allow::build),
    (&compress::DIRECTIVE, compress::build),
    (&deny::DIRECTIVE, deny::build),
    (&basic_auth::DIRECTIVE, basic_auth::build),
    (&cache::DIRECTIVE, cache::build),
    (&cors::DIRECTIVE, cors::build),
    (&errors::DIRECTIVE, errors::build),
    (&fastcgi::auth::DIRECTIVE, fastcgi::auth::build),
    (&forward_auth::DIRECTIVE, forward_auth::build),
    (&headers::DIRECTIVE, headers::build),
    (&jwt::DIRECTIVE, jwt::build),
    (&limit::DIRECTIVE, limit::build),
    (&rewrite::DIRECTIVE, rewrite::build),
    (&security_headers::DIRECTIVE, security_headers::build),
    (&set::DIRECTIVE, set::build),
    (&respond::DIRECTIVE, respond::build),
    (&redirect::DIRECTIVE, redirect::build),
    (&proxy::DIRECTIVE, proxy::build),
    (&fastcgi::DIRECTIVE, fastcgi::build),
    (&files::DIRECTIVE, files::build),
    (&cgi::DIRECTIVE, cgi::build),
    (&metrics::DIRECTIVE, metrics::build),
];

/// What makes things exist.
static DECLARATIONS: &[&Directive] = &[
    &declarations::LISTEN,
    &declarations::SITE,
    &crate::upstream::DIRECTIVE,
    &crate::upstream::fleet::DIRECTIVE,
    &cache::stores::DIRECTIVE,
    &declarations::SERVER,
];

static REGISTRY: LazyLock<Registry> = LazyLock::new(|| {
    let steps = STEPS.iter().map(|(directive, _)| *directive);
    let conditions = conditions::CONDITIONS
        .iter()
        .map(|(directive, _)| *directive);
    let declarations = DECLARATIONS.iter().copied();
    Registry::new(
        declarations
            .chain([&route::DIRECTIVE])
            .chain(steps)
            .chain(conditions),
    )
});

/// Every directive that a configuration may use, in the order of the reference.
pub fn registry() -> &'static Registry {
    &REGISTRY
}

/// The names of the files that a step runs.
pub fn scripts_of(call: &Call) -> Vec<Match> {
    match call.name() {
        name if name == fastcgi::DIRECTIVE.name => fastcgi::patterns(call),
        name if name == cgi::DIRECTIVE.name => Match::parse("*.cgi").into_iter().collect(),
        _ => Vec::new(),
    }
}

/// Whether a step runs every file that is executable.
pub fn runs_programs(call: &Call) -> bool {
    call.name() == cgi::DIRECTIVE.name
}

/// The number of the kind of step that a directive makes.
pub fn kind_of(directive: &Directive) -> u8 {
    let kind = kinds().position(|name| name == directive.name);
    kind.and_then(|kind| u8::try_from(kind).ok())
        .unwrap_or(u8::MAX)
}

/// Every kind of step by its number.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    let steps = STEPS.iter().map(|(directive, _)| directive.name);
    steps.chain([route::DIRECTIVE.name])
}

/// The step of a checked call.
pub fn build(call: &Call, builder: &mut Builder<'_>) -> Option<Box<dyn Step>> {
    let directive: *const Directive = call.directive();
    let (_, build) = STEPS
        .iter()
        .find(|(known, _)| std::ptr::eq(*known, directive))?;
    build(call, builder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_directive_is_documented() {
        for directive in registry().directives() {
            let name = directive.name;
            assert!(
                directive.about.ends_with('.'),
                "{name}: {:?}",
                directive.about
            );
            assert!(directive.example.contains(name), "{name} has no example");
            for option in directive.options {
                assert!(
                    option.about.ends_with('.'),
                    "{name}.{}: {}",
                    option.name,
                    option.about
                );
            }
        }
    }

    #[test]
    fn every_kind_of_step_has_a_number_that_is_counted() {
        assert!(kinds().count() <= crate::counters::STEP_KINDS);
        for (number, (directive, _)) in STEPS.iter().enumerate() {
            assert_eq!(
                usize::from(kind_of(directive)),
                number,
                "{}",
                directive.name
            );
        }
    }

    #[test]
    fn every_example_is_right() {
        use forebay_config::Role;
        // What examples read.
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("users"), "").expect("a file");
        let keys = include_str!("jwt/fixtures/keys.json");
        std::fs::write(dir.path().join("keys.json"), keys).expect("a file");
        let read = format!("{}/", dir.path().display());
        for directive in registry().directives() {
            let example = &directive.example.replace("/etc/forebay/", &read);
            let config = match directive.role {
                Role::Declaration => example.clone(),
                Role::Condition => format!(
                    "site {{ \"*\", headers {{ response = {{ x = \"1\" }}, when = {example} }}, respond(200) }}"
                ),
                _ => format!("site {{ \"*\", {example} }}"),
            };
            testing::built(&config);
        }
    }
}
