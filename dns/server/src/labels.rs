//! Objects by their labels, which the feed does not carry.

use std::{collections::BTreeSet, fmt::Debug};

use fairlead_model::ObjectName;
use futures::stream::BoxStream;

/// Kinds whose labels decide what DNS shows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Labelled {
    /// Services, and with them their endpoints.
    Services,
    /// Namespaces; their names have no namespace.
    Namespaces,
    /// Pods, where their addresses have names.
    Pods,
}

/// The names of the objects that match a selector: all of them, and again after each change.
pub type Selected = BoxStream<'static, BTreeSet<ObjectName>>;

/// Who knows the labels.
pub trait Labels: Debug + Send + Sync {
    /// Follows the objects of a kind that match a selector; the error says what is wrong with the selector.
    fn select(&self, kind: Labelled, selector: &str) -> Result<Selected, String>;
}
