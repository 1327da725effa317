//! Whether this node's own DNS server is alive, and what its endpoint is worth meanwhile.
//!
//! The server sends signs of life over a Unix socket for as long as all its threads turn. While none come, its endpoint
//! counts as one that terminates: the rules for those send new look-ups to other nodes' servers, and to this one only when
//! there is no other. Every proxy mode follows the same rules, so nothing else has to know.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use fairlead_model::{Change, Endpoint, EndpointSlice, ObjectName, Update};
use futures::{
    StreamExt,
    stream::{self, BoxStream, SelectAll},
};
use tokio::{
    io::AsyncReadExt,
    net::{UnixListener, UnixStream},
    sync::watch,
    time::sleep_until,
};
use tokio_util::sync::CancellationToken;

use crate::AgentError;

/// The service of cluster DNS: namespace and name.
const SERVICE: (&str, &str) = ("kube-system", "kube-dns");
/// A server that says nothing for so long is not alive: four of its signs are missing.
const SILENCE: Duration = Duration::from_secs(1);
/// What is asked of a server that is not alive waits in its sockets for the next one. After so long it is not waited for
/// any longer: clients are told, and ask another.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is known of the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Life {
    /// It shows signs of life.
    #[default]
    Alive,
    /// It shows none.
    Silent,
    /// It has shown none for so long that nobody should wait for it.
    Gone,
}

/// The endpoints of cluster DNS as this node is to see them.
#[derive(Debug, Default)]
pub(crate) struct OwnResolver {
    node: String,
    /// The node's addresses: a pod that serves cluster DNS is another program's business.
    addresses: Vec<IpAddr>,
    life: Life,
    /// The slices of the service as the feed says them.
    slices: BTreeMap<ObjectName, EndpointSlice>,
}

/// Listens to signs of life.
#[derive(Debug)]
pub(crate) struct Heartbeats {
    listener: UnixListener,
    life: watch::Sender<Life>,
}

/// What a connection tells: its number, and whether it is still open.
type Sign = (u64, bool);

/// Connections and when each was last heard of.
#[derive(Debug)]
struct Heard {
    connections: BTreeMap<u64, Instant>,
    /// Since when there is none that is alive.
    silent_since: Option<Instant>,
}

impl OwnResolver {
    pub(crate) fn new(node: String, addresses: Vec<IpAddr>) -> Self {
        Self { node, addresses, ..Self::default() }
    }

    /// Alters what an update says of this node's server.
    pub(crate) fn alter(&mut self, update: &mut Update) {
        if update.snapshot {
            self.slices.clear();
        }
        for change in &mut update.changes {
            match change {
                Change::PutSlice(slice) if is_of_service(slice) => {
                    self.slices.insert(slice.name.clone(), slice.clone());
                    self.show(slice);
                }
                Change::PutSlice(EndpointSlice { name, .. }) | Change::DeleteSlice(name) => {
                    self.slices.remove(name);
                }
                _ => {}
            }
        }
    }

    /// Takes note of how the server is; gives the slices that look different now.
    pub(crate) fn turn(&mut self, life: Life) -> Vec<Change> {
        self.life = life;
        let own = self.slices.values().filter(|slice| slice.endpoints.iter().any(|end| self.is_own(end)));
        let shown = own.map(|slice| {
            let mut slice = slice.clone();
            self.show(&mut slice);
            Change::PutSlice(slice)
        });
        shown.collect()
    }

    fn show(&self, slice: &mut EndpointSlice) {
        if self.life == Life::Alive {
            return;
        }
        let another = slice.endpoints.iter().any(|endpoint| endpoint.ready && !self.is_own(endpoint));
        for endpoint in slice.endpoints.iter_mut().filter(|endpoint| self.is_own(endpoint)) {
            // Where there is no other, the next server on this node is all there is to hope for.
            let serving = endpoint.serving && (self.life == Life::Silent || !another);
            *endpoint = Endpoint { ready: false, serving, terminating: true, ..endpoint.clone() };
        }
    }

    fn is_own(&self, endpoint: &Endpoint) -> bool {
        *endpoint.node == *self.node && self.addresses.contains(&endpoint.address)
    }
}

fn is_of_service(slice: &EndpointSlice) -> bool {
    (&*slice.name.namespace, &*slice.service) == SERVICE
}

