//! Listeners and descriptors in messages, on real sockets.

use std::collections::HashSet;
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use socket2::{Domain, SockRef, Socket, Type};

use forebay_sys::net::{
    AcceptFault, BindError, MAX_FDS, Sharing, TcpAddress, TcpOptions, UnixOptions, abort, bind_tcp,
    bind_unix, recv_with_fds, refuse_new, send_with_fds, seqpacket_pair, to_unmapped,
};

const OPTIONS: TcpOptions = TcpOptions {
    backlog: 4_096,
    sharing: Sharing::Exclusive,
    notsent_lowat: 128 * 1024,
};
const JOIN: TcpOptions = TcpOptions {
    sharing: Sharing::Join,
    ..OPTIONS
};

fn loopback(port: u16) -> TcpAddress {
    TcpAddress::Ip((Ipv4Addr::LOCALHOST, port).into())
}

fn port(sockets: &[TcpListener]) -> u16 {
    sockets[0].local_addr().unwrap().port()
}

/// Waits until one of `fds` can be read or accepted from; a generous limit, never reached unless
/// something is broken.
fn wait_for(fd: impl AsFd, flags: PollFlags) {
    let limit = rustix::time::Timespec {
        tv_sec: 30,
        tv_nsec: 0,
    };
    let mut fds = [PollFd::new(&fd, flags)];
    assert_eq!(
        poll(&mut fds, Some(&limit)).unwrap(),
        1,
        "nothing happened for 30 s"
    );
}

fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    wait_for(listener, PollFlags::IN);
    listener.accept().unwrap()
}

#[test]
fn mapped_addresses_lose_their_disguise() {
    for (input, expected) in [
        ("192.0.2.1:80", "192.0.2.1:80"),
        ("[::ffff:192.0.2.1]:80", "192.0.2.1:80"),
        ("[2001:db8::1]:80", "[2001:db8::1]:80"),
        ("[::1]:80", "[::1]:80"),
        // IPv4-compatible (RFC 4291 §2.5.5.1) is another thing, and deprecated.
        ("[::192.0.2.1]:80", "[::192.0.2.1]:80"),
    ] {
        assert_eq!(
            to_unmapped(input.parse().unwrap()),
            expected.parse().unwrap(),
            "{input}"
        );
    }
}

#[test]
fn any_takes_both_families() {
    let sockets = bind_tcp(TcpAddress::Any(0), &OPTIONS, 1).unwrap();
    for host in [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()] {
        let client = TcpStream::connect(SocketAddr::new(host, port(&sockets))).unwrap();
        let (_, remote) = accept(&sockets[0]);
        assert_eq!(to_unmapped(remote), client.local_addr().unwrap());
    }
}

#[test]
fn the_two_wildcards_can_stand_side_by_side() {
    let v6 = TcpAddress::Ip((Ipv6Addr::UNSPECIFIED, 0).into());
    // A port that is free for IPv6 may be taken for IPv4 by somebody else, but not ten in a row.
    let both = (0..10).any(|_| {
        let sockets = bind_tcp(v6, &OPTIONS, 2).unwrap();
        let v4 = TcpAddress::Ip((Ipv4Addr::UNSPECIFIED, port(&sockets)).into());
        bind_tcp(v4, &OPTIONS, 2).is_ok()
    });
    assert!(both);
}

#[test]
fn sockets_share_a_port_and_the_connections() {
    let sockets = bind_tcp(loopback(0), &OPTIONS, 4).unwrap();
    assert_eq!(sockets.len(), 4);
    let address = sockets[0].local_addr().unwrap();
    assert!(sockets.iter().all(|s| s.local_addr().unwrap() == address));
    let _clients: Vec<_> = (0..200)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    let mut counts = [0; 4];
    while counts.iter().sum::<usize>() < 200 {
        for (socket, count) in sockets.iter().zip(&mut counts) {
            match socket.accept() {
                Ok(_) => *count += 1,
                // It does not block.
                Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock),
            }
        }
    }
    // One of four being left out of 200 has a chance of 10⁻²⁴.
    assert!(counts.iter().all(|&n| n > 0), "{counts:?}");
}

