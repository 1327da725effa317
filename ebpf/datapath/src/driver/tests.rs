use std::{cell::Cell, vec::Vec};

use fairlead_abi::node::OVERLAY_VNI;
use proptest::prelude::*;

use super::*;
use crate::{
    Verdict,
    cases::{Case, Hook, Memory, sorted, table},
    checksum,
};

const OURS: [u8; 6] = [2, 0, 0, 0, 0, 1];
const THEIRS: [u8; 6] = [2, 0, 0, 0, 0, 2];
const PORT: u16 = 4_789;

/// The kernel's routes and neighbours.
struct Kernel {
    /// Everything leaves by the uplink and is known there.
    knows: bool,
    asked: Cell<Option<(Addr16, u32)>>,
    carried: Cell<u32>,
}

impl Kernel {
    fn new(knows: bool) -> Self {
        Self { knows, asked: Cell::new(None), carried: Cell::new(0) }
    }
}

impl Wire for Kernel {
    fn neighbour(&self, _src: &Addr16, dst: &Addr16, len: u32) -> Option<Neighbour> {
        self.asked.set(Some((*dst, len)));
        self.knows.then_some(Neighbour { src: OURS, dst: THEIRS })
    }

    fn overlay_port(&self) -> Be16 {
        Be16::new(PORT)
    }

    fn count_carried(&self) {
        self.carried.set(self.carried.get() + 1);
    }
}

struct Ran {
    carried: Carried,
    packet: Vec<u8>,
    tables: Memory,
    kernel: Kernel,
}

fn run(case: &Case, kernel: Kernel, random: u32) -> Ran {
    let tables = case.tables.clone();
    tables.random.set(random);
    let mut packet = case.packet.clone();
    let mut work = Work::EMPTY;
    let carried = from_wire(&mut packet, &tables, &kernel, || Some(&mut work));
    Ran { carried, packet, tables, kernel }
}

/// The rows of the table whose packets come in by the uplink, with a chance that leaves nothing to the link programs.
fn rows() -> impl Iterator<Item = Case> {
    table().into_iter().filter(|case| case.hook == Hook::FromUplink).inspect(|case| case.tables.random.set(1))
}

/// What the link programs would not let the driver do, or need not be quick about.
fn is_for_links(case: &Case) -> bool {
    ["fragment", "error", "SCTP"].iter().any(|word| case.name.contains(word))
}

#[test]
fn what_the_driver_sends_is_what_the_link_programs_would() {
    let mut sent = [0; 2];
    for case in rows() {
        let link = case.run();
        let ran = run(&case, Kernel::new(true), 1);
        let name = case.name;
        let connections = || sorted(ran.tables.connections.borrow().iter().map(|(k, v)| (*k, *v)));
        match (ran.carried, link.verdict) {
            (Carried::Sent, Verdict::RedirectOverlay { node }) => {
                sent[0] += 1;
                assert_eq!(unwrapped(&ran.packet, &case.tables, node, name), link.packet, "{name}");
                let len = ran.packet.len() as u32 - 14;
                assert_eq!(ran.kernel.asked.get(), Some((node, len)), "{name}");
            }
            (Carried::Sent, Verdict::RedirectNeigh { next_hop, .. }) => {
                sent[1] += 1;
                assert_eq!(ran.packet[..12], [THEIRS, OURS].concat(), "{name}");
                assert_eq!(ran.packet[12..], link.packet[12..], "{name}");
                assert_eq!(ran.kernel.asked.get().unwrap().0, next_hop, "{name}");
            }
            (Carried::Sent, Verdict::RedirectRouted) => {
                sent[1] += 1;
                assert_eq!(ran.packet[12..], link.packet[12..], "{name}");
            }
            (Carried::Sent, other) => panic!("{name}: sent, and the link programs say {other:?}"),
            (Carried::Spoilt, _) => panic!("{name}: spoilt"),
            (Carried::Left, verdict) => {
                assert_eq!(ran.packet, case.packet, "{name}: left as it was");
                let elsewhere = matches!(
                    verdict,
                    Verdict::RedirectOverlay { .. } | Verdict::RedirectNeigh { .. } | Verdict::RedirectRouted
                );
                assert!(!elsewhere || is_for_links(&case), "{name}: left, though it {verdict:?}");
                assert!(ran.tables.drops().is_empty(), "{name}: drops are the link programs' to count");
            }
        }
        if ran.carried == Carried::Sent {
            assert_eq!(connections(), link.connections, "{name}");
            assert_eq!(ran.tables.drops(), link.drops, "{name}");
            assert_eq!(ran.kernel.carried.get(), 1, "{name}");
        }
    }
    assert!(sent[0] >= 4 && sent[1] >= 4, "the table has both ways: {sent:?}");
}

