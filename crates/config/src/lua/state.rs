//! What a run notes beside the uses: sources, sites, mistakes, what was read.

use std::collections::HashMap;
use std::hash::Hash;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::load::{EnvRead, LoadOptions};
use crate::lua::names::Names;
use crate::lua::{Machine, Mistake};
use crate::place::{Place, Sources};
use crate::registry::Registry;
use crate::report::{Code, MAX_DIAGNOSTICS};
use crate::scan::{Part, Scan, Site};

/// A call, a table, or only a line, in one of the sources.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Located {
    pub(crate) file: u32,
    pub(crate) site: Site,
}

/// Values in the order in which they came, each once.
#[derive(Default)]
pub(crate) struct Once<T> {
    order: Vec<T>,
    known: FxHashSet<T>,
}

impl<T: Clone + Eq + Hash> Once<T> {
    pub(crate) fn add(&mut self, value: T) {
        if self.known.insert(value.clone()) {
            self.order.push(value);
        }
    }

    pub(crate) fn into_vec(self) -> Vec<T> {
        self.order
    }
}

/// Filled while the code runs.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) sources: Sources,
    /// By what Lua calls them.
    by_name: FxHashMap<String, u32>,
    names: Vec<String>,
    /// By their number less one.
    pub(crate) sites: Vec<Located>,
    pub(crate) parts: Vec<Part>,
    line_sites: FxHashMap<(u32, u32), usize>,
    pub(crate) mistakes: Vec<Mistake>,
    /// Where names stand, for those sources that have a wrong one.
    wrong_names: FxHashMap<u32, Names>,
    known_names: Vec<&'static str>,
    pub(crate) files: Once<PathBuf>,
    pub(crate) globs: Once<String>,
    pub(crate) env_reads: Once<EnvRead>,
    pub(crate) secrets: Once<String>,
    pub(crate) dir: PathBuf,
    /// In front of a path relative to `dir`, for messages.
    shown_dir: PathBuf,
    pub(crate) limits: LoadOptions,
    pub(crate) env: Option<HashMap<String, String>>,
    /// Files being required, the main one first, by their path.
    pub(crate) requiring: Vec<PathBuf>,
    /// Values of files that were required.
    pub(crate) required: FxHashMap<PathBuf, mlua::Value>,
    /// Bytes that `read` and `lines` have read.
    pub(crate) read_bytes: u64,
    /// Bytes of the sources that were required.
    pub(crate) source_bytes: u64,
    pub(crate) machine: Option<Rc<Machine>>,
    /// Names of sources, as a table that the prelude looks into.
    pub(crate) is_source: Option<mlua::Table>,
}

impl State {
    pub(crate) fn new(path: &Path, registry: &Registry, options: &LoadOptions) -> State {
        let parent = path.parent().unwrap_or(Path::new(""));
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let dir = absolute.parent().unwrap_or(Path::new("/")).to_owned();
        let mut known_names: Vec<&'static str> = registry
            .directives()
            .map(|directive| directive.name)
            .collect();
        known_names.extend(crate::helpers::NAMES);
        known_names.extend(crate::lua::BASE);
        known_names.push("os");
        State {
            dir,
            shown_dir: parent.to_owned(),
            limits: options.clone(),
            env: options.env.clone(),
            known_names,
            requiring: vec![absolute],
            ..State::default()
        }
    }

    /// Adds a source; `name` is how messages call it.
    pub(crate) fn add_source(&mut self, name: &str, path: &Path, text: Vec<u8>) -> u32 {
        let file = self.sources.add(name, path, text);
        let short = short_name(name);
        self.by_name.insert(short.clone(), file);
        if let Some(table) = &self.is_source
            && let Err(error) = table.raw_set(short.as_str(), true)
        {
            debug_assert!(false, "{error}");
        }
        self.names.push(short);
        self.note_file(path);
        file
    }

    pub(crate) fn note_file(&mut self, path: &Path) {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        self.files.add(path);
    }

    pub(crate) fn chunk_name(&self, file: u32) -> String {
        let index = usize::try_from(file).unwrap_or(0);
        self.names.get(index).cloned().unwrap_or_default()
    }

    pub(crate) fn source_names(&self) -> &[String] {
        &self.names
    }

    pub(crate) fn file_named(&self, name: &str) -> Option<u32> {
        self.by_name.get(name).copied()
    }

