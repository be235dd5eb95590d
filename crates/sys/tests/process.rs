//! What a process does to itself is tried in processes of their own: this test binary, executed
//! anew with the name of a role in the environment. A role prints what it found and ends with 0.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};
use std::thread;

use forebay_sys::process::{
    Identity, become_identity, cores, disregard, expect_parent, nofile, raise_nofile,
    resolve_identity,
};

const ROLE: &str = "FOREBAY_TEST_ROLE";

fn role(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "acts", "--nocapture"])
        .env(ROLE, name);
    command
}

/// The output of a role that must end well.
fn play(command: &mut Command) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let text = String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap();
    assert!(status.success(), "{status}: {text}");
    text
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Not a test of its own: plays the role that the environment names.
#[test]
fn acts() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    match role.as_str() {
        "becomes nobody" => acts_as_nobody(),
        "limits" => println!("limit {} then {}", raise_nofile().unwrap(), nofile()),
        "cores" => println!("cores {}.", cores()),
        "child" => {
            disregard().unwrap();
            println!("ready");
            std::io::stdout().flush().unwrap();
            // Ends by itself only when the test closes its input.
            std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).unwrap();
        }
        other => panic!("no role {other}"),
    }
}

fn acts_as_nobody() {
    // A thread that was there before must lose its rights, too.
    let (send, wait) = std::sync::mpsc::channel::<()>();
    let early = thread::spawn(move || wait.recv());
    let identity = Identity {
        user: 65_534,
        group: 65_533,
        groups: vec![65_533, 4_711],
    };
    become_identity(&identity).unwrap();
    // To be it already is no mistake.
    become_identity(&identity).unwrap();
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        for line in [
            "Uid:\t65534\t65534\t65534\t65534\n",
            "Gid:\t65533\t65533\t65533\t65533\n",
            "Groups:\t4711 65533 \n",
            "CapPrm:\t0000000000000000\n",
            "CapEff:\t0000000000000000\n",
        ] {
            assert!(status.contains(line), "{line:?} not in {status}");
        }
    }
    let root = Identity {
        user: 0,
        group: 0,
        groups: vec![0],
    };
    let refused = become_identity(&root).unwrap_err();
    assert!(
        refused.starts_with("cannot become user 0 with group 0: setgroups: "),
        "{refused}"
    );
    assert!(
        refused.ends_with("; only root can change its user"),
        "{refused}"
    );
    send.send(()).unwrap();
    early.join().unwrap().unwrap();
    println!("became nobody");
}

#[test]
fn becoming_another_user_is_for_all_threads_and_for_ever() {
    if is_root() {
        assert!(play(&mut role("becomes nobody")).contains("became nobody"));
    } else {
        // Without privileges there is nothing to give up, and that is said.
        let other = Identity {
            user: 65_534,
            group: 65_533,
            groups: vec![65_533],
        };
        let refused = become_identity(&other).unwrap_err();
        assert!(
            refused.ends_with("only root can change its user"),
            "{refused}"
        );
    }
}

#[test]
fn users_and_groups_have_names_and_numbers() {
    let root = resolve_identity("root").unwrap();
    assert_eq!((root.user, root.group), (0, 0));
    assert!(root.groups.contains(&0));
    assert_eq!(resolve_identity("0").unwrap(), root);
    assert_eq!(resolve_identity("root:root").unwrap(), root);
    assert_eq!(resolve_identity("0:0").unwrap(), root);
    let mixed = resolve_identity("root:4711").unwrap();
    assert_eq!((mixed.user, mixed.group), (0, 4_711));
    assert!(mixed.groups.contains(&4_711));
    let unknown = resolve_identity("1234567:7654321").unwrap();
    let expected = Identity {
        user: 1_234_567,
        group: 7_654_321,
        groups: vec![7_654_321],
    };
    assert_eq!(unknown, expected);
    for (text, expected) in [
        ("nobody-like-this", "there is no user \"nobody-like-this\""),
        ("", "there is no user \"\""),
        ("root:no-such-group", "there is no group \"no-such-group\""),
        ("root:", "there is no group \"\""),
        (
            "1234567",
            "user \"1234567\" has no entry in the system's user database: write its group, as in \
             \"1234567:1234567\"",
        ),
    ] {
        assert_eq!(resolve_identity(text).unwrap_err(), expected);
    }
    assert!(resolve_identity("a\0b").is_err());
}

#[test]
fn the_limit_of_descriptors_is_raised_to_the_hard_one() {
    let mut lowered = Command::new("sh");
    let own = std::env::current_exe().unwrap();
    let script = "ulimit -Sn 100 && ulimit -Hn 4000 && exec \"$0\" --exact acts --nocapture";
    lowered.args(["-c", script]).arg(own).env(ROLE, "limits");
    let text = play(&mut lowered);
    assert!(text.contains("limit 4000 then 4000"), "{text}");
}

#[test]
fn cores_are_those_the_process_may_use() {
    let mut pinned = Command::new("taskset");
    pinned
        .args(["-c", "0"])
        .arg(std::env::current_exe().unwrap());
    pinned
        .args(["--exact", "acts", "--nocapture"])
        .env(ROLE, "cores");
    let text = play(&mut pinned);
    assert!(text.contains("cores 1."), "{text}");
}

#[test]
fn signals_that_are_disregarded_do_not_end_a_process() {
    let mut child = role("child")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = child.stdout.take().unwrap();
    let mut text = String::new();
    while !text.contains("ready\n") {
        let mut byte = [0];
        std::io::Read::read_exact(&mut output, &mut byte).unwrap();
        text.push(char::from(byte[0]));
    }
    for signal in ["INT", "TERM", "HUP", "QUIT"] {
        let kill = format!("kill -{signal} {}", child.id());
        let sent = Command::new("sh").args(["-c", &kill]).status().unwrap();
        assert!(sent.success());
        assert!(child.try_wait().unwrap().is_none(), "SIG{signal}");
    }
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
}

#[test]
fn a_parent_that_has_gone_before_is_noticed() {
    expect_parent(std::os::unix::process::parent_id()).unwrap();
    // A shell in between that ends at once would be a race; a wrong number is the same thing.
    let error = expect_parent(u32::MAX).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
}