#[test]
fn nobody_else_gets_an_exclusive_port() {
    let sockets = bind_tcp(loopback(0), &OPTIONS, 2).unwrap();
    let same = loopback(port(&sockets));
    let error = bind_tcp(same, &OPTIONS, 2).unwrap_err();
    assert_eq!(error.source.kind(), ErrorKind::AddrInUse);
    assert_eq!(
        error.to_string(),
        format!(
            "cannot bind {same}: in use: another process listens there; `ss -ltnp sport = :{}` \
             names it",
            port(&sockets)
        )
    );
    let any = TcpAddress::Any(port(&sockets));
    assert_eq!(
        bind_tcp(any, &OPTIONS, 1).unwrap_err().source.kind(),
        ErrorKind::AddrInUse
    );
    // More sockets of ours for the same port are another matter.
    bind_tcp(same, &JOIN, 2).unwrap();
    drop(sockets);
    bind_tcp(same, &OPTIONS, 1).unwrap();
}

/// A server that is started again must get its port although old connections linger there.
#[test]
fn connections_in_time_wait_do_not_hold_the_port() {
    let sockets = bind_tcp(loopback(0), &OPTIONS, 1).unwrap();
    let address = sockets[0].local_addr().unwrap();
    let mut client = TcpStream::connect(address).unwrap();
    drop(accept(&sockets[0]));
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    drop((client, sockets));
    bind_tcp(TcpAddress::Ip(address), &OPTIONS, 1).unwrap();
}

#[test]
fn accepted_sockets_have_the_options() {
    let options = TcpOptions {
        notsent_lowat: 54_321,
        ..OPTIONS
    };
    let sockets = bind_tcp(loopback(0), &options, 1).unwrap();
    let _client = TcpStream::connect(sockets[0].local_addr().unwrap()).unwrap();
    let (accepted, _) = accept(&sockets[0]);
    forebay_sys::net::prepare_accepted(&accepted, &options).unwrap();
    assert!(accepted.nodelay().unwrap());
    assert_eq!(
        SockRef::from(&accepted).tcp_notsent_lowat().unwrap(),
        54_321
    );
    let flags = rustix::io::fcntl_getfd(&sockets[0]).unwrap();
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
}

#[test]
fn abort_is_seen_as_a_reset() {
    let sockets = bind_tcp(loopback(0), &OPTIONS, 1).unwrap();
    let mut client = TcpStream::connect(sockets[0].local_addr().unwrap()).unwrap();
    let (accepted, _) = accept(&sockets[0]);
    abort(&accepted).unwrap();
    drop(accepted);
    assert_eq!(
        client.read(&mut [0]).unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
}

/// [`refuse_new`], which only root is sure to be allowed.
fn may_refuse(listener: &TcpListener) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:\t"))
        .unwrap();
    const NET_ADMIN: u64 = 1 << 12;
    let admin = u64::from_str_radix(effective, 16).unwrap() & NET_ADMIN != 0;
    let refuses = refuse_new(listener).unwrap();
    assert!(refuses || !admin, "not refused, with CAP_NET_ADMIN");
    refuses
}

#[test]
fn a_listener_that_refuses_new_ones_can_be_accepted_dry() {
    let sockets = bind_tcp(loopback(0), &OPTIONS, 1).unwrap();
    let address = sockets[0].local_addr().unwrap();
    let mut waiting = TcpStream::connect(address).unwrap();
    if may_refuse(&sockets[0]) {
        let late = TcpStream::connect_timeout(&address, Duration::from_millis(100));
        assert_eq!(late.unwrap_err().kind(), ErrorKind::TimedOut);
    }
    let (mut accepted, _) = accept(&sockets[0]);
    assert_eq!(
        sockets[0].accept().unwrap_err().kind(),
        ErrorKind::WouldBlock
    );
    // The filter is inherited, but does nothing to an established connection.
    drop(sockets);
    waiting.write_all(b"ping").unwrap();
    waiting.shutdown(std::net::Shutdown::Write).unwrap();
    let mut text = String::new();
    accepted.set_nonblocking(false).unwrap();
    accepted.read_to_string(&mut text).unwrap();
    assert_eq!(text, "ping");
}

