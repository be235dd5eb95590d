//! The codec by tables; the helper itself as a real process: this test binary, executed anew so
//! that it runs [`acts_as_the_helper`] with a socket for standard input.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use forebay_sys::net::{
    Sharing, TcpAddress, TcpOptions, UnixOptions, recv_with_fds, send_with_fds, seqpacket_pair,
};

use super::client::HelperError;
use super::client::{Fault, Link};
use super::protocol::{
    MAX_MESSAGE, Refusal, Reply, Request, read_reply, read_request, write_reply, write_request,
};
use super::{Helper, serve};

const LOOPBACK: TcpAddress = TcpAddress::Ip(SocketAddr::V4(std::net::SocketAddrV4::new(
    std::net::Ipv4Addr::LOCALHOST,
    0,
)));

#[test]
fn requests_are_read_as_written_and_nothing_else_is() {
    let join = TcpOptions {
        backlog: 7,
        sharing: Sharing::Join,
        notsent_lowat: 70_000,
    };
    let owned = UnixOptions {
        backlog: 1,
        mode: 0o600,
        user: Some(33),
        group: Some(0),
    };
    let path = Path::new("/run/a b.sock");
    let scoped = std::net::SocketAddrV6::new([0xfe80, 0, 0, 0, 0, 0, 0, 1].into(), 443, 0, 5);
    let any = TcpAddress::Any(80);
    let default = TcpOptions::default();
    let v4 = TcpAddress::Ip("192.0.2.1:8080".parse().unwrap());
    for request in [
        Request::Ping,
        Request::BindTcp {
            address: any,
            options: default,
            sockets: 1,
        },
        Request::BindTcp {
            address: v4,
            options: join,
            sockets: 1_024,
        },
        Request::BindTcp {
            address: TcpAddress::Ip(scoped.into()),
            options: join,
            sockets: 2,
        },
        Request::BindUnix {
            path,
            options: UnixOptions::default(),
        },
        Request::BindUnix {
            path,
            options: owned,
        },
        Request::Open { path },
        Request::ChangeUnix {
            path,
            options: owned,
        },
        Request::RemoveUnix { path },
        Request::Channel,
    ] {
        let message = write_request(7, &request).unwrap();
        assert_eq!(read_request(&message), (7, Some(request.clone())));
        let has_path = !matches!(
            request,
            Request::Ping | Request::BindTcp { .. } | Request::Channel
        );
        if !has_path {
            for end in 0..message.len() {
                assert_eq!(
                    read_request(&message[..end]).1,
                    None,
                    "{request:?} cut at {end}"
                );
            }
            assert_eq!(
                read_request(&[&message[..], b"x"].concat()).1,
                None,
                "{request:?} + x"
            );
        }
    }
}

#[test]
fn replies_are_read_as_written_and_nothing_else_is() {
    for reply in [
        Reply::Done,
        Reply::More,
        Reply::Failed(13),
        Reply::Failed(-1),
        Reply::Refused(Refusal::Malformed),
        Reply::Refused(Refusal::NotAbsolute),
        Reply::Refused(Refusal::NotAFile),
        Reply::Refused(Refusal::NoReason),
        Reply::Refused(Refusal::NotBound),
        Reply::Refused(Refusal::TooMany),
    ] {
        let message = write_reply(u32::MAX, reply);
        assert_eq!(read_reply(&message), Some((u32::MAX, reply)));
        for end in 0..message.len() {
            assert_eq!(read_reply(&message[..end]), None, "{reply:?} cut at {end}");
        }
        assert_eq!(
            read_reply(&[&message[..], b"x"].concat()),
            None,
            "{reply:?} + x"
        );
    }
}

