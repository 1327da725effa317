//! The server: binds what its Corefile says, serves, and takes a new Corefile over while serving.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use fairlead_model::Update;
use futures::{FutureExt, Stream, StreamExt, future::BoxFuture, stream::BoxStream};
use sha2::{Digest, Sha512};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Config, Corefile, DnsError,
    admin::{Admin, Status},
    chain::ServerBlock,
    corefile::{self, Scheme, Surroundings},
    generation::{Endpoint, Generation, Listener},
    handler::Handler,
    heartbeat,
    listen::{self, Listen},
    metrics::{Counter, Family},
    snapshot, sync,
    world::World,
};

const RELOAD_FAILED: Family =
    Family { name: "coredns_reload_failed_total", help: "Counter of the number of failed reload attempts." };
const RELOAD_VERSION: Family = Family {
    name: "coredns_reload_version_info",
    help: "A metric with a constant '1' value labeled by hash, and value which type of hash generated.",
};
/// How often a Corefile without `reload` is looked at: never, for all practical purposes.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);
/// Notices that wait to be read; more are dropped.
const NOTICES_MAX: usize = 16;

type Task = BoxFuture<'static, Result<(), DnsError>>;
type Key = (SocketAddr, Scheme);

/// What happened to the Corefile while serving.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Notice {
    /// A new one is served.
    Reloaded,
    /// A new one does not work, for this reason; the old one is served.
    Rejected(String),
}

/// A DNS server that is bound and not yet running.
pub struct DnsServer {
    world: Arc<World>,
    updates: BoxStream<'static, Update>,
    fatal: mpsc::UnboundedReceiver<DnsError>,
    status: Arc<Status>,
    listeners: BTreeMap<Key, Bound>,
    admins: BTreeMap<SocketAddr, BoundAdmin>,
    current: Current,
    /// To be spawned.
    starts: Vec<Task>,
    /// Ends everything.
    stop: CancellationToken,
    failures: Arc<Counter>,
    notices: Option<mpsc::Sender<Notice>>,
}

/// A listener that is served.
struct Bound {
    address: SocketAddr,
    handler: Arc<Handler>,
    stop: CancellationToken,
}

/// An HTTP listener that is served.
struct BoundAdmin {
    address: Option<SocketAddr>,
    endpoint: Arc<arc_swap::ArcSwap<Endpoint>>,
    stop: CancellationToken,
}

/// The Corefile that is served.
struct Current {
    text: Text,
    /// What was last tried, with its imports; nothing where it could not be read.
    tried: Option<(Text, Option<Vec<corefile::Block>>)>,
    stop: CancellationToken,
    reload: Option<(Duration, Duration)>,
    lameduck: Duration,
}

/// A Corefile's name and text.
#[derive(Clone, PartialEq, Eq)]
struct Text {
    file: String,
    text: String,
}

impl DnsServer {
    /// Reads the Corefile and binds all sockets. Updates of the cluster come from a stream, so that their source (the
    /// feed, a file, a test) is not this server's business.
    pub async fn new(
        config: Config,
        updates: impl Stream<Item = Update> + Send + 'static,
    ) -> Result<Self, DnsError> {
        let (fatal_sender, fatal) = mpsc::unbounded_channel();
        let updates = match config.snapshot.clone() {
            Some(path) => snapshot::remember(path, updates.boxed()).boxed(),
            None => updates.boxed(),
        };
        let world = Arc::new(World::new(config, fatal_sender));
        let status = Arc::new(Status::new(Arc::clone(&world.registry)));
        let text = Text::read(&world.config, None)?;
        let mut server = Self {
            failures: world.registry.counter(&RELOAD_FAILED, &[]),
            current: Current::nothing(text.clone()),
            world,
            updates,
            fatal,
            status,
            listeners: BTreeMap::new(),
            admins: BTreeMap::new(),
            starts: Vec::new(),
            stop: CancellationToken::new(),
            notices: None,
        };
        server.take_over(text).await?;
        Ok(server)
    }

