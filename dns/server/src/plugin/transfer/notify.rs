//! NOTIFY (RFC 1996): tells secondaries that a zone has changed, so that they fetch it now and not when it expires.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use fairlead_zone::{Name, RecordType};
use futures::future::join_all;
use tokio::{net::UdpSocket, time::timeout};

use crate::codec::u16_at;

/// How long an answer may take, and how often it is asked for; CoreDNS tries three times.
const PATIENCE: Duration = Duration::from_secs(2);
const ATTEMPTS: u32 = 3;

/// Tells all of them; who does not answer finds out by the zone's refresh time.
pub(crate) async fn notify(zone: &Name, secondaries: &[SocketAddr]) {
    let told = join_all(secondaries.iter().map(async |secondary| {
        if !tell(zone, *secondary).await {
            tracing::warn!(%zone, %secondary, "a secondary server does not answer NOTIFY");
        }
    }));
    told.await;
}

async fn tell(zone: &Name, secondary: SocketAddr) -> bool {
    let id = rand::random();
    let message = message(id, zone);
    for _ in 0..ATTEMPTS {
        if matches!(timeout(PATIENCE, exchange(&message, id, secondary)).await, Ok(Ok(()))) {
            return true;
        }
    }
    false
}

/// Any answer with the right id will do: it says that the message has come.
async fn exchange(message: &[u8], id: u16, secondary: SocketAddr) -> std::io::Result<()> {
    let any: IpAddr =
        if secondary.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(secondary).await?;
    socket.send(message).await?;
    let mut answer = [0; 512];
    loop {
        let size = socket.recv(&mut answer).await?;
        if u16_at(&answer[..size], 0) == Some(id) && size > 2 && answer[2] & 0x80 != 0 {
            return Ok(());
        }
    }
}

/// Opcode 4, authoritative, the zone's SOA as its question.
fn message(id: u16, zone: &Name) -> Vec<u8> {
    let head = [4 << 3 | 0x04, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    let tail = [RecordType::SOA.0.to_be_bytes(), [0, 1]].concat();
    [&id.to_be_bytes()[..], &head, zone.as_wire(), &tail].concat()
}
