//! What is said on a channel for programs.
//!
//! Unlike requests to the helper, these are not answered one by one: a worker sends and goes on, and
//! hears what came of it when it has come. All numbers big-endian; a message is at most
//! [`MAX_START`] bytes long. One that does not parse ends the channel, and with it its programs.
//!
//! ```text
//! to the helper   number: u32 (of the program, given by who asks), kind: u8, and by kind
//!   1 start   places: u8 (its descriptors), passed: u8 (a bit for each that rides along; the
//!             others are /dev/null), tells pid: u8, is reported: u8, files: u32 (0: as many as there are), identity,
//!             arguments: u16, variables: u16, then ended by NUL each: the program, its directory,
//!             its arguments, its environment
//!   2 end     grace: u32 (milliseconds between asking and killing)
//!   3 hold    0 let it go on | 1 hold it: u8
//! identity  0 | 1, user: u32, group: u32, groups: u16, u32 each
//!
//! from the helper   number: u32, kind: u8, and by kind
//!   1 started   pid: u32
//!   2 failed    step: u8, the system's error number: i32
//!   3 ended     0 exited | 1 killed, status or signal: u8, processor time: u64 (microseconds)
//! ```

use std::ffi::CStr;

use forebay_sys::process::{End, Identity, LaunchStep, MAX_LAUNCH_FDS};

use crate::helper::protocol::Input;

/// The longest message: what a head of a request at its default limits becomes as variables, and
/// well below what a socket takes as one message on any system.
pub const MAX_START: usize = 128 * 1024;
/// The longest message from the helper.
pub const MAX_NEWS: usize = 32;
/// Groups that a user may be in.
const MAX_GROUPS: u16 = 1_024;

/// A program to be started, as it was sent.
#[derive(Debug, PartialEq, Eq)]
pub struct StartMessage<'a> {
    /// How many descriptors it has, and which of them ride along.
    pub places: usize,
    /// A bit for each place whose descriptor rides along.
    pub passed: u8,
    pub tells_pid: bool,
    /// It is told that it runs.
    pub is_reported: bool,
    pub max_files: u32,
    pub identity: Option<Identity>,
    pub program: &'a CStr,
    pub dir: &'a CStr,
    pub arguments: Vec<&'a CStr>,
    pub environment: Vec<&'a CStr>,
}

/// What a worker wants.
#[derive(Debug, PartialEq, Eq)]
pub enum Wish<'a> {
    /// Start a program.
    Start(Box<StartMessage<'a>>),
    /// End it, and all that it has started.
    End {
        /// So long after having asked it to.
        grace_ms: u32,
    },
    /// Stop it and all that is in its group, or let them go on.
    Hold {
        /// Which of both.
        is_held: bool,
    },
}

/// What a worker hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// It runs.
    Started {
        /// Its process id.
        pid: u32,
    },
    /// It could not be started.
    Failed {
        /// What failed.
        step: LaunchStep,
        /// The system's error number.
        errno: i32,
    },
    /// It has ended, and so has its group.
    Ended {
        /// How.
        end: End,
        /// What it has taken.
        cpu_us: u64,
    },
}

/// What a program is started with, beside its arguments and its environment.
#[derive(Clone, Debug, Default)]
pub struct StartOptions<'a> {
    /// How many descriptors it has.
    pub places: usize,
    /// A bit for each that rides along.
    pub passed: u8,
    /// `LISTEN_PID` is in its environment.
    pub tells_pid: bool,
    /// It is told that it runs; that it could not be started is told always.
    pub is_reported: bool,
    /// How many descriptors it may open; 0: as many as the helper.
    pub max_files: u32,
    /// Who it runs as; none: who the helper is.
    pub identity: Option<&'a Identity>,
}

/// Writes a start. `None` if it is too long, or a text in it holds NUL.
pub fn write_start<'a>(
    number: u32,
    options: &StartOptions<'_>,
    program: &[u8],
    dir: &[u8],
    arguments: &[&[u8]],
    environment: impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])>,
) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(2_048);
    out.extend(number.to_be_bytes());
    out.push(1);
    out.push(u8::try_from(options.places).ok()?);
    out.push(options.passed);
    out.push(u8::from(options.tells_pid));
    out.push(u8::from(options.is_reported));
    out.extend(options.max_files.to_be_bytes());
    match options.identity {
        None => out.push(0),
        Some(identity) => {
            out.push(1);
            out.extend(identity.user.to_be_bytes());
            out.extend(identity.group.to_be_bytes());
            let groups = u16::try_from(identity.groups.len()).ok()?;
            out.extend(groups.to_be_bytes());
            for group in &identity.groups {
                out.extend(group.to_be_bytes());
            }
        }
    }
    out.extend(u16::try_from(arguments.len()).ok()?.to_be_bytes());
    out.extend(u16::try_from(environment.len()).ok()?.to_be_bytes());
    write_text(&mut out, &[program])?;
    write_text(&mut out, &[dir])?;
    for argument in arguments {
        write_text(&mut out, &[argument])?;
    }
    for (name, value) in environment {
        write_text(&mut out, &[name, b"=", value])?;
        if out.len() > MAX_START {
            return None;
        }
    }
    (out.len() <= MAX_START).then_some(out)
}

