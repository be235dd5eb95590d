//! `forebay completions`: what a shell completes on the command line.

use std::process::ExitCode;

use clap_complete::{Shell, generate};

use super::{print, shown};

/// Print the completions of a shell
///
/// With them the Tab key completes commands, options and files. The Debian package has installed
/// them.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  forebay completions bash > ~/.local/share/bash-completion/completions/forebay
  forebay completions zsh > ~/.zfunc/_forebay      with `fpath+=~/.zfunc` in ~/.zshrc
  forebay completions fish > ~/.config/fish/completions/forebay.fish")]
pub struct Args {
    /// Which shell
    #[arg(value_name = "SHELL")]
    shell: Of,
}

/// The shells that tests are run with.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Of {
    Bash,
    Zsh,
    Fish,
}

impl Args {
    /// Prints them.
    pub fn run(self) -> ExitCode {
        print(&of(self.shell))
    }
}

fn of(shell: Of) -> String {
    let shell = match shell {
        Of::Bash => Shell::Bash,
        Of::Zsh => Shell::Zsh,
        Of::Fish => Shell::Fish,
    };
    let mut out = Vec::new();
    generate(shell, &mut shown(), "forebay", &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hidden_is_not_completed() {
        for shell in [Of::Bash, Of::Zsh, Of::Fish] {
            let script = of(shell);
            assert!(script.contains("reload") && script.contains("admin"));
            assert!(!script.contains("reference"), "{script}");
        }
    }
}
