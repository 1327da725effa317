//! One Corefile made ready to serve: who answers on which listener, and what runs beside.
//!
//! Nothing is bound or started here, so that a Corefile that does not work changes nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use fairlead_zone::Name;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    chain::{Routes, ServerBlock, Site},
    corefile::{self, Block, CorefileError, Key, Scheme, Surroundings, Token, parse_key},
    metrics::Family,
    plugin::{self, BlockParts, Setup},
    world::World,
};

const PANICS: Family =
    Family { name: "coredns_panics_total", help: "A metrics that counts the number of panics." };

/// Refreshes that run, and that wait, at a time.
const BACKGROUND_MAX: usize = 512;

/// What a Corefile comes to.
pub(crate) struct Generation {
    pub(crate) listeners: BTreeMap<(SocketAddr, Scheme), Listener>,
    pub(crate) parts: Parts,
    /// Ends what runs beside.
    pub(crate) stop: CancellationToken,
}

/// What is served on an address.
pub(crate) struct Listener {
    pub(crate) routes: Routes,
    pub(crate) tls: Option<Arc<rustls::ServerConfig>>,
}

/// What a Corefile has besides server blocks.
#[derive(Default)]
pub(crate) struct Parts {
    /// Run until another Corefile takes over.
    pub(crate) tasks: Vec<BoxFuture<'static, ()>>,
    /// What is served over HTTP, and where.
    pub(crate) endpoints: BTreeMap<SocketAddr, Endpoint>,
    /// How often the file is looked at, and by how much that varies.
    pub(crate) reload: Option<(Duration, Duration)>,
    /// How long to go on serving when told to end.
    pub(crate) lameduck: Duration,
    /// Whether readiness is asked for each time, not only until it was reached.
    pub(crate) ready_continuously: bool,
}

/// Runs work that outlives the question it is for.
#[derive(Clone)]
pub(crate) struct Background(mpsc::Sender<BoxFuture<'static, ()>>);

impl Background {
    /// Whether it was taken: it is not when too much is waiting.
    pub(crate) fn start(&self, work: BoxFuture<'static, ()>) -> bool {
        self.0.try_send(work).is_ok()
    }
}

impl Parts {
    /// A place for work in the background of this Corefile.
    pub(crate) fn background(&mut self) -> Background {
        let (sender, mut works) = mpsc::channel::<BoxFuture<'static, ()>>(BACKGROUND_MAX);
        let run = async move {
            let mut running = FuturesUnordered::new();
            loop {
                tokio::select! {
                    Some(work) = works.recv(), if running.len() < BACKGROUND_MAX => running.push(work),
                    Some(()) = running.next(), if !running.is_empty() => {}
                    else => return,
                }
            }
        };
        self.tasks.push(run.boxed());
        Background(sender)
    }
}

/// What an HTTP address serves.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Endpoint {
    pub(crate) metrics: bool,
    pub(crate) health: bool,
    pub(crate) ready: bool,
}

/// The sites of a listener by zone in lower case, and its certificate.
type Place = (BTreeMap<Box<[u8]>, Site>, Option<Arc<rustls::ServerConfig>>);

struct Sites {
    sites: BTreeMap<(SocketAddr, Scheme), Place>,
}

impl Generation {
    /// From the text of a Corefile.
    pub(crate) fn load(world: &Arc<World>, file: &str, text: &str) -> Result<Self, CorefileError> {
        let blocks = corefile::parse(file, text, &Surroundings::real())?;
        let whole = Token { text: String::new(), file: file.into(), line: 1 };
        if blocks.is_empty() {
            return Err(CorefileError::new(&whole, "", "there is no server block; try `.:53 { whoami }`"));
        }
        let directory = Path::new(file).parent().unwrap_or(Path::new("")).to_path_buf();
        let stop = CancellationToken::new();
        // What was started for a Corefile that turns out to be bad ends with it.
        let guard = stop.clone().drop_guard();
        let mut parts = Parts::default();
        let mut sites = Sites { sites: BTreeMap::new() };
        for block in &blocks {
            let keys = read_keys(block)?;
            let zones: Vec<Name> = keys.iter().flat_map(|key| key.zones.iter().cloned()).collect();
            let server = keys.first().map(label).unwrap_or_default();
            let mut setup = Setup {
                world,
                zones: &zones,
                keys: &keys,
                server: &server,
                directory: directory.clone(),
                block: BlockParts::default(),
                parts: &mut parts,
            };
            let plugins = plugin::set_up(&mut setup, &block.directives)?.into();
            let built = setup.block;
            let panics = (!built.debug).then(|| world.registry.counter(&PANICS, &[]));
            let chain = Arc::new(ServerBlock { plugins, recursion: built.recursion, panics });
            for (key, token) in keys.iter().zip(&block.keys) {
                sites.add(world, key, token, &chain, &built)?;
            }
        }
        let listeners = sites
            .sites
            .into_iter()
            .map(|(key, (sites, tls))| (key, Listener { routes: Routes::new(sites.into_values()), tls }));
        let listeners = listeners.collect();
        Ok(Self { listeners, parts, stop: guard.disarm() })
    }
}

