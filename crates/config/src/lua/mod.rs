//! Running a configuration in a sandbox.
//!
//! The code sees frozen names only: directives that note their calls (`prelude.luau`), the helpers,
//! and Luau's base functions. It can reach no file but through the helpers, no network, no process;
//! it has a budget of CPU time and memory.

mod convert;
mod names;
mod state;

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use mlua::chunk::{ChunkMode, Compiler};
use mlua::{Function, Lua, LuaOptions, StdLib, Table, Value, VmState};
use rustix::time::{ClockId, clock_gettime};

use crate::directive::Role;
use crate::load::{EnvRead, LoadOptions};
use crate::place::{Place, Sources};
use crate::raw::Use;
use crate::registry::Registry;
use crate::report::Code;

pub(crate) use state::State;

/// What remains of Luau's own functions. Not there: `getfenv`, `setfenv`, `loadstring`,
/// `newproxy`, `collectgarbage`, which reach around the sandbox or serve nothing here.
const BASE: [&str; 23] = [
    "assert",
    "bit32",
    "error",
    "getmetatable",
    "ipairs",
    "math",
    "next",
    "pairs",
    "pcall",
    "rawequal",
    "rawget",
    "rawlen",
    "rawset",
    "select",
    "setmetatable",
    "string",
    "table",
    "tonumber",
    "tostring",
    "type",
    "typeof",
    "utf8",
    "xpcall",
];

/// What a run has left.
pub(crate) struct Outcome {
    pub(crate) sources: Sources,
    pub(crate) mistakes: Vec<Mistake>,
    pub(crate) uses: Vec<Use>,
    pub(crate) files: Vec<PathBuf>,
    pub(crate) globs: Vec<String>,
    pub(crate) env: Vec<EnvRead>,
    pub(crate) secrets: Vec<String>,
    pub(crate) dir: PathBuf,
}

/// Place, code, message, help.
pub(crate) type Mistake = (Place, Code, String, String);

/// A state that is being run, and what is needed to run one more source in it.
pub(crate) struct Machine {
    pub(crate) lua: Lua,
    pub(crate) state: Rc<RefCell<State>>,
    prelude: Prelude,
    stopped: Rc<Cell<Option<Stop>>>,
}

/// The tables and functions that `prelude.luau` returns.
struct Prelude {
    env: Table,
    run: Function,
    site: Function,
    unknown: Value,
    known: Table,
    uses: Table,
    sites: Table,
    holes: Table,
}

/// Where the budget of CPU time ended.
#[derive(Clone, Copy)]
struct Stop {
    /// Of the nearest source of the operator's.
    place: Place,
}

/// Runs a source and what it requires. Whatever goes wrong is among the mistakes.
pub(crate) fn run(
    path: &Path,
    text: Vec<u8>,
    registry: &Registry,
    options: &LoadOptions,
) -> Outcome {
    let state = Rc::new(RefCell::new(State::new(path, registry, options)));
    let name = path.to_string_lossy().into_owned();
    let file = state.borrow_mut().add_source(&name, path, text);
    let uses = match Machine::new(&state, registry, options) {
        Ok(machine) => {
            let machine = Rc::new(machine);
            let uses = machine.run_main(file, registry);
            // The helpers hold the machine, which holds the helpers.
            state.borrow_mut().machine = None;
            uses
        }
        Err(error) => {
            let message = format!("the Lua state cannot be set up: {error}");
            state
                .borrow_mut()
                .mistake(Place::NONE, Code::LuaError, message, "");
            Vec::new()
        }
    };
    let state = std::mem::take(&mut *state.borrow_mut());
    Outcome {
        sources: state.sources,
        mistakes: state.mistakes,
        uses,
        files: state.files.into_vec(),
        globs: state.globs.into_vec(),
        env: state.env_reads.into_vec(),
        secrets: state.secrets.into_vec(),
        dir: state.dir,
    }
}

