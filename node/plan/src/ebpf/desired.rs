//! The frontends that a service should have.

use fairlead_abi::{
    Addr16, Be16,
    service::{SCOPE_INTERNAL, ServiceKey},
};
use fairlead_model::{ObjectName, Service, ServiceKind, View};

use crate::select::{Place, Selection, select};

/// One frontend.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Desired {
    pub(super) key: ServiceKey,
    pub(super) selection: Selection,
    pub(super) affinity_secs: u32,
}

/// All frontends of a service; none when it is gone, headless, an alias, or another proxy's.
pub(super) fn desired(view: &View, name: &ObjectName, place: Place<'_>) -> Vec<Desired> {
    let ours = |service: &&Service| service.kind == ServiceKind::ClusterIp && !service.foreign_proxy;
    let Some(service) = view.service(name).filter(ours) else {
        return Vec::new();
    };
    let frontends =
        service.addresses.iter().flat_map(|address| service.ports.iter().map(move |p| (address, p)));
    let frontends = frontends.map(|(address, port)| Desired {
        key: ServiceKey {
            addr: Addr16::from(*address),
            port: Be16::new(port.port),
            proto: port.protocol.number(),
            scope: SCOPE_INTERNAL,
        },
        selection: select(service, port, address.is_ipv4(), view.slices_of(name), place),
        affinity_secs: service.affinity_secs,
    });
    frontends.collect()
}