fn write_text(out: &mut Vec<u8>, parts: &[&[u8]]) -> Option<()> {
    for part in parts {
        if memchr::memchr(0, part).is_some() {
            return None;
        }
        out.extend_from_slice(part);
    }
    out.push(0);
    Some(())
}

/// Writes that a program is to end.
pub fn write_end(number: u32, grace_ms: u32) -> Vec<u8> {
    let mut out = number.to_be_bytes().to_vec();
    out.push(2);
    out.extend(grace_ms.to_be_bytes());
    out
}

/// Writes that a program is to be held, or to go on.
pub fn write_hold(number: u32, is_held: bool) -> Vec<u8> {
    let mut out = number.to_be_bytes().to_vec();
    out.extend([3, u8::from(is_held)]);
    out
}

/// Reads what a worker wants, and of which program.
pub fn read_wish(message: &[u8]) -> Option<(u32, Wish<'_>)> {
    let mut input = Input(message);
    let number = input.u32()?;
    let wish = match input.u8()? {
        1 => Wish::Start(Box::new(read_start(&mut input)?)),
        2 => Wish::End {
            grace_ms: input.u32()?,
        },
        3 => Wish::Hold {
            is_held: match input.u8()? {
                0 => false,
                1 => true,
                _ => return None,
            },
        },
        _ => return None,
    };
    input.0.is_empty().then_some((number, wish))
}

fn read_start<'a>(input: &mut Input<'a>) -> Option<StartMessage<'a>> {
    let places = usize::from(input.u8()?);
    let passed = input.u8()?;
    if places > MAX_LAUNCH_FDS || u32::from(passed) >= 1 << places {
        return None;
    }
    let mut flag = || match input.u8()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    };
    let (tells_pid, is_reported) = (flag()?, flag()?);
    let max_files = input.u32()?;
    let identity = match input.u8()? {
        0 => None,
        1 => Some(read_identity(input)?),
        _ => return None,
    };
    let (arguments, variables) = (input.u16()?, input.u16()?);
    let program = input.text()?;
    let dir = input.text()?;
    let mut texts = |count: u16| -> Option<Vec<&'a CStr>> {
        // Each is a byte long at least.
        if usize::from(count) > input.0.len() {
            return None;
        }
        (0..count).map(|_| input.text()).collect()
    };
    Some(StartMessage {
        places,
        passed,
        tells_pid,
        is_reported,
        max_files,
        identity,
        program,
        dir,
        arguments: texts(arguments)?,
        environment: texts(variables)?,
    })
}

fn read_identity(input: &mut Input<'_>) -> Option<Identity> {
    let (user, group, count) = (input.u32()?, input.u32()?, input.u16()?);
    if count > MAX_GROUPS {
        return None;
    }
    let groups: Option<Vec<u32>> = (0..count).map(|_| input.u32()).collect();
    Some(Identity {
        user,
        group,
        groups: groups?,
    })
}

/// Writes what is new of a program.
pub fn write_news(number: u32, news: News) -> Vec<u8> {
    let mut out = number.to_be_bytes().to_vec();
    match news {
        News::Started { pid } => {
            out.push(1);
            out.extend(pid.to_be_bytes());
        }
        News::Failed { step, errno } => {
            out.push(2);
            let step = LaunchStep::ALL.iter().position(|one| *one == step);
            out.push(step.and_then(|at| u8::try_from(at).ok()).unwrap_or(0));
            out.extend(errno.to_be_bytes());
        }
        News::Ended { end, cpu_us } => {
            let (kind, value) = match end {
                End::Exited(status) => (0, status),
                End::Killed(signal) => (1, signal),
            };
            out.extend([3, kind, value]);
            out.extend(cpu_us.to_be_bytes());
        }
    }
    out
}

