//! What the feed sends: a snapshot is a list of changes to nothing, a delta a list of changes to the last revision.

use crate::{EndpointSlice, Node, ObjectName, Pod, Prefix, Service};

/// A point in the feed's history. The epoch changes when the feed restarts; sequences compare within an epoch only.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Revision {
    /// Identifies one life of the feed; 0 is "never seen one".
    pub epoch: u64,
    /// Counts updates within the epoch.
    pub sequence: u64,
}

/// One object put or deleted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// A service was added or changed.
    PutService(Service),
    /// A service is gone.
    DeleteService(ObjectName),
    /// A slice was added or changed.
    PutSlice(EndpointSlice),
    /// A slice is gone.
    DeleteSlice(ObjectName),
    /// A node was added or changed.
    PutNode(Node),
    /// A node is gone.
    DeleteNode(String),
    /// A pod got addresses or moved.
    PutPod(Pod),
    /// A pod is gone or has no addresses any more.
    DeletePod(ObjectName),
    /// A namespace exists.
    PutNamespace(String),
    /// A namespace is gone.
    DeleteNamespace(String),
    /// Addresses of services are in these networks.
    PutServiceNetworks {
        /// Whoever names them; several may, and each adds its own.
        name: String,
        /// The networks, in any order.
        networks: Vec<Prefix>,
    },
    /// Nobody of that name says where addresses of services are.
    DeleteServiceNetworks(String),
    /// The cluster keeps a configuration of its DNS servers; this is its text.
    PutCorefile(String),
    /// It keeps none.
    DeleteCorefile,
}

impl Change {
    /// The same with texts of its own.
    pub(crate) fn copied(&self) -> Self {
        let mut copy = self.clone();
        match &mut copy {
            Self::PutService(Service { name, .. })
            | Self::PutSlice(EndpointSlice { name, .. })
            | Self::PutPod(Pod { name, .. }) => *name = name.copied(),
            _ => {}
        }
        copy
    }
}

/// A complete set of changes that belongs together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Update {
    /// What a reader has after applying it.
    pub revision: Revision,
    /// Replaces everything known before; else it adds to it.
    pub snapshot: bool,
    /// The changes, in order.
    pub changes: Vec<Change>,
}
