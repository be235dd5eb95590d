//! `forebay doctor`: what to tune on this machine.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use forebay_sys::process;

use super::print;

/// Show what to tune on this machine
///
/// Looks at the limits and settings of the system that matter to a server with many connections.
/// For each: what it is, what would be better, and the command that changes it. It changes nothing
/// itself, and its exit status is 0 whatever it finds.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  forebay doctor
  sudo -u www-data forebay doctor          as the user that the server runs as")]
pub struct Args {}

/// What one look has found.
struct Finding {
    name: &'static str,
    now: String,
    /// What would be better and how to get it; none: it is right.
    better: Option<Better>,
    why: &'static str,
}

struct Better {
    value: String,
    command: String,
}

impl Args {
    /// Looks, and prints what it has seen.
    pub fn run(self) -> ExitCode {
        let soft = process::nofile();
        // Only of this process, which ends in a moment; it tells the hard limit.
        let hard = process::raise_nofile().unwrap_or(soft);
        let mut findings = vec![cores(), memory(), open_files(soft, hard)];
        findings.extend(of_system(Path::new("/")));
        print(&show(&findings))
    }
}

fn show(findings: &[Finding]) -> String {
    let mut out = String::new();
    let mut count = 0;
    for finding in findings {
        let (name, now) = (finding.name, &finding.now);
        match &finding.better {
            None => {
                let _ = writeln!(out, "ok    {name}: {now}");
            }
            Some(better) => {
                count += 1;
                let _ = writeln!(out, "tune  {name}: {now}, better {}", better.value);
                wrap(finding.why, &mut out);
                let _ = writeln!(out, "      $ {}", better.command);
            }
        }
    }
    out.push('\n');
    out.push_str(&match count {
        0 => "Nothing to tune.\n".to_owned(),
        _ => format!(
            "{count} to tune. A command holds until the next boot; to keep a setting of sysctl, \
             write it as NAME = VALUE into /etc/sysctl.d/50-forebay.conf.\n"
        ),
    });
    out
}

/// Sentences under a finding, in lines of a width that every terminal has.
fn wrap(text: &str, out: &mut String) {
    const INDENT: &str = "     ";
    const WIDTH: usize = 80;
    let mut column = 0;
    for word in text.split(' ') {
        let length = word.chars().count() + 1;
        if column > 0 && column + length > WIDTH {
            out.push('\n');
            column = 0;
        }
        if column == 0 {
            out.push_str(INDENT);
            column = INDENT.len();
        }
        out.push(' ');
        out.push_str(word);
        column += length;
    }
    out.push('\n');
}

fn cores() -> Finding {
    Finding {
        name: "cores",
        now: format!(
            "{}, and so many workers unless `server` says otherwise",
            process::cores()
        ),
        better: None,
        why: "",
    }
}

fn memory() -> Finding {
    let now = match process::memory_available() {
        Some(bytes) => format!("{} MB for this process", bytes >> 20),
        None => "unknown".to_owned(),
    };
    Finding {
        name: "memory",
        now,
        better: None,
        why: "",
    }
}

/// Connections that one wants to be able to hold without thinking about it.
const ENOUGH_FILES: u64 = 65_536;

fn open_files(soft: u64, hard: u64) -> Finding {
    let better = (hard < ENOUGH_FILES).then(|| Better {
        value: format!("{ENOUGH_FILES} or more"),
        command: format!(
            "ulimit -n {ENOUGH_FILES}    # for a systemd service: LimitNOFILE={ENOUGH_FILES}"
        ),
    });
    Finding {
        name: "nofile (open files)",
        now: format!("{soft}, raised by Forebay to the hard limit {hard}"),
        better,
        why: "A connection takes one descriptor, a proxied request one more. Past 80 % of them, \
              idle connections are closed and new ones answered 503.",
    }
}

/// A number of sysctl, the least that is right, and why.
struct Least {
    name: &'static str,
    least: u64,
    why: &'static str,
}

static LEAST: [Least; 3] = [
    Least {
        name: "net.core.somaxconn",
        least: 4_096,
        why: "Connections that wait to be accepted, per socket; more are dropped, and those \
              clients wait a second before they try again.",
    },
    Least {
        name: "net.ipv4.tcp_max_syn_backlog",
        least: 4_096,
        why: "Connections whose handshake is under way; beyond it the kernel falls back to SYN \
              cookies, which lose window scaling.",
    },
    Least {
        name: "net.ipv4.tcp_migrate_req",
        least: 1,
        why: "Each worker has its own socket. When one closes, as at a reload that takes an \
              address away, connections that wait there move to the others; with 0 they are reset.",
    },
];

/// What `/proc/sys` under this root says; a setting that the kernel does not have is left out.
fn of_system(root: &Path) -> Vec<Finding> {
    let mut findings: Vec<Finding> = LEAST
        .iter()
        .filter_map(|setting| at_least(root, setting))
        .collect();
    findings.extend(port_range(root));
    findings.extend(tw_reuse(root));
    findings.extend(slow_start(root));
    findings.extend(low_ports(root));
    findings
}

fn read(root: &Path, name: &str) -> Option<String> {
    let path = root.join("proc/sys").join(name.replace('.', "/"));
    Some(std::fs::read_to_string(path).ok()?.trim().to_owned())
}

fn number(root: &Path, name: &str) -> Option<u64> {
    read(root, name)?.parse().ok()
}

fn sysctl(name: &str, value: &str) -> String {
    format!("sysctl -w {name}={value}")
}

