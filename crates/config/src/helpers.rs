//! The helpers: what a file may read while it is loaded, and how.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use mlua::{Lua, MultiValue, Table, Value};

use crate::load::EnvRead;
use crate::lua::{Machine, State};
use crate::place::Place;
use crate::raw::quoted;
use crate::report::Code;

/// Names that no directive may have.
pub(crate) const NAMES: [&str; 9] = [
    "env", "read", "lines", "glob", "regex", "add", "default", "require", "print",
];

/// A helper as the reference and the editor types show it.
pub(crate) struct Helper {
    pub(crate) usage: &'static str,
    /// What stands behind its name in a definitions file.
    pub(crate) declare: &'static str,
    pub(crate) about: &'static str,
}

/// In the order of the reference.
pub(crate) const HELPERS: [Helper; 8] = [
    Helper {
        usage: "env(NAME, [DEFAULT])",
        declare: "env(name: string, default: string?): string",
        about: "A variable of the environment; a mistake if it is unset and there is no default. \
                Masked wherever it is shown.",
    },
    Helper {
        usage: "read(PATH)",
        declare: "read(path: string): string",
        about: "A file's text, without the last newline.",
    },
    Helper {
        usage: "lines(PATH)",
        declare: "lines(path: string): { string }",
        about: "A file's lines, without blank ones and `#` comments.",
    },
    Helper {
        usage: "glob(PATH)",
        declare: "glob(path: string): { string }",
        about: "The paths that match, sorted.",
    },
    Helper {
        usage: "regex(TEXT)",
        declare: "regex(text: string): Made",
        about: "An expression, for a match; it runs in linear time.",
    },
    Helper {
        usage: "add(TEXT)",
        declare: "add(text: string): Made",
        about: "In a table of fields: appends a line.",
    },
    Helper {
        usage: "default(TEXT)",
        declare: "default(text: string): Made",
        about: "In a table of fields: sets it if it is absent.",
    },
    Helper {
        usage: "require(NAME…)",
        declare: "require(name: string | { string }): any",
        about: "Runs files, once each, by their names or patterns below the main file's directory.",
    },
];

/// Size of one source: eighty thousand sites. What is noted of a source takes up to thirty times
/// its size.
const MAX_SOURCE: u64 = 16 << 20;

/// All sources that are required.
const MAX_SOURCES: u64 = 64 << 20;

/// What `read` and `lines` read, a file, and all together.
const MAX_READ: u64 = 16 << 20;
const MAX_READ_ALL: u64 = 256 << 20;

/// Paths that one `glob` gives, and files that are required.
const MAX_PATHS: usize = 100_000;
const MAX_REQUIRED: usize = 100_000;

/// Files that require files; Luau's own limit on calls through Rust is not far above.
const MAX_REQUIRE_DEPTH: usize = 32;

/// Lines that `print` writes.
const MAX_PRINTED: usize = 10_000;

type Shared = Rc<RefCell<State>>;

/// Gives the prelude its way to the helpers.
pub(crate) fn install(lua: &Lua, host: &Table, state: &Shared) -> mlua::Result<()> {
    let is_source = lua.create_table()?;
    for name in state.borrow().source_names() {
        is_source.raw_set(name.as_str(), true)?;
    }
    host.set("is_source", &is_source)?;
    state.borrow_mut().is_source = Some(is_source);

    set(
        lua,
        host,
        state,
        "unknown_name",
        |_, state, (source, line, name): Named| {
            state.borrow_mut().unknown_name(&source, line, &name);
            Ok(())
        },
    )?;
    set(
        lua,
        host,
        state,
        "assigned",
        |_, state, (source, line, name): Named| {
            state.borrow_mut().assigned(&source, line, &name);
            Ok(())
        },
    )?;
    set(
        lua,
        host,
        state,
        "line_site",
        |_, state, (source, line): (String, u32)| Ok(state.borrow_mut().line_site(&source, line)),
    )?;
    set(lua, host, state, "env", env)?;
    set(lua, host, state, "read", read)?;
    set(lua, host, state, "lines", lines)?;
    set(lua, host, state, "glob", glob)?;
    set(lua, host, state, "require", require)?;
    let printed = std::cell::Cell::new(0);
    set(
        lua,
        host,
        state,
        "print",
        move |_, _, text: mlua::LuaString| {
            printed.set(printed.get() + 1);
            if printed.get() <= MAX_PRINTED {
                eprintln!("{}", text.to_string_lossy());
            }
            Ok(())
        },
    )
}

