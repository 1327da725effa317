//! Flows of datagrams that the link programs translate for a frontend that leads somewhere else from now on.
//!
//! A datagram follows its flow as long as the backend serves. Where the backend goes on to serve, but this frontend is not its
//! service's any more, nothing in the flow's entry shows it; so the entry goes.

use std::{collections, os::fd::AsFd};

use aya::maps::{HashMap, MapData};
use fairlead_abi::{
    Addr16,
    conntrack::{CT_REPLY, ConntrackKey, ConntrackValue},
    names,
    service::{SCOPE_ADDRESS, SCOPE_NODE_PORT, ServiceKey, ServiceValue, UDP},
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
        self.end_where(|key, value| {
            frontends.iter().any(|(frontend, block)| began_at(key, value, frontend, *block))
        })
    }

    /// Forgets what began at frontends that are another block's by now, or nobody's: whoever wrote them may have died before it
    /// came to the flows.
    pub(crate) fn end_strays(&mut self, services: &[(ServiceKey, ServiceValue)]) -> Result<(), KernelError> {
        let blocks: collections::HashMap<_, _> =
            services.iter().map(|(key, value)| (*key, value.service_id)).collect();
        self.end_where(|key, value| is_stray(key, value, |frontend| blocks.get(frontend).copied()))
    }

    fn end_where(
        &mut self,
        ends: impl Fn(&ConntrackKey, &ConntrackValue) -> bool,
    ) -> Result<(), KernelError> {
        let name = names::CONNTRACK.name;
        let entries: Vec<(ConntrackKey, ConntrackValue)> =
            read_all(self.whole.fd().as_fd()).map_err(KernelError::file("reading eBPF map", name))?;
        for (key, _) in entries.iter().filter(|(key, value)| ends(key, value)) {
            // The entry of the answers stays: what is on its way still comes from where the client asked.
            ignore_absent(self.entries.remove(key)).map_err(KernelError::map(name, "deleting from"))?;
        }
        Ok(())
    }
}

/// A flow of datagrams whose client asked for what is another block's now. The programs look for an address before they look for
/// a node port.
fn is_stray(
    key: &ConntrackKey,
    value: &ConntrackValue,
    block_at: impl Fn(&ServiceKey) -> Option<u32>,
) -> bool {
    if key.proto != UDP || value.flags & CT_REPLY != 0 || value.service_id == 0 {
        return false;
    }
    let any = if key.dst.is_v4() { Addr16::UNSPECIFIED_V4 } else { Addr16::UNSPECIFIED };
    let frontend = |addr, scope| ServiceKey { addr, port: key.dst_port, proto: key.proto, scope };
    let block =
        block_at(&frontend(key.dst, SCOPE_ADDRESS)).or_else(|| block_at(&frontend(any, SCOPE_NODE_PORT)));
    block != Some(value.service_id)
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
    use fairlead_abi::{Be16, service::TCP};

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
    #[test]
    fn a_flow_whose_frontend_is_another_blocks_by_now_is_a_stray() {
        let (node, any, port) = (address("172.29.0.11"), Addr16::UNSPECIFIED_V4, Be16::new(30_053));
        let at = |addr, scope| ServiceKey { addr, port, proto: UDP, scope };
        let (by_node_port, by_address) = (at(any, SCOPE_NODE_PORT), at(node, SCOPE_ADDRESS));
        // Of UDP, the block that it began with, flags, who has what now.
        type Row<'a> = (u8, u32, u16, &'a [(ServiceKey, u32)], bool);
        let rows: [Row<'_>; 8] = [
            (UDP, 7, 0, &[(by_node_port, 7)], false),
            (UDP, 7, 0, &[(by_node_port, 8)], true),
            (UDP, 7, 0, &[], true),
            (UDP, 7, 0, &[(by_node_port, 7), (by_address, 8)], true),
            (UDP, 7, 0, &[(by_node_port, 8), (by_address, 7)], false),
            (UDP, 7, CT_REPLY, &[(by_node_port, 8)], false),
            // Handed over by another node, which knows the service.
            (UDP, 0, 0, &[(by_node_port, 8)], false),
            (TCP, 7, 0, &[(by_node_port, 8)], false),
        ];
        for (number, (proto, service_id, flags, frontends, expected)) in rows.into_iter().enumerate() {
            let src = address("198.51.100.7");
            let key = ConntrackKey {
                src,
                dst: node,
                src_port: Be16::new(40_000),
                dst_port: port,
                proto,
                _pad: [0; 3],
            };
            let value = ConntrackValue { service_id, flags, ..ConntrackValue::default() };
            let block_at = |key: &ServiceKey| frontends.iter().find(|(frontend, _)| frontend == key);
            assert_eq!(
                is_stray(&key, &value, |key| block_at(key).map(|(_, block)| *block)),
                expected,
                "row {number}"
            );
        }
    }
}