    /// A path relative to the main file's directory, as messages show it.
    pub(crate) fn shown(&self, path: &Path) -> String {
        self.shown_dir.join(path).to_string_lossy().into_owned()
    }

    pub(crate) fn add_scan(&mut self, file: u32, scan: Scan) {
        let offset = u32::try_from(self.parts.len()).unwrap_or(u32::MAX);
        let moved = |site: Site| Site {
            first: site.first.saturating_add(offset),
            ..site
        };
        self.sites
            .extend(scan.sites.into_iter().map(|site| Located {
                file,
                site: moved(site),
            }));
        self.parts.extend(scan.parts);
    }

    pub(crate) fn mistake(
        &mut self,
        place: Place,
        code: Code,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        // One more than are shown, so that the report knows of the rest.
        if self.mistakes.len() <= MAX_DIAGNOSTICS {
            self.mistakes
                .push((place, code, message.into(), help.into()));
        }
    }

    pub(crate) fn located(&self, number: usize) -> Option<Located> {
        self.sites.get(number.checked_sub(1)?).copied()
    }

    pub(crate) fn parts_of(&self, site: Site) -> &[Part] {
        let range = |at: u32| usize::try_from(at).unwrap_or(usize::MAX);
        let (first, end) = (
            range(site.first),
            range(site.first.saturating_add(site.count)),
        );
        self.parts.get(first..end).unwrap_or(&[])
    }

    /// The place of a call: the called name, or only the line.
    pub(crate) fn call_place(&self, number: usize) -> Place {
        self.located(number).map_or(Place::NONE, |located| {
            place(
                located.file,
                located.site.called.unwrap_or(located.site.span),
            )
        })
    }

    /// The place of an argument of a call, from 0; of the call where it is not known.
    pub(crate) fn argument_place(&self, number: usize, index: usize) -> Place {
        let Some(located) = self.located(number) else {
            return Place::NONE;
        };
        if located.site.called.is_some() {
            return place(located.file, located.site.span);
        }
        let parts = self.parts_of(located.site);
        // A function in the last place may have given several values.
        match parts.get(index).or(parts.last()) {
            Some(part) => place(located.file, part.value_span),
            None => place(located.file, located.site.span),
        }
    }

    /// A site that is only a line, for sources that are run without marks.
    pub(crate) fn line_site(&mut self, source: &str, line: u32) -> usize {
        let Some(file) = self.file_named(source) else {
            return 0;
        };
        if let Some(known) = self.line_sites.get(&(file, line)) {
            return *known;
        }
        let whole = self.sources.line_place(file, line);
        let site = Site {
            span: whole.offsets(),
            called: None,
            first: 0,
            count: 0,
        };
        self.sites.push(Located { file, site });
        self.line_sites.insert((file, line), self.sites.len());
        self.sites.len()
    }

    /// An unknown name was read on this line.
    pub(crate) fn unknown_name(&mut self, source: &str, line: u32, name: &str) {
        let Some(file) = self.file_named(source) else {
            return;
        };
        let Some(place) = self.next_name(file, line, name, true) else {
            return;
        };
        let locals = self.wrong_names.get(&file).map_or(&[][..], Names::locals);
        let known = self.known_names.iter().copied();
        let near = crate::nearest(name, known.chain(locals.iter().map(String::as_str)));
        let help = near.map_or_else(String::new, |near| format!("did you mean `{near}`?"));
        self.mistake(
            place,
            Code::UnknownName,
            format!("unknown name `{name}`"),
            help,
        );
    }

    /// A global was assigned on this line.
    pub(crate) fn assigned(&mut self, source: &str, line: u32, name: &str) {
        let Some(file) = self.file_named(source) else {
            return;
        };
        let Some(place) = self.next_name(file, line, name, false) else {
            return;
        };
        let (message, help) = if self.known_names.contains(&name) {
            (
                format!("`{name}` cannot be assigned"),
                "choose another name".to_owned(),
            )
        } else {
            (
                format!("`{name}` is not a local"),
                format!("write `local {name} = …`"),
            )
        };
        self.mistake(place, Code::UnknownName, message, help);
    }