#[test]
fn requests_beyond_a_limit_are_refused() {
    let bind = |sockets| Request::BindTcp {
        address: LOOPBACK,
        options: TcpOptions::default(),
        sockets,
    };
    for sockets in [0, 1_025] {
        let message = write_request(1, &bind(sockets)).unwrap();
        assert_eq!(read_request(&message).1, None, "{sockets} sockets");
    }
    let long = [b"/".as_slice(), &[b'a'; 4_094]].concat();
    let at = |bytes: &[u8]| {
        let path = Path::new(std::ffi::OsStr::from_bytes(bytes));
        write_request(1, &Request::Open { path })
    };
    assert!(at(&long).is_some_and(|m| m.len() <= MAX_MESSAGE && read_request(&m).1.is_some()));
    assert_eq!(at(&[&long[..], b"a"].concat()), None);
    assert_eq!(at(b"/a\0b"), None);
}

/// Not a test of its own: what the helper processes of the others execute. Any other standard
/// input ends it at once.
#[test]
fn acts_as_the_helper() {
    serve::run(Some(std::os::unix::process::parent_id()));
}

/// This binary, anew, for one test of a module.
pub fn this_test(module: &str, name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "--nocapture", &format!("{module}::{name}")]);
    command
}

fn module() -> &'static str {
    module_path!().split_once("::").unwrap().1
}

/// A helper process.
pub fn start() -> Helper {
    let helper = Helper::start_with(this_test(module(), "acts_as_the_helper")).unwrap();
    helper.ping().unwrap();
    helper
}

pub fn signal(helper: &Helper, name: &str) {
    run(&format!("kill -{name} {}", helper.id()));
}

fn run(command: &str) {
    let status = Command::new("sh").args(["-c", command]).status().unwrap();
    assert!(status.success(), "{command}: {status}");
}

#[test]
fn ends_when_the_socket_closes() {
    assert!(start().stop().unwrap().success());
}

#[test]
fn is_a_process_group_of_its_own_and_lets_signals_pass() {
    let helper = start();
    helper.ping().unwrap();
    // pid (name) state parent group …
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", helper.id())).unwrap();
    let group = stat.rsplit_once(") ").unwrap().1.split(' ').nth(2);
    assert_eq!(group, Some(helper.id().to_string().as_str()), "{stat}");
    for name in ["INT", "TERM", "HUP", "QUIT"] {
        signal(&helper, name);
        helper.ping().unwrap();
    }
    assert!(helper.stop().unwrap().success());
}

#[test]
fn binds_tcp() {
    let helper = start();
    let sockets = helper
        .bind_tcp(LOOPBACK, &TcpOptions::default(), 1)
        .unwrap();
    let address = sockets[0].local_addr().unwrap();
    let client = TcpStream::connect(address).unwrap();
    // It does not block, so the connection must be there: connect has returned.
    let (_, remote) = sockets[0].accept().unwrap();
    assert_eq!(remote, client.local_addr().unwrap());

    let error = helper
        .bind_tcp(TcpAddress::Ip(address), &TcpOptions::default(), 1)
        .unwrap_err();
    assert!(matches!(error, HelperError::Bind(_)), "{error:?}");
    let text = error.to_string();
    assert!(
        text.starts_with(&format!("cannot bind {address}: in use: ")),
        "{text}"
    );
}

#[test]
fn binds_more_sockets_than_one_message_carries() {
    let helper = start();
    let sockets = helper
        .bind_tcp(LOOPBACK, &TcpOptions::default(), 300)
        .unwrap();
    assert_eq!(sockets.len(), 300);
    let port = sockets[0].local_addr().unwrap().port();
    assert!(
        sockets
            .iter()
            .all(|s| s.local_addr().unwrap().port() == port)
    );
    for count in [0, 1_025] {
        let refused = helper
            .bind_tcp(LOOPBACK, &TcpOptions::default(), count)
            .unwrap_err();
        assert!(
            matches!(refused, HelperError::Refused { .. }),
            "{refused:?}"
        );
    }
}

