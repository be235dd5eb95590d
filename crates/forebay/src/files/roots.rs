//! The directories that files are served from, held open.
//!
//! A root is looked at again at most once a second: a deployment that points a link at the next
//! release (`current -> releases/42`) must be seen, and must not cost a lookup per request.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use forebay_sys::files::{Facts, Links, Root};
use rustc_hash::FxHashMap;

use super::{CHECK_MS, Files};
use crate::exchange::Fault;

/// Roots held open by one worker; each is a descriptor. With more in use than this, the one that
/// was opened first is opened again when it is needed.
const MAX_ROOTS: usize = 1024;

/// A root that is open.
#[derive(Clone)]
pub struct Opened {
    /// The directory.
    pub root: Arc<Root>,
    /// The file system it is on.
    pub device: u64,
    inode: u64,
    /// Opening a file there asks nobody else: a file system of this machine, and not one that has
    /// to ask a server or another process.
    pub is_local: bool,
}

struct Place {
    opened: Opened,
    checked_ms: Cell<u64>,
}

/// A worker's open roots, by their absolute paths.
#[derive(Default)]
pub struct Roots {
    places: RefCell<FxHashMap<Rc<[u8]>, Place>>,
    order: RefCell<VecDeque<Rc<[u8]>>>,
    /// `/`, to look at the others without waiting.
    top: RefCell<Option<Arc<Root>>>,
}

impl Roots {
    /// The root at this path if it is open and known to be the right one.
    ///
    /// # Errors
    /// `WouldBlock`: ask [`wait`](Roots::wait).
    pub fn now(&self, path: &[u8], now_ms: u64) -> io::Result<Opened> {
        let places = self.places.borrow();
        let place = places.get(path).ok_or(io::ErrorKind::WouldBlock)?;
        if now_ms.saturating_sub(place.checked_ms.get()) >= CHECK_MS {
            if !place.opened.is_local {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            // Whatever is wrong with it, the pool will see and say; some paths, as `/a/../b`,
            // cannot be looked at in this way at all.
            let looked = self
                .top()
                .and_then(|top| top.open_now(relative(path), Links::Any));
            let facts = looked.and_then(Facts::of);
            if !facts.is_ok_and(|facts| place.opened.is(&facts)) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            place.checked_ms.set(now_ms);
        }
        Ok(place.opened.clone())
    }

    /// The root at this path, opened or looked at on the pool.
    ///
    /// # Errors
    /// Too many wait; inside, what the system says of the path.
    pub async fn wait(
        files: &Files,
        path: &[u8],
        now_ms: u64,
    ) -> Result<io::Result<Opened>, Fault> {
        let roots = &files.roots;
        let known = match roots.now(path, now_ms) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let places = roots.places.borrow();
                places.get(path).map(|place| place.opened.clone())
            }
            found => return Ok(found),
        };
        // The lane of what was there before: that is what hangs, if anything does.
        let device = known.as_ref().map_or(0, |known| known.device);
        let at = path.to_vec();
        let opened = files
            .pool
            .run_or_refuse(device, move || Opened::open(&at, known))
            .await?;
        Ok(opened.inspect(|opened| roots.keep(path, opened.clone(), now_ms)))
    }

    /// Looks for something under the root at this path, by opening names below it: on the worker, or
    /// where waiting is allowed.
    ///
    /// # Errors
    /// Too many wait; inside, what the system says of the root, or `find` of what it has opened.
    pub async fn look<T: Send + 'static>(
        files: &Files,
        path: &[u8],
        now_ms: u64,
        links: Links,
        find: impl Fn(&dyn Fn(&[u8]) -> io::Result<File>) -> io::Result<T> + Send + 'static,
    ) -> Result<io::Result<T>, Fault> {
        let disk = files.disk.clone();
        let opened = match files.roots.now(path, now_ms) {
            Ok(opened) if opened.is_local => {
                match find(&|name| disk.open_now(&opened.root, name, links)) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(opened),
                    found => return Ok(found),
                }
            }
            _ => Roots::wait(files, path, now_ms).await?,
        };
        let opened = match opened {
            Ok(opened) => opened,
            Err(error) => return Ok(Err(error)),
        };
        let device = opened.device;
        let look = move || find(&|name| disk.open(&opened.root, name, links));
        files.pool.run_or_refuse(device, look).await
    }

    fn keep(&self, path: &[u8], opened: Opened, now_ms: u64) {
        let mut places = self.places.borrow_mut();
        let mut order = self.order.borrow_mut();
        if let Some(place) = places.get_mut(path) {
            *place = Place {
                opened,
                checked_ms: Cell::new(now_ms),
            };
            return;
        }
        if places.len() >= MAX_ROOTS
            && let Some(first) = order.pop_front()
        {
            places.remove(&first);
        }
        let path: Rc<[u8]> = path.into();
        order.push_back(path.clone());
        places.insert(
            path,
            Place {
                opened,
                checked_ms: Cell::new(now_ms),
            },
        );
    }

    /// Makes every root be looked at again at its next use.
    #[cfg(test)]
    pub fn expire(&self) {
        self.places
            .borrow()
            .values()
            .for_each(|place| place.checked_ms.set(0));
    }

    fn top(&self) -> io::Result<Arc<Root>> {
        let mut top = self.top.borrow_mut();
        if let Some(top) = &*top {
            return Ok(top.clone());
        }
        Ok(top.insert(Arc::new(Root::open_dir("/")?)).clone())
    }
}

