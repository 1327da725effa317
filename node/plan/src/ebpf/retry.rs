//! Owners that are not served as they should be for a reason that may pass without a change of theirs: a full map, a frontend
//! that somebody else has.
//!
//! They are looked at again when something has changed, some of them with each plan, in turn: with a cluster that is larger than
//! the maps thousands wait, and a change must not cost more for that.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound::{Excluded, Included, Unbounded},
};

use super::{Owner, Problem};

/// How many are looked at again with one plan.
pub(super) const AT_ONCE: usize = 256;

/// Pause before the next ones, where no change comes before.
const PAUSE_MS: u64 = 100;

/// Whose turn it is.
#[derive(Clone, Debug, Default)]
pub(super) struct Retry {
    last: Option<Owner>,
    /// How many have not been looked at since something changed.
    left: usize,
    next_ms: Option<u64>,
}

impl Retry {
    /// Those whose turn it is.
    pub(super) fn next(&mut self, problems: &BTreeMap<Owner, Vec<Problem>>) -> BTreeSet<Owner> {
        let (behind, before) = match &self.last {
            Some(last) => ((Excluded(last), Unbounded), Some((Unbounded, Included(last)))),
            None => ((Unbounded, Unbounded), None),
        };
        let before = before.into_iter().flat_map(|range| problems.range(range));
        let turn = problems.range(behind).chain(before).filter(may_pass).take(AT_ONCE);
        let turn: Vec<Owner> = turn.map(|(owner, _)| owner.clone()).collect();
        self.left = self.left.saturating_sub(turn.len());
        self.last = turn.last().cloned();
        turn.into_iter().collect()
    }

    /// A plan was made; with operations it may be what somebody waits for.
    pub(super) fn after(&mut self, changed: bool, problems: &BTreeMap<Owner, Vec<Problem>>, now_ms: u64) {
        if changed {
            self.left = problems.iter().filter(may_pass).count();
        }
        self.next_ms = (self.left > 0).then_some(now_ms + PAUSE_MS);
    }

    /// When a plan should be made for their sake.
    pub(super) fn next_ms(&self) -> Option<u64> {
        self.next_ms
    }
}

fn may_pass((_, problems): &(&Owner, &Vec<Problem>)) -> bool {
    problems.iter().any(Problem::may_pass)
}
