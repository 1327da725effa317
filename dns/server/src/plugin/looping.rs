//! `loop`: finds out whether questions that are forwarded come back, and ends the process if they do.
//!
//! At the start it asks itself for a name that nobody else knows. Forwarded and seen again and again, it shows that
//! the server is its own upstream.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use fairlead_zone::{Class, Name, Question, RecordType};
use futures::FutureExt;
use tokio::{net::UdpSocket, time::timeout};

use super::{Plugins, Setup, once};
use crate::{
    DnsError,
    chain::{Next, Plugin, Query, Serving},
    codec::plain_query,
    corefile::{CorefileError, Directive, Scheme},
    world::World,
};

/// The question may be seen so often: from ourselves, and once more by an upstream that asks everybody.
const SEEN_MAX: u32 = 2;
/// How long after the start it is looked for, and how often it is asked until it arrives.
const WATCH: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_secs(2);

struct Loop {
    name: Name,
    zone: Name,
    seen: Arc<AtomicU32>,
    world: Arc<World>,
}

pub(super) fn set_up(setup: &mut Setup<'_>, directives: &[Directive]) -> Result<Plugins, CorefileError> {
    let directive = once(directives)?;
    directive.words().end()?;
    directive.no_body()?;
    let plain = setup.keys.iter().find(|key| key.scheme == Scheme::Dns);
    let Some((key, zone)) = plain.and_then(|key| Some((key, key.zones.first()?.clone()))) else {
        return Ok(Vec::new());
    };
    let labels = [rand::random::<u64>(), rand::random::<u64>()].map(|number| number.to_string());
    let name = Name::join(&[labels[0].as_bytes(), labels[1].as_bytes()], zone.as_wire())
        .map_err(|e| directive.fault(None, e.to_string()))?;
    let seen = Arc::new(AtomicU32::new(0));
    let hosts = if setup.block.bind.is_empty() { Vec::new() } else { setup.block.bind.clone() };
    let host = hosts.iter().find_map(|host| host.parse().ok()).map(|host| SocketAddr::new(host, key.port));
    let listen = setup.world.config.listen.first().copied();
    let at = host.or(listen).unwrap_or_else(|| ([127, 0, 0, 1], key.port).into());
    if at.port() != 0 {
        setup.spawn(ask(at, name.clone(), Arc::clone(&seen)).boxed());
    }
    Ok(vec![Arc::new(Loop { name, zone, seen, world: Arc::clone(setup.world) })])
}

/// Asks for the name until it was seen once.
async fn ask(at: SocketAddr, name: Name, seen: Arc<AtomicU32>) {
    let question = Question { name, rtype: RecordType::HINFO, class: Class::IN };
    let asking = async {
        while seen.load(Ordering::Relaxed) == 0 {
            let local: SocketAddr =
                if at.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
            if let Ok(socket) = UdpSocket::bind(local).await {
                let sent = socket.send_to(&plain_query(rand::random(), &question), at).await;
                let mut answer = [0; 512];
                if sent.is_ok() {
                    let _ = timeout(RETRY, socket.recv(&mut answer)).await;
                }
            }
            if seen.load(Ordering::Relaxed) == 0 {
                tokio::time::sleep(RETRY).await;
            }
        }
    };
    let _ = timeout(WATCH, asking).await;
}

impl Plugin for Loop {
    fn serve<'a>(&'a self, query: &'a mut Query, next: Next<'a>) -> Serving<'a> {
        if query.rtype() == RecordType::HINFO && *query.name() == self.name {
            let seen = self.seen.fetch_add(1, Ordering::Relaxed) + 1;
            if seen > SEEN_MAX {
                let (from, to) = (query.client.peer, query.client.local);
                let error = DnsError::Loop { from, to, zone: self.zone.to_string() };
                // The server is ending already when nobody listens.
                let _ = self.world.fatal.send(error);
            }
        }
        next.serve(query)
    }
}