impl Heartbeats {
    /// On a listening socket; what is heard goes to whoever watches.
    pub(crate) fn new(listener: UnixListener) -> (Self, watch::Receiver<Life>) {
        let (life, watching) = watch::channel(Life::Alive);
        (Self { listener, life }, watching)
    }

    /// Listens until it is told to stop.
    pub(crate) async fn run(self, stop: CancellationToken) -> Result<(), AgentError> {
        stop.run_until_cancelled(self.listen()).await;
        Ok(())
    }

    async fn listen(self) {
        // A server that runs has the time of a silence to connect.
        let mut heard = Heard { connections: BTreeMap::new(), silent_since: None };
        heard.connections.insert(0, Instant::now());
        let mut signs: SelectAll<BoxStream<'static, Sign>> = SelectAll::new();
        let mut next = 1;
        loop {
            let (life, change_at) = heard.life(Instant::now());
            self.tell(life);
            tokio::select! {
                accepted = self.listener.accept() => if let Ok((stream, _)) = accepted {
                    signs.push(signs_of(next, stream));
                    next += 1;
                },
                Some((number, open)) = signs.next() => heard.sign(number, open, Instant::now()),
                () = sleep_until(change_at.unwrap_or_else(Instant::now).into()), if change_at.is_some() => {}
            }
        }
    }

    fn tell(&self, life: Life) {
        let changed = self.life.send_if_modified(|known| std::mem::replace(known, life) != life);
        match life {
            _ if !changed => {}
            Life::Alive => tracing::info!("this node's DNS server is alive again"),
            Life::Silent => {
                tracing::warn!(
                    "this node's DNS server shows no sign of life; look-ups go to other nodes' servers"
                );
            }
            Life::Gone => tracing::warn!("this node's DNS server stays away; nobody waits for it any longer"),
        }
    }
}

/// Every byte is a sign; the end is one, too.
fn signs_of(number: u64, stream: UnixStream) -> BoxStream<'static, Sign> {
    let signs = stream::unfold(stream, move |mut stream| async move {
        match stream.read(&mut [0; 64]).await {
            Ok(1..) => Some(((number, true), stream)),
            Ok(0) | Err(_) => None,
        }
    });
    signs.chain(stream::iter([(number, false)])).boxed()
}

impl Heard {
    fn sign(&mut self, number: u64, open: bool, now: Instant) {
        if open {
            self.connections.insert(number, now);
        } else {
            self.connections.remove(&number);
        }
    }

