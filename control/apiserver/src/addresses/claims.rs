//! Claims: an address or a node port is somebody's when a key in the store says so.
//!
//! The key is written in the transaction that writes the Service, so a claim and its Service are there together or not
//! at all, whichever server wrote them and wherever it was stopped. What this process remembers of the claims only says
//! which ones not to try; the store decides.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use fairlead_store::{ListRequest, Store, StoreError, Write};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::family_of;
use crate::object;
use crate::resource::FieldError;

/// Addresses are objects of their own, as upstream's `IPAddress`.
pub(super) const ADDRESSES: &str = "/registry/ipaddresses/";
/// Below what upstream calls the range of node ports, one key for each.
pub(super) const NODE_PORTS: &str = "/registry/ranges/servicenodeports/";

/// Who makes and removes an `IPAddress`.
pub(super) const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
pub(super) const ALLOCATOR: &str = "ipallocator.k8s.io";

/// Something that one Service has and no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Claim {
    /// A cluster address.
    Address(IpAddr),
    /// A port of every node, of any protocol.
    NodePort(u16),
}

/// What a write of a Service takes and gives back.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct Claims {
    taken: Vec<Taken>,
    released: Vec<Claim>,
}

#[derive(Debug)]
struct Taken {
    claim: Claim,
    /// What to say when somebody else has it; absent when any other would do.
    refusal: Option<FieldError>,
}

/// What a lost race for a claim means.
#[derive(Debug)]
pub(crate) enum Lost {
    /// Another one will do.
    TryAgain,
    /// It was this one that was asked for.
    Refused(FieldError),
}

/// The claims that this process knows of.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<HashSet<Claim>>);

impl Claim {
    /// The key that says whose it is.
    pub(super) fn key(self) -> String {
        match self {
            Self::Address(address) => format!("{ADDRESSES}{address}"),
            Self::NodePort(port) => format!("{NODE_PORTS}{port}"),
        }
    }

    pub(super) fn of_key(key: &str) -> Option<Self> {
        if let Some(address) = key.strip_prefix(ADDRESSES) {
            return address.parse().ok().map(Self::Address);
        }
        key.strip_prefix(NODE_PORTS)?.parse().ok().map(Self::NodePort)
    }

    /// What the key holds: for an address the object that upstream's allocator makes.
    pub(super) fn value(self, service: &Value) -> Bytes {
        let owner = json!({
            "group": "",
            "resource": "services",
            "namespace": object::meta(service, "namespace"),
            "name": object::meta(service, "name"),
        });
        match self {
            Self::Address(address) => object::encode_stored(&json!({
                "apiVersion": "networking.k8s.io/v1",
                "kind": "IPAddress",
                "metadata": {
                    "name": address,
                    "uid": uuid::Uuid::new_v4().to_string(),
                    "creationTimestamp": object::time(Timestamp::now()),
                    "labels": {
                        "ipaddress.kubernetes.io/ip-family": family_of(&address),
                        MANAGED_BY: ALLOCATOR,
                    },
                    "generation": 1,
                },
                "spec": { "parentRef": owner },
            })),
            Self::NodePort(_) => Bytes::from(json!({ "spec": { "parentRef": owner } }).to_string()),
        }
    }
}

impl Claims {
    /// Takes one that any other would do for.
    pub(super) fn take(&mut self, claim: Claim) {
        self.taken.push(Taken { claim, refusal: None });
    }

    /// Takes the one that was asked for; the error is told when it is somebody else's.
    pub(super) fn take_asked(&mut self, claim: Claim, refusal: FieldError) {
        self.taken.push(Taken { claim, refusal: Some(refusal) });
    }

    pub(super) fn release(&mut self, claims: impl IntoIterator<Item = Claim>) {
        self.released.extend(claims);
    }

    pub(super) fn takes(&self, claim: Claim) -> bool {
        self.taken.iter().any(|taken| taken.claim == claim)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.taken.is_empty() && self.released.is_empty()
    }

    /// The writes that belong to that of the Service.
    pub(crate) async fn writes(&self, store: &dyn Store, service: &Value) -> Result<Vec<Write>, StoreError> {
        let create =
            |taken: &Taken| Write::Create { key: taken.claim.key(), value: taken.claim.value(service) };
        let mut writes: Vec<Write> = self.taken.iter().map(create).collect();
        for claim in &self.released {
            // A Service stored before there were claims may have none.
            if let Some(entry) = store.get(&claim.key()).await? {
                writes.push(Write::Delete { key: entry.key, expected: Some(entry.mod_revision) });
            }
        }
        Ok(writes)
    }

    /// What of the claims that were asked for is somebody else's, for a write that is only tried.
    pub(crate) async fn conflicts(&self, store: &dyn Store) -> Result<Vec<FieldError>, StoreError> {
        let mut conflicts = Vec::new();
        for taken in &self.taken {
            if let Some(refusal) = &taken.refusal
                && store.get(&taken.claim.key()).await?.is_some()
            {
                conflicts.push(refusal.clone());
            }
        }
        Ok(conflicts)
    }
}

impl Known {
    /// Reads the claims that are stored.
    pub(super) async fn reload(&self, store: &dyn Store) -> Result<(), StoreError> {
        let mut all = HashSet::new();
        for prefix in [ADDRESSES, NODE_PORTS] {
            let listing = store.list(ListRequest::prefix(prefix)).await?;
            all.extend(listing.entries.iter().filter_map(|entry| Claim::of_key(&entry.key)));
        }
        *self.lock() = all;
        Ok(())
    }

    /// The first that nobody is known to have.
    pub(super) fn first_free(
        &self,
        mut candidates: impl Iterator<Item = Claim>,
        but: &Claims,
    ) -> Option<Claim> {
        let known = self.lock();
        candidates.find(|claim| !known.contains(claim) && !but.takes(*claim))
    }

    /// The claims are in the store.
    pub(super) fn committed(&self, claims: &Claims) {
        let mut known = self.lock();
        for claim in &claims.released {
            known.remove(claim);
        }
        known.extend(claims.taken.iter().map(|taken| taken.claim));
    }

    /// What it means that this key was there already; `None` when it is none of the claims.
    pub(super) fn lost(&self, claims: &Claims, key: &str) -> Option<Lost> {
        let taken = claims.taken.iter().find(|taken| taken.claim.key() == key)?;
        self.lock().insert(taken.claim);
        Some(taken.refusal.clone().map_or(Lost::TryAgain, Lost::Refused))
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<Claim>> {
        // A set is whole after any panic of its user.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