type Named = (String, u32, String);

fn set<A, R, F>(lua: &Lua, host: &Table, state: &Shared, name: &str, run: F) -> mlua::Result<()>
where
    A: mlua::FromLuaMulti,
    R: mlua::IntoLuaMulti,
    F: Fn(&Lua, &Shared, A) -> mlua::Result<R> + 'static,
{
    let state = Rc::clone(state);
    host.set(
        name,
        lua.create_function(move |lua, args: A| run(lua, &state, args))?,
    )
}

/// The text arguments of a helper's call: the site first, then between `least` and `most` texts.
/// None, and a mistake, if they are not that.
fn texts(
    state: &Shared,
    name: &str,
    args: &MultiValue,
    least: usize,
    most: usize,
) -> Option<(usize, Vec<String>)> {
    let site = args.front().and_then(Value::as_usize).unwrap_or(0);
    let mut state = state.borrow_mut();
    let mut found = Vec::new();
    for (index, value) in args.iter().skip(1).enumerate() {
        let text = match value {
            Value::String(text) => text.to_str().ok().map(|text| text.to_owned()),
            _ => None,
        };
        let Some(text) = text.filter(|_| index < most) else {
            // What came of an unknown name was reported where it is.
            let unknown = matches!(value, Value::Table(table) if table.has_metatable());
            if !unknown {
                let place = state.argument_place(site, index);
                let what = noun(value);
                let message = match index < most {
                    true => format!("{name} cannot be {what}"),
                    false => format!("{name}: {what} is one too many"),
                };
                state.mistake(place, Code::BadValue, message, usage(name));
            }
            return None;
        };
        found.push(text);
    }
    if found.len() < least {
        let place = state.call_place(site);
        state.mistake(
            place,
            Code::Missing,
            format!("{name}: a text is missing"),
            usage(name),
        );
        return None;
    }
    Some((site, found))
}

fn noun(value: &Value) -> &'static str {
    match value {
        Value::Nil => "nil",
        Value::Boolean(_) => "a boolean",
        Value::Integer(_) | Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Table(_) => "a table",
        Value::Function(_) => "a function",
        _ => "this value",
    }
}

fn usage(name: &str) -> &'static str {
    match name {
        "env" => "expected `env \"NAME\"` or `env(\"NAME\", \"DEFAULT\")`",
        "read" => "expected `read \"PATH\"`",
        "lines" => "expected `lines \"PATH\"`",
        "glob" => "expected `glob \"PATTERN\"`",
        _ => "expected `require \"NAME\"`",
    }
}

/// `env(NAME, [DEFAULT])`
fn env(_: &Lua, state: &Shared, args: MultiValue) -> mlua::Result<Option<String>> {
    let Some((site, found)) = texts(state, "env", &args, 1, 2) else {
        return Ok(None);
    };
    let mut state = state.borrow_mut();
    let name = &found[0];
    let value = match &state.env {
        Some(given) => given.get(name).cloned(),
        // `std::env::var` panics on names that cannot be: they are not set.
        None if name.is_empty() || name.contains(['=', '\0']) => None,
        None => std::env::var(name).ok(),
    };
    let read = EnvRead {
        name: name.clone(),
        set: value.is_some(),
    };
    state.env_reads.add(read);
    if let Some(value) = value {
        state.secrets.add(value.clone());
        return Ok(Some(value));
    }
    if let Some(default) = found.get(1) {
        return Ok(Some(default.clone()));
    }
    let place = state.argument_place(site, 0);
    let message = format!("the environment has no {}", quoted(name));
    let help = "set it, or give a default as the second argument";
    state.mistake(place, Code::NotFound, message, help);
    Ok(None)
}

/// `read(PATH)`: text, without the last newline.
fn read(lua: &Lua, state: &Shared, args: MultiValue) -> mlua::Result<Option<mlua::LuaString>> {
    let Some(bytes) = read_file(state, "read", &args) else {
        return Ok(None);
    };
    let text = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    lua.create_string(text).map(Some)
}

/// `lines(PATH)`: list, without blank lines and `#` comments.
fn lines(lua: &Lua, state: &Shared, args: MultiValue) -> mlua::Result<Option<Table>> {
    let Some(bytes) = read_file(state, "lines", &args) else {
        return Ok(None);
    };
    let trimmed = bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let kept = trimmed.filter(|line| !line.is_empty() && !line.starts_with(b"#"));
    let list = lua.create_table()?;
    for line in kept {
        list.raw_push(lua.create_string(line)?)?;
    }
    Ok(Some(list))
}

