//! `forebay fcgi-trace`: what a web server and a FastCGI application say to each other.
//!
//! ```text
//!   the admin socket ──────┐
//!   tap.rs: between both ──┤
//!   a file of frames ──────┼──▶ frames ──▶ conversation.rs ──▶ show.rs ──▶ standard output
//!   capture.rs: packets ───┘                    mask.rs
//! ```

mod capture;
mod conversation;
mod mask;
mod show;
mod tap;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use forebay_config::{Address, Endpoint, Match, Target};
use tokio::sync::mpsc;

use self::conversation::{Conversation, Filter, Seen};
use self::show::Show;
use super::{admin, failed, wrong};
use crate::trace::{Frame, MAGIC, Passed, Who, read_full};

/// Frames between who passes on and who shows; with 16 KiB each, 16 MiB.
const QUEUE: usize = 1024;
/// Connections that are followed at once; each holds less than a record, and parameters.
const MAX_CONVERSATIONS: usize = 4096;
/// The most that can be asked for of each record's data: all of it.
const MAX_BODY: u64 = 65_535;

/// Show what a web server and a FastCGI application say to each other
///
/// Of the running server: what steps with `fastcgi { trace = true }` say to their applications. Or
/// as a tap between any two: have the web server connect to --listen. Or what was captured before,
/// by --write, tcpdump or Wireshark. Each record is shown with its time, connection and request; →
/// is from the web server, ← from the application. Cookies, passwords and tokens are masked.
#[derive(clap::Args)]
#[command(
    override_usage = "forebay fcgi-trace [OPTIONS]\n       \
                      forebay fcgi-trace [OPTIONS] --listen ADDRESS --to TARGET\n       \
                      forebay fcgi-trace [OPTIONS] --read FILE",
    group = clap::ArgGroup::new("what"),
    after_help = "\
Examples:
  forebay fcgi-trace --path '*.php'
  forebay fcgi-trace --listen unix:/run/tap.sock --to unix:/run/php/php8.2-fpm.sock
  forebay fcgi-trace --listen 127.0.0.1:9001 --to 127.0.0.1:9000 --path '/wp-admin/*'
  forebay fcgi-trace --listen 127.0.0.1:9001 --to 127.0.0.1:9000 --write trace.fcgi
  forebay fcgi-trace --read trace.fcgi --json
  tcpdump -i lo -w - port 9000 | forebay fcgi-trace --read -"
)]
pub struct Args {
    /// Where the tap listens: HOST:PORT, :PORT or unix:PATH. A Unix socket gets the owner and mode of
    /// the application's
    #[arg(long, value_name = "ADDRESS", group = "what", requires = "to", value_parser = address)]
    listen: Option<Address>,
    /// The application: HOST:PORT or unix:PATH
    #[arg(long, value_name = "TARGET", requires = "listen", value_parser = target)]
    to: Option<Target>,
    /// A capture: of --write, pcap or pcapng; - is standard input
    #[arg(long, value_name = "FILE", group = "what")]
    read: Option<PathBuf>,
    /// Of a capture, only connections to this port
    #[arg(long, value_name = "PORT", requires = "read")]
    port: Option<u16>,
    /// Keep all that passes in a file, secrets too
    #[arg(long, value_name = "FILE", conflicts_with = "read")]
    write: Option<PathBuf>,
    /// Only requests with this id
    #[arg(long, value_name = "ID")]
    id: Option<u16>,
    /// Only requests for such a path or script: /a, '/a*', '*.php', '*a*'
    #[arg(long, value_name = "MATCH", value_parser = matching)]
    path: Option<Match>,
    /// Show this many bytes of each record's data
    #[arg(long, value_name = "BYTES", default_value_t = 256)]
    #[arg(value_parser = clap::value_parser!(u64).range(0..=MAX_BODY))]
    body: u64,
    /// Show data as hexadecimal digits, also text
    #[arg(long)]
    hex: bool,
    /// Show secrets as they are
    #[arg(long)]
    secrets: bool,
    /// A line of JSON for each record
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: admin::Admin,
}

