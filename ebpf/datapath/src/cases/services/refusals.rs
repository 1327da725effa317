//! Who is refused, and how he is told.

use std::{vec, vec::Vec};

use fairlead_abi::{
    Be16, DropReason,
    node::{ADDRESS_LOCAL, ServiceNetwork},
    service::{SCTP, SERVICE_EXTERNAL_LOCAL, SERVICE_INSIDE_ONLY, SERVICE_SOURCE_RANGES, TCP},
};

use super::fixture::*;
use crate::{
    Verdict,
    cases::{Case, Hook, PacketBuilder, address},
};

pub(super) fn refused(family: &Family) -> Vec<Case> {
    let tables = |place, flags| with(family, TCP, place, flags);
    let balancer = (family.balancer, PORT);
    let node = (family.node, NODE_PORT);
    let mut full = tables(Where::Here, 0);
    full.connections_max = 1;
    let full = dropped(
        family,
        "a full table of connections refuses what is new",
        full,
        balancer,
        DropReason::ConntrackFull,
    );
    [
        told(
            family,
            "a service without endpoints refuses at once",
            tables(Where::Nowhere, 0),
            balancer,
            DropReason::NoEndpoints,
        ),
        told(
            family,
            "a node port without endpoints refuses at once",
            tables(Where::Nowhere, 0),
            node,
            DropReason::NoEndpoints,
        ),
        told(
            family,
            "a port that no service has of a service's address is refused",
            tables(Where::Here, 0),
            (family.balancer, 81),
            DropReason::NoPort,
        ),
        dropped(
            family,
            "an external policy Local without local endpoints drops",
            tables(Where::Elsewhere, SERVICE_EXTERNAL_LOCAL),
            node,
            DropReason::NoLocalEndpoints,
        ),
        dropped(
            family,
            "endpoints that this node may not use drop",
            tables(Where::Unusable, 0),
            balancer,
            DropReason::NoLocalEndpoints,
        ),
        nobodys(family),
        only_on_the_host(full),
        restricted(family),
        inside_only(family),
        not_selected(family),
    ]
    .concat()
}

/// An address of the service network that no service has.
fn nobodys(family: &Family) -> Vec<Case> {
    let known = |known: bool| {
        let mut tables = with(family, TCP, Where::Here, 0);
        // A /16 of IPv4 in its mapped form, too.
        let bits = 112;
        let network = ServiceNetwork::new(address(family.service_network), bits);
        tables.service_networks = if known { vec![network] } else { Vec::new() };
        tables
    };
    let passed = |text, before: PacketBuilder| arrives(family, text, before.clone(), Verdict::Pass, before);
    let unknown = DropReason::UnknownAddress;
    let served = syn(family.client, family.cluster).ports(4_000, PORT);
    let served = Turn {
        name: name(family, "a service is served where the network of services is known"),
        hook: Hook::FromUplink,
        before: served.clone(),
        verdict: TO_NEIGHBOUR,
        after: delivered(served.addresses(family.client, family.here).ports(4_000, TARGET)),
    };
    let own = syn(family.sender, family.nobody).ports(4_000, PORT);
    let own = Turn {
        name: name(family, "an address of services that nobody has is refused to a pod"),
        hook: Hook::FromPod,
        verdict: Verdict::Answer(unknown),
        after: PacketBuilder::unreachable(
            family.nobody,
            family.sender,
            &own.build(),
            header_len(family) + 20,
        )
        .macs([0x02, 0, 0, 0, 0, 0x02], [0x02, 0, 0, 0, 0, 0x01]),
        before: own,
    };
    let to_nobody = syn(family.client, family.nobody).ports(4_000, PORT);
    [
        told(
            family,
            "an address of services that nobody has is refused at once",
            known(true),
            (family.nobody, PORT),
            unknown,
        ),
        conversation(known(true), vec![served]),
        conversation(known(true), vec![own]),
        conversation(
            known(false),
            vec![passed("it is the host's business where the network is not known", to_nobody)],
        ),
        conversation(
            known(true),
            vec![passed(
                "an address beside the network of services passes",
                syn(family.client, family.beside),
            )],
        ),
    ]
    .concat()
}

