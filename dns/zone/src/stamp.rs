//! How long an answer stays true: until a version it was made from is another one.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Number of versions. Services share them by hash; a change of one outdates a thousandth of all answers.
const CELLS: usize = 1024;
/// The version of answers that depend on more than one service; every change is one for it.
const ANYTHING: usize = 0;

/// Versions of what a zone knows, shared by all its states.
#[derive(Clone, Debug)]
pub(crate) struct Versions {
    cells: Arc<[AtomicU64; CELLS]>,
}

/// What an answer was made from. Taken before the zone is read, it is current as long as the answer is.
#[derive(Clone, Debug)]
pub struct Stamp {
    versions: Versions,
    index: usize,
    value: u64,
}

impl Versions {
    pub(crate) fn new() -> Self {
        Self { cells: Arc::new(std::array::from_fn(|_| AtomicU64::new(0))) }
    }

    /// A stamp for what depends on one service, or on anything.
    pub(crate) fn stamp(&self, service: Option<u64>) -> Stamp {
        let index = service.map_or(ANYTHING, cell_of);
        Stamp { versions: self.clone(), index, value: self.cells[index].load(Ordering::Acquire) }
    }

    /// Outdates what was made from these services, and what was made from anything.
    pub(crate) fn bump(&self, services: impl Iterator<Item = u64>) {
        for index in services.map(cell_of).chain([ANYTHING]) {
            self.cells[index].fetch_add(1, Ordering::Release);
        }
    }

    /// Outdates everything.
    pub(crate) fn bump_all(&self) {
        for cell in &*self.cells {
            cell.fetch_add(1, Ordering::Release);
        }
    }
}

fn cell_of(hash: u64) -> usize {
    1 + hash as usize % (CELLS - 1)
}

impl Stamp {
    /// Whether nothing it stands for has changed since.
    pub fn is_current(&self) -> bool {
        self.versions.cells[self.index].load(Ordering::Acquire) == self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_outdates_its_service_and_what_depends_on_anything_but_not_the_others() {
        let versions = Versions::new();
        let [one, other, anything] = [Some(1), Some(2), None].map(|service| versions.stamp(service));
        versions.bump([1].into_iter());
        assert_eq!([&one, &other, &anything].map(Stamp::is_current), [false, true, false]);
        versions.bump_all();
        assert!(!other.is_current());
    }
}
