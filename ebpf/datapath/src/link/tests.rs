use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::{
    cases::{Hook, Memory, PacketBuilder, TEST_IFINDEX, table},
    checksum,
    packet::ETHERNET_LEN,
};

#[test]
fn every_packet_of_the_table_goes_its_way() {
    for case in table() {
        let found = case.run();
        assert_eq!(found.verdict, case.expected.verdict, "{:?}: {}", case.hook, case.name);
        assert_eq!(found.packet, case.expected.packet, "{:?}: {}", case.hook, case.name);
        assert_eq!(found, case.expected, "{:?}: {}", case.hook, case.name);
    }
}

#[test]
fn the_rows_of_the_table_have_different_names() {
    let table = table();
    let names: BTreeSet<_> = table.iter().map(|case| (std::format!("{:?}", case.hook), case.name)).collect();
    assert_eq!(names.len(), table.len());
}

/// The maps of the table, which a packet that proptest makes up meets: some of the rows know services.
fn node() -> Memory {
    table().pop().expect("the table has rows").tables
}

#[test]
fn where_rules_carry_services_a_pods_packet_is_counted_and_left_to_them() {
    let tables = Memory { carries: false, ..node() };
    let own = PacketBuilder::udp("10.244.1.5", "10.244.1.6").build();
    let forged = PacketBuilder::udp("10.244.1.9", "10.244.1.6").build();
    let entry = |packet: &[u8]| from_pod(&mut packet.to_vec(), &tables, TEST_IFINDEX, || None);
    assert_eq!(entry(&own), PASS);
    assert!(matches!(entry(&forged), Entry::Done(Verdict::Drop(DropReason::SourceNotOwned))));
    let counted = tables.counters.borrow().values().map(|counters| counters.tx_packets).sum::<u64>();
    assert_eq!(counted, 1);
}

proptest! {
    #[test]
    fn no_packet_makes_a_program_panic(
        ethertype in prop_oneof![Just([0x08, 0x00]), Just([0x86, 0xdd]), any::<[u8; 2]>()],
        body in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        let mut packet = std::vec![0; 12];
        packet.extend(ethertype);
        packet.extend(body);
        let tables = node();
        let via = crate::cases::address("172.29.0.12");
        let hooks = [
            Hook::FromPod,
            Hook::ToPod,
            Hook::FromUplink,
            Hook::ToUplink,
            Hook::ThroughToUplink,
            Hook::FromOverlay(via),
        ];
        for hook in hooks {
            let (mut packet, mut work) = (packet.clone(), Work::EMPTY);
            let _verdict = hook.run(&mut packet, &tables, &mut work);
        }
    }

    #[test]
    fn a_redirected_packet_keeps_everything_but_its_hops_and_macs(
        hops in 2_u8..,
        payload in proptest::collection::vec(any::<u8>(), 0..200),
        options in 0_usize..=10,
    ) {
        let built = PacketBuilder::udp("10.244.1.5", "10.244.1.6").hops(hops).options(options).payload(&payload);
        let before = built.build();
        let mut after = before.clone();
        let entry = from_pod(&mut after, &node(), TEST_IFINDEX, || None);
        prop_assert!(matches!(entry, Entry::Done(Verdict::RedirectPeer { .. })), "{entry:?}");
        let header = 20 + options * 4;
        prop_assert_eq!(checksum::full(&after[ETHERNET_LEN..ETHERNET_LEN + header]), 0);
        prop_assert_eq!(&after[12..22], &before[12..22]);
        prop_assert_eq!(after[22], before[22] - 1);
        prop_assert_eq!(&after[26..], &before[26..]);
    }
}
