//! What server and helper say to each other.
//!
//! One message each way per request, all numbers big-endian. Both ends are the same binary, so
//! there is no version; a message that does not parse means that something else is at the other
//! end.
//!
//! ```text
//! request   number: u32, kind: u8, and by kind
//!   1 ping        –
//!   2 bind TCP    sockets: u16, backlog: u16, sharing: u8 (0 exclusive, 1 join),
//!                 unsent limit: u32, address
//!   3 bind Unix   backlog: u16, mode: u32, user: optional, group: optional, path
//!   4 open        path
//!   5 change Unix as bind Unix
//!   6 remove Unix path
//!   7 channel     –   its descriptor rides along
//! address   port: u16, then 0 (any) | 4, IPv4 | 6, IPv6, scope: u32
//! optional  0 | 1, u32
//! path      the rest of the message, absolute
//!
//! reply     number: u32 (the request's), result: u8, and by result; descriptors ride along
//!   0 done        –
//!   1 more        –   further replies with further descriptors follow
//!   2 failed      the system's error number: i32
//!   3 refused     reason: u8
//! ```

use std::ffi::{CStr, OsStr};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use forebay_sys::net::{Sharing, TcpAddress, TcpOptions, UnixOptions};

/// The longest path, as of the system (`PATH_MAX`, with its NUL).
const MAX_PATH: usize = 4_095;
/// The longest message: an open request with the longest path.
pub const MAX_MESSAGE: usize = MAX_PATH + 64;
/// Most sockets of one bind request: the most workers there can be.
pub const MAX_SOCKETS: u16 = 1_024;

/// What the server wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// Say something.
    Ping,
    /// Bind TCP listeners; their descriptors are the answer.
    BindTcp {
        /// Where.
        address: TcpAddress,
        /// How.
        options: TcpOptions,
        /// How many, 1 to [`MAX_SOCKETS`].
        sockets: u16,
    },
    /// Bind a Unix listener; its descriptor is the answer.
    BindUnix {
        /// Where; absolute.
        path: &'a Path,
        /// How.
        options: UnixOptions,
    },
    /// Give the file of a Unix listener that was bound another owner and mode.
    ChangeUnix {
        /// Where; absolute.
        path: &'a Path,
        /// How.
        options: UnixOptions,
    },
    /// Remove the file of a Unix listener that was bound.
    RemoveUnix {
        /// Where; absolute.
        path: &'a Path,
    },
    /// Open a regular file for reading; its descriptor is the answer.
    Open {
        /// Which; absolute.
        path: &'a Path,
    },
    /// Start programs for whoever holds the other end of the socket that rides along.
    Channel,
}

/// What the helper answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Done; all descriptors are here.
    Done,
    /// The descriptors of this message are not all.
    More,
    /// The system refused with this error number.
    Failed(i32),
    /// The helper refused.
    Refused(Refusal),
}

/// Why the helper refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The request does not parse, or asks for more than its limits.
    Malformed,
    /// The path does not begin with `/`.
    NotAbsolute,
    /// Only regular files are opened.
    NotAFile,
    /// Only what this helper has bound is changed or removed.
    NotBound,
    /// It failed without the system saying why.
    NoReason,
    /// There are as many channels as there may be.
    TooMany,
}

impl Refusal {
    /// The reason as a sentence's end.
    pub fn text(self) -> &'static str {
        match self {
            Self::Malformed => "the helper does not understand the request",
            Self::NotAbsolute => "not an absolute path",
            Self::NotAFile => "not a regular file",
            Self::NotBound => "it has bound no such socket",
            Self::NoReason => "it failed without a reason",
            Self::TooMany => "it has too many channels already",
        }
    }
}

/// Writes a request. `None` if it is beyond a limit of the protocol (a path too long).
pub fn write_request(number: u32, request: &Request<'_>) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(64);
    out.extend(number.to_be_bytes());
    match request {
        Request::Ping => out.push(1),
        Request::BindTcp {
            address,
            options,
            sockets,
        } => {
            out.push(2);
            out.extend(sockets.to_be_bytes());
            out.extend(options.backlog.to_be_bytes());
            out.push(u8::from(options.sharing == Sharing::Join));
            out.extend(options.notsent_lowat.to_be_bytes());
            write_address(&mut out, *address);
        }
        Request::BindUnix { path, options } => {
            out.push(3);
            write_unix(&mut out, options);
            write_path(&mut out, path)?;
        }
        Request::Open { path } => {
            out.push(4);
            write_path(&mut out, path)?;
        }
        Request::ChangeUnix { path, options } => {
            out.push(5);
            write_unix(&mut out, options);
            write_path(&mut out, path)?;
        }
        Request::RemoveUnix { path } => {
            out.push(6);
            write_path(&mut out, path)?;
        }
        Request::Channel => out.push(7),
    }
    Some(out)
}

/// Reads a request with its number. An unreadable one has a number if it has four bytes.
pub fn read_request(message: &[u8]) -> (u32, Option<Request<'_>>) {
    let mut input = Input(message);
    let number = input.u32().unwrap_or(0);
    (number, read_body(input))
}