/// One of two sockets of a port goes: whoever connects meanwhile gets to the other one, none is
/// reset.
#[test]
fn who_connects_while_a_socket_goes_is_accepted_by_another() {
    const CLIENTS: usize = 32;
    let mut sockets = bind_tcp(loopback(0), &OPTIONS, 2).unwrap();
    let address = sockets[0].local_addr().unwrap();
    let going = sockets.pop().unwrap();
    if !may_refuse(&going) {
        // Then there is nothing to promise.
        return;
    }
    let clients: Vec<Socket> = (0..CLIENTS)
        .map(|_| {
            let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            client.set_nonblocking(true).unwrap();
            // The first SYN is sent at once, to whichever socket the kernel chooses.
            let _ = client.connect(&address.into());
            client
        })
        .collect();
    assert_eq!(going.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    drop(going);
    for client in &clients {
        wait_for(client, PollFlags::OUT);
        assert!(client.take_error().unwrap().is_none());
    }
    let accepted: HashSet<_> = (0..CLIENTS).map(|_| accept(&sockets[0]).1).collect();
    let connected = clients
        .iter()
        .map(|c| c.local_addr().unwrap().as_socket().unwrap());
    assert_eq!(accepted, connected.collect());
}

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn unix_sockets_have_the_mode_asked_for_whatever_the_umask() {
    let dir = dir();
    for mode in [0o600, 0o660, 0o666, 0o777] {
        let path = dir.path().join(format!("{mode:o}.sock"));
        let listener = bind_unix(
            &path,
            &UnixOptions {
                mode,
                ..UnixOptions::default()
            },
        )
        .unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            mode
        );
        let _client = UnixStream::connect(&path).unwrap();
        listener.accept().unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    }
}

#[test]
fn unix_sockets_have_the_owner_asked_for() {
    let dir = dir();
    let path = dir.path().join("a.sock");
    let own = rustix::process::geteuid().as_raw();
    let wanted = UnixOptions {
        user: Some(4_711),
        group: Some(4_712),
        ..UnixOptions::default()
    };
    match bind_unix(&path, &wanted) {
        Ok(_) => {
            let found = fs::metadata(&path).unwrap();
            assert_eq!((found.uid(), found.gid()), (4_711, 4_712));
        }
        Err(e) => {
            assert_ne!(own, 0, "root may: {e}");
            assert_eq!(e.source.kind(), ErrorKind::PermissionDenied);
            assert!(!path.exists(), "what could not be finished is left behind");
        }
    }
}

#[test]
fn a_dead_sockets_file_is_replaced_and_a_live_ones_is_not() {
    let dir = dir();
    let path = dir.path().join("a.sock");
    drop(UnixListener::bind(&path).unwrap());
    let live = bind_unix(&path, &UnixOptions::default()).unwrap();
    let error = bind_unix(&path, &UnixOptions::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "cannot bind unix:{}: in use: another process accepts connections there, or a file \
             that is no socket has this name",
            path.display()
        )
    );
    // Finding that out was a connection, too.
    let _client = UnixStream::connect(&path).unwrap();
    live.accept().unwrap();
    assert!(fs::metadata(&path).unwrap().file_type().is_socket());
}

#[test]
fn other_files_are_not_replaced() {
    let dir = dir();
    let path = dir.path().join("precious");
    fs::write(&path, "data").unwrap();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    for path in [&path, &link, &dir.path().to_owned()] {
        let error = bind_unix(path, &UnixOptions::default()).unwrap_err();
        assert_eq!(error.source.kind(), ErrorKind::AddrInUse, "{error}");
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), "data");
}

#[test]
fn unix_paths_that_cannot_be_say_why() {
    let long = format!("/tmp/{}", "a".repeat(103));
    for (path, expected) in [
        (
            "/nonexistent/a.sock",
            "no such directory: the socket's directory must exist",
        ),
        (
            "/dev/null/a.sock",
            "no such directory: the socket's directory must exist",
        ),
        ("", "no such directory: the socket's directory must exist"),
        (
            &long,
            "path too long: a Unix socket's path has at most 107 bytes",
        ),
    ] {
        let error = bind_unix(Path::new(path), &UnixOptions::default()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("cannot bind unix:{path}: {expected}")
        );
    }
}

#[test]
fn bind_errors_name_address_reason_and_remedy() {
    let check = |address: &str, code: rustix::io::Errno, expected: &str| {
        let error = BindError {
            address: address.to_owned(),
            source: code.into(),
        };
        assert_eq!(
            error.to_string(),
            format!("cannot bind {address}: {expected}")
        );
    };
    use rustix::io::Errno;
    check(
        ":80",
        Errno::ACCESS,
        "permission denied: ports below 1024 need root, CAP_NET_BIND_SERVICE, or `sysctl \
         net.ipv4.ip_unprivileged_port_start=80`",
    );
    check(
        "unix:/run/a.sock",
        Errno::ACCESS,
        "permission denied: the directory must be writable by the user who starts Forebay",
    );
    check(
        "192.0.2.1:80",
        Errno::ADDRNOTAVAIL,
        "not an address of this machine: `ip address` shows those it has; without a host, as in \
         \":80\", all are meant",
    );
    check(
        ":80",
        Errno::MFILE,
        "no file descriptor left: raise the limit (`ulimit -n`, LimitNOFILE= in systemd)",
    );
    check(
        "[::1]:80",
        Errno::AFNOSUPPORT,
        "address family not supported: IPv6 is switched off here",
    );
    check(
        ":80",
        Errno::NOBUFS,
        "No buffer space available (os error 105)",
    );
}