/// Source ranges, and a protocol whose checksum no difference corrects.
pub(super) fn restricted(family: &Family) -> Vec<Case> {
    let mut ranges = with(family, TCP, Where::Here, SERVICE_SOURCE_RANGES);
    let none = dropped(
        family,
        "a client in no source range is dropped",
        ranges.clone(),
        (family.balancer, PORT),
        DropReason::SourceNotAllowed,
    );
    ranges.source_ranges = vec![(SERVICE_ID, address(family.client), 128)];
    let before = syn(family.client, family.balancer).ports(4_000, PORT);
    let allowed = Turn {
        name: name(family, "a client in a source range is served"),
        hook: Hook::FromUplink,
        before: before.clone(),
        verdict: TO_NEIGHBOUR,
        after: delivered(before.addresses(family.client, family.here).ports(4_000, TARGET)),
    };
    let sctp = Turn {
        name: name(family, "SCTP with another port behind the service cannot be rewritten"),
        hook: Hook::FromUplink,
        before: PacketBuilder::sctp(family.client, family.balancer).ports(4_000, PORT),
        verdict: Verdict::Drop(DropReason::Malformed),
        after: PacketBuilder::sctp(family.client, family.here).ports(4_000, PORT),
    };
    let sctp = conversation(with(family, SCTP, Where::Here, 0), vec![sctp]);
    [none, conversation(ranges, vec![allowed]), sctp, with_one_port(family)].concat()
}

/// A cluster address that the node keeps to the cluster: other addresses of the service are nobody's secret.
fn inside_only(family: &Family) -> Vec<Case> {
    let tables = with(family, TCP, Where::Here, SERVICE_INSIDE_ONLY);
    let denied = dropped(
        family,
        "a client outside is denied a cluster address",
        tables.clone(),
        (family.cluster, PORT),
        DropReason::OutsideNotAllowed,
    );
    let served = |text, hook, client, address, port| {
        let before = syn(client, address).ports(4_000, port);
        let mut after = before.clone().addresses(client, family.here).ports(4_000, TARGET);
        after = delivered(after);
        Turn { name: name(family, text), hook, before, verdict: TO_NEIGHBOUR, after }
    };
    let uplink = Hook::FromUplink;
    let turns = [
        served(
            "a pod that is asked for past its socket is served",
            Hook::FromPod,
            family.sender,
            family.cluster,
            PORT,
        ),
        served("a pod of another node is served", uplink, family.elsewhere, family.cluster, PORT),
        served(
            "a client outside is served at the load balancer's address",
            uplink,
            family.client,
            family.balancer,
            PORT,
        ),
        served("a client outside is served at the node port", uplink, family.client, family.node, NODE_PORT),
    ];
    let served = turns.into_iter().flat_map(|turn| conversation(tables.clone(), vec![turn]));
    denied.into_iter().chain(served).collect()
}

/// SCTP where no port has to change.
fn with_one_port(family: &Family) -> Vec<Case> {
    let mut tables = with(family, SCTP, Where::Here, 0);
    tables.backends[1].port = Be16::new(PORT);
    let before = PacketBuilder::sctp(family.client, family.balancer).ports(4_000, PORT);
    let after = delivered(before.clone().addresses(family.client, family.here));
    let text = "SCTP with the same port behind the service is served";
    conversation(tables, vec![arrives(family, text, before, TO_NEIGHBOUR, after)])
}

/// What an address of the node on which node ports are not served is asked, the node's own processes are asked.
fn not_selected(family: &Family) -> Vec<Case> {
    let mut tables = with(family, TCP, Where::Here, 0);
    let other = if header_len(family) == 20 { "172.29.1.11" } else { "fd00:29:1::b" };
    tables.addresses.insert(address(other), ADDRESS_LOCAL);
    let turn = |who, hook, client| {
        let before = syn(client, other);
        let text = std::format!("{who} asks for a node port where none is served");
        Turn {
            name: name(family, &text),
            hook,
            before: before.clone(),
            verdict: Verdict::Pass,
            after: before,
        }
    };
    let outside = turn("a client", Hook::FromUplink, family.client);
    conversation(tables, vec![outside, turn("a pod", Hook::FromPod, family.sender)])
}
