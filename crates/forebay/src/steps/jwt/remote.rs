//! A set of keys that is fetched: what requests see of it, and how they ask for a newer one.
//!
//! Fetching is the control plane's (`control/keys.rs`). A request that finds no set, or none with
//! the key that its token names, waits for the end of the fetch that can tell, if there is one.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use forebay_config::Url;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::keys::Keys;

/// Tokens that name unknown keys lead to one fetch in this time: anybody can make such tokens.
const WANTED_EVERY_MS: u64 = 60_000;

/// See the module.
pub struct RemoteKeys {
    /// Where it is fetched.
    pub url: Url,
    keys: ArcSwapOption<Keys>,
    fetches: Mutex<Fetches>,
    /// The number of the last fetch that has ended.
    ended: watch::Sender<u64>,
    woken: Arc<Notify>,
}

/// Fetches by their numbers, from 1.
#[derive(Default)]
struct Fetches {
    /// The last one that has begun.
    begun: u64,
    /// The last one that has ended.
    ended: u64,
    /// The one that requests wait for.
    wanted: u64,
    /// When it was asked for.
    wanted_ms: Option<u64>,
}

impl RemoteKeys {
    /// Nothing has been fetched yet.
    pub fn new(url: Url) -> RemoteKeys {
        RemoteKeys {
            url,
            keys: ArcSwapOption::empty(),
            fetches: Mutex::default(),
            ended: watch::Sender::new(0),
            woken: Arc::default(),
        }
    }

    /// The last good set.
    pub fn now(&self) -> Option<Arc<Keys>> {
        self.keys.load_full()
    }

    /// The fetch that will bring the first set, if one is under way.
    pub fn coming(&self) -> Option<u64> {
        let fetches = self.fetches.lock();
        let is_on = fetches.begun > fetches.ended || fetches.begun == 0;
        is_on.then(|| fetches.begun.max(1))
    }

    /// Asks for a newer set: the fetch that brings it, which begins after this call or an earlier
    /// one; none if there was one a moment ago.
    pub fn want(&self, now_ms: u64) -> Option<u64> {
        let mut fetches = self.fetches.lock();
        if fetches.wanted > fetches.ended {
            return Some(fetches.wanted);
        }
        let asked_ms = fetches.wanted_ms;
        if asked_ms.is_some_and(|asked_ms| now_ms < asked_ms + WANTED_EVERY_MS) {
            return None;
        }
        fetches.wanted_ms = Some(now_ms);
        fetches.wanted = fetches.begun + 1;
        self.woken.notify_one();
        Some(fetches.wanted)
    }

    /// Waits for the end of a fetch.
    pub async fn wait(&self, number: u64) {
        // It fails only when the sender is gone, which is here.
        let _ = self
            .ended
            .subscribe()
            .wait_for(|ended| *ended >= number)
            .await;
    }

    /// A fetch begins.
    pub fn begin(&self) {
        self.fetches.lock().begun += 1;
    }

    /// What it has brought becomes the set, if it is one: how many keys.
    pub fn take(&self, bytes: &[u8]) -> Result<usize, String> {
        let keys = Keys::fetched(bytes).map_err(str::to_owned)?;
        let count = keys.len();
        self.keys.store(Some(Arc::new(keys)));
        Ok(count)
    }

    /// It has ended, well or not.
    pub fn end(&self) {
        let mut fetches = self.fetches.lock();
        fetches.ended = fetches.begun;
        self.ended.send_replace(fetches.ended);
    }

    /// Rings when a fetch is asked for.
    pub fn woken(&self) -> Arc<Notify> {
        self.woken.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forged_names_of_keys_lead_to_one_fetch_a_minute() {
        let url = Url::parse("https://id.test/keys").expect("a URL");
        let keys = RemoteKeys::new(url);
        // Before the first fetch has begun, it is the first.
        assert_eq!(keys.coming(), Some(1));
        keys.begin();
        assert_eq!(keys.coming(), Some(1));
        // What is under way may have been read before the key was there.
        assert_eq!(keys.want(5), Some(2));
        assert_eq!(keys.want(6), Some(2));
        keys.end();
        assert_eq!((keys.coming(), keys.want(7)), (None, Some(2)));
        keys.begin();
        keys.end();
        for now_ms in [8, 1_000, 60_004] {
            assert_eq!(keys.want(now_ms), None, "{now_ms}");
        }
        assert_eq!(keys.want(60_005), Some(3));
        keys.begin();
        keys.end();
        assert_eq!(keys.want(60_006), None);
    }

    #[test]
    fn what_is_no_set_changes_nothing() {
        let url = Url::parse("https://id.test/keys").expect("a URL");
        let keys = RemoteKeys::new(url);
        let set = include_bytes!("fixtures/keys.json");
        assert!(keys.take(b"").is_err() && keys.now().is_none());
        assert_eq!(keys.take(set), Ok(4));
        let before = keys.now().expect("a set");
        for garbage in [&b"<html>"[..], b"{}", b"{\"keys\": []}", &set[..200]] {
            assert!(keys.take(garbage).is_err());
            assert!(Arc::ptr_eq(&before, &keys.now().expect("a set")));
        }
    }
}
