//! Programs by a real helper process.

use std::future::Future;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::rc::Rc;
use std::time::Duration;

use forebay_sys::net::seqpacket_pair;
use forebay_sys::process::{End, LaunchStep};
use rustix::fd::AsRawFd;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::runtime::LocalOptions;

use super::{Channel, Place, Program, Programs, Spec, StartError};
use crate::helper::Helper;
use crate::helper::tests::{signal, start, this_test};

const PATH: (&[u8], &[u8]) = (b"PATH", b"/usr/bin:/bin");

/// Runs with a helper and a channel to it.
fn with_helper<F: Future>(test: impl FnOnce(Helper, Programs) -> F) -> F::Output {
    let helper = start();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .unwrap();
    let programs = Programs::default();
    programs.connect(Channel {
        socket: helper.channel().unwrap(),
        identity: None,
    });
    runtime.block_on(async {
        let limit = Duration::from_secs(60);
        let done = tokio::time::timeout(limit, test(helper, programs)).await;
        done.expect("it ends in time")
    })
}

/// A shell, with the end of a pipe that its output comes out of.
fn shell(programs: &Programs, script: &str) -> (Program, pipe::Receiver) {
    let (output, write) = pipe();
    let spec = Spec {
        program: b"/bin/sh",
        arguments: &[b"sh", b"-c", script.as_bytes()],
        environment: &[PATH],
        dir: b"/",
        places: vec![Place::Null, Place::Fd(write), Place::Null],
        identity: None,
        tells_pid: false,
        wants_pid: true,
    };
    (programs.start(spec).unwrap(), output)
}

fn pipe() -> (pipe::Receiver, Rc<OwnedFd>) {
    let (write, read) = pipe::pipe().unwrap();
    (read, Rc::new(write.into_blocking_fd().unwrap()))
}

async fn all(mut output: pipe::Receiver) -> String {
    let mut text = String::new();
    output.read_to_string(&mut text).await.unwrap();
    text
}

#[test]
fn programs_run_and_tell_how_they_ended() {
    with_helper(async |_helper, programs| {
        let (program, output) = shell(&programs, "echo hello; exit 3");
        assert_eq!(all(output).await, "hello\n");
        assert_eq!(program.over().await.unwrap().end, End::Exited(3));
        let (program, output) = shell(&programs, "kill -SEGV $$");
        assert_eq!(all(output).await, "");
        assert_eq!(program.over().await.unwrap().end, End::Killed(11));
        assert!(program.pid().is_some());
    });
}

/// So none has a terminal, and the one of who started the server is in another session.
#[test]
fn programs_lead_groups_in_the_helpers_session() {
    with_helper(async |helper, programs| {
        let (program, output) = shell(&programs, "cut -d' ' -f5-7 /proc/$$/stat");
        let text = all(output).await;
        program.over().await.unwrap();
        let pid = program.pid().unwrap();
        // Without a terminal its number is 0.
        assert_eq!(text, format!("{pid} {} 0\n", helper.id()));
    });
}

/// What nobody wants to know is not told; the end is.
#[test]
fn a_program_is_reported_if_it_is_wanted() {
    with_helper(async |_helper, programs| {
        let (read, write) = pipe();
        let spec = Spec {
            program: b"/bin/sh",
            arguments: &[b"sh", b"-c", b"exit 2"],
            environment: &[PATH],
            dir: b"/",
            places: vec![Place::Null, Place::Fd(write), Place::Null],
            identity: None,
            tells_pid: false,
            wants_pid: false,
        };
        let program = programs.start(spec).unwrap();
        assert_eq!(all(read).await, "");
        assert_eq!(program.over().await.unwrap().end, End::Exited(2));
        assert_eq!(program.pid(), None);
    });
}

