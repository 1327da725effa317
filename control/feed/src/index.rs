//! The cluster as readers know it, with enough history to bring a reader up to date. Pure and synchronous.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use fairlead_model::{Change, ObjectName, Revision, Update, View};

use crate::objects::{Kind, corefile_name};

/// What a watch on one kind can report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observation {
    /// An object was put or deleted.
    Changed(Change),
    /// The kind is about to be listed anew; what is not seen until [`Listed`](Self::Listed) is gone.
    Listing(Kind),
    /// All objects of the kind have been reported.
    Listed(Kind),
}

/// How a reader gets from what it has to what there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resume {
    /// Nothing has been told yet, or the reader has everything.
    Wait,
    /// The updates it lacks, in order.
    Deltas(Vec<Arc<Update>>),
    /// Everything.
    Snapshot(Update),
}

/// The view and the recent updates that led to it.
#[derive(Debug)]
pub struct Index {
    view: View,
    revision: Revision,
    pending: Vec<Change>,
    listed: BTreeSet<Kind>,
    /// Per kind being listed: the names seen since the listing began.
    listing: BTreeMap<Kind, BTreeSet<ObjectName>>,
    log: VecDeque<Arc<Update>>,
    log_changes: usize,
    log_changes_max: usize,
}

impl Index {
    /// An empty index. `epoch` must differ from every earlier life of the feed, and from 0; `log_changes_max` bounds the
    /// history, counted in changes.
    pub fn new(epoch: u64, log_changes_max: usize) -> Self {
        Self {
            view: View::default(),
            revision: Revision { epoch, sequence: 0 },
            pending: Vec::new(),
            listed: BTreeSet::new(),
            listing: BTreeMap::new(),
            log: VecDeque::new(),
            log_changes: 0,
            log_changes_max,
        }
    }

    /// The last revision that was told; sequence 0 is none.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The cluster, including what [`commit`](Self::commit) has not told yet.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Takes in what a watch reported. What changes nothing is forgotten.
    pub fn observe(&mut self, observation: Observation) {
        match observation {
            Observation::Listing(kind) => {
                self.listing.insert(kind, BTreeSet::new());
            }
            Observation::Changed(change) => {
                let (kind, name) = Kind::of(&change);
                if let Some(seen) = self.listing.get_mut(&kind) {
                    seen.insert(name);
                }
                self.change(change);
            }
            Observation::Listed(kind) => {
                let seen = self.listing.remove(&kind).unwrap_or_default();
                for name in self.names(kind).difference(&seen) {
                    self.change(kind.deletion(name.clone()));
                }
                self.listed.insert(kind);
            }
        }
    }

    /// Makes one update of everything observed since the last one. None before all kinds are listed once.
    pub fn commit(&mut self) -> Option<Revision> {
        let complete = Kind::ALL.iter().all(|kind| self.listed.contains(kind));
        let first = self.revision.sequence == 0;
        if !complete || (self.pending.is_empty() && !first) {
            return None;
        }
        self.revision.sequence += 1;
        let changes = std::mem::take(&mut self.pending);
        if first {
            // The log begins behind the first snapshot.
            return Some(self.revision);
        }
        self.log_changes += changes.len();
        self.log.push_back(Arc::new(Update { revision: self.revision, snapshot: false, changes }));
        while self.log_changes > self.log_changes_max {
            let Some(oldest) = self.log.pop_front() else { break };
            self.log_changes -= oldest.changes.len();
        }
        Some(self.revision)
    }

    /// What a reader at `revision` has to be sent.
    pub fn resume(&self, revision: Revision) -> Resume {
        if self.revision.sequence == 0 || revision == self.revision {
            return Resume::Wait;
        }
        let oldest = self.log.front().map_or(self.revision.sequence, |update| update.revision.sequence - 1);
        let known = oldest..=self.revision.sequence;
        if revision.epoch == self.revision.epoch && known.contains(&revision.sequence) {
            let missed = self.log.iter().filter(|update| update.revision.sequence > revision.sequence);
            return Resume::Deltas(missed.cloned().collect());
        }
        let changes = self.view.to_changes();
        Resume::Snapshot(Update { revision: self.revision, snapshot: true, changes })
    }

    fn change(&mut self, change: Change) {
        if !self.view.would_change(&change) {
            return;
        }
        let changes = vec![change.clone()];
        self.view.apply(Update { revision: self.revision, snapshot: false, changes });
        self.pending.push(change);
    }

    fn names(&self, kind: Kind) -> BTreeSet<ObjectName> {
        match kind {
            Kind::Service => self.view.services().map(|service| service.name.clone()).collect(),
            Kind::Slice => self.view.slices().map(|slice| slice.name.clone()).collect(),
            Kind::Pod => self.view.pods().map(|pod| pod.name.clone()).collect(),
            Kind::Node => self.view.nodes().map(|node| ObjectName::new("", &node.name)).collect(),
            Kind::Namespace => self.view.namespaces().map(|name| ObjectName::new("", name)).collect(),
            Kind::ServiceNetworks => {
                self.view.service_networks().map(|(name, _)| ObjectName::new("", name)).collect()
            }
            Kind::Corefile => self.view.corefile().map(|_| corefile_name()).into_iter().collect(),
        }
    }
}

#[cfg(test)]
mod tests;
