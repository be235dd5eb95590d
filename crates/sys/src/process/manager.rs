//! The service manager that started this process, such as systemd, and wants to hear how it is
//! (sd_notify(3)).

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

pub use sd_notify::NotifyState;

/// Where a service manager wants to be told how this process is.
#[derive(Debug)]
pub struct ServiceManager {
    address: SocketAddr,
    /// One for good: a process that has no descriptor left is alive and must be able to say so. It is
    /// not connected, because the manager may be started anew.
    socket: UnixDatagram,
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// The one that the environment names (`NOTIFY_SOCKET`), if any.
    ///
    /// # Errors
    /// What it names is no address of a Unix socket; or there is no socket to be had.
    pub fn of_environment() -> io::Result<Option<ServiceManager>> {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Ok(None);
        };
        let watchdog = sd_notify::watchdog_enabled().filter(|time| !time.is_zero());
        ServiceManager::at(&name, watchdog).map(Some)
    }

    fn at(name: &OsStr, watchdog: Option<Duration>) -> io::Result<ServiceManager> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(ServiceManager {
            address: address(name)?,
            socket,
            watchdog,
        })
    }

    /// It ends the process when it hears nothing of it for so long (`WATCHDOG_USEC`).
    #[must_use]
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Tells it, as one message. Never waits: what does not fit into its queue is an error.
    pub fn tell(&self, news: &[NotifyState<'_>]) -> io::Result<()> {
        let mut text = String::new();
        for one in news {
            // Writing to a text cannot fail.
            let _ = writeln!(text, "{one}");
        }
        self.socket.send_to_addr(text.as_bytes(), &self.address)?;
        Ok(())
    }
}

/// A path, or with `@` a name without a file.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes().strip_prefix(b"@") {
        #[cfg(target_os = "linux")]
        Some(name) => <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name),
        _ => SocketAddr::from_pathname(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(manager: &ServiceManager, receiver: &UnixDatagram) -> String {
        let news = [NotifyState::Ready, NotifyState::Status("all is well")];
        manager.tell(&news).unwrap();
        let mut buffer = [0; 256];
        let length = receiver.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    fn at(name: &OsStr) -> ServiceManager {
        ServiceManager::at(name, None).unwrap()
    }

    #[test]
    fn both_kinds_of_addresses_are_reached() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let receiver = UnixDatagram::bind(&path).unwrap();
        let expected = "READY=1\nSTATUS=all is well\n";
        assert_eq!(told(&at(path.as_os_str()), &receiver), expected);
        // As a name without a file, unique by the directory's.
        let mut name = std::ffi::OsString::from("@");
        name.push(&path);
        let manager = at(&name);
        let receiver = UnixDatagram::bind_addr(&manager.address).unwrap();
        assert_eq!(told(&manager, &receiver), expected);
    }

    #[test]
    fn a_manager_that_does_not_read_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = at(path.as_os_str());
        let gone = manager.tell(&[NotifyState::Ready]).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
        let _receiver = UnixDatagram::bind(&path).unwrap();
        let full = (0..100_000).find_map(|_| manager.tell(&[NotifyState::Watchdog]).err());
        assert_eq!(full.unwrap().kind(), io::ErrorKind::WouldBlock);
    }
}
