//! The store on etcd, in upstream's key layout: what an object's key is below the root is its key in etcd below a
//! prefix, and revisions are etcd's own.
//!
//! Reads and writes go to etcd. Watches do not: one etcd watch on everything below the prefix feeds an in-process,
//! ordered fan-out and a bounded history, as the watch cache of kube-apiserver does. So a thousand watches cost etcd
//! one, and each sees the same order. When the connection breaks, that watch goes on after the last revision that it
//! received; the watches fed by it notice nothing.
//!
//! A write whose connection breaks in the middle may or may not have happened. It is answered with
//! [`StoreError::Unavailable`] and never repeated here; what certainly was not sent is tried again.

mod call;
mod compactor;
mod follower;
mod history;
mod keys;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, GetOptions, GetResponse, Identity, KeyValue,
    TlsOptions, Txn, TxnOp, TxnOpResponse,
};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::watch::Hub;
use crate::{Entry, ListRequest, Listing, Revision, Store, StoreError, Watch, Write};
use call::{Caller, Failure, signed, unsigned};
use follower::Follower;
use history::History;
use keys::Keys;

/// How etcd is reached and what of it is used.
#[derive(Clone, Debug)]
pub struct EtcdConfig {
    /// Client URLs of the members, `http://` or `https://`.
    pub endpoints: Vec<String>,
    /// What every key of this store begins with; keys elsewhere are refused.
    pub root: String,
    /// What stands for the root in etcd.
    pub prefix: String,
    /// Certificates for `https` endpoints.
    pub tls: EtcdTls,
    /// How long to wait for etcd when connecting.
    pub connect_patience: Duration,
    /// How often the history is compacted, whoever shares this etcd; never when absent.
    pub compact_every: Option<Duration>,
    /// How many changes are kept in memory for watches that begin in the past.
    pub history_len_max: usize,
    /// How many bytes of values these may hold.
    pub history_bytes_max: usize,
    /// How many events may wait for one watcher before it is cut off.
    pub watch_queue_len_max: usize,
}

/// PEM files; all may be absent.
#[derive(Clone, Debug, Default)]
pub struct EtcdTls {
    /// Authorities of etcd's certificate.
    pub ca_file: Option<PathBuf>,
    /// Our certificate.
    pub cert_file: Option<PathBuf>,
    /// Its key.
    pub key_file: Option<PathBuf>,
}

impl EtcdConfig {
    /// The defaults, for these endpoints.
    #[must_use]
    pub fn new(endpoints: Vec<String>) -> Self {
        Self {
            endpoints,
            root: "/registry".to_owned(),
            prefix: "/registry".to_owned(),
            tls: EtcdTls::default(),
            connect_patience: Duration::from_secs(30),
            // kube-apiserver's --etcd-compaction-interval.
            compact_every: Some(Duration::from_secs(300)),
            history_len_max: 20_000,
            history_bytes_max: 64 << 20,
            watch_queue_len_max: 1_024,
        }
    }
}

/// The store on etcd.
pub struct EtcdStore {
    caller: Caller,
    keys: Keys,
    hub: Arc<Hub>,
    history: Arc<History>,
    /// The follower and the compactor; they end with the store.
    _tasks: JoinSet<()>,
}

/// A dead member is noticed within these two.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(5);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Longer than etcd itself waits for a majority: 5 s and two elections.
const CALL_TIMEOUT: Duration = Duration::from_secs(8);
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);
const CONNECT_RETRY_EVERY: Duration = Duration::from_millis(500);
/// How many entries one request to etcd asks for.
const PAGE_LEN: usize = 10_000;
/// How many keys are read at first for a page that is bounded in bytes.
const FIRST_LEN: usize = 8;

impl EtcdStore {
    /// Connects, waiting for etcd up to the configured patience.
    pub async fn connect(config: &EtcdConfig) -> Result<Self, StoreError> {
        let endpoints: Arc<str> = config.endpoints.join(", ").into();
        let options = connect_options(config)?;
        let client = Client::connect(&config.endpoints, Some(options)).await;
        let client = client.map_err(|error| StoreError::Refused {
            operation: "connect",
            endpoints: endpoints.clone(),
            reason: error.to_string(),
        })?;
        let caller = Caller::new(&client, endpoints);
        let keys = Keys::new(&config.root, &config.prefix);
        let start = Self::history_start(&caller, &keys, config).await?;
        let hub = Arc::new(Hub::new(start, config.watch_queue_len_max));
        let history = Arc::new(History::new(start, config.history_len_max, config.history_bytes_max));
        let mut tasks = JoinSet::new();
        let follower = Follower::new(caller.clone(), keys.clone(), hub.clone(), history.clone());
        tasks.spawn(follower.run());
        if let Some(every) = config.compact_every {
            tasks.spawn(compactor::run(caller.clone(), every));
        }
        Ok(Self { caller, keys, hub, history, _tasks: tasks })
    }