#[test]
fn what_cannot_be_started_says_why() {
    with_helper(async |_helper, programs| {
        let spec =
            |program: &'static [u8], environment: &'static [(&'static [u8], &'static [u8])]| Spec {
                program,
                arguments: &[],
                environment,
                dir: b"/",
                places: Vec::new(),
                identity: None,
                tells_pid: false,
                wants_pid: true,
            };
        let program = programs.start(spec(b"/no/such/program", &[])).unwrap();
        let error = program.over().await.unwrap_err();
        assert_eq!(error, StartError::Failed(LaunchStep::Program, 2));
        assert_eq!(
            error.to_string(),
            "executing it: No such file or directory (os error 2)"
        );
        let large: &'static [u8] = vec![b'x'; 200_000].leak();
        let environment: &'static [_] = vec![(&b"A"[..], large)].leak();
        let refused = programs.start(spec(b"/bin/true", environment)).err();
        assert_eq!(refused, Some(StartError::TooLarge));
    });
    let refused = Programs::default().start(Spec {
        program: b"/bin/true",
        arguments: &[],
        environment: &[],
        dir: b"/",
        places: Vec::new(),
        identity: None,
        tells_pid: false,
        wants_pid: true,
    });
    assert_eq!(refused.err(), Some(StartError::Gone));
}

