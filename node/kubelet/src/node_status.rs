//! The Node object of this node: registration, status, lease.

use std::{collections::BTreeMap, net::IpAddr, sync::OnceLock, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        coordination::v1::{Lease, LeaseSpec},
        core::v1::{ContainerImage, Node, NodeAddress, NodeCondition, NodeStatus, NodeSystemInfo},
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference, Time},
    },
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::{Config, Error, image::Image};

/// The lease is valid this long and renewed every quarter of it (upstream's defaults).
const LEASE_SECS: i32 = 40;
pub(crate) const LEASE_RENEWAL: Duration = Duration::from_secs(10);
/// An unchanged status is still written this often.
pub(crate) const STATUS_REPORT: Duration = Duration::from_secs(300);
const LEASE_NAMESPACE: &str = "kube-node-lease";
const PODS_MAX: u32 = 110;
/// As many images as upstream tells of.
const IMAGES_MAX: usize = 50;

/// What of the node changes.
#[derive(Clone, Debug)]
pub(crate) struct Health {
    /// Version, or why containerd does not answer.
    pub(crate) containerd: Result<String, String>,
    /// The network is in place.
    pub(crate) network_ready: bool,
    pub(crate) images: Vec<std::sync::Arc<Image>>,
}

/// Thousandths of a CPU in this machine.
pub(crate) fn cpu_millis() -> u64 {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64 * 1000
}

/// Bytes of memory in this machine.
pub(crate) fn memory_bytes() -> u64 {
    static BYTES: OnceLock<u64> = OnceLock::new();
    *BYTES.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
        let kib = total.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
        kib.unwrap_or(0) << 10
    })
}

