//! Which objects a zone shows.

use std::{borrow::Borrow, collections::BTreeSet, sync::Arc};

/// Some of all objects of a kind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Selection<T> {
    /// All of them.
    All,
    /// Some, but not yet known which: what is missing is a failure, not a denial.
    Unknown,
    /// These.
    These(Arc<BTreeSet<T>>),
}

impl<T: Ord> Selection<T> {
    /// Whether an object is one of them.
    pub(crate) fn has<Q: Ord + ?Sized>(&self, object: &Q) -> bool
    where
        T: Borrow<Q>,
    {
        match self {
            Self::All => true,
            Self::Unknown => false,
            Self::These(objects) => objects.contains(object),
        }
    }

    /// Whether it is known which they are.
    pub(crate) fn is_known(&self) -> bool {
        !matches!(self, Self::Unknown)
    }
}

impl<T: Ord> FromIterator<T> for Selection<T> {
    fn from_iter<I: IntoIterator<Item = T>>(objects: I) -> Self {
        Self::These(Arc::new(objects.into_iter().collect()))
    }
}
