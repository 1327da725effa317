//! Segments of connections that nobody here knows: their beginning was elsewhere, or long ago. Which connections there are
//! afterwards is said by the rows.

use std::{vec, vec::Vec};

use fairlead_abi::{
    Be16, DropReason,
    conntrack::{CT_CLIENT_FIN, CT_REPLY, ConntrackKey, ConntrackValue},
    service::TCP,
};

use super::fixture::*;
use crate::{
    Verdict,
    cases::{Case, Memory, PacketBuilder, address, sorted},
};

/// What the service has to choose from.
#[derive(Clone, Copy, PartialEq)]
enum Choice {
    /// One backend.
    One,
    /// Two, by chance.
    Chance,
    /// Two, by a Maglev table.
    Table,
}

/// What becomes of a segment.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Begins,
    IsReset,
    IsDropped,
}
use Fate::{Begins, IsDropped, IsReset};

/// The segment, its flags, and what becomes of it with one backend, by chance and by a table.
type Row = (&'static str, u8, [Fate; 3]);

#[rustfmt::skip]
const ROWS: &[Row] = &[
    ("a SYN",                      SYN,       [Begins,    Begins,    Begins]),
    ("a segment on its way",       ACK,       [Begins,    IsReset,   Begins]),
    ("an end",                     FIN | ACK, [Begins,    IsReset,   Begins]),
    ("an answer to a SYN",         SYN | ACK, [Begins,    IsReset,   Begins]),
    ("a segment without an ACK",   0,         [Begins,    IsDropped, Begins]),
    ("a reset",                    RST,       [IsDropped, IsDropped, IsDropped]),
    ("a reset with an ACK",        RST | ACK, [IsDropped, IsDropped, IsDropped]),
    ("a SYN that resets",          SYN | RST, [IsDropped, IsDropped, IsDropped]),
];

pub(super) fn strays(family: &Family) -> Vec<Case> {
    let choices = [Choice::One, Choice::Chance, Choice::Table];
    let of = |row: &Row| {
        let cases = choices.iter().zip(row.2);
        cases.flat_map(|(choice, fate)| case(family, row.0, row.1, (*choice, fate))).collect::<Vec<_>>()
    };
    ROWS.iter().flat_map(of).collect()
}

fn case(family: &Family, text: &str, flags: u8, (choice, fate): (Choice, Fate)) -> Vec<Case> {
    let before = PacketBuilder::tcp(family.client, family.balancer, flags).ports(4_000, PORT);
    let (verdict, after, connections) = match fate {
        Begins => (
            TO_NEIGHBOUR,
            delivered(before.clone().addresses(family.client, family.here).ports(4_000, TARGET)),
            both_directions(family, if flags & FIN != 0 { CT_CLIENT_FIN } else { 0 }),
        ),
        IsReset => (Verdict::Answer(DropReason::UnknownConnection), reset(family), Vec::new()),
        IsDropped => (Verdict::Drop(DropReason::UnknownConnection), before.clone(), Vec::new()),
    };
    let choice_text = match choice {
        Choice::One => "one backend",
        Choice::Chance => "chance",
        Choice::Table => "a table",
    };
    let fate_text = match fate {
        Begins => "begins a connection",
        IsReset => "is told by a reset",
        IsDropped => "is dropped",
    };
    let text = std::format!("{text} of nothing known {fate_text} with {choice_text}");
    let turn = arrives(family, &text, before, verdict, after);
    let mut cases = conversation(tables(family, choice), vec![turn]);
    for case in &mut cases {
        case.expected.connections.clone_from(&connections);
    }
    cases
}

/// Where there are two backends, they are one pod: whatever is chosen, a row can say it.
fn tables(family: &Family, choice: Choice) -> Memory {
    let mut tables = with(family, TCP, Where::Here, 0);
    tables.slots = vec![1, 1, 1];
    for service in tables.services.values_mut() {
        service.active = if choice == Choice::One { 1 } else { 2 };
        (service.table, service.table_len) = if choice == Choice::Table { (1, 1) } else { (0, 0) };
    }
    tables
}

/// What ends the connection for who believes in it: from where it was sent to, beginning with the number that the segment of
/// the builder acknowledges.
fn reset(family: &Family) -> PacketBuilder {
    PacketBuilder::tcp(family.balancer, family.client, RST)
        .ports(PORT, 4_000)
        .numbers(2, 0)
        .window(0)
        .do_not_fragment()
        .macs([0x02, 0, 0, 0, 0, 0x02], [0x02, 0, 0, 0, 0, 0x01])
}

/// The connection's entries, with the flags that both have.
fn both_directions(family: &Family, flags: u16) -> Vec<(ConntrackKey, ConntrackValue)> {
    let end = |text, port| (address(text), Be16::new(port));
    let (client, service, backend) =
        (end(family.client, 4_000), end(family.balancer, PORT), end(family.here, TARGET));
    let entry = |from: [_; 2], to: [_; 2], flags| {
        let [(src, src_port), (dst, dst_port)] = from;
        let key = ConntrackKey { src, dst, src_port, dst_port, proto: TCP, ..ConntrackKey::default() };
        let [(src, src_port), (dst, dst_port)] = to;
        let (backend, generation, service_id) = (1, 5, SERVICE_ID);
        let value = ConntrackValue { src, dst, src_port, dst_port, flags, ..ConntrackValue::default() };
        (key, ConntrackValue { backend, generation, service_id, ..value })
    };
    let there = entry([client, service], [client, backend], flags);
    let back = entry([backend, client], [service, client], flags | CT_REPLY);
    sorted([there, back].into_iter())
}