impl Machine {
    fn new(
        state: &Rc<RefCell<State>>,
        registry: &Registry,
        options: &LoadOptions,
    ) -> mlua::Result<Machine> {
        let libraries = StdLib::TABLE
            | StdLib::STRING
            | StdLib::UTF8
            | StdLib::BIT
            | StdLib::MATH
            | StdLib::OS
            | StdLib::DEBUG;
        let lua = Lua::new_with(libraries, LuaOptions::default())?;
        // A load ends long before garbage would matter, and its memory has a limit.
        lua.gc_stop();
        lua.globals().set_safeenv(false);
        let host = lua.create_table()?;
        let known = lua.create_table()?;
        let globals = lua.globals();
        globals
            .get::<Table>("math")?
            .get::<Function>("randomseed")?
            .call::<()>(options.seed)?;
        for name in BASE {
            let value: Value = globals.get(name)?;
            if let Value::Table(library) = &value {
                library.set_readonly(true);
            }
            known.set(name, value)?;
        }
        let all: Table = globals.get("os")?;
        let os = lua.create_table()?;
        os.set("time", all.get::<Value>("time")?)?;
        os.set("date", all.get::<Value>("date")?)?;
        os.set_readonly(true);
        known.set("os", os)?;
        host.set("known", known)?;
        add_directives(&lua, &host, registry)?;
        crate::helpers::install(&lua, &host, state)?;
        let returned: Table = lua
            .load(include_str!("prelude.luau"))
            .set_name("=prelude")
            .call(host)?;
        let prelude = Prelude {
            env: returned.get("env")?,
            run: returned.get("run")?,
            site: returned.get("site")?,
            unknown: returned.get("unknown")?,
            known: returned.get("known")?,
            uses: returned.get("uses")?,
            sites: returned.get("sites")?,
            holes: returned.get("holes")?,
        };
        let machine = Machine {
            lua,
            state: Rc::clone(state),
            prelude,
            stopped: Rc::new(Cell::new(None)),
        };
        machine.set_limits(options)?;
        Ok(machine)
    }

    fn set_limits(&self, options: &LoadOptions) -> mlua::Result<()> {
        self.lua.set_memory_limit(options.memory)?;
        let (limit, began, wall) = (options.cpu, cpu_time(), Instant::now());
        let (stopped, state) = (Rc::clone(&self.stopped), Rc::clone(&self.state));
        let turns = Cell::new(0_u32);
        self.lua.set_interrupt(move |lua| {
            turns.set(turns.get().wrapping_add(1));
            if stopped.get().is_none() {
                // The CPU's clock is a system call: it is asked only once the time on the wall,
                // which is never behind it, has passed; and that only now and then.
                let spent = turns.get().is_multiple_of(64)
                    && wall.elapsed() > limit
                    && cpu_time().saturating_sub(began) > limit;
                if !spent {
                    return Ok(VmState::Continue);
                }
                stopped.set(Some(Stop {
                    place: running_place(lua, &state),
                }));
            }
            // Caught by `pcall`, it is raised again at the next turn.
            Err(mlua::Error::runtime("the time for loading is used up"))
        });
        Ok(())
    }

    fn run_main(self: &Rc<Machine>, file: u32, registry: &Registry) -> Vec<Use> {
        self.state.borrow_mut().machine = Some(Rc::clone(self));
        self.run_file(file);
        if let Some(stop) = self.stopped.get() {
            let limit = self.state.borrow().limits.cpu;
            let message = format!(
                "stopped after {} of CPU time",
                crate::scalar::show_duration(limit)
            );
            let help = "loading must end: is there a loop without an end?";
            self.state
                .borrow_mut()
                .mistake(stop.place, Code::LuaError, message, help);
        }
        // What follows is ours and bounded on its own; a limit reached before must not stop it.
        self.lua.remove_interrupt();
        if let Err(error) = self.lua.set_memory_limit(0) {
            debug_assert!(false, "{error}");
        }
        match convert::Converter::new(self, registry).and_then(convert::Converter::run) {
            Ok(uses) => uses,
            Err(error) => {
                let message = format!("what the file has built cannot be read: {error}");
                self.state
                    .borrow_mut()
                    .mistake(Place::NONE, Code::LuaError, message, "");
                Vec::new()
            }
        }
    }

