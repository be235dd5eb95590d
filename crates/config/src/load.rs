//! From a path to checked calls.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::check::Checker;
use crate::lua::{Outcome, run};
use crate::registry::Registry;
use crate::report::{Code, Report};
use crate::value::Call;

/// What a load may take and see.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// CPU time of the Lua code, over all files.
    pub cpu: Duration,
    /// Memory of the Lua code, in bytes.
    pub memory: usize,
    /// The environment that `env` reads; none for the process's own.
    pub env: Option<HashMap<String, String>>,
    /// What `math.random` starts from, so that the same file gives the same result.
    pub seed: u32,
}

impl Default for LoadOptions {
    /// 10 s and 1 GB.
    fn default() -> LoadOptions {
        LoadOptions {
            cpu: Duration::from_secs(10),
            memory: 1 << 30,
            env: None,
            seed: 0,
        }
    }
}

/// What a file has declared.
#[derive(Debug)]
pub struct Loaded {
    /// All declarations, in the order of their first call.
    pub declarations: Vec<Arc<Call>>,
    /// Warnings so far, and the place for more; without mistakes.
    pub report: Report,
    /// Every file that was looked at, the main one first: a change in one may change the result.
    pub files: Vec<PathBuf>,
    /// Patterns given to `glob` and `require`, absolute.
    pub globs: Vec<String>,
    /// Variables of the environment that were read, once each.
    pub env: Vec<EnvRead>,
}

/// A variable of the environment that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct EnvRead {
    /// Its name.
    pub name: String,
    /// Whether it was set; its value is nowhere shown.
    pub set: bool,
}

impl Loaded {
    /// The declarations by one directive.
    pub fn by<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Arc<Call>> {
        self.declarations
            .iter()
            .filter(move |call| call.name() == name)
    }
}

/// Runs and checks a configuration file. The error holds every mistake.
///
/// Blocks, on file reading and for up to the CPU time given; call it on a thread that may.
pub fn load(path: &Path, registry: &Registry, options: &LoadOptions) -> Result<Loaded, Report> {
    match crate::helpers::read_source(path, u64::MAX) {
        Ok(text) => load_text(path, text, registry, options),
        Err(error) => {
            let mut sources = crate::place::Sources::default();
            let file = sources.add(&path.to_string_lossy(), path, Vec::new());
            let place = sources.line_place(file, 1);
            let mut report = Report::new(Arc::new(sources));
            let message = format!("{}: {error}", path.display());
            report.mistake(
                place,
                Code::NotFound,
                message,
                "expected a configuration file",
            );
            Err(report)
        }
    }
}

/// The same for a text that stands for this file: a configuration that a command makes up.
pub fn load_text(
    path: &Path,
    text: Vec<u8>,
    registry: &Registry,
    options: &LoadOptions,
) -> Result<Loaded, Report> {
    let Outcome {
        sources,
        mistakes,
        uses,
        files,
        globs,
        env,
        secrets,
        dir,
    } = run(path, text, registry, options);
    let mut report = Report::new(Arc::new(sources));
    report.set_secrets(secrets);
    for (place, code, message, help) in mistakes {
        report.mistake(place, code, message, help);
    }
    let mut checker = Checker::new(dir, report, registry.specs().to_vec());
    let declarations = checker.run(uses);
    let report = checker.report;
    if report.has_mistakes() {
        return Err(report);
    }
    Ok(Loaded {
        declarations,
        report,
        files,
        globs,
        env,
    })
}