#[test]
fn faults_of_accept_are_told_apart() {
    use rustix::io::Errno;
    for (code, expected) in [
        (Errno::AGAIN, AcceptFault::Empty),
        (Errno::CONNABORTED, AcceptFault::Gone),
        (Errno::INTR, AcceptFault::Gone),
        (Errno::HOSTUNREACH, AcceptFault::Gone),
        (Errno::PERM, AcceptFault::Gone),
        (Errno::MFILE, AcceptFault::Exhausted),
        (Errno::NFILE, AcceptFault::Exhausted),
        (Errno::NOMEM, AcceptFault::Exhausted),
        (Errno::BADF, AcceptFault::Broken),
        (Errno::INVAL, AcceptFault::Broken),
    ] {
        assert_eq!(AcceptFault::of(&code.into()), expected, "{code:?}");
    }
    assert_eq!(AcceptFault::of(&io::Error::other("x")), AcceptFault::Broken);
}

#[test]
fn descriptors_arrive_in_order_and_closed_on_exec() {
    let (left, right) = seqpacket_pair().unwrap();
    let dir = dir();
    let files: Vec<_> = (0..MAX_FDS)
        .map(|i| {
            let path = dir.path().join(i.to_string());
            fs::write(&path, i.to_string()).unwrap();
            fs::File::open(path).unwrap()
        })
        .collect();
    let fds: Vec<_> = files.iter().map(AsFd::as_fd).collect();
    send_with_fds(&left, b"files", &fds).unwrap();
    send_with_fds(&left, b"none", &[]).unwrap();
    drop(left);

    let mut buffer = [0; 16];
    let received = recv_with_fds(&right, &mut buffer).unwrap();
    assert_eq!(
        (&buffer[..received.len], received.fds.len()),
        (&b"files"[..], MAX_FDS)
    );
    for (i, fd) in received.fds.into_iter().enumerate() {
        assert!(files.iter().all(|f| f.as_raw_fd() != fd.as_raw_fd()));
        let flags = rustix::io::fcntl_getfd(&fd).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        let mut text = String::new();
        fs::File::from(fd).read_to_string(&mut text).unwrap();
        assert_eq!(text, i.to_string());
    }
    let received = recv_with_fds(&right, &mut buffer).unwrap();
    assert_eq!(
        (&buffer[..received.len], received.fds.len()),
        (&b"none"[..], 0)
    );
    let received = recv_with_fds(&right, &mut buffer).unwrap();
    assert_eq!((received.len, received.fds.len()), (0, 0));
}

#[test]
fn messages_beyond_the_limits_are_errors_not_losses() {
    let (left, right) = seqpacket_pair().unwrap();
    let too_many = vec![left.as_fd(); MAX_FDS + 1];
    for refused in [
        send_with_fds(&left, b"x", &too_many),
        send_with_fds(&left, b"", &[]),
    ] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    // A descriptor that comes with a message that is cut off is closed: the pipe ends.
    let (reader, writer) = io::pipe().unwrap();
    send_with_fds(&left, b"longer than the buffer", &[writer.as_fd()]).unwrap();
    drop(writer);
    let cut = recv_with_fds(&right, &mut [0; 4]);
    assert_eq!(cut.unwrap_err().kind(), ErrorKind::InvalidData);
    let start = Instant::now();
    assert_eq!(
        (&reader).read(&mut [0]).unwrap(),
        0,
        "after {:?}",
        start.elapsed()
    );
    // The next one is whole.
    send_with_fds(&left, b"next", &[]).unwrap();
    assert_eq!(recv_with_fds(&right, &mut [0; 4]).unwrap().len, 4);
    drop(right);
    let gone = send_with_fds(&left, b"x", &[]).unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::BrokenPipe);
}