impl Args {
    /// Shows until the capture ends; a tap until it is interrupted.
    pub fn run(self) -> ExitCode {
        let trace = Trace {
            filter: Filter {
                id: self.id,
                path: self.path.clone(),
                secrets: self.secrets,
            },
            show: Show {
                body: usize::try_from(self.body).unwrap_or(usize::MAX),
                hex: self.hex,
                json: self.json,
            },
            conversations: HashMap::new(),
            out: BufWriter::new(io::stdout()),
            line: String::new(),
            ended: false,
        };
        match (self.read, self.listen, self.to) {
            (Some(file), _, _) => read(trace, &file, self.port),
            (None, Some(listen), Some(to)) => tap(trace, &listen, to, self.write),
            (None, None, None) => live(trace, &self.admin, self.write),
            _ => wrong("expected --listen and --to"),
        }
    }
}

fn address(text: &str) -> Result<Address, String> {
    let here = std::env::current_dir().unwrap_or_default();
    Address::parse(text, &here)
        .filter(|address| !matches!(address, Address::Fd(_)))
        .ok_or_else(|| {
            "expected an address, as \"127.0.0.1:9001\" or \"unix:/run/tap.sock\"".into()
        })
}

fn target(text: &str) -> Result<Target, String> {
    let here = std::env::current_dir().unwrap_or_default();
    let target = Target::parse(text, false, false, &here)?;
    match &target.to {
        Endpoint::Srv(_) | Endpoint::Variable(_) => {
            Err("expected an application, as \"127.0.0.1:9000\" or \"unix:/run/php.sock\"".into())
        }
        _ => Ok(target),
    }
}

fn matching(text: &str) -> Result<Match, String> {
    Match::parse(text).ok_or_else(|| "expected /a, '/a*', '*.php' or '*a*'".to_owned())
}

fn read(mut trace: Trace, file: &std::path::Path, port: Option<u16>) -> ExitCode {
    let name = file.display();
    let mut from: Box<dyn Read + Send> = match file.as_os_str() == "-" {
        true => Box::new(io::stdin()),
        false => match File::open(file) {
            Ok(file) => Box::new(BufReader::new(file)),
            Err(error) => return failed(format_args!("cannot open {name}: {error}")),
        },
    };
    let mut start = vec![0; MAGIC.len()];
    match read_full(&mut from, &mut start) {
        Ok(len) => start.truncate(len),
        Err(error) => return failed(format_args!("cannot read {name}: {error}")),
    }
    let result = match start == MAGIC {
        true => loop {
            match Frame::read(&mut from) {
                Ok(Some(frame)) => trace.take(&frame),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error.to_string()),
            }
            if trace.ended {
                break Ok(());
            }
        },
        false => capture::read(start, from, port, &mut |frame| trace.take(&frame)),
    };
    trace.flush();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(format_args!("{name}: {error}")),
    }
}

/// What the running server offers to look at.
fn live(mut trace: Trace, admin: &admin::Admin, write: Option<PathBuf>) -> ExitCode {
    let mut kept = match write.as_deref().map(create) {
        None => None,
        Some(Ok(file)) => Some(file),
        Some(Err(error)) => return failed(error),
    };
    let mut from = match admin.follow("/trace") {
        Ok(from) => from,
        Err(error) => return failed(error),
    };
    let mut start = vec![0; MAGIC.len()];
    match read_full(&mut from, &mut start) {
        Ok(_) if start == MAGIC => {}
        Ok(_) => return failed("the server is of another version: what it says is not understood"),
        Err(error) => return failed(format_args!("no answer from the server: {error}")),
    }
    eprintln!("forebay: looking on; end it with Ctrl-C");
    loop {
        match Frame::read(&mut from) {
            Ok(Some(frame)) => {
                trace.take(&frame);
                // Who watches wants to see it now.
                trace.flush();
                let written = kept
                    .as_mut()
                    .map(|file| frame.write(file).and(file.flush()));
                if let Some(Err(error)) = written {
                    return failed(format_args!("cannot keep what passes: {error}"));
                }
            }
            // The server has ended.
            Ok(None) => return ExitCode::SUCCESS,
            Err(error) => return failed(format_args!("the server broke off: {error}")),
        }
        if trace.ended {
            return ExitCode::SUCCESS;
        }
    }
}