fn read_file(state: &Shared, name: &str, args: &MultiValue) -> Option<Vec<u8>> {
    let (site, found) = texts(state, name, args, 1, 1)?;
    let mut state = state.borrow_mut();
    let path = state.dir.join(&found[0]);
    state.note_file(&path);
    let room = MAX_READ_ALL.saturating_sub(state.read_bytes).min(MAX_READ);
    match read_regular(&path, room) {
        Ok(bytes) => {
            state.read_bytes += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            Some(bytes)
        }
        Err(error) => {
            let place = state.argument_place(site, 0);
            let message = format!("{name}: {}: {error}", quoted(&found[0]));
            let help = format!("looked for {}", path.display());
            state.mistake(place, Code::NotFound, message, help);
            None
        }
    }
}

/// A regular file, up to a limit: a pipe or a device would keep the load waiting.
fn read_regular(path: &Path, limit: u64) -> Result<Vec<u8>, String> {
    let open = || -> io::Result<Option<Vec<u8>>> {
        if !std::fs::metadata(path)?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let mut bytes = Vec::new();
        File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
        let fits = u64::try_from(bytes.len()).is_ok_and(|len| len <= limit);
        Ok(fits.then_some(bytes))
    };
    match open() {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err("too large".to_owned()),
        Err(error) => Err(plain_error(&error)),
    }
}

/// A configuration file of up to so many bytes, without its byte order mark.
pub(crate) fn read_source(path: &Path, room: u64) -> Result<Vec<u8>, String> {
    let mut bytes = read_regular(path, room.min(MAX_SOURCE))?;
    if bytes.starts_with(b"\xef\xbb\xbf") {
        bytes.drain(..3);
    }
    Ok(bytes)
}

fn plain_error(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "it may not be read".to_owned(),
        _ => error.to_string(),
    }
}

/// `glob(PATH)`: sorted list. A relative pattern gives relative paths, so that they can be given to
/// other helpers and options, which start from the same directory.
fn glob(_: &Lua, state: &Shared, args: MultiValue) -> mlua::Result<Option<Vec<String>>> {
    let Some((site, found)) = texts(state, "glob", &args, 1, 1) else {
        return Ok(None);
    };
    let mut state = state.borrow_mut();
    let place = state.argument_place(site, 0);
    Ok(expand(&mut state, "glob", &found[0], place))
}

/// The paths that a pattern matches, in order; none, and a mistake, if it is no pattern.
fn expand(state: &mut State, helper: &str, pattern: &str, place: Place) -> Option<Vec<String>> {
    let dir = state.dir.to_string_lossy().into_owned();
    let absolute = match Path::new(pattern).is_absolute() {
        true => pattern.to_owned(),
        false => format!(
            "{}/{pattern}",
            glob::Pattern::escape(dir.trim_end_matches('/'))
        ),
    };
    state.globs.add(absolute.clone());
    let paths = match glob::glob(&absolute) {
        Ok(paths) => paths,
        Err(error) => {
            let message = format!(
                "{helper}: {} is not a pattern: {}",
                quoted(pattern),
                error.msg
            );
            state.mistake(place, Code::BadValue, message, "");
            return None;
        }
    };
    let mut found = Vec::new();
    for path in paths.flatten() {
        if found.len() == MAX_PATHS {
            let message = format!("{helper}: more than {MAX_PATHS} paths");
            state.mistake(place, Code::Conflict, message, "");
            break;
        }
        let shown = path.strip_prefix(&state.dir).unwrap_or(&path);
        let shown = if Path::new(pattern).is_absolute() {
            &path
        } else {
            shown
        };
        match shown.to_str() {
            Some(text) => found.push(text.to_owned()),
            None => {
                let message = format!(
                    "{helper}: {} is not UTF-8",
                    quoted(&shown.to_string_lossy())
                );
                state.mistake(place, Code::BadValue, message, "rename the file");
            }
        }
    }
    found.sort_unstable();
    Some(found)
}

