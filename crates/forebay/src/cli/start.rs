//! What the commands have in common that start a server.

use std::io::ErrorKind;
use std::process::ExitCode;

use forebay_config::Address;
use forebay_sys::net::{TcpAddress, TcpOptions, bind_tcp};

use crate::control::build::Built;
use crate::control::declarations::Bind;
use crate::control::server::{self, Announce};
use crate::control::source::Source;
use crate::helper::Helper;
use crate::snapshot::Protocol;

/// Where a server without a configuration file listens.
#[derive(clap::Args)]
pub struct Listen {
    /// Where to listen, as "127.0.0.1:8080", "[::1]:8080" or ":8080" (every address)
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    #[arg(value_parser = parse_address)]
    listen: Address,
    /// Open it to other machines: the same as --listen :8080
    #[arg(long, conflicts_with = "listen")]
    public: bool,
}

impl Listen {
    /// Where.
    pub fn address(&self) -> Address {
        if self.public {
            Address::Port(8080)
        } else {
            self.listen.clone()
        }
    }
}

fn parse_address(text: &str) -> Result<Address, String> {
    let here = std::env::current_dir().unwrap_or_default();
    Address::parse(text, &here)
        .ok_or_else(|| "expected an address, as \"127.0.0.1:8080\" or \":8080\"".to_owned())
}

/// Runs a server to its end. `what` says in a line what it serves.
///
/// The helper comes first: it is a process of its own, to be started while this one is small and
/// has no threads.
pub fn start(source: Source, what: String) -> ExitCode {
    match Helper::start() {
        Ok(helper) => {
            let lines = Box::new(move |built: &Built| announcement(&what, built));
            server::run(source, helper, &Announce { lines })
        }
        Err(error) => super::failed(format_args!("the helper process cannot start: {error}")),
    }
}

/// Says plainly if somebody else listens there, and what to do, before anything is started.
///
/// The server's own message can only name the address: it does not know the command line.
pub fn expect_free(address: &Address, remedy: &str) -> Result<(), String> {
    let wanted = match address {
        Address::Port(port) => TcpAddress::Any(*port),
        Address::Socket(address) => TcpAddress::Ip(*address),
        Address::Unix(_) | Address::Fd(_) => return Ok(()),
    };
    match bind_tcp(wanted, &TcpOptions::default(), 1) {
        Err(error) if error.source.kind() == ErrorKind::AddrInUse => {
            Err(format!("{error}\n{remedy}"))
        }
        // What else may be wrong, the helper may be allowed to do; if not, the server says so.
        _ => Ok(()),
    }
}

fn announcement(what: &str, built: &Built) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let mut lines = format!("Forebay {version} serves {what}\n");
    for bind in &built.binds {
        lines.push_str("  ");
        lines.push_str(&place(bind));
        lines.push('\n');
    }
    lines
}

/// Where a server listens, in words: a URL, or what another server is to be told.
pub fn place(bind: &Bind) -> String {
    match bind.protocol {
        Protocol::Http => url(&bind.address),
        Protocol::Fastcgi => format!("FastCGI on {}", bind.address),
    }
}

/// What a browser is told to reach this address.
pub fn url(address: &Address) -> String {
    let at_port = |port: u16| match port {
        80 => String::new(),
        port => format!(":{port}"),
    };
    match address {
        Address::Port(port) => {
            format!(
                "http://localhost{}/ and every other address of this machine",
                at_port(*port)
            )
        }
        Address::Socket(address) if address.ip().is_unspecified() => {
            format!(
                "http://localhost{}/ and other addresses ({address})",
                at_port(address.port())
            )
        }
        Address::Socket(address) if address.is_ipv6() => {
            format!("http://[{}]{}/", address.ip(), at_port(address.port()))
        }
        Address::Socket(address) => format!("http://{}{}/", address.ip(), at_port(address.port())),
        Address::Unix(_) | Address::Fd(_) => address.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_addresses() {
        let here = std::path::Path::new("/");
        for (address, expected) in [
            ("127.0.0.1:8080", "http://127.0.0.1:8080/"),
            ("192.0.2.1:80", "http://192.0.2.1/"),
            ("[::1]:8080", "http://[::1]:8080/"),
            (
                ":80",
                "http://localhost/ and every other address of this machine",
            ),
            (
                "0.0.0.0:81",
                "http://localhost:81/ and other addresses (0.0.0.0:81)",
            ),
            ("unix:/run/a.sock", "unix:/run/a.sock"),
        ] {
            assert_eq!(url(&Address::parse(address, here).unwrap()), expected);
        }
    }

    #[test]
    fn an_address_in_use_is_found() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Socket(taken.local_addr().unwrap());
        let error = expect_free(&address, "try another").unwrap_err();
        let port = taken.local_addr().unwrap().port().to_string();
        assert!(
            error.contains(&port) && error.ends_with("try another"),
            "{error}"
        );
        drop(taken);
        expect_free(&address, "").unwrap();
    }
}
