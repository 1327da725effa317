//! A node with a client and the server that it asks.

use fairlead_kernel::Capacities;
use fairlead_testkit::{TwoNodes, echo::serve};

use crate::{
    cluster::Cluster,
    node::{Pod, RunningNode},
};

/// Two pods of node `a`; one, `server`, is the service's only endpoint, which has been told.
pub(crate) struct Served {
    pub(crate) a: RunningNode,
    pub(crate) client: Pod,
    pub(crate) cluster: Cluster,
    _server: Pod,
    /// Last: the node lives in its namespaces.
    _topology: TwoNodes,
}

impl Served {
    /// With maps of these sizes.
    pub(crate) fn new(capacities: Capacities) -> Self {
        let topology = TwoNodes::new();
        let mut a = RunningNode::start("a", &topology.a);
        if capacities != Capacities::default() {
            a.restart_with(capacities);
        }
        let client = a.add_pod(1, &["10.244.1.2", "fd00:244:0:1::2"]);
        let server = a.add_pod(2, &["10.244.1.3", "fd00:244:0:1::3"]);
        let mut cluster = Cluster::new(&topology);
        cluster.set_endpoints(&[("a", &server)]);
        a.sync(&cluster.view);
        serve(&server.spec.netns, &server.spec.addresses, "server");
        Self { a, client, cluster, _server: server, _topology: topology }
    }
}
