//! Which of several servers acts: the one that holds a Lease (as upstream's client-go `tools/leaderelection`).
//!
//! Whoever acts renews the lease. Whoever waits sees that it changes; when it has not changed for as long as it lasts, by
//! the clock of the one who waits, it is taken. A holder who cannot renew stops acting well before that. So no two
//! clocks are ever compared.

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// How long a lease lasts, and how it is kept. Upstream's times.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// When others may take it after its last renewal.
    pub lease: Duration,
    /// When its holder stops acting after its last renewal; must be less.
    pub renew_within: Duration,
    /// How often it is renewed or looked at.
    pub every: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(15),
            renew_within: Duration::from_secs(10),
            every: Duration::from_secs(2),
        }
    }
}

/// A candidate.
#[derive(Clone)]
pub struct Election {
    leases: Api<Lease>,
    name: &'static str,
    identity: String,
    times: Times,
}

/// The lease as it was seen, and since when it has looked like this.
struct Seen {
    version: Option<String>,
    since: Instant,
}

impl Election {
    /// A candidate for the lease `name` in `kube-system`; no other may have the same identity.
    #[must_use]
    pub fn new(client: Client, name: &'static str, identity: String, times: Times) -> Self {
        Self { leases: Api::namespaced(client, "kube-system"), name, identity, times }
    }

    /// Acts whenever it holds the lease, until the shutdown. What `act` returns must end soon after its token is
    /// cancelled, and not before: then this ends, too.
    pub async fn run<F>(self, shutdown: CancellationToken, act: impl Fn(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        while let Some(held) = shutdown.run_until_cancelled(self.win()).await {
            tracing::info!(lease = self.name, "holds the lease and acts");
            let stop = shutdown.child_token();
            let mut acting = JoinSet::new();
            acting.spawn(act(stop.clone()));
            let held = tokio::select! {
                held = self.hold(held, &stop) => held,
                // Whoever started this sees that it has ended; the lease ends by itself.
                ended = acting.join_next() => {
                    return tracing::error!(lease = self.name, ?ended, "what acts under the lease ended by itself");
                }
            };
            stop.cancel();
            while let Some(ended) = acting.join_next().await {
                if let Err(error) = ended {
                    tracing::error!(lease = self.name, %error, "what acts under the lease ended in a panic");
                }
            }
            match held {
                Some(held) => self.release(held).await,
                None => tracing::warn!(lease = self.name, "lost the lease and acts no longer"),
            }
        }
    }

    /// Waits until the lease is this one's.
    async fn win(&self) -> Lease {
        let mut seen = Seen { version: None, since: Instant::now() };
        loop {
            match self.try_win(&mut seen).await {
                Ok(Some(held)) => return held,
                Ok(None) => {}
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => tracing::warn!(lease = self.name, %error, "cannot ask for the lease"),
            }
            sleep(self.times.every).await;
        }
    }

    async fn try_win(&self, seen: &mut Seen) -> kube::Result<Option<Lease>> {
        let Some(lease) = self.leases.get_opt(self.name).await? else {
            let metadata = ObjectMeta { name: Some(self.name.to_owned()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(self.taken(None)) };
            return self.leases.create(&PostParams::default(), &lease).await.map(Some);
        };
        if lease.metadata.resource_version != seen.version {
            *seen = Seen { version: lease.metadata.resource_version.clone(), since: Instant::now() };
        }
        let spec = lease.spec.as_ref();
        let holder = spec.and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
        let lasts =
            spec.and_then(|spec| spec.lease_duration_seconds).and_then(|secs| u64::try_from(secs).ok());
        let lasts = lasts.map_or(self.times.lease, Duration::from_secs);
        let is_others = !holder.is_empty() && holder != self.identity;
        if is_others && seen.since.elapsed() < lasts {
            return Ok(None);
        }
        let taken = Lease { spec: Some(self.taken(spec)), ..lease };
        self.leases.replace(self.name, &PostParams::default(), &taken).await.map(Some)
    }

    /// Renews until `stop`; then returns the lease, or `None` when it is lost.
    async fn hold(&self, mut held: Lease, stop: &CancellationToken) -> Option<Lease> {
        let mut renewed = Instant::now();
        loop {
            if stop.run_until_cancelled(sleep(self.times.every)).await.is_none() {
                return Some(held);
            }
            // The time before it is asked: the lease may be seen by others from then on.
            let asked = Instant::now();
            let left = (renewed + self.times.renew_within).saturating_duration_since(asked);
            match timeout(left, self.renew(&held)).await {
                Ok(Ok(lease)) => (held, renewed) = (lease, asked),
                // Somebody else has written it.
                Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => return None,
                Ok(Err(error)) if asked.elapsed() < left => {
                    tracing::warn!(lease = self.name, %error, "cannot renew the lease yet");
                }
                Ok(Err(_)) | Err(_) => return None,
            }
        }
    }

    async fn renew(&self, held: &Lease) -> kube::Result<Lease> {
        let mut lease = held.clone();
        lease.spec.get_or_insert_default().renew_time = Some(now());
        self.leases.replace(self.name, &PostParams::default(), &lease).await
    }

    /// Lets the next one begin at once.
    async fn release(&self, held: Lease) {
        let spec = held.spec.clone().unwrap_or_default();
        let spec = LeaseSpec { holder_identity: Some(String::new()), renew_time: Some(now()), ..spec };
        let lease = Lease { spec: Some(spec), ..held };
        let params = PostParams::default();
        let replaced = self.leases.replace(self.name, &params, &lease);
        if let Ok(Err(error)) = timeout(self.times.every, replaced).await {
            tracing::debug!(lease = self.name, %error, "the lease is not released; it ends by itself");
        }
    }

    fn taken(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let transitions = before.map_or(0, |before| before.lease_transitions.unwrap_or_default() + 1);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            // Whole seconds, and not less than it lasts.
            lease_duration_seconds: i32::try_from(self.times.lease.as_millis().div_ceil(1_000)).ok(),
            acquire_time: Some(now()),
            renew_time: Some(now()),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }
}

fn now() -> MicroTime {
    MicroTime(Timestamp::now())
}
