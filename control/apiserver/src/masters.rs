//! Where the API is reached: the addresses of all servers on the store (upstream `pkg/controlplane/reconcilers/lease.go`).
//!
//! Each server renews a key for each of its addresses. One whose key has not changed for a while, by the clock of whoever
//! looks, is gone, and its key is removed. Those that are left are the endpoints of the Service `kubernetes`. All servers
//! are on the same port.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fairlead_store::{Entry, ListRequest, Revision, StoreError};
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::Config;
use crate::api::Api;
use crate::bootstrap::{self, BootstrapError};
use crate::error::chain_of;

/// Upstream's key of a server is the address, too.
const KEYS: &str = "/registry/masterleases/";
/// How often a server renews its keys and looks at those of others.
const EVERY: Duration = Duration::from_secs(10);
/// A key that has not changed for so long is of a server that is gone.
const LASTS: Duration = Duration::from_secs(25);

/// The servers that there are, as one of them sees it.
#[derive(Debug)]
pub(crate) struct Masters {
    api: Arc<Api>,
    /// The addresses of this one that others can reach.
    own: Vec<IpAddr>,
    port: u16,
    /// Whether there may be others.
    may_be_others: bool,
    /// When a key was last seen to change.
    seen: HashMap<String, (Revision, Instant)>,
}

impl Masters {
    pub(crate) fn new(api: Arc<Api>, config: &Config, port: u16) -> Self {
        let (own, reachable): (Vec<_>, Vec<_>) = config.advertise.iter().partition(|a| a.is_loopback());
        if reachable.is_empty() && !own.is_empty() {
            tracing::warn!(advertise = ?own, "only this machine reaches the advertised address: pods do not reach the API");
        }
        let may_be_others = config.shares_store;
        Self { api, own: reachable, port, may_be_others, seen: HashMap::new() }
    }

    /// Renews and looks until `shutdown`; then takes leave.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let mut rounds = interval(EVERY);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        if self.own.is_empty() || !self.may_be_others {
            return;
        }
        while shutdown.run_until_cancelled(rounds.tick()).await.is_some() {
            if let Err(error) = self.round().await {
                tracing::warn!(error = chain_of(&error), "cannot tell where the API is reached");
            }
        }
        if let Err(error) = self.leave().await {
            tracing::debug!(error = chain_of(&error), "others will notice that this server is gone");
        }
    }

    /// Says that this server is there, and writes which ones are.
    pub(crate) async fn round(&mut self) -> Result<(), BootstrapError> {
        if self.own.is_empty() {
            return Ok(());
        }
        let mut all = self.own.clone();
        if self.may_be_others {
            for address in &self.own {
                self.renew(*address).await?;
            }
            all = self.living().await?;
        }
        self.write(&all).await
    }

    async fn renew(&self, address: IpAddr) -> Result<(), StoreError> {
        let (store, key) = (&self.api.store, format!("{KEYS}{address}"));
        let value = Bytes::from(json!({ "port": self.port }).to_string());
        settled(match store.get(&key).await? {
            Some(entry) => store.update(&key, value, entry.mod_revision).await,
            None => store.create(&key, value).await,
        })
    }

    /// The addresses whose keys still change. The others' keys are removed.
    async fn living(&mut self) -> Result<Vec<IpAddr>, StoreError> {
        let entries = self.api.store.list(ListRequest::prefix(KEYS)).await?.entries;
        self.seen.retain(|key, _| entries.iter().any(|entry| entry.key == *key));
        let mut living = Vec::new();
        for Entry { key, mod_revision, .. } in entries {
            let now = Instant::now();
            let seen = self.seen.entry(key.clone()).or_insert((mod_revision, now));
            if seen.0 != mod_revision {
                *seen = (mod_revision, now);
            }
            if now.duration_since(seen.1) < LASTS {
                living.extend(key.strip_prefix(KEYS).and_then(|address| address.parse::<IpAddr>().ok()));
            } else {
                tracing::info!(key, "a server is gone");
                settled(self.api.store.delete(&key, Some(mod_revision)).await)?;
            }
        }
        living.sort_unstable();
        Ok(living)
    }

    /// Nobody need wait for this server any longer.
    async fn leave(&mut self) -> Result<(), BootstrapError> {
        for address in &self.own {
            settled(self.api.store.delete(&format!("{KEYS}{address}"), None).await)?;
        }
        let others = self.living().await?;
        if others.is_empty() { Ok(()) } else { self.write(&others).await }
    }

    async fn write(&self, addresses: &[IpAddr]) -> Result<(), BootstrapError> {
        let endpoints = kubernetes_endpoints(addresses, self.port);
        bootstrap::apply(&self.api, "/api/v1/namespaces/default/endpoints", endpoints).await?;
        for (family, addresses) in by_family(addresses) {
            let slice = kubernetes_slice(family, &addresses, self.port);
            let path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
            bootstrap::apply(&self.api, path, slice).await?;
        }
        Ok(())
    }
}

/// Somebody else wrote the key just now.
fn settled<T>(outcome: Result<T, StoreError>) -> Result<(), StoreError> {
    match outcome {
        Err(StoreError::Exists { .. } | StoreError::NotFound { .. } | StoreError::Conflict { .. }) => Ok(()),
        outcome => outcome.map(drop),
    }
}

/// The older form of the slices, which has one family: the first's.
fn kubernetes_endpoints(addresses: &[IpAddr], port: u16) -> Value {
    let first = addresses.first().map(IpAddr::is_ipv4);
    let of_family = addresses.iter().filter(|address| Some(address.is_ipv4()) == first);
    json!({
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {
            "name": "kubernetes",
            "labels": { "endpointslice.kubernetes.io/skip-mirror": "true" },
        },
        "subsets": [{
            "addresses": of_family.map(|address| json!({ "ip": address })).collect::<Vec<_>>(),
            "ports": [{ "name": "https", "port": port, "protocol": "TCP" }],
        }],
    })
}

fn kubernetes_slice(family: &str, addresses: &[IpAddr], port: u16) -> Value {
    let suffix = if family == "IPv4" { "" } else { "-ipv6" };
    let endpoint = |address: &IpAddr| json!({ "addresses": [address], "conditions": { "ready": true } });
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": format!("kubernetes{suffix}"),
            "labels": {
                "kubernetes.io/service-name": "kubernetes",
                "endpointslice.kubernetes.io/managed-by": "fairlead-apiserver",
            },
        },
        "addressType": family,
        "endpoints": addresses.iter().map(endpoint).collect::<Vec<_>>(),
        "ports": [{ "name": "https", "port": port, "protocol": "TCP" }],
    })
}

fn by_family(addresses: &[IpAddr]) -> Vec<(&'static str, Vec<IpAddr>)> {
    let of = |v4: bool| addresses.iter().copied().filter(|a| a.is_ipv4() == v4).collect::<Vec<_>>();
    let all = [("IPv4", of(true)), ("IPv6", of(false))];
    all.into_iter().filter(|(_, addresses)| !addresses.is_empty()).collect()
}
