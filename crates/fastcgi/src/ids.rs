//! The requests under way on one connection, by their ids.

use smallvec::SmallVec;

/// In the order of the ids: a few, so that shifting them costs less than a table of hashes, which
/// a peer that chooses the ids could fill badly.
#[derive(Debug)]
pub(crate) struct Ids<T> {
    /// Most connections have one at a time.
    rows: SmallVec<[(u16, T); 1]>,
}

impl<T> Default for Ids<T> {
    fn default() -> Self {
        Self {
            rows: SmallVec::new(),
        }
    }
}

impl<T> Ids<T> {
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    fn place(&self, id: u16) -> Result<usize, usize> {
        self.rows.binary_search_by_key(&id, |row| row.0)
    }

    pub(crate) fn get(&self, id: u16) -> Option<&T> {
        let at = self.place(id).ok()?;
        self.rows.get(at).map(|row| &row.1)
    }

    pub(crate) fn get_mut(&mut self, id: u16) -> Option<&mut T> {
        let at = self.place(id).ok()?;
        self.rows.get_mut(at).map(|row| &mut row.1)
    }

    /// Nothing happens if the id is there; says whether it was not.
    pub(crate) fn insert(&mut self, id: u16, value: T) -> bool {
        match self.place(id) {
            Ok(_) => false,
            Err(at) => {
                self.rows.insert(at, (id, value));
                true
            }
        }
    }

    pub(crate) fn remove(&mut self, id: u16) -> Option<T> {
        let at = self.place(id).ok()?;
        Some(self.rows.remove(at).1)
    }

    /// The lowest id from 1 on that is free.
    pub(crate) fn free(&self) -> Option<u16> {
        let mut free = 1_u16;
        for (id, _) in &self.rows {
            if *id > free {
                break;
            }
            free = id.checked_add(1)?;
        }
        Some(free)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        self.rows.iter().map(|row| row.0)
    }
}