/// What is left is the link programs' then, which meet the connection that the driver has begun.
#[test]
fn what_the_driver_leaves_ends_as_if_it_had_not_looked() {
    for case in rows() {
        for (kernel, random) in [(Kernel::new(false), 1), (Kernel::new(true), 0)] {
            let ran = run(&case, kernel, random);
            if ran.carried != Carried::Left {
                continue;
            }
            ran.tables.random.set(case.tables.random.get());
            let after = Case { tables: ran.tables, packet: ran.packet, ..case.clone() }.run();
            let alone = case.run();
            assert_eq!(after.verdict, alone.verdict, "{}", case.name);
            assert_eq!(after.packet, alone.packet, "{}", case.name);
            assert_eq!(after.connections, alone.connections, "{}", case.name);
            assert_eq!(after.drops, alone.drops, "{}", case.name);
        }
    }
}

#[test]
fn one_new_connection_in_some_is_left_so_that_the_kernel_asks_the_neighbour() {
    let case = rows().find(|case| case.name.contains("is handed the client's address")).unwrap();
    assert_eq!(run(&case, Kernel::new(true), LEFT_ONE_IN).carried, Carried::Left);
    let begun = run(&case, Kernel::new(true), LEFT_ONE_IN + 1);
    assert_eq!(begun.carried, Carried::Sent);
    // A connection that is known goes on in any case.
    let goes_on = Case { tables: begun.tables, ..case };
    assert_eq!(run(&goes_on, Kernel::new(true), LEFT_ONE_IN).carried, Carried::Sent);
}

/// Takes the headers of the overlay off, and checks them.
fn unwrapped(packet: &[u8], tables: &Memory, node: Addr16, name: &str) -> Vec<u8> {
    assert_eq!(packet[..12], [THEIRS, OURS].concat(), "{name}");
    let network = match parse(&packet.to_vec()) {
        Parsed::Ip(network) => network,
        other => panic!("{name}: {other:?}"),
    };
    let (src, header) = if node.is_v4() { (tables.node.v4, 20) } else { (tables.node.v6, 40) };
    assert_eq!((network.src, network.dst, network.protocol), (src, node, UDP), "{name}");
    let (outer, udp) = packet.split_at(14 + header);
    let inner = &udp[16..];
    if header == 20 {
        assert_eq!(checksum::full(&outer[14..]), 0, "{name}");
        assert_eq!(u16::from_be_bytes([outer[16], outer[17]]) as usize, packet.len() - 14, "{name}");
        assert_eq!(outer[15] & 3, inner[15] & 3, "{name}: congestion bits");
    } else {
        assert_eq!(u16::from_be_bytes([outer[18], outer[19]]) as usize, udp.len(), "{name}");
    }
    let half = |at: usize| u16::from_be_bytes([udp[at], udp[at + 1]]);
    assert!(half(0) >= 0xc000, "{name}: dynamic source port");
    assert_eq!((half(2), usize::from(half(4)), half(6)), (PORT, udp.len(), 0), "{name}");
    assert_eq!(udp[8..12], [8, 0, 0, 0], "{name}: only the identifier is valid");
    assert_eq!(udp[12..16], (OVERLAY_VNI << 8).to_be_bytes(), "{name}");
    inner.to_vec()
}

proptest! {
    #[test]
    fn no_packet_makes_the_driver_panic(
        ethertype in prop_oneof![Just([0x08, 0x00]), Just([0x86, 0xdd]), any::<[u8; 2]>()],
        body in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        let mut packet = std::vec![0; 12];
        packet.extend(ethertype);
        packet.extend(body);
        let tables = table().pop().expect("the table has rows").tables;
        let mut work = Work::EMPTY;
        from_wire(&mut packet, &tables, &Kernel::new(true), || Some(&mut work));
    }
}
