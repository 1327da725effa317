//! Flows of datagrams that the link programs translate for a frontend that leads somewhere else from now on.
//!
//! A datagram follows its flow as long as the backend serves. Where the backend goes on to serve, but this frontend is not its
//! service's any more, nothing in the flow's entry shows it; so the entry goes.

use std::os::fd::AsFd;

use aya::maps::{HashMap, MapData};
use fairlead_abi::{
    conntrack::{CT_REPLY, ConntrackKey, ConntrackValue},
    names,
    service::{SCOPE_NODE_PORT, ServiceKey},
};

use crate::{
    KernelError,
    bpf::{batch::read_all, pins::Pins, programs::open_pinned},
    tables::ignore_absent,
};

/// The table of connections.
pub(crate) struct Flows {
    entries: HashMap<MapData, ConntrackKey, ConntrackValue>,
    whole: MapData,
}

impl Flows {
    pub(crate) fn open(pins: &Pins) -> Result<Self, KernelError> {
        let name = names::CONNTRACK.name;
        let whole = MapData::from_pin(pins.map(name)).map_err(KernelError::map(name, "opening"))?;
        Ok(Self { entries: open_pinned(pins, names::CONNTRACK)?, whole })
    }

    /// Forgets what began at these frontends while they were these blocks'.
    pub(crate) fn end(&mut self, frontends: &[(ServiceKey, u32)]) -> Result<(), KernelError> {
        let name = names::CONNTRACK.name;
        let entries: Vec<(ConntrackKey, ConntrackValue)> =
            read_all(self.whole.fd().as_fd()).map_err(KernelError::file("reading eBPF map", name))?;
        for (key, value) in &entries {
            if frontends.iter().any(|(frontend, block)| began_at(key, value, frontend, *block)) {
                // The entry of the answers stays: what is on its way still comes from where the client asked.
                ignore_absent(self.entries.remove(key)).map_err(KernelError::map(name, "deleting from"))?;
            }
        }
        Ok(())
    }
}

fn began_at(key: &ConntrackKey, value: &ConntrackValue, frontend: &ServiceKey, block: u32) -> bool {
    let there = match frontend.scope {
        SCOPE_NODE_PORT => key.dst.is_v4() == frontend.addr.is_v4(),
        _ => key.dst == frontend.addr,
    };
    let forward = value.flags & CT_REPLY == 0 && value.service_id == block;
    forward && there && (key.dst_port, key.proto) == (frontend.port, frontend.proto)
}

#[cfg(test)]
mod tests {
    use fairlead_abi::{
        Addr16, Be16,
        service::{SCOPE_ADDRESS, TCP, UDP},
    };

    use super::*;

    fn address(text: &str) -> Addr16 {
        text.parse::<std::net::IpAddr>().expect("an address").into()
    }

    #[test]
    fn a_flow_began_at_the_frontend_that_its_client_asked() {
        let flow = |to: &str, proto| ConntrackKey {
            src: address("198.51.100.7"),
            dst: address(to),
            src_port: Be16::new(40_000),
            dst_port: Be16::new(30_053),
            proto,
            _pad: [0; 3],
        };
        let (node, any) = ("172.29.0.11", "0.0.0.0");
        let rows = [
            (flow(node, UDP), 7, 0, (any, SCOPE_NODE_PORT), true),
            (flow("172.29.1.11", UDP), 7, 0, (any, SCOPE_NODE_PORT), true),
            (flow(node, UDP), 7, 0, (node, SCOPE_ADDRESS), true),
            (flow(node, UDP), 7, 0, ("172.29.1.11", SCOPE_ADDRESS), false),
            (flow("fd00:29::b", UDP), 7, 0, (any, SCOPE_NODE_PORT), false),
            (flow(node, TCP), 7, 0, (any, SCOPE_NODE_PORT), false),
            (flow(node, UDP), 8, 0, (any, SCOPE_NODE_PORT), false),
            (flow(node, UDP), 7, CT_REPLY, (any, SCOPE_NODE_PORT), false),
        ];
        for (key, service_id, flags, (addr, scope), expected) in rows {
            let frontend = ServiceKey { addr: address(addr), port: Be16::new(30_053), proto: UDP, scope };
            let value = ConntrackValue { service_id, flags, ..ConntrackValue::default() };
            assert_eq!(began_at(&key, &value, &frontend, 7), expected, "{key:?} {frontend:?}");
        }
    }
}