    /// The next occurrence on this line that was not reported yet; none if all were.
    fn next_name(&mut self, file: u32, line: u32, name: &str, read: bool) -> Option<Place> {
        let sources = &self.sources;
        let names = self
            .wrong_names
            .entry(file)
            .or_insert_with(|| Names::new(sources.text(file)));
        let range = sources.line_range(file, line)?;
        let found = names.next(sources.text(file), range, name, read);
        match found {
            Ok(span) => Some(Place::new(file, span.0, span.1)),
            Err(true) => None,
            // Not to be seen on the line: the place is the line.
            Err(false) => Some(sources.line_place(file, line)),
        }
    }

    /// Luau's compiler refuses a source: `NAME:LINE: what`.
    pub(crate) fn syntax_error(&mut self, file: u32, name: &str, error: &str) {
        let text = error.strip_prefix("syntax error: ").unwrap_or(error);
        let (line, what) = split_position(text, name);
        let what = what.lines().next().unwrap_or_default();
        let place = self.syntax_place(file, line, what);
        self.mistake(place, Code::Syntax, what, "");
    }

    /// Luau names the token it met, but only its line.
    fn syntax_place(&self, file: u32, line: u32, what: &str) -> Place {
        let whole = self.sources.line_place(file, line);
        let met = what
            .rsplit_once("got '")
            .and_then(|(_, rest)| rest.split_once('\''));
        let Some((token, _)) = met else { return whole };
        let Some((start, end)) = self.sources.line_range(file, line) else {
            return whole;
        };
        let text = self.sources.text(file);
        let found = memchr::memmem::find(&text[start..end], token.as_bytes());
        found.map_or(whole, |at| {
            Place::new(file, start + at, start + at + token.len())
        })
    }

    /// An error ended a source. Without a line, the last call is the best known place.
    pub(crate) fn lua_error(
        &mut self,
        file: u32,
        text: &str,
        source: &str,
        line: u32,
        called: usize,
    ) {
        let text = text.strip_prefix("runtime error: ").unwrap_or(text);
        let (written, what) = match source {
            "" => split_position(text, &self.chunk_name(file)),
            source => split_position(text, source),
        };
        // What goes wrong in the code of ours is the fault of who called it.
        let what = match split_position(what, "prelude") {
            (0, _) => what,
            (_, rest) => rest,
        };
        let line = if line > 0 { line } else { written };
        let file = self.file_named(source).unwrap_or(file);
        let place = match line {
            0 => self.call_place(called),
            line => self.sources.line_place(file, line),
        };
        // What cannot be done with an unknown name is no mistake of its own.
        let line_of = |place: Place| self.sources.span(place).line;
        let follows = |mistake: &Mistake| {
            mistake.1 == Code::UnknownName && mistake.0.file() == file && line_of(mistake.0) == line
        };
        if line > 0 && self.mistakes.iter().any(follows) {
            return;
        }
        let what = what.lines().next().unwrap_or_default();
        let (message, help) = match what {
            "attempt to modify a readonly table" => (
                "this table cannot be changed".to_owned(),
                "what was given to a directive stays as it was: make a new table",
            ),
            _ if what.contains("not enough memory") => (
                format!(
                    "stopped at {} of memory",
                    crate::scalar::show_size(u64::try_from(self.limits.memory).unwrap_or(0))
                ),
                "",
            ),
            _ => (what.to_owned(), ""),
        };
        self.mistake(place, Code::LuaError, message, help);
    }
}

pub(crate) fn place(file: u32, span: (u32, u32)) -> Place {
    let offset = |at: u32| usize::try_from(at).unwrap_or(usize::MAX);
    Place::new(file, offset(span.0), offset(span.1))
}

/// "NAME:LINE: what" in its parts; line 0 if it does not begin so.
fn split_position<'a>(text: &'a str, name: &str) -> (u32, &'a str) {
    let rest = text
        .strip_prefix(name)
        .and_then(|rest| rest.strip_prefix(':'));
    let parts = rest.and_then(|rest| rest.split_once(": "));
    match parts.and_then(|(line, what)| Some((line.parse().ok()?, what))) {
        Some(parts) => parts,
        None => (0, text),
    }
}

/// Luau keeps 256 bytes of a source's name: of a longer path, the end is used.
fn short_name(name: &str) -> String {
    let mut start = name.len().saturating_sub(200);
    while !name.is_char_boundary(start) {
        start += 1;
    }
    name[start..].to_owned()
}