    /// How the server is, and when that changes if nothing is heard.
    fn life(&mut self, now: Instant) -> (Life, Option<Instant>) {
        self.connections.retain(|_, last| *last + SILENCE > now);
        if let Some(last) = self.connections.values().max() {
            self.silent_since = None;
            return (Life::Alive, Some(*last + SILENCE));
        }
        let gone_at = *self.silent_since.get_or_insert(now) + PATIENCE;
        if gone_at > now { (Life::Silent, Some(gone_at)) } else { (Life::Gone, None) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fairlead_model::Revision;
    use tokio::io::AsyncWriteExt;

    use super::*;

    const HERE: &str = "172.29.0.11";

    fn slice(service: &str, endpoints: &[(&str, &str)]) -> EndpointSlice {
        EndpointSlice {
            name: ObjectName::new("kube-system", format!("{service}-4")),
            service: service.into(),
            endpoints: endpoints
                .iter()
                .map(|(node, address)| Endpoint::ready_at(address.parse().expect("an address"), node))
                .collect(),
            ..EndpointSlice::default()
        }
    }

    /// Ready and serving of each endpoint.
    fn states(changes: &[Change]) -> Vec<(bool, bool)> {
        let slices = changes.iter().filter_map(|change| match change {
            Change::PutSlice(slice) => Some(slice),
            _ => None,
        });
        slices.flat_map(|slice| &slice.endpoints).map(|end| (end.ready, end.serving)).collect()
    }

    fn update(slice: EndpointSlice) -> Update {
        let revision = Revision { epoch: 1, sequence: 1 };
        Update { revision, snapshot: true, changes: vec![Change::PutSlice(slice)] }
    }

    #[test]
    fn the_endpoint_of_a_server_that_is_not_alive_gives_way_to_others() {
        const READY: (bool, bool) = (true, true);
        const DRAINS: (bool, bool) = (false, true);
        const ENDED: (bool, bool) = (false, false);
        let both = slice("kube-dns", &[("node-1", HERE), ("node-2", "172.29.0.12")]);
        let alone = slice("kube-dns", &[("node-1", HERE)]);
        let pod = slice("kube-dns", &[("node-1", "10.244.0.7")]);
        let other = slice("web", &[("node-1", HERE)]);
        let rows = [
            (&both, Life::Alive, vec![READY, READY]),
            (&both, Life::Silent, vec![DRAINS, READY]),
            (&both, Life::Gone, vec![ENDED, READY]),
            (&alone, Life::Gone, vec![DRAINS]),
            (&pod, Life::Gone, vec![READY]),
            (&other, Life::Gone, vec![READY]),
        ];
        for (slice, life, expected) in rows {
            let mut resolver = OwnResolver::new("node-1".into(), vec![HERE.parse().expect("an address")]);
            let mut first = update(slice.clone());
            resolver.alter(&mut first);
            assert_eq!(first.changes, [Change::PutSlice(slice.clone())]);
            let turned = resolver.turn(life);
            let own = slice != &pod && slice != &other;
            assert_eq!(states(&turned), if own { expected.clone() } else { Vec::new() }, "{life:?}");
            // What the feed says meanwhile is seen in the same light, and the light goes with the silence.
            let mut again = update(slice.clone());
            resolver.alter(&mut again);
            assert_eq!(states(&again.changes), expected, "{life:?}");
            let back = if own { vec![Change::PutSlice(slice.clone())] } else { Vec::new() };
            assert_eq!(resolver.turn(Life::Alive), back);
        }
    }

    #[test]
    fn a_slice_that_is_gone_does_not_come_back_with_the_server() {
        let mut resolver = OwnResolver::new("node-1".into(), vec![HERE.parse().expect("an address")]);
        let slice = slice("kube-dns", &[("node-1", HERE)]);
        resolver.alter(&mut update(slice.clone()));
        let deleted = Change::DeleteSlice(slice.name.clone());
        let mut gone = Update { snapshot: false, changes: vec![deleted], ..update(slice) };
        resolver.alter(&mut gone);
        assert_eq!(resolver.turn(Life::Silent), []);
    }

    #[test]
    fn silence_comes_before_the_end_and_one_sign_ends_both() {
        let begin = Instant::now();
        let mut heard = Heard { connections: BTreeMap::from([(0, begin)]), silent_since: None };
        let silent = begin + SILENCE;
        assert_eq!(heard.life(begin), (Life::Alive, Some(silent)));
        assert_eq!(heard.life(silent), (Life::Silent, Some(silent + PATIENCE)));
        assert_eq!(heard.life(silent + PATIENCE), (Life::Gone, None));
        let back = silent + PATIENCE * 2;
        heard.sign(1, true, back);
        heard.sign(2, true, back);
        assert_eq!(heard.life(back), (Life::Alive, Some(back + SILENCE)));
        heard.sign(1, false, back);
        assert_eq!(heard.life(back).0, Life::Alive, "the successor is there already");
        heard.sign(2, false, back);
        assert_eq!(heard.life(back), (Life::Silent, Some(back + PATIENCE)), "an end is known at once");
    }

    #[tokio::test]
    async fn a_server_is_alive_from_its_first_sign_to_the_end_of_its_connection() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = Arc::new(folder.path().join("dns.sock"));
        let (heartbeats, mut life) = Heartbeats::new(UnixListener::bind(&*path).expect("a socket"));
        let stop = CancellationToken::new();
        let listening = tokio::spawn(heartbeats.run(stop.clone()));
        let mut is = async |wanted: Life| drop(life.wait_for(|life| *life == wanted).await.expect("listens"));
        // Nobody there from the beginning.
        is(Life::Gone).await;
        let mut server = UnixStream::connect(&*path).await.expect("it listens");
        server.write_all(&[1]).await.expect("it listens");
        is(Life::Alive).await;
        drop(server);
        is(Life::Silent).await;
        stop.cancel();
        listening.await.expect("no panic").expect("it ends as it is told");
    }
}