#[test]
fn binds_unix() {
    let helper = start();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.sock");
    let listener = helper.bind_unix(&path, &UnixOptions::default()).unwrap();
    let _client = UnixStream::connect(&path).unwrap();
    listener.accept().unwrap();
    let error = helper
        .bind_unix(&path, &UnixOptions::default())
        .unwrap_err();
    let expected = format!("cannot bind unix:{}: in use: ", path.display());
    assert!(error.to_string().starts_with(&expected), "{error}");
    let relative = helper
        .bind_unix(Path::new("a.sock"), &UnixOptions::default())
        .unwrap_err();
    assert_eq!(
        relative.to_string(),
        "cannot get a socket for unix:a.sock from the helper process: not an absolute path"
    );
}

#[test]
fn changes_and_removes_only_what_it_has_bound() {
    use std::os::unix::fs::PermissionsExt;
    let helper = start();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.sock");
    let foreign = dir.path().join("b.sock");
    let _foreign = std::os::unix::net::UnixListener::bind(&foreign).unwrap();
    let _bound = helper.bind_unix(&path, &UnixOptions::default()).unwrap();
    let options = UnixOptions {
        mode: 0o606,
        ..UnixOptions::default()
    };
    helper.change_unix(&path, &options).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o606);
    for error in [
        helper.change_unix(&foreign, &options).unwrap_err(),
        helper.remove_unix(&foreign).unwrap_err(),
    ] {
        let text = error.to_string();
        assert!(text.ends_with("it has bound no such socket"), "{text}");
    }
    helper.remove_unix(&path).unwrap();
    assert!(!path.exists() && foreign.exists());
    assert!(helper.remove_unix(&path).is_err(), "it is forgotten");
    // What is left goes with it, unless it is another's by now.
    let _bound = helper.bind_unix(&path, &UnixOptions::default()).unwrap();
    let taken = dir.path().join("c.sock");
    let _ours = helper.bind_unix(&taken, &UnixOptions::default()).unwrap();
    std::fs::remove_file(&taken).unwrap();
    let _theirs = std::os::unix::net::UnixListener::bind(&taken).unwrap();
    assert!(helper.stop().unwrap().success());
    assert!(!path.exists() && taken.exists());
}

#[test]
fn opens_regular_files_and_nothing_else() {
    let helper = start();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key.pem");
    std::fs::write(&file, "secret").unwrap();
    let mut text = String::new();
    helper
        .open(&file)
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, "secret");

    // A pipe without a writer must not make the helper wait.
    let pipe = dir.path().join("pipe");
    run(&format!("mkfifo {}", pipe.display()));
    for path in [dir.path(), &pipe, Path::new("/dev/null")] {
        let error = helper.open(path).unwrap_err().to_string();
        let expected = format!(
            "cannot get file {} from the helper process: not a regular file",
            path.display()
        );
        assert_eq!(error, expected);
    }
    let missing = dir.path().join("missing");
    let error = helper.open(&missing).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with(&format!("cannot open {}: ", missing.display()))
    );
    let relative = helper.open(Path::new("key.pem")).unwrap_err().to_string();
    assert!(relative.ends_with("not an absolute path"), "{relative}");
    let long = "/a".repeat(4_000);
    assert!(matches!(
        helper.open(Path::new(&long)),
        Err(HelperError::Open { .. })
    ));
    helper.ping().unwrap();
}

#[test]
fn a_dead_helper_is_an_error_that_says_so() {
    let helper = start();
    signal(&helper, "KILL");
    let error = loop {
        // The signal takes a moment.
        if let Err(e) = helper.ping() {
            break e;
        }
    };
    assert!(matches!(error, HelperError::Gone { .. }), "{error:?}");
    assert!(error.to_string().ends_with("restart Forebay"), "{error}");
}

const SERVER_ROLE: &str = "FOREBAY_TEST_SERVER";

/// Not a test of its own: a server that starts a helper and waits to be killed.
#[test]
fn acts_as_the_server() {
    if std::env::var_os(SERVER_ROLE).is_some() {
        let _helper = start();
        eprintln!("started");
        loop {
            thread::park();
        }
    }
}

