//! Calls to etcd: what a failure means, and when a call is tried again.

use std::error::Error as _;
use std::fmt;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{
    Client, Error, GetOptions, GetResponse, KvClient, Txn, TxnResponse, WatchClient, WatchOptions,
};
use tokio::time::{sleep, timeout};

use crate::{Revision, StoreError};

/// The clients, cheap to clone.
#[derive(Clone)]
pub(super) struct Caller {
    kv: KvClient,
    watch: WatchClient,
    endpoints: Arc<str>,
}

/// What a failed call means.
#[derive(Debug)]
pub(super) enum Failure {
    /// It did not get to etcd, or etcd turned it away unread.
    NotSent(String),
    /// It may have been executed.
    Unclear(String),
    /// Its revision has been compacted.
    Compacted,
    /// Its revision has not happened.
    Future,
    /// etcd has reached its quota.
    Full(String),
    /// It was refused for good.
    Refused(String),
}

/// gRPC's status codes (<https://grpc.io/docs/guides/status-codes/>).
const CANCELLED: i32 = 1;
const UNKNOWN: i32 = 2;
const DEADLINE_EXCEEDED: i32 = 4;
const RESOURCE_EXHAUSTED: i32 = 8;
const OUT_OF_RANGE: i32 = 11;
const INTERNAL: i32 = 13;
const UNAVAILABLE: i32 = 14;

const ATTEMPTS_MAX: u32 = 8;
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// How long etcd may take to say that a watch begins before its history.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

impl Caller {
    pub(super) fn new(client: &Client, endpoints: Arc<str>) -> Self {
        // etcd bounds a value at 1.5 MiB; how many come in one message is ours to choose.
        let kv = client.kv_client().max_decoding_message_size(usize::MAX);
        let watch = client.watch_client().max_decoding_message_size(usize::MAX);
        Self { kv, watch, endpoints }
    }

    pub(super) fn endpoints(&self) -> &str {
        &self.endpoints
    }

    pub(super) async fn range(&self, key: Vec<u8>, options: GetOptions) -> Result<GetResponse, Failure> {
        self.retried(true, |mut kv| {
            let (key, options) = (key.clone(), options.clone());
            async move { kv.get(key, Some(options)).await }
        })
        .await
    }

    pub(super) async fn commit(&self, txn: Txn) -> Result<TxnResponse, Failure> {
        self.retried(false, |mut kv| {
            let txn = txn.clone();
            async move { kv.txn(txn).await }
        })
        .await
    }

    pub(super) async fn compact(&self, upto: Revision) -> Result<(), Failure> {
        self.retried(true, |mut kv| async move { kv.compact(signed(upto), None).await }).await.map(drop)
    }

    /// The newest revision, agreed on by a majority of the members.
    pub(super) async fn revision(&self, key: Vec<u8>) -> Result<Revision, Failure> {
        let found = self.range(key, GetOptions::new().with_count_only()).await?;
        Ok(unsigned(found.header().map_or(0, etcd_client::ResponseHeader::revision)))
    }

    /// The newest compacted revision, when there is one. Only a watch is told it.
    pub(super) async fn compacted(
        &self,
        key: Vec<u8>,
        operation: &'static str,
    ) -> Result<Revision, StoreError> {
        let probe = async {
            let mut watch = self.watch.clone();
            let options = WatchOptions::new().with_start_revision(1);
            let mut stream = watch.watch(key, Some(options)).await.map_err(Failure::from)?;
            while let Some(response) = stream.message().await.map_err(Failure::from)? {
                if response.compact_revision() > 0 {
                    return Ok(unsigned(response.compact_revision()));
                }
            }
            Err(Failure::Unclear("the watch ended".to_owned()))
        };
        let silence = || Failure::Unclear("it does not say where its history begins".to_owned());
        let found = timeout(PROBE_TIMEOUT, probe).await.unwrap_or_else(|_| Err(silence()));
        found.map_err(|failure| self.error(operation, failure))
    }

    pub(super) fn watch_client(&self) -> WatchClient {
        self.watch.clone()
    }

    /// Calls until it succeeds or there is no point: what was not sent always, the rest if it may happen twice.
    async fn retried<T, F>(&self, repeatable: bool, call: impl Fn(KvClient) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut pause = FIRST_PAUSE;
        for _ in 1..ATTEMPTS_MAX {
            match call(self.kv.clone()).await.map_err(Failure::from) {
                Err(Failure::NotSent(_)) => {}
                Err(Failure::Unclear(_)) if repeatable => {}
                outcome => return outcome,
            }
            sleep(pause).await;
            pause *= 2;
        }
        call(self.kv.clone()).await.map_err(Failure::from)
    }

    /// The failure as the store's error. `operation` is completed by "etcd".
    pub(super) fn error(&self, operation: &'static str, failure: Failure) -> StoreError {
        let endpoints = self.endpoints.clone();
        match failure {
            Failure::NotSent(reason) | Failure::Unclear(reason) => {
                StoreError::Unavailable { operation, endpoints, reason }
            }
            Failure::Full(reason) => StoreError::Full {
                reason: format!(
                    "etcd at {endpoints} says: {reason}; compact and defragment it or raise its quota, then \
                     `etcdctl alarm disarm`"
                ),
            },
            Failure::Compacted | Failure::Future | Failure::Refused(_) => {
                StoreError::Refused { operation, endpoints, reason: failure.to_string() }
            }
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let Error::GRpcStatus(status) = &error else {
            return match error {
                Error::TransportError(_) | Error::IoError(_) | Error::WatchError(_) => {
                    Self::Unclear(error.to_string())
                }
                error => Self::Refused(error.to_string()),
            };
        };
        let (code, message) = (i32::from(status.code()), status.message());
        let mut reason = message.to_owned();
        let mut connected = true;
        let mut cause = status.source();
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref::<std::io::Error>() {
                connected &= !is_of_connecting(error.kind());
            }
            let text = error.to_string();
            if !reason.contains(&text) {
                reason = format!("{reason}: {text}");
            }
            cause = error.source();
        }
        match code {
            OUT_OF_RANGE if message.contains("compacted") => Self::Compacted,
            OUT_OF_RANGE if message.contains("future") => Self::Future,
            RESOURCE_EXHAUSTED if message.contains("space exceeded") => Self::Full(reason),
            // Said before the request is looked at.
            UNAVAILABLE if !connected || message == "etcdserver: no leader" => Self::NotSent(reason),
            // etcd's "too many requests" and everything that a broken connection looks like.
            UNAVAILABLE | CANCELLED | UNKNOWN | DEADLINE_EXCEEDED | INTERNAL | RESOURCE_EXHAUSTED => {
                Self::Unclear(reason)
            }
            _ => Self::Refused(reason),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compacted => f.write_str("the revision has been compacted"),
            Self::Future => f.write_str("the revision is in the future"),
            Self::NotSent(reason) | Self::Unclear(reason) | Self::Full(reason) | Self::Refused(reason) => {
                f.write_str(reason)
            }
        }
    }
}

/// Errors of making a connection, before anything is sent.
fn is_of_connecting(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::ConnectionRefused
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::AddrNotAvailable
    )
}

/// etcd's revisions are signed; what it cannot have is its greatest number.
pub(super) fn signed(revision: Revision) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(revision: i64) -> Revision {
    u64::try_from(revision).unwrap_or(0)
}