fn at_least(root: &Path, setting: &Least) -> Option<Finding> {
    let now = number(root, setting.name)?;
    let better = (now < setting.least).then(|| Better {
        value: match setting.least {
            1 => "1".to_owned(),
            least => format!("{least} or more"),
        },
        command: sysctl(setting.name, &setting.least.to_string()),
    });
    Some(Finding {
        name: setting.name,
        now: now.to_string(),
        better,
        why: setting.why,
    })
}

fn port_range(root: &Path) -> Option<Finding> {
    let name = "net.ipv4.ip_local_port_range";
    let text = read(root, name)?;
    let mut bounds = text.split_whitespace().map(str::parse::<u64>);
    let (Some(Ok(first)), Some(Ok(last))) = (bounds.next(), bounds.next()) else {
        return None;
    };
    let ports = (last + 1).saturating_sub(first);
    let better = (ports < 50_000).then(|| Better {
        value: "10240 to 65535".to_owned(),
        command: sysctl(name, "\"10240 65535\""),
    });
    Some(Finding {
        name,
        now: format!("{first} to {last}, {ports} ports"),
        better,
        why: "Each connection to a peer takes a port of this range, for a minute after its end \
              too. Without a free one a peer cannot be connected to.",
    })
}

fn tw_reuse(root: &Path) -> Option<Finding> {
    let name = "net.ipv4.tcp_tw_reuse";
    let now = number(root, name)?;
    let better = (now != 1).then(|| Better {
        value: "1".to_owned(),
        command: sysctl(name, "1"),
    });
    Some(Finding {
        name,
        now: match now {
            2 => "2 (on loopback only)".to_owned(),
            now => now.to_string(),
        },
        better,
        why: "Lets a new connection to a peer take the port of one that has just ended. It is \
              safe: time stamps keep the two apart.",
    })
}

fn slow_start(root: &Path) -> Option<Finding> {
    let name = "net.ipv4.tcp_slow_start_after_idle";
    let now = number(root, name)?;
    let better = (now != 0).then(|| Better {
        value: "0".to_owned(),
        command: sysctl(name, "0"),
    });
    Some(Finding {
        name,
        now: now.to_string(),
        better,
        why: "With 1 a connection that was idle begins slowly again, so that the next answer on \
              it takes more round trips.",
    })
}

/// Whether ports 80 and 443 can be bound.
fn low_ports(root: &Path) -> Option<Finding> {
    const CAP_NET_BIND_SERVICE: u64 = 1 << 10;
    let name = "net.ipv4.ip_unprivileged_port_start";
    let first = number(root, name)?;
    let status = std::fs::read_to_string(root.join("proc/self/status")).ok()?;
    let field = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    let held = u64::from_str_radix(field.trim(), 16).ok()?;
    let may = held & CAP_NET_BIND_SERVICE != 0;
    let better = (!may && first > 80).then(|| Better {
        value: "80, or start Forebay as root".to_owned(),
        command: sysctl(name, "80"),
    });
    Some(Finding {
        name,
        now: match may {
            true => format!("{first}, and this user may bind every port"),
            false => first.to_string(),
        },
        better,
        why: "This user cannot bind ports 80 and 443. As root, Forebay binds them and then \
              becomes the user that `server { user = … }` names.",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of a machine with these settings.
    fn said(settings: &[(&str, &str)]) -> String {
        let root = tempfile::tempdir().unwrap();
        for (name, value) in settings {
            let path = match name.contains('/') {
                true => root.path().join(name),
                false => root.path().join("proc/sys").join(name.replace('.', "/")),
            };
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, value).unwrap();
        }
        show(&of_system(root.path()))
    }

    #[test]
    fn settings_are_judged() {
        for (name, value, right) in [
            ("net.core.somaxconn", "128\n", false),
            ("net.core.somaxconn", "4096\n", true),
            ("net.ipv4.tcp_max_syn_backlog", "1024\n", false),
            ("net.ipv4.tcp_migrate_req", "0\n", false),
            ("net.ipv4.tcp_migrate_req", "1\n", true),
            ("net.ipv4.ip_local_port_range", "32768\t60999\n", false),
            ("net.ipv4.ip_local_port_range", "1024 65535", true),
            ("net.ipv4.tcp_tw_reuse", "2\n", false),
            ("net.ipv4.tcp_slow_start_after_idle", "1\n", false),
            ("net.ipv4.tcp_slow_start_after_idle", "0\n", true),
        ] {
            let said = said(&[(name, value)]);
            let lead = if right { "ok    " } else { "tune  " };
            assert!(said.starts_with(&format!("{lead}{name}: ")), "{said}");
            let command = format!("$ sysctl -w {name}=");
            assert_eq!(said.contains(&command), !right, "{said}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_left_out() {
        let nothing = "\nNothing to tune.\n";
        assert_eq!(said(&[]), nothing);
        assert_eq!(said(&[("net.core.somaxconn", "many")]), nothing);
        assert_eq!(said(&[("net.ipv4.ip_local_port_range", "1")]), nothing);
    }

    #[test]
    fn low_ports_depend_on_capabilities() {
        let start = ("net.ipv4.ip_unprivileged_port_start", "1024\n");
        for (held, first) in [("0000000000000400", "ok  "), ("0000000000000000", "tune")] {
            let status = format!("Name:\tx\nCapEff:\t{held}\n");
            let said = said(&[start, ("proc/self/status", &status)]);
            assert!(said.starts_with(first), "{said}");
        }
    }

    #[test]
    fn few_files_are_too_few() {
        assert!(open_files(1024, 4096).better.is_some());
        assert!(open_files(1024, 1_048_576).better.is_none());
    }
}