#[test]
fn the_helper_dies_with_its_server() {
    let mut server = this_test(module(), "acts_as_the_server")
        .env(SERVER_ROLE, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Both hold the other end of this pipe: it ends when both are gone.
    let mut errors = server.stderr.take().unwrap();
    let mut line = [0; 8];
    errors.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"started\n");
    server.kill().unwrap();
    server.wait().unwrap();
    let mut rest = String::new();
    errors.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
}

/// Runs `helper` at the other end of a link.
fn with_helper<T: Send>(
    patience: Duration,
    helper: impl FnOnce(OwnedFd) + Send,
    server: impl FnOnce(&mut Link) -> T,
) -> T {
    let (ours, theirs) = seqpacket_pair().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| helper(theirs));
        let mut link = Link::new(ours, patience).unwrap();
        server(&mut link)
    })
}

const LONG: Duration = Duration::from_secs(30);

fn receive(socket: &OwnedFd) -> u32 {
    let mut buffer = [0; MAX_MESSAGE];
    let received = recv_with_fds(socket, &mut buffer).unwrap();
    read_request(&buffer[..received.len]).0
}

fn reply(socket: &OwnedFd, number: u32, reply: Reply, fds: usize) {
    let fd = socket.as_fd();
    send_with_fds(socket, &write_reply(number, reply), &vec![fd; fds]).unwrap();
}

#[test]
fn an_answer_that_comes_too_late_is_not_taken_for_the_next_one() {
    let go = std::sync::Barrier::new(2);
    let late = |socket: OwnedFd| {
        let first = receive(&socket);
        go.wait();
        reply(&socket, first, Reply::Done, 3);
        let second = receive(&socket);
        reply(&socket, second, Reply::Done, 1);
    };
    with_helper(Duration::from_millis(20), late, |link| {
        assert!(matches!(link.call(&Request::Ping), Err(Fault::Late)));
        go.wait();
        link.set_patience(LONG).unwrap();
        assert_eq!(link.call(&Request::Ping).unwrap().len(), 1);
    });
}

#[test]
fn a_helper_that_talks_nonsense_is_an_error() {
    let garbage = |socket: OwnedFd| {
        receive(&socket);
        send_with_fds(&socket, b"hello", &[]).unwrap();
    };
    let refused = with_helper(LONG, garbage, |link| link.call(&Request::Ping));
    assert!(matches!(refused, Err(Fault::Gone(_))), "{refused:?}");

    // Descriptors without end.
    let flood = |socket: OwnedFd| {
        let number = receive(&socket);
        for _ in 0..8 {
            reply(&socket, number, Reply::More, 128);
        }
    };
    let refused = with_helper(LONG, flood, |link| link.call(&Request::Ping));
    assert!(matches!(refused, Err(Fault::Gone(_))), "{refused:?}");
}

#[test]
fn nonsense_is_refused_and_the_helper_goes_on() {
    let (ours, theirs) = seqpacket_pair().unwrap();
    thread::scope(|scope| {
        let helper = scope.spawn(|| {
            let theirs = theirs;
            serve::serve(theirs.as_fd(), None)
        });
        let mut buffer = [0; 64];
        for (message, number) in [
            (&b"x"[..], 0),
            (&[0, 0, 0, 9][..], 9),
            (&[0, 0, 0, 9, 77][..], 9),
            (&[0, 0, 0, 9, 2, 0, 0][..], 9),
        ] {
            send_with_fds(&ours, message, &[]).unwrap();
            let len = recv_with_fds(&ours, &mut buffer).unwrap().len;
            let refused = Reply::Refused(Refusal::Malformed);
            assert_eq!(
                read_reply(&buffer[..len]),
                Some((number, refused)),
                "{message:?}"
            );
        }
        drop(ours);
        helper.join().unwrap().unwrap();
    });
}