    /// Runs a source that was added to the state, and returns its value, or the inert one if it
    /// went wrong.
    pub(crate) fn run_file(&self, file: u32) -> Value {
        let (name, text, base) = {
            let state = self.state.borrow();
            (
                state.chunk_name(file),
                state.sources.text(file).to_vec(),
                state.sites.len(),
            )
        };
        let scan = crate::scan::scan(&text, base);
        let marked = scan
            .code
            .as_ref()
            .and_then(|code| self.compile(&name, code).ok());
        let is_marked = marked.is_some();
        if is_marked {
            self.state.borrow_mut().add_scan(file, scan);
        }
        let chunk = match marked.map_or_else(|| self.compile(&name, &text), Ok) {
            Ok(chunk) => chunk,
            Err(error) => {
                self.state
                    .borrow_mut()
                    .syntax_error(file, &name, &error.to_string());
                return self.unknown();
            }
        };
        match self
            .prelude
            .run
            .call::<(bool, Value)>((chunk, name, is_marked))
        {
            Ok((true, value)) => value,
            Ok((false, error)) => {
                self.lua_error(file, &error);
                self.unknown()
            }
            Err(error) => {
                self.lua_error(file, &Value::Error(Box::new(error)));
                self.unknown()
            }
        }
    }

    /// What stands for a value that there is none of, reported already.
    pub(crate) fn unknown(&self) -> Value {
        self.prelude.unknown.clone()
    }

    fn compile(&self, name: &str, code: &[u8]) -> mlua::Result<Function> {
        self.lua
            .load(code)
            .set_name(format!("={name}"))
            .set_mode(ChunkMode::Text)
            // The code runs once: optimising it costs more than it saves (10,000 sites: half of
            // the compiler's time).
            .set_compiler(Compiler::new().set_optimization_level(0).set_debug_level(1))
            .set_environment(self.prelude.env.clone())
            .into_function()
    }

    /// Notes an error that ended a source: `{ text, source, line }` of the prelude's handler, or
    /// what there is where even that could not run.
    fn lua_error(&self, file: u32, error: &Value) {
        if self.stopped.get().is_some() {
            return;
        }
        let (text, source, line) = match error {
            Value::Table(parts) => (
                parts
                    .raw_get::<mlua::LuaString>(1)
                    .map(|text| text.to_string_lossy()),
                parts.raw_get::<String>(2).unwrap_or_default(),
                parts.raw_get::<u32>(3).unwrap_or(0),
            ),
            Value::Error(error) => (Ok(error.to_string()), String::new(), 0),
            other => (other.to_string(), String::new(), 0),
        };
        let text = text.unwrap_or_else(|error| error.to_string());
        let called = self.prelude.site.call::<usize>(()).unwrap_or(0);
        self.state
            .borrow_mut()
            .lua_error(file, &text, &source, line, called);
    }
}

fn add_directives(lua: &Lua, host: &Table, registry: &Registry) -> mlua::Result<()> {
    let (directives, declares) = (lua.create_table()?, lua.create_table()?);
    for (index, directive) in registry.directives().enumerate() {
        directives.set(directive.name, index)?;
        if directive.role == Role::Declaration {
            declares.set(index, true)?;
        }
    }
    host.set("directives", directives)?;
    host.set("declares", declares)
}

/// The place of the operator's code that is running.
fn running_place(lua: &Lua, state: &Rc<RefCell<State>>) -> Place {
    let Ok(state) = state.try_borrow() else {
        return Place::NONE;
    };
    for level in 0..200 {
        let frame = lua.inspect_stack(level, |debug| {
            let source = debug.source().short_src.map(|name| name.into_owned());
            (source, debug.current_line())
        });
        let Some((source, line)) = frame else { break };
        let line = line.and_then(|line| u32::try_from(line).ok());
        if let (Some(source), Some(line)) = (source, line)
            && let Some(file) = state.file_named(&source)
        {
            return state.sources.line_place(file, line);
        }
    }
    Place::NONE
}

/// What this thread has used of the CPU.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(seconds, nanos.min(999_999_999))
}