    /// Where the history in memory can begin: not before what etcd still has, nor longer than what is kept here.
    async fn history_start(
        caller: &Caller,
        keys: &Keys,
        config: &EtcdConfig,
    ) -> Result<Revision, StoreError> {
        const OPERATION: &str = "connect";
        let give_up = Instant::now() + config.connect_patience;
        let current = loop {
            match caller.revision(keys.root_key()).await {
                Ok(current) => break current,
                Err(Failure::NotSent(reason) | Failure::Unclear(reason)) if Instant::now() < give_up => {
                    tracing::warn!(endpoints = %caller.endpoints(), reason, "waiting for etcd");
                    sleep(CONNECT_RETRY_EVERY).await;
                }
                Err(failure) => return Err(caller.error(OPERATION, failure)),
            }
        };
        let wanted = current.saturating_sub(config.history_len_max as u64);
        let options = GetOptions::new().with_count_only().with_revision(signed(wanted.max(1)));
        match caller.range(keys.root_key(), options).await {
            Ok(_) => Ok(wanted),
            Err(Failure::Compacted) => caller.compacted(keys.root_key(), OPERATION).await,
            Err(failure) => Err(caller.error(OPERATION, failure)),
        }
    }

    async fn range(
        &self,
        operation: &'static str,
        start: Vec<u8>,
        options: GetOptions,
        at: Option<Revision>,
    ) -> Result<GetResponse, StoreError> {
        match self.caller.range(start, options).await {
            Ok(found) => Ok(found),
            Err(Failure::Compacted) => {
                let compacted = self.caller.compacted(self.keys.root_key(), operation).await?;
                Err(StoreError::Compacted { requested: at.unwrap_or(0), compacted })
            }
            Err(Failure::Future) => Err(StoreError::FutureRevision {
                requested: at.unwrap_or(0),
                current: self.revision().await?,
            }),
            Err(failure) => Err(self.caller.error(operation, failure)),
        }
    }

    fn entry(&self, found: KeyValue) -> Option<Entry> {
        let (create_revision, mod_revision) =
            (unsigned(found.create_revision()), unsigned(found.mod_revision()));
        let (key, value) = found.into_key_value();
        Some(Entry { key: self.keys.inside(&key)?, value: value.into(), create_revision, mod_revision })
    }
}

/// The precondition of a write, the write, and the read that tells why it was refused.
fn operations(outside: &[u8], write: &Write) -> (Compare, TxnOp, TxnOp) {
    // To etcd, revision 0 of a key means that it does not exist; nobody has read that.
    let last_change = |expected: Revision| if expected == 0 { i64::MAX } else { signed(expected) };
    let (compare, operation) = match write {
        Write::Create { value, .. } => {
            (Compare::mod_revision(outside, CompareOp::Equal, 0), TxnOp::put(outside, value.clone(), None))
        }
        Write::Update { value, expected, .. } => (
            Compare::mod_revision(outside, CompareOp::Equal, last_change(*expected)),
            TxnOp::put(outside, value.clone(), None),
        ),
        Write::Delete { expected: Some(expected), .. } => (
            Compare::mod_revision(outside, CompareOp::Equal, last_change(*expected)),
            TxnOp::delete(outside, None),
        ),
        Write::Delete { expected: None, .. } => {
            (Compare::mod_revision(outside, CompareOp::Greater, 0), TxnOp::delete(outside, None))
        }
    };
    (compare, operation, TxnOp::get(outside, None))
}

