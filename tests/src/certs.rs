//! Certificates of an authority of the test's own, made by `openssl`.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

const CONFIG: &str = "[req]\ndistinguished_name = dn\nprompt = no\n[dn]\nCN = Test authority\n\
                      [ca]\nbasicConstraints = critical, CA:TRUE\n\
                      keyUsage = critical, keyCertSign\n";

const NEW_KEY: [&str; 5] = [
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:prime256v1",
    "-nodes",
];

/// An authority that signs what it is given.
pub struct Authority {
    dir: TempDir,
}

/// A certificate and its key, in files.
pub struct Certificate {
    /// The certificate, in PEM form.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Authority {
    /// A new one.
    ///
    /// # Panics
    /// When `openssl` is not installed.
    #[must_use]
    pub fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("forebay-certs-")
            .tempdir()
            .expect("a directory");
        std::fs::write(dir.path().join("config"), CONFIG).expect("a file");
        let authority = Self { dir };
        let mut args = vec!["req", "-x509", "-config", "config", "-extensions", "ca"];
        args.extend(NEW_KEY);
        args.extend(["-keyout", "ca.key", "-out", "ca.pem", "-days", "30"]);
        authority.openssl(&args);
        authority
    }

    /// Its own certificate.
    #[must_use]
    pub fn cert(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// A certificate for a name (`DNS:a.test`, `IP:127.0.0.1`).
    ///
    /// # Panics
    /// See [`Authority::new`].
    #[must_use]
    pub fn issue(&self, name: &str) -> Certificate {
        self.issue_for_days(name, 10)
    }

    /// One whose time is over.
    ///
    /// # Panics
    /// See [`Authority::new`].
    #[must_use]
    pub fn issue_expired(&self, name: &str) -> Certificate {
        self.issue_for_days(name, -1)
    }

    fn issue_for_days(&self, name: &str, days: i32) -> Certificate {
        let stem: String = name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .collect();
        let file = |ending: &str| format!("{stem}.{ending}");
        let (key, csr, cert) = (file("key"), file("csr"), file("pem"));
        let subject = format!("/CN={}", name.rsplit(':').next().unwrap_or_default());
        let mut args = vec!["req", "-new", "-config", "config", "-subj", &subject];
        args.extend(NEW_KEY);
        args.extend(["-keyout", &key, "-out", &csr]);
        self.openssl(&args);
        let extensions = file("ext");
        let text = format!("subjectAltName = {name}\n");
        std::fs::write(self.dir.path().join(&extensions), text).expect("a file");
        let days = days.to_string();
        let mut args = vec!["x509", "-req", "-in", &csr, "-CA", "ca.pem"];
        args.extend(["-CAkey", "ca.key", "-CAcreateserial", "-days", &days]);
        args.extend(["-extfile", &extensions, "-out", &cert]);
        self.openssl(&args);
        Certificate {
            cert: self.path(&cert),
            key: self.path(&key),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        let path: &Path = self.dir.path();
        path.join(name)
    }

    fn openssl(&self, args: &[&str]) {
        let output = Command::new("openssl")
            .args(args)
            .current_dir(self.dir.path())
            .output()
            .expect("openssl, of the Debian package openssl");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {args:?}: {said}");
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Certificate {
    /// The certificate's text.
    ///
    /// # Panics
    /// When it is gone.
    #[must_use]
    pub fn cert_pem(&self) -> Vec<u8> {
        std::fs::read(&self.cert).expect("a certificate")
    }

    /// The key's text.
    ///
    /// # Panics
    /// When it is gone.
    #[must_use]
    pub fn key_pem(&self) -> Vec<u8> {
        std::fs::read(&self.key).expect("a key")
    }
}