    /// The bound addresses, in order.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.values().map(|bound| bound.address).collect()
    }

    /// Where metrics, health and readiness are served, in this order, as far as they are.
    pub fn endpoint_addresses(&self) -> Vec<SocketAddr> {
        let wanted: [fn(&Endpoint) -> bool; 3] =
            [|endpoint| endpoint.metrics, |endpoint| endpoint.health, |endpoint| endpoint.ready];
        let find = |wanted: &fn(&Endpoint) -> bool| {
            let admin = self.admins.values().find(|admin| wanted(&admin.endpoint.load()))?;
            admin.address
        };
        wanted.iter().filter_map(find).collect()
    }

    /// What happens to the Corefile from now on.
    pub fn notices(&mut self) -> mpsc::Receiver<Notice> {
        let (sender, receiver) = mpsc::channel(NOTICES_MAX);
        self.notices = Some(sender);
        receiver
    }

    /// Serves until shutdown or until something fails that cannot be repaired.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), DnsError> {
        let mut tasks: JoinSet<Result<(), DnsError>> = JoinSet::new();
        let mut updates = std::mem::replace(&mut self.updates, futures::stream::empty().boxed());
        let mut known = sync::Known::default();
        // What is known from the last run is there at once: the first question meets it.
        if let Some(Some(update)) = updates.next().now_or_never() {
            self.world.cluster.apply(&mut known, update);
        }
        let following = sync::follow(updates, known, Arc::clone(&self.world.cluster), self.stop.clone());
        self.starts.push(following.map(Ok).boxed());
        self.starts.extend(self.signs_of_life());
        let mut corefiles = self.world.cluster.corefile();
        if corefiles.borrow().is_some() {
            self.reload(None).await;
        }
        let mut look_at = self.next_look();
        let mut result = Ok(());
        loop {
            for task in self.starts.drain(..) {
                tasks.spawn(task);
            }
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(error) = self.fatal.recv() => {
                    result = Err(error);
                    break;
                }
                Some(ended) = tasks.join_next() => {
                    result = outcome(ended);
                    if result.is_err() {
                        break;
                    }
                }
                () = sleep_until(look_at) => {
                    self.reload(None).await;
                    look_at = self.next_look();
                }
                Ok(()) = corefiles.changed() => {
                    let text = corefiles.borrow_and_update().clone();
                    self.reload(text).await;
                    look_at = self.next_look();
                }
            }
        }
        if result.is_ok() {
            self.status.ending.store(true, Ordering::Relaxed);
            lameduck(self.current.lameduck, &mut tasks).await;
        }
        self.current.stop.cancel();
        self.stop.cancel();
        while let Some(ended) = tasks.join_next().await {
            let ended = outcome(ended);
            result = result.and(ended);
        }
        result
    }

    /// Shows whoever wants to know that this server is alive.
    fn signs_of_life(&self) -> Option<Task> {
        let path = self.world.config.heartbeat.clone()?;
        let beating = heartbeat::beat(path, Arc::clone(&self.world.pulse), Arc::clone(&self.status));
        let stop = self.stop.clone();
        let until = async move {
            stop.run_until_cancelled(beating).await;
            Ok(())
        };
        Some(until.boxed())
    }

    /// When the Corefile is to be looked at.
    fn next_look(&self) -> Instant {
        let wait = self.current.reload.map_or(NEVER, |(interval, jitter)| {
            let spread = jitter.as_secs_f64() * (rand::random::<f64>() * 2.0 - 1.0);
            Duration::from_secs_f64((interval.as_secs_f64() + spread).max(0.1))
        });
        Instant::now() + wait
    }

    /// Takes the Corefile over if it is another one; a bad one changes nothing.
    async fn reload(&mut self, from_cluster: Option<String>) {
        let known = match self.world.config.corefile {
            Corefile::Cluster => from_cluster.or_else(|| self.world.cluster.corefile().borrow().clone()),
            Corefile::File(_) | Corefile::Text { .. } => None,
        };
        let result = match Text::read(&self.world.config, known) {
            Ok(text) if self.is_served(&text) => return,
            Ok(text) => self.take_over(text).await,
            Err(error) => Err(error),
        };
        let notice = match result {
            Ok(()) => {
                tracing::info!("the Corefile was reloaded");
                Notice::Reloaded
            }
            Err(error) => {
                self.failures.add();
                tracing::error!("the new Corefile does not work, the old one stays: {error}");
                Notice::Rejected(error.to_string())
            }
        };
        if let Some(notices) = &self.notices {
            // Who does not read them misses them.
            let _ = notices.try_send(notice);
        }
    }

    /// Whether nothing changed, in the file or in what it imports, since it was last tried.
    fn is_served(&mut self, text: &Text) -> bool {
        let blocks = corefile::parse(&text.file, &text.text, &Surroundings::real()).ok();
        let tried = (text.clone(), blocks);
        let same = self.current.tried.as_ref() == Some(&tried);
        self.current.tried = Some(tried);
        same
    }

    /// Serves a Corefile. Everything is bound before anything changes.
    async fn take_over(&mut self, text: Text) -> Result<(), DnsError> {
        let generation = Generation::load(&self.world, &text.file, &text.text)?;
        let guard = generation.stop.clone().drop_guard();
        let mut new = Vec::new();
        for (key, listener) in &generation.listeners {
            if !self.listeners.contains_key(key) {
                let (address, scheme) = *key;
                new.push((
                    *key,
                    listen::bind(&Listen {
                        address,
                        scheme,
                        tls: listener.tls.clone(),
                        workers: self.world.config.workers,
                        inherited: self.world.config.inherited.clone(),
                    })?,
                ));
            }
        }
        let mut new_admins = Vec::new();
        for (address, endpoint) in &generation.parts.endpoints {
            if !self.admins.contains_key(address) {
                new_admins.push((*address, Admin::bind(*address, *endpoint).await?));
            }
        }
        // From here on nothing fails.
        let stop = guard.disarm();
        let blocks = corefile::parse(&text.file, &text.text, &Surroundings::real()).ok();
        self.publish_version(&text);
        let old = std::mem::replace(
            &mut self.current,
            Current {
                tried: Some((text.clone(), blocks)),
                text,
                stop: stop.clone(),
                reload: generation.parts.reload,
                lameduck: generation.parts.lameduck,
            },
        );
        self.status.continuously.store(generation.parts.ready_continuously, Ordering::Relaxed);
        self.switch_listeners(generation.listeners, new);
        self.switch_admins(&generation.parts.endpoints, new_admins);
        for task in generation.parts.tasks {
            let (stop, all) = (stop.clone(), self.stop.clone());
            let until = async move {
                tokio::select! {
                    () = task => {}
                    () = stop.cancelled() => {}
                    () = all.cancelled() => {}
                }
                Ok(())
            };
            self.starts.push(until.boxed());
        }
        old.stop.cancel();
        Ok(())
    }

    fn switch_listeners(&mut self, listeners: BTreeMap<Key, Listener>, new: Vec<(Key, listen::Bound)>) {
        self.listeners.retain(|key, bound| {
            let keep = listeners.contains_key(key);
            if !keep {
                bound.stop.cancel();
            }
            keep
        });
        let mut new: BTreeMap<Key, listen::Bound> = new.into_iter().collect();
        let mut blocks: Vec<Arc<ServerBlock>> = Vec::new();
        for (key, listener) in listeners {
            let routes = Arc::new(listener.routes);
            blocks.extend(routes.sites().map(|site| Arc::clone(&site.block)));
            if let Some(bound) = self.listeners.get(&key) {
                bound.handler.replace(routes);
                continue;
            }
            let Some(sockets) = new.remove(&key) else { continue };
            let handler = Arc::new(Handler::new(routes, &self.world.registry, Arc::clone(&self.world.pulse)));
            let stop = self.stop.child_token();
            let address = sockets.address();
            let registry = Arc::clone(&self.world.registry);
            self.starts.push(sockets.serve(Arc::clone(&handler), registry, stop.clone()).boxed());
            self.listeners.insert(key, Bound { address, handler, stop });
        }
        self.status.blocks.store(Arc::new(blocks));
    }

    fn switch_admins(&mut self, endpoints: &BTreeMap<SocketAddr, Endpoint>, new: Vec<(SocketAddr, Admin)>) {
        self.admins.retain(|address, admin| match endpoints.get(address) {
            Some(endpoint) => {
                admin.endpoint.store(Arc::new(*endpoint));
                true
            }
            None => {
                admin.stop.cancel();
                false
            }
        });
        for (key, admin) in new {
            let stop = self.stop.child_token();
            let bound = BoundAdmin {
                address: admin.address(),
                endpoint: Arc::clone(&admin.endpoint),
                stop: stop.clone(),
            };
            self.starts.push(admin.serve(Arc::clone(&self.status), stop).map(Ok).boxed());
            self.admins.insert(key, bound);
        }
    }

    /// The hash of the Corefile as a metric; only one of them is 1.
    fn publish_version(&self, text: &Text) {
        let hash = |text: &Text| {
            let digest = Sha512::digest(text.text.as_bytes());
            digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        };
        let gauge = |text: &Text| {
            self.world.registry.gauge(&RELOAD_VERSION, &[("hash", "sha512"), ("value", &hash(text))])
        };
        gauge(&self.current.text).set(0);
        gauge(text).set(1);
    }
}

