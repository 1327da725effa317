//! A plan in the making: operations by the time at which they may happen.

use std::{collections::BTreeSet, net::IpAddr};

use fairlead_abi::service::ServiceKey;
use fairlead_model::Protocol;

use super::{Plan, Problem};
use crate::{Op, select::Target};

/// Collects what [`Plan::ops`] holds in order.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) now_ms: u64,
    /// Entries whose grace period is over.
    pub(super) released: Vec<Op>,
    /// What new values will lead to.
    pub(super) backends: Vec<Op>,
    pub(super) slots: Vec<Op>,
    pub(super) ranges: Vec<Op>,
    /// Frontends: the commit.
    pub(super) commit: Vec<Op>,
    pub(super) delete: Vec<Op>,
    /// What addresses are.
    pub(super) address_ops: Vec<Op>,
    /// What old values have led to.
    pub(super) after: Vec<Op>,
    /// Frontends of UDP that a block has let go of while its backends serve.
    pub(super) left: Vec<(ServiceKey, u32)>,
    /// Endpoints of UDP that some block led to.
    pub(super) stopped: BTreeSet<Target>,
    /// Addresses that may have become something else.
    pub(super) addresses: BTreeSet<IpAddr>,
    pub(super) all_addresses: bool,
}

impl Draft {
    pub(super) fn new(now_ms: u64) -> Self {
        Self { now_ms, ..Self::default() }
    }

    pub(super) fn finish(self, problems: impl Iterator<Item = Problem>) -> Plan {
        let parts = [
            self.released,
            self.backends,
            self.slots,
            self.ranges,
            self.commit,
            self.delete,
            self.address_ops,
            self.after,
        ];
        // Once the frontends lead elsewhere, so that what comes next begins there.
        let flows = (!self.left.is_empty()).then_some(Op::EndFlows { frontends: self.left });
        Plan {
            ops: parts.into_iter().flatten().chain(flows).collect(),
            problems: problems.collect(),
            stopped: self.stopped.into_iter().map(|target| (Protocol::Udp, target)).collect(),
        }
    }
}