#[async_trait]
impl Store for EtcdStore {
    async fn transact(&self, writes: Vec<Write>) -> Result<Revision, StoreError> {
        const OPERATION: &str = "write to";
        let (mut compares, mut changes, mut reads) = (Vec::new(), Vec::new(), Vec::new());
        for (index, write) in writes.iter().enumerate() {
            if writes[..index].iter().any(|other| other.key() == write.key()) {
                return Err(StoreError::NamedTwice { key: write.key().to_owned() });
            }
            let (compare, operation, read) = operations(&self.keys.outside(write.key())?, write);
            compares.push(compare);
            changes.push(operation);
            reads.push(read);
        }
        let txn = Txn::new().when(compares).and_then(changes).or_else(reads);
        let answer =
            self.caller.commit(txn).await.map_err(|failure| self.caller.error(OPERATION, failure))?;
        if answer.succeeded() {
            return Ok(unsigned(answer.header().map_or(0, etcd_client::ResponseHeader::revision)));
        }
        let stored = answer.op_responses().into_iter().map(|response| match response {
            TxnOpResponse::Get(found) => found.kvs().first().map(|found| unsigned(found.mod_revision())),
            _ => None,
        });
        let refusal = writes.iter().zip(stored).find_map(|(write, stored)| write.refusal(stored));
        let odd = || Failure::Unclear("it refused a transaction whose preconditions hold".to_owned());
        Err(refusal.unwrap_or_else(|| self.caller.error(OPERATION, odd())))
    }

    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let mut found = self.range("read a key of", self.keys.outside(key)?, GetOptions::new(), None).await?;
        Ok(found.take_kvs().pop().and_then(|found| self.entry(found)))
    }

    async fn list(&self, request: ListRequest) -> Result<Listing, StoreError> {
        const OPERATION: &str = "list keys of";
        let Some((mut start, end)) = self.keys.range(&request.prefix) else {
            return Ok(Listing { entries: Vec::new(), revision: self.revision().await?, remaining: 0 });
        };
        if let Some(after) = &request.after {
            // The first key that sorts after it.
            start = start.max(self.keys.outside(after)?);
            start.push(0);
        }
        let limit = request.limit.unwrap_or(usize::MAX);
        let bytes_max = request.bytes_max.unwrap_or(usize::MAX);
        let mut at = request.at;
        let (mut entries, mut bytes) = (Vec::<Entry>::new(), 0);
        loop {
            let page = PAGE_LEN.min(limit - entries.len());
            // etcd counts keys and not bytes, so that it is asked for few until it is known how long they are.
            let page = match (request.bytes_max, bytes / entries.len().max(1)) {
                (None, _) => page,
                (Some(_), 0) => page.min(FIRST_LEN),
                (Some(_), average) => page.min((bytes_max - bytes).div_ceil(average)),
            };
            let mut options = GetOptions::new().with_range(end.clone()).with_limit(page as i64);
            // Revision 0 means "the newest" to etcd; its empty store is revision 1.
            options = at.map_or(options.clone(), |at| options.with_revision(signed(at.max(1))));
            let mut found = self.range(OPERATION, start.clone(), options, at).await?;
            let revision = at
                .unwrap_or_else(|| unsigned(found.header().map_or(0, etcd_client::ResponseHeader::revision)));
            at = Some(revision);
            let count = usize::try_from(found.count()).unwrap_or(0);
            let kvs = found.take_kvs();
            let beyond = count.saturating_sub(kvs.len());
            if let Some(last) = kvs.last() {
                start = [last.key(), &[0]].concat();
            }
            let mut kvs = kvs.into_iter();
            while bytes < bytes_max
                && let Some(found) = kvs.next()
            {
                if let Some(entry) = self.entry(found) {
                    bytes += entry.value.len();
                    entries.push(entry);
                }
            }
            let remaining = beyond + kvs.len();
            if remaining == 0 || entries.len() >= limit || bytes >= bytes_max {
                return Ok(Listing { entries, revision, remaining });
            }
        }
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        if after > self.hub.published() {
            let current = self.revision().await?;
            if after > current {
                return Err(StoreError::FutureRevision { requested: after, current });
            }
        }
        let registration = self.hub.register(prefix, after);
        let backlog = self.history.since(prefix, after, registration.history_until)?;
        Ok(registration.complete(backlog))
    }

    async fn compact(&self, upto: Revision) -> Result<(), StoreError> {
        let upto = upto.min(self.revision().await?);
        if upto == 0 {
            return Ok(());
        }
        match self.caller.compact(upto).await {
            Ok(()) | Err(Failure::Compacted) => {
                self.history.forget(upto);
                Ok(())
            }
            Err(failure) => Err(self.caller.error("compact the history of", failure)),
        }
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        let found = self.caller.revision(self.keys.root_key()).await;
        found.map_err(|failure| self.caller.error("read the revision of", failure))
    }

    async fn health(&self) -> Result<(), StoreError> {
        let answer = timeout(HEALTH_TIMEOUT, self.revision()).await;
        let silence = || Failure::Unclear(format!("no answer within {} s", HEALTH_TIMEOUT.as_secs()));
        answer.unwrap_or_else(|_| Err(self.caller.error("read the revision of", silence()))).map(drop)
    }
}

impl fmt::Debug for EtcdStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdStore").field("endpoints", &self.caller.endpoints()).finish_non_exhaustive()
    }
}

fn connect_options(config: &EtcdConfig) -> Result<ConnectOptions, StoreError> {
    let options = ConnectOptions::new()
        .with_keep_alive(KEEP_ALIVE_EVERY, KEEP_ALIVE_TIMEOUT)
        .with_keep_alive_while_idle(true)
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_timeout(CALL_TIMEOUT)
        .with_require_leader(true);
    let files = &config.tls;
    let mut tls = TlsOptions::new();
    if let Some(path) = &files.ca_file {
        tls = tls.ca_certificate(Certificate::from_pem(read(path)?));
    }
    match (&files.cert_file, &files.key_file) {
        (Some(cert), Some(key)) => tls = tls.identity(Identity::from_pem(read(cert)?, read(key)?)),
        (None, None) if files.ca_file.is_none() => return Ok(options),
        (None, None) => {}
        _ => {
            return Err(StoreError::Refused {
                operation: "connect",
                endpoints: config.endpoints.join(", ").into(),
                reason: "a client certificate and its key are only of use together".to_owned(),
            });
        }
    }
    Ok(options.with_tls(tls))
}

fn read(path: &Path) -> Result<Vec<u8>, StoreError> {
    let failed =
        |error| StoreError::Directory { operation: "read", path: path.to_owned(), source: Arc::new(error) };
    std::fs::read(path).map_err(failed)
}