impl Sites {
    /// Puts a key's zones on all its listeners.
    fn add(
        &mut self,
        world: &Arc<World>,
        key: &Key,
        token: &Token,
        chain: &Arc<ServerBlock>,
        built: &BlockParts,
    ) -> Result<(), CorefileError> {
        let fault = |message: String| CorefileError::new(token, "", message);
        if key.scheme != Scheme::Dns && built.tls.is_none() {
            return Err(fault(format!(
                "{} needs a certificate: add `tls CERT KEY` to the server block",
                token.text
            )));
        }
        for address in addresses(world, key, built).map_err(fault)? {
            if let Some(other) = self.sites.keys().find(|other| clash(**other, (address, key.scheme))) {
                return Err(fault(format!(
                    "{} cannot be served beside {} of another server block: they share a port; give both blocks \
                     the same scheme and `bind`, or another port",
                    listener(address, key.scheme),
                    listener(other.0, other.1),
                )));
            }
            let (sites, tls) = self.sites.entry((address, key.scheme)).or_default();
            tls.clone_from(&built.tls);
            for zone in &key.zones {
                let metrics = built.metered.then(|| world.registry.site(&label(key), &zone.to_string()));
                let site = Site { zone: zone.clone(), block: Arc::clone(chain), metrics };
                if sites.insert(zone.to_lower_wire(), site).is_some() {
                    return Err(fault(format!(
                        "the zone {zone} is served on {address} twice; give one of them another port or address"
                    )));
                }
            }
        }
        Ok(())
    }
}

/// Whether two different listeners want the same port of the same address.
fn clash(one: (SocketAddr, Scheme), other: (SocketAddr, Scheme)) -> bool {
    let (here, there) = (one.0, other.0);
    let everywhere = here.ip().is_unspecified() || there.ip().is_unspecified();
    // Plain DNS has both protocols, QUIC only UDP, the others only TCP.
    let quic = |scheme| scheme == Scheme::Quic;
    let protocol = [one.1, other.1].contains(&Scheme::Dns) || quic(one.1) == quic(other.1);
    one != other
        && protocol
        && here.port() == there.port()
        && here.port() != 0
        && here.is_ipv4() == there.is_ipv4()
        && (here.ip() == there.ip() || everywhere)
}

fn listener(address: SocketAddr, scheme: Scheme) -> String {
    format!("{}://{address}", scheme.as_str())
}

/// The `server` label of metrics.
fn label(key: &Key) -> String {
    format!("{}://:{}", key.scheme.as_str(), key.port)
}

fn read_keys(block: &Block) -> Result<Vec<Key>, CorefileError> {
    let read =
        |token: &Token| parse_key(&token.text).map_err(|message| CorefileError::new(token, "", message));
    block.keys.iter().map(read).collect()
}

/// Where a key is served.
fn addresses(world: &World, key: &Key, built: &BlockParts) -> Result<BTreeSet<SocketAddr>, String> {
    if !built.bind.is_empty() {
        let mut hosts = BTreeSet::new();
        for place in &built.bind {
            hosts.extend(hosts_of(place)?);
        }
        for place in &built.bind_except {
            for host in hosts_of(place)? {
                hosts.remove(&host);
            }
        }
        if hosts.is_empty() {
            return Err(format!("bind leaves no address for {}", built.bind.join(" ")));
        }
        return Ok(hosts.into_iter().map(|host| SocketAddr::new(host, key.port)).collect());
    }
    let listen = &world.config.listen;
    if listen.is_empty() {
        let v6 = std::net::UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
        let hosts = [Some(IpAddr::from(Ipv4Addr::UNSPECIFIED)), v6.then_some(Ipv6Addr::UNSPECIFIED.into())];
        return Ok(hosts.into_iter().flatten().map(|host| SocketAddr::new(host, key.port)).collect());
    }
    let usual = key.scheme == Scheme::Dns && key.port == 53;
    let place = |address: &SocketAddr| if usual { *address } else { (address.ip(), key.port).into() };
    Ok(listen.iter().map(place).collect())
}

/// The addresses of an address or of an interface.
fn hosts_of(place: &str) -> Result<Vec<IpAddr>, String> {
    if let Ok(address) = place.parse() {
        return Ok(vec![address]);
    }
    let interfaces = nix::ifaddrs::getifaddrs().map_err(|e| format!("bind: cannot list interfaces: {e}"))?;
    let of_place = interfaces.filter(|interface| interface.interface_name == place);
    let hosts = of_place.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::from(address.ip()));
        // A link-local address needs a scope and is nobody's name server.
        let v6 = address
            .as_sockaddr_in6()
            .map(nix::sys::socket::SockaddrIn6::ip)
            .filter(|ip| !ip.is_unicast_link_local());
        v4.or(v6.map(IpAddr::from))
    });
    let hosts: Vec<IpAddr> = hosts.collect();
    if hosts.is_empty() {
        Err(format!("bind: {place:?} is neither an address nor an interface with addresses"))
    } else {
        Ok(hosts)
    }
}