/// `require NAME`, or a list of names and patterns.
fn require(_: &Lua, state: &Shared, args: MultiValue) -> mlua::Result<Value> {
    let site = args.front().and_then(Value::as_usize).unwrap_or(0);
    let place = state.borrow().argument_place(site, 0);
    let machine = state.borrow().machine.clone();
    let Some(machine) = machine else {
        return Ok(Value::Nil);
    };
    let values: Vec<&Value> = args.iter().skip(1).collect();
    let single = match values.as_slice() {
        [Value::String(name)] if !name.as_bytes().contains(&b'*') => name.to_str().ok(),
        _ => None,
    };
    if let Some(name) = single {
        return Ok(require_one(&machine, &name, place));
    }
    let mut names = Vec::new();
    let right = match values.as_slice() {
        [Value::String(name)] => name
            .to_str()
            .map(|name| names.push(name.to_owned()))
            .is_ok(),
        [Value::Table(list)] if !list.has_metatable() => {
            // All of them, so that one wrong name does not hide the rest.
            let mut right = true;
            for value in list.sequence_values::<Value>() {
                match value {
                    Ok(Value::String(name)) => match name.to_str() {
                        Ok(name) => names.push(name.to_owned()),
                        Err(_) => right = false,
                    },
                    _ => right = false,
                }
            }
            right
        }
        // What came of an unknown name was reported where it is.
        [Value::Table(_)] => return Ok(Value::Nil),
        _ => false,
    };
    if !right {
        let message = "require takes a name, or a list of names and patterns";
        state
            .borrow_mut()
            .mistake(place, Code::BadValue, message, usage("require"));
    }
    for name in names {
        if !name.contains('*') {
            require_one(&machine, &name, place);
            continue;
        }
        let pattern = if name.ends_with(".lua") {
            name
        } else {
            name + ".lua"
        };
        let found = expand(&mut state.borrow_mut(), "require", &pattern, place);
        for path in found.unwrap_or_default() {
            require_one(&machine, &path, place);
        }
    }
    Ok(Value::Nil)
}

/// Runs a file that was not run yet; its value, or the inert one if it went wrong.
fn require_one(machine: &Rc<Machine>, name: &str, place: Place) -> Value {
    let opened = open_required(&mut machine.state.borrow_mut(), name, place);
    match opened {
        Opened::Known(value) => value,
        Opened::Wrong => machine.unknown(),
        Opened::New(file, path) => {
            machine.state.borrow_mut().requiring.push(path.clone());
            let value = machine.run_file(file);
            let mut state = machine.state.borrow_mut();
            state.requiring.pop();
            state.required.insert(path, value.clone());
            value
        }
    }
}

enum Opened {
    Known(Value),
    New(u32, PathBuf),
    Wrong,
}

fn open_required(state: &mut State, name: &str, place: Place) -> Opened {
    let shown = if name.ends_with(".lua") {
        name.to_owned()
    } else {
        format!("{name}.lua")
    };
    let inner = Path::new(&shown)
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    if !inner || name.is_empty() || name.contains('\0') {
        let message = format!("require cannot be {}", quoted(name));
        let help = "expected a name below the main file's directory, without `..`";
        state.mistake(place, Code::BadValue, message, help);
        return Opened::Wrong;
    }
    let path = state.dir.join(&shown);
    if let Some(value) = state.required.get(&path) {
        return Opened::Known(value.clone());
    }
    if let Some(first) = state.requiring.iter().position(|open| *open == path) {
        let way = state.requiring[first..].iter().chain([&path]);
        let names = way.map(|path| {
            path.strip_prefix(&state.dir)
                .unwrap_or(path)
                .to_string_lossy()
                .into_owned()
        });
        let help = names.collect::<Vec<_>>().join(" → ");
        let message = format!("{} requires itself", quoted(name));
        state.mistake(place, Code::Conflict, message, help);
        return Opened::Wrong;
    }
    if state.requiring.len() >= MAX_REQUIRE_DEPTH || state.required.len() >= MAX_REQUIRED {
        let message = format!(
            "more than {MAX_REQUIRE_DEPTH} files that require one another, or {MAX_REQUIRED} files"
        );
        state.mistake(place, Code::Conflict, message, "");
        return Opened::Wrong;
    }
    let room = MAX_SOURCES.saturating_sub(state.source_bytes);
    match read_source(&path, room) {
        Ok(text) => {
            state.source_bytes += u64::try_from(text.len()).unwrap_or(u64::MAX);
            let shown = state.shown(Path::new(&shown));
            Opened::New(state.add_source(&shown, &path, text), path)
        }
        Err(error) => {
            state.note_file(&path);
            let message = format!("require: {}: {error}", quoted(name));
            let help = format!("looked for {}", path.display());
            state.mistake(place, Code::NotFound, message, help);
            Opened::Wrong
        }
    }
}