/// The Node to be created.
pub(crate) fn node(config: &Config) -> Node {
    let name = &config.node_name;
    let mut labels: BTreeMap<_, _> = [
        ("kubernetes.io/hostname", name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", crate::archive::architecture()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect();
    labels.extend(config.labels.clone());
    Node {
        metadata: ObjectMeta { name: Some(name.clone()), labels: Some(labels), ..ObjectMeta::default() },
        ..Node::default()
    }
}

/// The node's status. Pure but for the facts of the machine.
pub(crate) fn status(
    config: &Config,
    health: &Health,
    before: &[NodeCondition],
    now: Timestamp,
) -> NodeStatus {
    let capacity = capacity(config);
    let reports = [
        (
            "MemoryPressure",
            "False",
            "KubeletHasSufficientMemory",
            "kubelet has sufficient memory available".to_owned(),
        ),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure".to_owned()),
        (
            "PIDPressure",
            "False",
            "KubeletHasSufficientPID",
            "kubelet has sufficient PID available".to_owned(),
        ),
        ready(health),
    ];
    let conditions = reports.map(|(kind, status, reason, message)| {
        let old = before.iter().find(|condition| condition.type_ == kind && condition.status == status);
        NodeCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_heartbeat_time: Some(Time(now)),
            last_transition_time: old.and_then(|old| old.last_transition_time.clone()).or(Some(Time(now))),
        }
    });
    NodeStatus {
        addresses: Some(addresses(&config.node_name, &config.node_ips)),
        allocatable: Some(capacity.clone()),
        capacity: Some(capacity),
        conditions: Some(conditions.to_vec()),
        daemon_endpoints: serde_json::from_value(
            json!({ "kubeletEndpoint": { "Port": config.listen.port() } }),
        )
        .ok(),
        images: Some(images(&health.images)),
        node_info: Some(system_info(health)),
        ..NodeStatus::default()
    }
}

fn ready(health: &Health) -> (&'static str, &'static str, &'static str, String) {
    match (&health.containerd, health.network_ready) {
        (Err(message), _) => {
            ("Ready", "False", "KubeletNotReady", format!("container runtime is down: {message}"))
        }
        (Ok(_), false) => {
            ("Ready", "False", "KubeletNotReady", "the node's network is not in place yet".to_owned())
        }
        (Ok(_), true) => ("Ready", "True", "KubeletReady", "kubelet is posting ready status".to_owned()),
    }
}

fn addresses(name: &str, ips: &[IpAddr]) -> Vec<NodeAddress> {
    let address = |type_: &str, address: String| NodeAddress { type_: type_.to_owned(), address };
    let ips = ips.iter().map(|ip| address("InternalIP", ip.to_string()));
    ips.chain([address("Hostname", name.to_owned())]).collect()
}

fn capacity(config: &Config) -> BTreeMap<String, Quantity> {
    let given = &config.capacity;
    let cpu = given.cpu_millis.unwrap_or_else(cpu_millis);
    let cpu = if cpu.is_multiple_of(1000) { (cpu / 1000).to_string() } else { format!("{cpu}m") };
    let memory = given.memory_bytes.unwrap_or_else(memory_bytes) >> 10;
    let pods = given.pods.unwrap_or(PODS_MAX);
    [("cpu", cpu), ("memory", format!("{memory}Ki")), ("pods", pods.to_string())]
        .into_iter()
        .map(|(name, quantity)| (name.to_owned(), Quantity(quantity)))
        .collect()
}

fn images(images: &[std::sync::Arc<Image>]) -> Vec<ContainerImage> {
    let all = images.iter().take(IMAGES_MAX).map(|image| ContainerImage {
        names: Some(vec![image.name.clone()]),
        size_bytes: i64::try_from(image.size).ok(),
    });
    all.collect()
}

fn system_info(health: &Health) -> NodeSystemInfo {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let os_release = read("/etc/os-release");
    let pretty = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    let machine_id = read("/etc/machine-id");
    NodeSystemInfo {
        architecture: crate::archive::architecture().to_owned(),
        boot_id: read("/proc/sys/kernel/random/boot_id"),
        container_runtime_version: format!(
            "containerd://{}",
            health.containerd.as_deref().unwrap_or("unknown")
        ),
        kernel_version: read("/proc/sys/kernel/osrelease"),
        kubelet_version: format!("v1.36.0-fairlead.{}", env!("CARGO_PKG_VERSION")),
        machine_id: machine_id.clone(),
        operating_system: "linux".to_owned(),
        os_image: pretty.unwrap_or("Linux").trim_matches('"').to_owned(),
        system_uuid: machine_id,
        ..NodeSystemInfo::default()
    }
}

/// Writes the node's objects.
pub(crate) struct NodeWriter {
    client: Client,
    config: Config,
    registered: Option<Node>,
    conditions: Vec<NodeCondition>,
}

impl NodeWriter {
    pub(crate) fn new(client: Client, config: Config) -> Self {
        Self { client, config, registered: None, conditions: Vec::new() }
    }

    /// Registers the node when it is not there, and writes its status.
    pub(crate) async fn write_status(&mut self, health: &Health) -> Result<(), Error> {
        let name = self.config.node_name.clone();
        let api: Api<Node> = Api::all(self.client.clone());
        if self.registered.is_none() {
            self.register(&api).await?;
        }
        let status = status(&self.config, health, &self.conditions, Timestamp::now());
        let patch = Patch::Merge(json!({ "status": status }));
        match api.patch_status(&name, &PatchParams::default(), &patch).await {
            Ok(_) => {
                self.conditions = status.conditions.unwrap_or_default();
                Ok(())
            }
            Err(error) => {
                // Somebody may have deleted the Node: look again next time.
                self.registered = None;
                Err(Error::api("update the status of", format!("node {name}"))(error))
            }
        }
    }

    async fn register(&mut self, api: &Api<Node>) -> Result<(), Error> {
        let node = node(&self.config);
        let name = self.config.node_name.clone();
        let created = match api.create(&PostParams::default(), &node).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let labels = json!({ "metadata": { "labels": node.metadata.labels } });
                api.patch(&name, &PatchParams::default(), &Patch::Merge(labels)).await
            }
            other => other,
        };
        let created = created.map_err(Error::api("register", format!("node {name}")))?;
        self.conditions =
            created.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
        self.registered = Some(created);
        Ok(())
    }

    /// True when the API does not say what was written last: the control plane took this node for silent, or the Node is
    /// gone.
    pub(crate) async fn is_overruled(&self) -> Result<bool, Error> {
        let name = &self.config.node_name;
        let api: Api<Node> = Api::all(self.client.clone());
        let found = api.get_opt(name).await.map_err(Error::api("get", format!("node {name}")))?;
        let stored = found.and_then(|node| node.status?.conditions).unwrap_or_default();
        Ok(self
            .conditions
            .iter()
            .any(|own| !stored.iter().any(|there| there.type_ == own.type_ && there.status == own.status)))
    }

    /// Renews the lease.
    pub(crate) async fn renew_lease(&self) -> Result<(), Error> {
        let name = &self.config.node_name;
        let api: Api<Lease> = Api::namespaced(self.client.clone(), LEASE_NAMESPACE);
        let renewed = MicroTime(Timestamp::now());
        let patch = Patch::Merge(json!({ "spec": {
            "holderIdentity": name, "leaseDurationSeconds": LEASE_SECS, "renewTime": renewed } }));
        match api.patch(name, &PatchParams::default(), &patch).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {
                api.create(&PostParams::default(), &self.lease(renewed)).await
            }
            other => other,
        }
        .map_err(Error::api("renew", format!("lease {LEASE_NAMESPACE}/{name}")))?;
        Ok(())
    }

    fn lease(&self, renewed: MicroTime) -> Lease {
        let name = self.config.node_name.clone();
        let owner =
            self.registered.as_ref().and_then(|node| node.metadata.uid.clone()).map(|uid| OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Node".to_owned(),
                name: name.clone(),
                uid,
                ..OwnerReference::default()
            });
        Lease {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(LEASE_NAMESPACE.to_owned()),
                owner_references: owner.map(|owner| vec![owner]),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(name),
                lease_duration_seconds: Some(LEASE_SECS),
                renew_time: Some(renewed),
                ..LeaseSpec::default()
            }),
        }
    }
}
