//! A table of connections that is full: nothing new, everything else goes on, and room comes back.
//!
//! Needs root and the eBPF object. The client's sockets are not translated, its packets are.

use std::{
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use fairlead_abi::DropReason;
use fairlead_kernel::{Capacities, Collected, Timeouts, clock::monotonic_ns};
use fairlead_testkit::echo::{ask, connect};

use crate::{
    cluster::{VIP4, VIP6},
    node::{Pod, RunningNode},
    served::Served,
};

#[path = "node/cluster.rs"]
#[allow(dead_code, reason = "shared with another test")]
mod cluster;
#[path = "node/running.rs"]
#[allow(dead_code, reason = "shared with another test")]
mod node;
#[path = "node/served.rs"]
#[allow(dead_code, reason = "shared with another test")]
mod served;

/// Entries in the table, and the connections that these are.
const ENTRIES: u32 = 64;
const CONNECTIONS: usize = ENTRIES as usize / 2;

/// Long enough for a datagram that is answered.
const SILENCE: Duration = Duration::from_millis(500);

#[test]
fn a_full_table_refuses_what_is_new_and_keeps_what_is_there() {
    if !node::can_run() {
        return;
    }
    let Served { a, client, .. } =
        &mut Served::new(Capacities { conntrack: ENTRIES, ..Capacities::default() });
    let mut streams = fill(client);
    nothing_new_is_let_in_and_it_is_counted(a, client);
    every_stream_goes_on(client, &mut streams);
    ended_connections_make_room(a, client, &mut streams);
    expired_ones_do_too(a, client);
}

fn vip(number: usize) -> SocketAddr {
    SocketAddr::new([VIP4, VIP6][number % 2], 80)
}

/// Opens as many connections as the table has room for.
fn fill(client: &Pod) -> Vec<TcpStream> {
    client.run(|| (0..CONNECTIONS).map(|number| connect(vip(number)).expect("there is room")).collect())
}

/// Whether a datagram to the service is answered.
fn is_answered(client: &Pod) -> bool {
    client.run(|| {
        let socket = UdpSocket::bind((IpAddr::from([0, 0, 0, 0]), 0)).expect("binds");
        socket.set_read_timeout(Some(SILENCE)).expect("a timeout");
        socket.send_to(b"?", (VIP4, fairlead_testkit::echo::UDP_PORT)).expect("sends");
        socket.recv(&mut [0; 16]).is_ok()
    })
}

fn refused(a: &RunningNode, client: &Pod) -> u64 {
    a.drops().get(&(client.spec.slot, DropReason::ConntrackFull as u32)).copied().unwrap_or_default()
}

fn nothing_new_is_let_in_and_it_is_counted(a: &RunningNode, client: &Pod) {
    assert_eq!(refused(a, client), 0);
    assert!(!is_answered(client), "there is no room for another connection");
    assert!(refused(a, client) > 0, "{:?}", a.drops());
}

fn every_stream_goes_on(client: &Pod, streams: &mut [TcpStream]) {
    client.run(|| {
        for stream in streams {
            assert_eq!(ask(stream).expect("it is in the table"), "server");
        }
    });
}

fn ended_connections_make_room(a: &mut RunningNode, client: &Pod, streams: &mut Vec<TcpStream>) {
    let timeouts = Timeouts::default();
    // Nobody has ended: even in a full table nothing goes.
    let soon = monotonic_ns() + seconds(10);
    assert_eq!(removed(&a.collect(soon, &timeouts)), 0);

    let half = streams.len() / 2;
    client.run(|| streams.drain(..half).for_each(drop));
    // Both sides say goodbye; a full table then forgets them within seconds, not after the minute that is usual.
    fairlead_testkit::eventually("the ended connections", || {
        (removed(&a.collect(monotonic_ns() + seconds(10), &timeouts)) > 0).then_some(())
    });
    assert!(is_answered(client), "there is room again");
    every_stream_goes_on(client, streams);
}

fn expired_ones_do_too(a: &mut RunningNode, client: &Pod) {
    let day = seconds(25 * 60 * 60);
    let collected = a.collect(monotonic_ns() + day, &Timeouts::default());
    assert!(removed(&collected) > 0 && collected.conntrack.entries == 0, "{collected:?}");
    let mut fresh = fill(client);
    every_stream_goes_on(client, &mut fresh);
}

fn removed(collected: &Collected) -> u64 {
    collected.conntrack.removed
}

const fn seconds(number: u64) -> u64 {
    number * 1_000_000_000
}
