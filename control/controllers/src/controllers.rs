//! All controllers in one component.

use std::{sync::Arc, time::Duration};

use ipnet::IpNet;
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    coordination::v1::Lease,
    core::v1::{Namespace, Node, Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::Client;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    cluster_dns::ClusterDns,
    deployment::Deployments,
    driver::{Controller, Executor, Hub, Queue, work},
    endpoint_slice::EndpointSlices,
    garbage, namespace,
    node_ipam::NodeIpam,
    node_lifecycle::NodeLifecycle,
    replica_set::ReplicaSets,
};

/// What the controllers have to know of the cluster.
#[derive(Clone, Debug)]
pub struct ControllersConfig {
    /// Pod networks of the whole cluster, at most one per family; the first is the primary family.
    pub cluster_cidrs: Vec<IpNet>,
    /// Length of a node's part of an IPv4 pod network.
    pub node_mask_v4: u8,
    /// Length of a node's part of an IPv6 pod network.
    pub node_mask_v6: u8,
    /// A node without a sign of life for so long is not Ready.
    pub node_monitor_grace: Duration,
    /// How long pods that say nothing about it stay on a node that is not Ready.
    pub default_toleration: Duration,
}

impl Default for ControllersConfig {
    /// Fairlead's addresses, upstream's times.
    fn default() -> Self {
        let net = |text: &str| text.parse().expect("a constant network");
        Self {
            cluster_cidrs: vec![net("10.244.0.0/16"), net("fd00:244::/56")],
            node_mask_v4: 24,
            node_mask_v6: 64,
            node_monitor_grace: Duration::from_secs(40),
            default_toleration: Duration::from_secs(300),
        }
    }
}

/// A configuration that cannot work.
#[derive(Debug, thiserror::Error)]
pub enum ControllersError {
    /// A node's part would be larger than the whole, or longer than an address.
    #[error("a node cannot have a /{mask} of the pod network {cluster}; the node mask must lie between /{} and /{}", .cluster.prefix_len(), .cluster.max_prefix_len())]
    NodeMask {
        /// The cluster's pod network.
        cluster: IpNet,
        /// The node mask.
        mask: u8,
    },
    /// Two pod networks of one family.
    #[error(
        "the pod networks {first} and {second} are of one family; give at most one IPv4 and one IPv6 network"
    )]
    Family {
        /// The first one.
        first: IpNet,
        /// The second one.
        second: IpNet,
    },
}

impl ControllersConfig {
    fn check(&self) -> Result<(), ControllersError> {
        for (at, cluster) in self.cluster_cidrs.iter().enumerate() {
            let v4 = cluster.addr().is_ipv4();
            let mask = if v4 { self.node_mask_v4 } else { self.node_mask_v6 };
            if mask < cluster.prefix_len() || mask > cluster.max_prefix_len() {
                return Err(ControllersError::NodeMask { cluster: *cluster, mask });
            }
            let earlier = self.cluster_cidrs[..at].iter().find(|net| net.addr().is_ipv4() == v4);
            if let Some(first) = earlier {
                return Err(ControllersError::Family { first: *first, second: *cluster });
            }
        }
        Ok(())
    }
}

/// The controllers, ready to run.
#[derive(Clone)]
pub struct Controllers {
    client: Client,
    config: ControllersConfig,
}

impl Controllers {
    /// Controllers that work through the given client.
    ///
    /// # Errors
    /// The configuration contradicts itself.
    pub fn new(client: Client, config: ControllersConfig) -> Result<Self, ControllersError> {
        config.check()?;
        Ok(Self { client, config })
    }

    /// Works until the shutdown. Interrupted watches are resumed; a plan that has begun is carried out.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { client, config } = self;
        let controllers: [Arc<dyn Controller>; 6] = [
            Arc::new(NodeIpam::new(&config.cluster_cidrs, config.node_mask_v4, config.node_mask_v6)),
            Arc::new(NodeLifecycle::new(config.node_monitor_grace, config.default_toleration)),
            Arc::new(ClusterDns),
            Arc::new(Deployments),
            Arc::new(ReplicaSets),
            Arc::new(EndpointSlices),
        ];
        let mut hub = Hub::default();
        let queues = controllers.clone().map(|controller| {
            let queue = Arc::new(Queue::default());
            let own = Arc::clone(&queue);
            hub.listen(move |view, touched| {
                controller.keys(view, touched).into_iter().for_each(|key| own.push(key));
            });
            queue
        });
        let namespaces = Arc::new(Queue::default());
        let own = Arc::clone(&namespaces);
        hub.listen(move |view, touched| {
            namespace::keys(view, touched).into_iter().for_each(|key| own.push(key));
        });
        let hub = Arc::new(hub);

        let mut tasks = JoinSet::new();
        watch_all(&hub, &client, &shutdown, &mut tasks);
        tasks.spawn(garbage::run(client.clone(), shutdown.clone()));
        // A controller that has not seen everything would create what exists and delete what is wanted.
        tokio::select! {
            () = hub.caches.listed() => tracing::debug!("all kinds are listed; the controllers begin"),
            () = shutdown.cancelled() => {}
        }
        for (controller, queue) in controllers.into_iter().zip(queues) {
            let (executor, events) = Executor::new(client.clone(), Arc::clone(&hub), controller.name());
            tasks.spawn(events);
            tasks.spawn(work(controller, queue, executor, shutdown.clone()));
        }
        tasks.spawn(namespace::run(client, hub, namespaces, shutdown));
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a controller ended unexpectedly");
            }
        }
    }
}

fn watch_all(hub: &Arc<Hub>, client: &Client, shutdown: &CancellationToken, tasks: &mut JoinSet<()>) {
    macro_rules! watch {
        ($($kind:ident),*) => {
            $(tasks.spawn(Arc::clone(hub).watch::<$kind>(client.clone(), shutdown.clone()));)*
        };
    }
    watch!(Node, Lease, Namespace, Pod, ReplicaSet, Deployment, Service, EndpointSlice);
}
