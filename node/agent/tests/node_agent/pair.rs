//! Two nodes with an agent each, which one feed tells of the cluster.

use std::path::Path;

use fairlead_model::Change;
use fairlead_testkit::{Node, eventually};

use crate::{cluster::node, feed::Feed, running::RunningAgent};

/// The agents of the nodes `a` and `b`, and what they are told by.
pub(crate) struct Pair {
    pub(crate) agents: [RunningAgent; 2],
    feed: Feed,
}

impl Pair {
    /// Starts them; returns when both are ready.
    pub(crate) fn start([a, b]: [&Node; 2], mut also: Vec<Change>, directory: &Path) -> Self {
        let mut begin = vec![node("a", 1, &a.addresses), node("b", 2, &b.addresses)];
        begin.append(&mut also);
        let feed = Feed::start(a, begin);
        let agent = |name, node| RunningAgent::start(name, node, feed.endpoint.clone(), directory);
        let agents = [agent("a", a), agent("b", b)];
        agents.iter().for_each(RunningAgent::wait_ready);
        Self { agents, feed }
    }

    /// Tells of changes; returns when both nodes have them.
    pub(crate) fn tell(&mut self, changes: Vec<Change>) {
        self.feed.change(changes);
        let wanted = format!("\"sequence\":{}", self.feed.sequence());
        for agent in &self.agents {
            eventually("the change", || agent.admin("/status").1.contains(&wanted).then_some(()));
        }
    }
}