fn read_body<'a>(mut input: Input<'a>) -> Option<Request<'a>> {
    let request = match input.u8()? {
        1 => Request::Ping,
        2 => {
            let sockets = input.u16()?;
            let options = TcpOptions {
                backlog: input.u16()?,
                sharing: match input.u8()? {
                    0 => Sharing::Exclusive,
                    1 => Sharing::Join,
                    _ => return None,
                },
                notsent_lowat: input.u32()?,
            };
            let address = read_address(&mut input)?;
            if !(1..=MAX_SOCKETS).contains(&sockets) {
                return None;
            }
            Request::BindTcp {
                address,
                options,
                sockets,
            }
        }
        3 => Request::BindUnix {
            options: read_unix(&mut input)?,
            path: input.path()?,
        },
        4 => Request::Open {
            path: input.path()?,
        },
        5 => Request::ChangeUnix {
            options: read_unix(&mut input)?,
            path: input.path()?,
        },
        6 => Request::RemoveUnix {
            path: input.path()?,
        },
        7 => Request::Channel,
        _ => return None,
    };
    input.0.is_empty().then_some(request)
}

/// Writes a reply.
pub fn write_reply(number: u32, reply: Reply) -> Vec<u8> {
    let mut out = number.to_be_bytes().to_vec();
    match reply {
        Reply::Done => out.push(0),
        Reply::More => out.push(1),
        Reply::Failed(code) => {
            out.push(2);
            out.extend(code.to_be_bytes());
        }
        Reply::Refused(reason) => {
            out.push(3);
            out.push(match reason {
                Refusal::Malformed => 0,
                Refusal::NotAbsolute => 1,
                Refusal::NotAFile => 2,
                Refusal::NoReason => 3,
                Refusal::NotBound => 4,
                Refusal::TooMany => 5,
            });
        }
    }
    out
}

/// Reads a reply with its number.
pub fn read_reply(message: &[u8]) -> Option<(u32, Reply)> {
    let mut input = Input(message);
    let number = input.u32()?;
    let reply = match input.u8()? {
        0 => Reply::Done,
        1 => Reply::More,
        2 => Reply::Failed(i32::from_be_bytes(input.take()?)),
        3 => Reply::Refused(match input.u8()? {
            0 => Refusal::Malformed,
            1 => Refusal::NotAbsolute,
            2 => Refusal::NotAFile,
            3 => Refusal::NoReason,
            4 => Refusal::NotBound,
            5 => Refusal::TooMany,
            _ => return None,
        }),
        _ => return None,
    };
    input.0.is_empty().then_some((number, reply))
}

fn write_address(out: &mut Vec<u8>, address: TcpAddress) {
    out.extend(address.port().to_be_bytes());
    match address {
        TcpAddress::Any(_) => out.push(0),
        TcpAddress::Ip(SocketAddr::V4(v4)) => {
            out.push(4);
            out.extend(v4.ip().octets());
        }
        TcpAddress::Ip(SocketAddr::V6(v6)) => {
            out.push(6);
            out.extend(v6.ip().octets());
            out.extend(v6.scope_id().to_be_bytes());
        }
    }
}

fn read_address(input: &mut Input<'_>) -> Option<TcpAddress> {
    let port = input.u16()?;
    Some(match input.u8()? {
        0 => TcpAddress::Any(port),
        4 => TcpAddress::Ip((IpAddr::from(Ipv4Addr::from(input.take::<4>()?)), port).into()),
        6 => {
            let ip = Ipv6Addr::from(input.take::<16>()?);
            TcpAddress::Ip(SocketAddrV6::new(ip, port, 0, input.u32()?).into())
        }
        _ => return None,
    })
}

fn write_unix(out: &mut Vec<u8>, options: &UnixOptions) {
    out.extend(options.backlog.to_be_bytes());
    out.extend(options.mode.to_be_bytes());
    write_optional(out, options.user);
    write_optional(out, options.group);
}

fn read_unix(input: &mut Input<'_>) -> Option<UnixOptions> {
    Some(UnixOptions {
        backlog: input.u16()?,
        mode: input.u32()?,
        user: read_optional(input)?,
        group: read_optional(input)?,
    })
}

fn write_optional(out: &mut Vec<u8>, value: Option<u32>) {
    match value {
        None => out.push(0),
        Some(value) => {
            out.push(1);
            out.extend(value.to_be_bytes());
        }
    }
}

fn read_optional(input: &mut Input<'_>) -> Option<Option<u32>> {
    match input.u8()? {
        0 => Some(None),
        1 => Some(Some(input.u32()?)),
        _ => None,
    }
}

fn write_path(out: &mut Vec<u8>, path: &Path) -> Option<()> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.len() > MAX_PATH || bytes.contains(&0) {
        return None;
    }
    out.extend(bytes);
    Some(())
}

/// What is left of a message.
pub(super) struct Input<'a>(pub(super) &'a [u8]);

impl<'a> Input<'a> {
    pub(super) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.take().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    /// Up to the next NUL.
    pub(super) fn text(&mut self) -> Option<&'a CStr> {
        let text = CStr::from_bytes_until_nul(self.0).ok()?;
        self.0 = &self.0[text.to_bytes_with_nul().len()..];
        Some(text)
    }

    /// All the rest.
    fn path(&mut self) -> Option<&'a Path> {
        let bytes = std::mem::take(&mut self.0);
        let fits = bytes.len() <= MAX_PATH && !bytes.contains(&0);
        fits.then(|| Path::new(OsStr::from_bytes(bytes)))
    }
}
