//! Caches with disks: a server whose store is in a directory of its own, an origin whose every body can
//! be told from every other one, and disks that are full.

use std::path::Path;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::Value;
use tempfile::TempDir;

use crate::{Origin, Request, Response, Script, Server, wait};

/// A store with a disk.
pub const STORE: &str =
    r#"cache_store { memory = "8MB", disk = "@dir@/store", disk_size = "256MB" }"#;
/// A site that is cached in it.
pub const SITE: &str = r#"site { "*", cache { purge = method "PURGE" }, proxy "@origin@" }"#;

/// An origin whose `/LEN/…` is a body of this length, for each `X-Device` another one.
#[must_use]
pub fn origin() -> Origin {
    Origin::setup()
        .handle(move |received| {
            let len = received.target.split('/').nth(1).unwrap_or("");
            let len = len.parse().unwrap_or(0);
            let device = received.field("x-device").unwrap_or("none");
            let text = format!("{} {device} ", received.target);
            let body: Vec<u8> = text.bytes().cycle().take(len).collect();
            let fields = format!(
                "Cache-Control: max-age=600\r\nETag: \"{len}\"\r\nVary: X-Device\r\n\
                 Cache-Tag: {}\r\n",
                received.target.rsplit('/').next().unwrap_or("")
            );
            let range = received.field("range").and_then(|range| {
                let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
                Some((first.parse().ok()?, last.parse().unwrap_or(len - 1)))
            });
            let Some((first, last)): Option<(usize, usize)> = range else {
                return Script::with_fields(200, &fields, body);
            };
            let fields = format!("{fields}Content-Range: bytes {first}-{last}/{len}\r\n");
            Script::with_fields(206, &fields, &body[first..=last])
        })
        .start()
}

/// A server with a disk before that origin.
pub struct Case {
    pub server: Server,
    pub origin: Origin,
}

impl Case {
    /// With one directory.
    pub fn start() -> Case {
        Case::with(&format!("{STORE} {SITE}"))
    }

    /// With this configuration.
    pub fn with(config: &str) -> Case {
        let origin = origin();
        let server = Server::builder(config).origin("origin", &origin).start();
        Case { server, origin }
    }

    /// Asks for this, and checks that it is what it must be.
    #[track_caller]
    pub fn ask(&self, device: &str, target: &str) -> Response {
        let request = Request::get(target).field("X-Device", device);
        let got = self.server.client().request(&request);
        assert_eq!(got.status(), 200, "{target}");
        let len: usize = target.split('/').nth(1).unwrap().parse().unwrap();
        let text = format!("{target} {device} ");
        assert!(
            got.body.iter().copied().eq(text.bytes().cycle().take(len)),
            "{target}"
        );
        got
    }

    /// Whether the origin is not asked for this.
    #[track_caller]
    pub fn is_stored(&self, device: &str, target: &str) -> bool {
        let before = self.origin.requests().len();
        let got = self.ask(device, target);
        let says = got.head.all("cache-status")[0].to_owned();
        let asked = self.origin.requests().len() - before;
        assert_eq!(says.contains("hit"), asked == 0, "{says}");
        asked == 0
    }

    /// What the server says of the disks of its store.
    pub fn disk(&self) -> Value {
        let said = self.server.command("status --json").expect(0).stdout;
        let status: Value = serde_json::from_str(&said).expect("JSON");
        status["stores"][0]["disk"].clone()
    }

    /// Until so many objects are on the disk.
    #[track_caller]
    pub fn written(&self, objects: u64) {
        wait::until("objects to be written", || {
            let disk = self.disk();
            disk["objects"] == objects && disk["queue_bytes"] == 0
        });
    }

    /// The files in which bodies are.
    pub fn segments(&self) -> Vec<std::path::PathBuf> {
        let files = std::fs::read_dir(self.server.dir().join("store")).expect("the store");
        let files = files.map(|file| file.expect("a file").path());
        let is_segment =
            |path: &std::path::PathBuf| path.display().to_string().contains("segment-");
        files.filter(is_segment).collect()
    }
}

/// A file system that holds little, unmounted when dropped.
pub struct SmallDisk(TempDir);

impl SmallDisk {
    /// Of so many bytes.
    ///
    /// # Panics
    /// When it cannot be mounted: it needs root.
    #[must_use]
    pub fn mount(bytes: u64) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("forebay-disk-")
            .tempdir()
            .expect("a directory");
        let options = std::ffi::CString::new(format!("size={bytes}")).expect("options");
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount(
            "forebay-test",
            dir.path(),
            "tmpfs",
            flags,
            options.as_c_str(),
        )
        .expect("to mount a file system: this case has to run as root");
        Self(dir)
    }

    /// Where it is mounted.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.0.path()
    }

    /// Takes all the room that is left.
    ///
    /// # Panics
    /// When something else goes wrong.
    pub fn fill(&self) {
        let mut file = std::fs::File::create(self.dir().join("ballast")).expect("a file");
        let page = [1; 4096];
        while std::io::Write::write_all(&mut file, &page).is_ok() {}
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = unmount(self.dir(), UnmountFlags::DETACH);
    }
}
