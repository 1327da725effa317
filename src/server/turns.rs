//! Which of several servers on one store schedules and controls.

use std::fs;

use anyhow::Context as _;
use fairlead_controllers::{Election, Times};
use kube::Client;
use tokio_util::sync::CancellationToken;

use crate::store::select::Kind;

/// The leases, by upstream's names.
pub(super) const CONTROLLERS: &str = "kube-controller-manager";
pub(super) const SCHEDULER: &str = "kube-scheduler";

/// Who acts when.
#[derive(Clone)]
pub(super) struct Turns {
    client: Client,
    /// What this process is called among others; absent where there are none.
    identity: Option<String>,
}

impl Turns {
    /// An embedded store has one server. Of those on etcd one acts at a time.
    pub(super) fn new(store: Kind, client: Client) -> anyhow::Result<Self> {
        let identity = match store {
            Kind::Embedded => None,
            Kind::Etcd => Some(identity()?),
        };
        Ok(Self { client, identity })
    }

    /// Acts until `stop`, whenever it is this process's turn.
    pub(super) async fn take<F>(
        self,
        lease: &'static str,
        stop: CancellationToken,
        act: impl Fn(CancellationToken) -> F,
    ) -> anyhow::Result<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        match self.identity {
            None => act(stop).await,
            Some(identity) => {
                Election::new(self.client, lease, identity, Times::default()).run(stop, act).await;
            }
        }
        Ok(())
    }
}

/// The machine, and something that no other process has.
fn identity() -> anyhow::Result<String> {
    let read = |path: &str| fs::read_to_string(path).with_context(|| format!("cannot read {path}"));
    let host = read("/proc/sys/kernel/hostname")?;
    let unique = read("/proc/sys/kernel/random/uuid")?;
    Ok(format!("{}_{}", host.trim(), unique.trim()))
}

#[cfg(test)]
mod tests {
    use super::identity;

    #[test]
    fn no_two_processes_are_called_the_same() {
        assert_ne!(identity().unwrap(), identity().unwrap());
    }
}