/// Reads what is new, and of which program.
pub fn read_news(message: &[u8]) -> Option<(u32, News)> {
    let mut input = Input(message);
    let number = input.u32()?;
    let news = match input.u8()? {
        1 => News::Started { pid: input.u32()? },
        2 => News::Failed {
            step: *LaunchStep::ALL.get(usize::from(input.u8()?))?,
            errno: i32::from_be_bytes(input.take()?),
        },
        3 => {
            let (kind, value) = (input.u8()?, input.u8()?);
            let end = match kind {
                0 => End::Exited(value),
                1 => End::Killed(value),
                _ => return None,
            };
            let cpu_us = u64::from_be_bytes(input.take()?);
            News::Ended { end, cpu_us }
        }
        _ => return None,
    };
    input.0.is_empty().then_some((number, news))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENVIRONMENT: [(&[u8], &[u8]); 2] = [(b"A", b"1=2"), (b"PATH", b"")];

    fn start(identity: Option<&Identity>) -> Vec<u8> {
        let options = StartOptions {
            places: 3,
            passed: 0b110,
            tells_pid: true,
            is_reported: true,
            max_files: 1_024,
            identity,
        };
        let arguments: [&[u8]; 2] = [b"x.cgi", b"an argument"];
        let environment = ENVIRONMENT.into_iter();
        write_start(7, &options, b"/srv/x.cgi", b"/srv", &arguments, environment).unwrap()
    }

    #[test]
    fn a_start_is_read_as_written_and_nothing_else_is() {
        let identity = Identity {
            user: 33,
            group: 34,
            groups: vec![34, 50],
        };
        for identity in [None, Some(&identity)] {
            let message = start(identity);
            let (number, wish) = read_wish(&message).unwrap();
            let Wish::Start(read) = wish else {
                panic!("{wish:?}")
            };
            assert_eq!((number, read.places, read.passed), (7, 3, 0b110));
            assert_eq!(read.identity.as_ref(), identity);
            assert_eq!(read.program, c"/srv/x.cgi");
            assert_eq!(read.dir, c"/srv");
            assert_eq!(read.arguments, [c"x.cgi", c"an argument"]);
            assert_eq!(read.environment, [c"A=1=2", c"PATH="]);
            for end in 0..message.len() {
                assert_eq!(read_wish(&message[..end]), None, "cut at {end}");
            }
            assert_eq!(read_wish(&[&message[..], b"x\0"].concat()), None);
        }
    }

    #[test]
    fn a_start_beyond_a_limit_is_none() {
        let options = StartOptions::default();
        let write = |program: &[u8], value: &[u8]| {
            let environment = [(&b"A"[..], value)].into_iter();
            write_start(1, &options, program, b"/", &[], environment)
        };
        assert!(write(b"/a", &vec![b'x'; MAX_START - 64]).is_some());
        assert!(write(b"/a", &vec![b'x'; MAX_START]).is_none());
        assert!(write(b"/a\0b", b"").is_none());
        assert!(write(b"/a", b"\0").is_none());
        // More places than there are, and one that rides along without a place.
        let mut message = start(None);
        message[5] = 5;
        assert_eq!(read_wish(&message), None);
        message[5] = 2;
        assert_eq!(read_wish(&message), None);
    }

    #[test]
    fn ends_and_news_are_read_as_written_and_nothing_else_is() {
        let message = write_end(9, 1_000);
        assert_eq!(
            read_wish(&message),
            Some((9, Wish::End { grace_ms: 1_000 }))
        );
        for is_held in [false, true] {
            let message = write_hold(9, is_held);
            assert_eq!(read_wish(&message), Some((9, Wish::Hold { is_held })));
        }
        assert_eq!(read_wish(&[0, 0, 0, 9, 3, 2]), None);
        assert_eq!(read_wish(&[0, 0, 0, 9, 3]), None);
        for news in [
            News::Started { pid: 4_711 },
            News::Failed {
                step: LaunchStep::Program,
                errno: 13,
            },
            News::Ended {
                end: End::Exited(3),
                cpu_us: u64::MAX,
            },
            News::Ended {
                end: End::Killed(9),
                cpu_us: 0,
            },
        ] {
            let message = write_news(9, news);
            assert!(message.len() <= MAX_NEWS);
            assert_eq!(read_news(&message), Some((9, news)));
            for end in 0..message.len() {
                assert_eq!(read_news(&message[..end]), None, "{news:?} cut at {end}");
            }
            assert_eq!(read_news(&[&message[..], b"x"].concat()), None);
        }
    }
}