fn tap(trace: Trace, listen: &Address, to: Target, write: Option<PathBuf>) -> ExitCode {
    let kept = match write.as_deref().map(create) {
        None => None,
        Some(Ok(file)) => Some(file),
        Some(Err(error)) => return failed(error),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return failed(format_args!("cannot start: {error}")),
    };
    let tasks = tokio::task::LocalSet::new();
    let (frames, shown) = mpsc::channel(QUEUE);
    let (gone, end) = tokio::sync::oneshot::channel();
    // Who shows may have to wait for a terminal; who passes on may not.
    let showing = std::thread::Builder::new()
        .name("show".to_owned())
        .spawn(move || {
            let result = show_all(trace, shown, kept);
            // Nobody waits if it was interrupted.
            let _ = gone.send(());
            result
        });
    let showing = match showing {
        Ok(showing) => showing,
        Err(error) => return failed(format_args!("cannot start: {error}")),
    };
    let passed = tasks.block_on(&runtime, async move {
        let listener = tap::Listener::bind(listen, &to.to).await?;
        eprintln!(
            "forebay: between {} and {}; end it with Ctrl-C",
            listener.local(),
            to.text
        );
        let mut terminate =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
                .map_err(|error| format!("cannot wait for signals: {error}"))?;
        tokio::select! {
            () = tap::run(listener, to, frames) => {}
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
            _ = end => {}
        }
        Ok::<(), String>(())
    });
    // With the tasks the last senders go, and so who shows comes to an end.
    drop(tasks);
    drop(runtime);
    match (passed, showing.join()) {
        (Err(error), _) => failed(error),
        (_, Ok(Err(error))) => failed(error),
        (_, Ok(Ok(()))) => ExitCode::SUCCESS,
        (_, Err(_)) => ExitCode::FAILURE,
    }
}

/// A file that only its owner can read: there are secrets in it.
fn create(path: &std::path::Path) -> Result<BufWriter<File>, String> {
    use std::os::unix::fs::OpenOptionsExt;
    let wrong = |error: io::Error| format!("cannot write {}: {error}", path.display());
    let mut options = File::options();
    let file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(wrong)?;
    let mut file = BufWriter::new(file);
    file.write_all(&MAGIC).map_err(wrong)?;
    Ok(file)
}

fn show_all(
    mut trace: Trace,
    mut shown: mpsc::Receiver<Frame>,
    mut kept: Option<BufWriter<File>>,
) -> Result<(), String> {
    let wrong = |error: io::Error| format!("cannot keep what passes: {error}");
    while let Some(frame) = shown.blocking_recv() {
        trace.take(&frame);
        if let Some(file) = &mut kept {
            frame.write(file).map_err(wrong)?;
        }
        // Who watches wants to see it now.
        if shown.is_empty() {
            trace.flush();
            if let Some(file) = &mut kept {
                file.flush().map_err(wrong)?;
            }
        }
        if trace.ended {
            break;
        }
    }
    trace.flush();
    kept.map_or(Ok(()), |mut file| file.flush().map_err(wrong))
}

/// All conversations, and where they are shown.
struct Trace<W: Write = io::Stdout> {
    filter: Filter,
    show: Show,
    conversations: HashMap<u32, Conversation>,
    out: BufWriter<W>,
    line: String,
    /// Nobody reads any more: `head` does that.
    ended: bool,
}

impl<W: Write> Trace<W> {
    fn take(&mut self, frame: &Frame) {
        let Self {
            filter,
            show,
            conversations,
            line,
            ..
        } = self;
        line.clear();
        // Of the connection itself nothing is shown where only certain requests are asked for.
        let whole = filter.id.is_none() && filter.path.is_none();
        let mut tell = |seen: Seen| {
            if whole || matches!(seen.what, conversation::What::Record { .. }) {
                show.push(&seen, line);
            }
        };
        let (time, number) = (frame.time, frame.connection);
        if conversations.len() >= MAX_CONVERSATIONS && !conversations.contains_key(&number) {
            // The oldest: its end was perhaps not told.
            let oldest = conversations.keys().min().copied();
            oldest.and_then(|oldest| conversations.remove(&oldest));
        }
        let conversation = conversations
            .entry(number)
            .or_insert_with(|| Conversation::new(number, filter.clone()));
        match &frame.what {
            Passed::Opened(between) => {
                tell(conversation.note(time, Who::Server, format!("opened, {between}")));
            }
            Passed::Bytes(who, bytes) => conversation.feed(time, *who, bytes, &mut tell),
            Passed::Gap(why) => {
                conversation.gap(time, Who::Server, why, &mut tell);
                conversation.gap(time, Who::Application, why, &mut tell);
            }
            Passed::Closed => {
                conversation.closed(time, Who::Server, &mut tell);
                conversations.remove(&number);
            }
        }
        if self.out.write_all(self.line.as_bytes()).is_err() {
            self.ended = true;
        }
    }

    fn flush(&mut self) {
        self.ended |= self.out.flush().is_err();
    }
}