impl Current {
    /// Before the first one.
    fn nothing(text: Text) -> Self {
        Self { text, tried: None, stop: CancellationToken::new(), reload: None, lameduck: Duration::ZERO }
    }
}

impl Text {
    /// The Corefile as it is now.
    fn read(config: &Config, from_cluster: Option<String>) -> Result<Self, DnsError> {
        Ok(match (&config.corefile, from_cluster) {
            (Corefile::Cluster, Some(text)) => Self { file: "kube-system/coredns/Corefile".into(), text },
            (Corefile::Cluster, None) => Self { file: "Corefile".into(), text: config.default_corefile() },
            (Corefile::Text { name, text }, _) => Self { file: name.clone(), text: text.clone() },
            (Corefile::File(path), _) => {
                let text = read_file(path)?;
                Self { file: path.to_string_lossy().into_owned(), text }
            }
        })
    }
}

fn read_file(path: &Path) -> Result<String, DnsError> {
    std::fs::read_to_string(path).map_err(|source| DnsError::Unreadable { path: path.to_path_buf(), source })
}

/// Goes on answering for a while, so that clients find another server first.
async fn lameduck(length: Duration, tasks: &mut JoinSet<Result<(), DnsError>>) {
    if length.is_zero() {
        return;
    }
    tracing::info!(seconds = length.as_secs(), "answering a little longer before the end");
    let end = sleep(length);
    tokio::pin!(end);
    loop {
        tokio::select! {
            () = &mut end => return,
            Some(_) = tasks.join_next() => {}
        }
    }
}

fn outcome(ended: Result<Result<(), DnsError>, tokio::task::JoinError>) -> Result<(), DnsError> {
    // A panic in one loop ends the server: its supervisor starts a whole one again.
    match ended.map_err(tokio::task::JoinError::try_into_panic) {
        Ok(ended) => ended,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        Err(Err(_cancelled)) => Ok(()),
    }
}
