//! Compaction on a schedule that all API servers of one etcd share.
//!
//! As kube-apiserver does (`staging/src/k8s.io/apiserver/pkg/storage/etcd3/compact.go`), and on the same key, so
//! both can run on one etcd: the version of `compact_rev_key` counts the rounds. Who raises it first in an interval
//! compacts to the revision of the round before; the others only note the new one. So history is kept for one to
//! two intervals.

use std::time::Duration;

use etcd_client::{Compare, CompareOp, Txn, TxnOp, TxnOpResponse};
use tokio::time::sleep;

use super::call::{Caller, Failure, unsigned};
use crate::Revision;

const KEY: &str = "compact_rev_key";

/// A round: its number, and the newest revision when it began.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    number: i64,
    revision: Revision,
}

/// Compacts for ever.
pub(super) async fn run(caller: Caller, every: Duration) {
    let mut round = Round::default();
    loop {
        sleep(every).await;
        match next(&caller, round).await {
            Ok(next) => round = next,
            Err(failure) => {
                tracing::warn!(reason = %failure, "cannot compact etcd's history; the next try is due later");
            }
        }
    }
}

async fn next(caller: &Caller, round: Round) -> Result<Round, Failure> {
    let ours = Compare::version(KEY, CompareOp::Equal, round.number);
    let put = TxnOp::put(KEY, round.revision.to_string(), None);
    let txn = Txn::new().when([ours]).and_then([put]).or_else([TxnOp::get(KEY, None)]);
    let answer = caller.commit(txn).await?;
    let revision = unsigned(answer.header().map_or(0, etcd_client::ResponseHeader::revision));
    if !answer.succeeded() {
        let number = answer.op_responses().iter().find_map(|response| match response {
            TxnOpResponse::Get(found) => found.kvs().first().map(etcd_client::KeyValue::version),
            _ => None,
        });
        return Ok(Round { number: number.unwrap_or(0), revision });
    }
    if round.revision > 0 {
        match caller.compact(round.revision).await {
            Ok(()) | Err(Failure::Compacted) => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(Round { number: round.number + 1, revision })
}