impl Opened {
    fn is(&self, facts: &Facts) -> bool {
        (self.device, self.inode) == (facts.device, facts.inode)
    }

    /// Opens it; gives back the one that is known if it still is the same directory.
    fn open(path: &[u8], known: Option<Opened>) -> io::Result<Opened> {
        use std::os::unix::ffi::OsStrExt;
        let root = Root::open_dir(Path::new(std::ffi::OsStr::from_bytes(path)))?;
        let dir = root.open(b"", Links::None)?;
        let facts = Facts::of(&dir)?;
        if let Some(known) = known.filter(|known| known.is(&facts)) {
            return Ok(known);
        }
        let is_local = is_local(&dir);
        Ok(Opened {
            root: Arc::new(root),
            device: facts.device,
            inode: facts.inode,
            is_local,
        })
    }
}

/// Whether opening a file next to this one waits for nobody but the kernel, once its name is in
/// memory. `RESOLVE_CACHED` only speaks of names: the `open` itself is sent to the server of a
/// network file system or the process behind FUSE, which may be as slow as it likes.
#[cfg(target_os = "linux")]
fn is_local(dir: &std::fs::File) -> bool {
    // The magic numbers of statfs(2).
    const LOCAL: [u64; 14] = [
        0xef53,      // ext2, ext3, ext4
        0x5846_5342, // XFS
        0x9123_683e, // btrfs
        0x0102_1994, // tmpfs
        0x8584_58f6, // ramfs
        0x794c_7630, // overlayfs
        0x2fc1_2fc1, // ZFS
        0xf2f5_2010, // F2FS
        0xca45_1a4e, // bcachefs
        0x7371_7368, // SquashFS
        0xe0f5_e1e2, // EROFS
        0x3153_464a, // JFS
        0x4d44,      // FAT
        0x9660,      // ISO 9660
    ];
    // Its type's width and sign differ between platforms; the numbers are of 32 bits.
    rustix::fs::fstatfs(dir).is_ok_and(|stat| {
        let magic = i128::from(stat.f_type) & 0xffff_ffff;
        LOCAL.iter().any(|local| i128::from(*local) == magic)
    })
}

/// Not known: everything is opened on the pool.
#[cfg(not(target_os = "linux"))]
fn is_local(_: &std::fs::File) -> bool {
    false
}

/// An absolute path as one below `/`.
fn relative(path: &[u8]) -> &[u8] {
    let slashes = path.iter().take_while(|&&byte| byte == b'/').count();
    &path[slashes..]
}
