//! Choices that are not left to chance: session affinity and Maglev tables.
//!
//! The service has two backends. Chance knows the pod beside the sender only, the table the sender only, so that a row shows
//! which of the two chose. The kernel has a clock of its own: sessions are of the beginning of time or of its end.

use std::{vec, vec::Vec};

use fairlead_abi::{
    Be16,
    service::{
        AffinityKey, AffinityValue, BACKEND_CLUSTER, BACKEND_HERE, BACKEND_LOCAL, BACKEND_SERVING,
        BackendValue, SERVICE_EXTERNAL_LOCAL, TCP, UDP,
    },
};

use super::fixture::*;
use crate::{
    Verdict,
    cases::{Case, Memory, PacketBuilder, TEST_IFINDEX, address},
};

/// What is known of the client: the backend beside the sender, its generation, when it was last used.
#[derive(Clone, Copy)]
struct Session(u32, u64);

const GENERATION: u32 = 5;
const IN_TIME: Session = Session(GENERATION, u64::MAX / 2);
const TOO_OLD: Session = Session(GENERATION, 0);
const OF_A_FORMER_BACKEND: Session = Session(GENERATION - 1, u64::MAX / 2);

/// Who is chosen.
#[derive(Clone, Copy, PartialEq)]
enum Chosen {
    BySlots,
    ByTable,
}
use Chosen::{BySlots, ByTable};

/// What is shown, affinity in seconds, the session, whether there is a table, flags, who is chosen.
type Row = (&'static str, u32, Option<Session>, bool, u32, Chosen);

#[rustfmt::skip]
const ROWS: &[Row] = &[
    ("without a table chance chooses",                 0, None,                      false, 0,                      BySlots),
    ("a table chooses, not chance",                    0, None,                      true,  0,                      ByTable),
    ("a table is of the policy Cluster",               0, None,                      true,  SERVICE_EXTERNAL_LOCAL, BySlots),
    ("a client stays with its backend",                1, Some(IN_TIME),             true,  0,                      BySlots),
    ("without affinity no session counts",             0, Some(IN_TIME),             true,  0,                      ByTable),
    ("a session ends with its time",                   1, Some(TOO_OLD),             true,  0,                      ByTable),
    ("a session ends with its backend",                1, Some(OF_A_FORMER_BACKEND), true,  0,                      ByTable),
    ("a new client begins a session",                  1, None,                      true,  0,                      ByTable),
];

pub(super) fn sticky(family: &Family) -> Vec<Case> {
    let of_protocol = |proto: u8| {
        let balancer = ROWS.iter().flat_map(move |row| case(family, proto, row, (family.balancer, PORT)));
        // All addresses of a port have one session.
        let node_port = ROWS.iter().flat_map(move |row| case(family, proto, row, (family.node, NODE_PORT)));
        balancer.chain(node_port)
    };
    [TCP, UDP].into_iter().flat_map(of_protocol).collect()
}

fn case(family: &Family, proto: u8, row: &Row, (to, port): (&str, u16)) -> Vec<Case> {
    let (text, affinity_secs, session, has_table, flags, chosen) = *row;
    let mut tables = two_backends(family, proto, flags);
    for service in tables.services.values_mut() {
        service.affinity_secs = affinity_secs;
        (service.table, service.table_len) = if has_table { (3, 1) } else { (0, 0) };
    }
    if let Some(Session(generation, used_ns)) = session {
        let key = AffinityKey { client: address(family.client), service_id: SERVICE_ID };
        tables.affinity.borrow_mut().insert(key, AffinityValue { used_ns, backend: 1, generation });
    }
    let before = match proto {
        TCP => PacketBuilder::tcp(family.client, to, SYN),
        _ => PacketBuilder::udp(family.client, to).checksummed(),
    };
    let before = before.ports(4_000, port);
    let (backend, ifindex) = match chosen {
        BySlots => (family.here, None),
        ByTable => (family.sender, Some(TEST_IFINDEX)),
    };
    let after = delivered(before.clone().addresses(family.client, backend).ports(4_000, TARGET));
    let verdict = ifindex.map_or(TO_NEIGHBOUR, |ifindex| Verdict::RedirectPeer { ifindex });
    let text = std::format!("{text} ({}, port {port})", if proto == TCP { "TCP" } else { "UDP" });
    conversation(tables, vec![arrives(family, &text, before, verdict, after)])
}

/// The service of the fixture with the sending pod as its second backend, which only the table knows.
fn two_backends(family: &Family, proto: u8, flags: u32) -> Memory {
    let mut tables = with(family, proto, Where::Here, flags);
    tables.backends.push(BackendValue {
        addr: address(family.sender),
        port: Be16::new(TARGET),
        proto,
        flags: BACKEND_HERE | BACKEND_CLUSTER | BACKEND_LOCAL | BACKEND_SERVING,
        generation: GENERATION + 1,
    });
    tables.slots = vec![0, 1, 0, 2];
    tables
}
