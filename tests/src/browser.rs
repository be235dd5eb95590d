//! A browser from Debian that shows a page without a screen.

use std::process::{Command, Stdio};

use tempfile::TempDir;

/// Chromium, to be told what to show.
pub struct Browser {
    /// The command, with what every run of it needs.
    pub command: Command,
    _home: TempDir,
}

impl Browser {
    /// One that nobody has used yet, for a screen that is dark or light.
    ///
    /// # Panics
    /// When no directory can be made.
    #[must_use]
    pub fn new(is_dark: bool) -> Self {
        let home = TempDir::new().expect("a directory");
        let mut command = Command::new("chromium");
        // Chromium's own numbers: 0 is dark, 1 is light.
        let scheme = u8::from(!is_dark);
        command
            .args(["--headless", "--no-sandbox", "--disable-gpu"])
            .arg(format!("--user-data-dir={}", home.path().display()))
            .arg(format!("--blink-settings=preferredColorScheme={scheme}"))
            // It binds a socket in there, whose name may have no more than 107 bytes.
            .env("TMPDIR", "/tmp")
            .stdin(Stdio::null());
        Self {
            command,
            _home: home,
        }
    }
}
