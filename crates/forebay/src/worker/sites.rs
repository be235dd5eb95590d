//! Sites as the exchanges of one worker hold them.
//!
//! All workers share a site. Were each exchange counted in it, all of them would write to one piece
//! of memory with every request. So a worker holds a site once, and counts its exchanges itself.

use std::cell::RefCell;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

use crate::snapshot::Site;

/// A site as an exchange holds it.
#[derive(Clone)]
pub struct HeldSite(Rc<Counted>);

/// Counted once among all workers.
struct Counted(Arc<Site>);

impl Deref for HeldSite {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.0.0
    }
}

/// The sites that were asked for last.
#[derive(Default)]
pub struct Sites(RefCell<Vec<Option<HeldSite>>>);

/// So many are kept at hand; others cost what they would cost without this.
const SITES: usize = 64;

/// Sites lie at least so far from each other.
const APART: usize = 16;

impl Sites {
    /// A site to be held by an exchange.
    pub fn hold(&self, site: &Arc<Site>) -> HeldSite {
        let mut places = self.0.borrow_mut();
        if places.is_empty() {
            places.resize(SITES, None);
        }
        // Where it lies says which it is: it lies there as long as it is held.
        let place = &mut places[Arc::as_ptr(site).addr() / APART % SITES];
        match place {
            Some(held) if Arc::ptr_eq(&held.0.0, site) => held.clone(),
            _ => {
                let held = HeldSite(Rc::new(Counted(site.clone())));
                let gone = place.replace(held.clone());
                // As below.
                drop(places);
                drop(gone);
                held
            }
        }
    }

    /// Lets go of them all: they may be out of service.
    pub fn clear(&self) {
        // What goes with them may be much, and is not to find this borrowed.
        let gone = std::mem::take(&mut *self.0.borrow_mut());
        drop(gone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steps::testing::Bench;

    #[test]
    fn a_site_is_counted_once_for_all_exchanges() {
        let bench = Bench::new(r#"site { "a", respond(200) } site { "b", respond(200) }"#);
        let sites = Sites::default();
        let (a, b) = (bench.site("a"), bench.site("b"));
        let before = Arc::strong_count(a);
        let held: Vec<_> = (0..3).map(|_| sites.hold(a)).collect();
        assert!(held.iter().all(|one| Arc::ptr_eq(&one.0.0, a)));
        assert_eq!(Arc::strong_count(a), before + 1);
        assert!(Arc::ptr_eq(&sites.hold(b).0.0, b));
        sites.clear();
        assert_eq!(Arc::strong_count(a), before + 1);
        drop(held);
        assert_eq!(Arc::strong_count(a), before);
    }
}