/// Comes back when the first process of a program is stopped, or is not.
async fn stopped(program: &Program, is_stopped: bool) {
    loop {
        let Some(pid) = program.pid() else {
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        };
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        if stat.contains(") T ") == is_stopped {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn a_program_can_be_held_goes_on_and_hears_that_it_is_to_end_while_it_is_held() {
    with_helper(async |_helper, programs| {
        let script = "trap 'exit 7' TERM; echo ready; while :; do :; done";
        let (program, mut output) = shell(&programs, script);
        assert_eq!(output.read_u8().await.unwrap(), b'r');
        for is_held in [true, false, true] {
            assert!(program.hold(is_held));
            stopped(&program, is_held).await;
        }
        program.end(Duration::from_secs(30));
        assert_eq!(program.over().await.unwrap().end, End::Exited(7));
        let (program, mut output) = shell(&programs, "echo ready; while :; do :; done");
        assert_eq!(output.read_u8().await.unwrap(), b'r');
        assert!(program.hold(true));
        stopped(&program, true).await;
        program.end(Duration::ZERO);
        assert_eq!(program.over().await.unwrap().end, End::Killed(9));
        // Of one that has ended nothing can be held.
        program.hold(true);
    });
}

#[test]
fn a_program_that_nobody_wants_is_ended_with_its_children() {
    with_helper(async |_helper, programs| {
        // The first ends when it is asked, its child only when it is killed.
        let script = "sh -c 'trap \"\" TERM; echo up; sleep 1000' & wait";
        let (program, mut output) = shell(&programs, script);
        assert_eq!(output.read_u8().await.unwrap(), b'u');
        drop(program);
        assert_eq!(all(output).await, "p\n");
        // One that does not want to end.
        let (program, mut output) = shell(
            &programs,
            "trap '' TERM; echo up; while :; do sleep 1000; done",
        );
        assert_eq!(output.read_u8().await.unwrap(), b'u');
        program.end(Duration::from_millis(50));
        assert_eq!(program.over().await.unwrap().end, End::Killed(9));
        assert_eq!(all(output).await, "p\n");
    });
}

#[test]
fn what_a_program_leaves_behind_ends_with_it() {
    with_helper(async |_helper, programs| {
        let (program, output) = shell(&programs, "sleep 1000 & echo done");
        assert_eq!(all(output).await, "done\n");
        assert_eq!(program.over().await.unwrap().end, End::Exited(0));
    });
}

#[test]
fn hundreds_at_a_time_and_none_is_left() {
    with_helper(async |helper, programs| {
        for _ in 0..5 {
            let all: Vec<_> = (0..100).map(|_| shell(&programs, ":")).collect();
            for (program, output) in all {
                drop(output);
                assert_eq!(program.over().await.unwrap().end, End::Exited(0));
            }
        }
        let children = format!("/proc/{0}/task/{0}/children", helper.id());
        assert_eq!(std::fs::read_to_string(children).unwrap(), "");
    });
}

#[test]
fn without_a_helper_every_program_is_over() {
    with_helper(async |helper, programs| {
        let (program, output) = shell(&programs, "sleep 1000");
        signal(&helper, "KILL");
        // The kernel has killed it.
        assert_eq!(all(output).await, "");
        assert_eq!(program.over().await.unwrap_err(), StartError::Gone);
        let spec = Spec {
            program: b"/bin/true",
            arguments: &[],
            environment: &[],
            dir: b"/",
            places: Vec::new(),
            identity: None,
            tells_pid: false,
            wants_pid: true,
        };
        assert_eq!(programs.start(spec).err(), Some(StartError::Gone));
    });
}

#[test]
fn a_channel_that_talks_nonsense_is_closed_and_others_go_on() {
    with_helper(async |helper, programs| {
        let bad = helper.channel().unwrap();
        forebay_sys::net::send_with_fds(&bad, b"nonsense", &[]).unwrap();
        let received = forebay_sys::net::recv_with_fds(&bad, &mut [0; 8]).unwrap();
        assert_eq!(received.len, 0);
        let (program, _output) = shell(&programs, ":");
        assert_eq!(program.over().await.unwrap().end, End::Exited(0));
    });
}

#[test]
fn more_descriptors_than_promised_are_refused() {
    with_helper(async |helper, _programs| {
        let channel = helper.channel().unwrap();
        let (one, _other) = seqpacket_pair().unwrap();
        let options = super::message::StartOptions::default();
        let start = |number| {
            let none = std::iter::empty();
            super::message::write_start(number, &options, b"/bin/true", b"/", &[], none).unwrap()
        };
        forebay_sys::net::send_with_fds(&channel, &start(1), &[std::os::fd::AsFd::as_fd(&one)])
            .unwrap();
        let mut buffer = [0; 32];
        let received = forebay_sys::net::recv_with_fds(&channel, &mut buffer).unwrap();
        let news = super::message::read_news(&buffer[..received.len]);
        let expected = super::message::News::Failed {
            step: LaunchStep::Process,
            errno: rustix::io::Errno::INVAL.raw_os_error(),
        };
        assert_eq!(news, Some((1, expected)));
        assert!(channel.as_raw_fd() > 2);
    });
}

const SERVER_ROLE: &str = "FOREBAY_TEST_SERVER_OF_PROGRAMS";

/// Not a test of its own: a server that has a program started and waits to be killed.
#[test]
fn acts_as_a_server_of_programs() {
    if std::env::var_os(SERVER_ROLE).is_some() {
        with_helper(async |_helper, programs| {
            // Standard error is this test's, which ends when nobody has it open any more.
            let stderr = Rc::new(
                std::os::fd::AsFd::as_fd(&std::io::stderr())
                    .try_clone_to_owned()
                    .unwrap(),
            );
            let script = "setsid sh -c 'echo up; exec sleep 1000' & sh -c 'trap \"\" TERM; echo up; sleep 1000' & wait";
            let places = vec![Place::Null, Place::Fd(stderr.clone()), Place::Fd(stderr)];
            let _program = programs
                .start(Spec {
                    program: b"/bin/sh",
                    arguments: &[b"sh", b"-c", script.as_bytes()],
                    environment: &[PATH],
                    dir: b"/",
                    places,
                    identity: None,
                    tells_pid: false,
                    wants_pid: true,
                })
                .unwrap();
            std::future::pending::<()>().await;
        });
    }
}

#[test]
fn everything_dies_with_a_server_that_is_killed() {
    let module = module_path!().split_once("::").unwrap().1;
    let mut server = this_test(module, "acts_as_a_server_of_programs")
        .env(SERVER_ROLE, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut errors = server.stderr.take().unwrap();
    let mut line = [0; 6];
    errors.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"up\nup\n");
    server.kill().unwrap();
    server.wait().unwrap();
    let mut rest = String::new();
    errors.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
}
