//! `acl [ZONE…] { allow|block|filter|drop [type TYPE…] [net NETWORK…] }`: who may ask for what.
//!
//! The first rule that fits a question decides; without one it is allowed. `block` refuses, `filter` answers without
//! records, `drop` says nothing.

use std::sync::Arc;

use fairlead_model::Prefix;
use fairlead_zone::{Rcode, RecordType};

use super::{Plugins, Setup};
use crate::{
    chain::{Message, Next, Plugin, Query, Response, Serving, Zones, ready},
    codec::extended_error,
    corefile::{CorefileError, Directive, Words, unknown},
    metrics::{Counter, Family},
    net::{contains, parse_prefix},
};

const ACTIONS: [(&str, Action, Family); 4] = [
    (
        "allow",
        Action::Allow,
        family("coredns_acl_allowed_requests_total", "Counter of DNS requests being allowed."),
    ),
    (
        "block",
        Action::Block,
        family("coredns_acl_blocked_requests_total", "Counter of DNS requests being blocked."),
    ),
    (
        "filter",
        Action::Filter,
        family("coredns_acl_filtered_requests_total", "Counter of DNS requests being filtered."),
    ),
    (
        "drop",
        Action::Drop,
        family("coredns_acl_dropped_requests_total", "Counter of DNS requests being dropped."),
    ),
];
/// Extended DNS errors (RFC 8914).
const BLOCKED: u16 = 15;
const FILTERED: u16 = 17;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Action {
    Allow,
    Block,
    Filter,
    Drop,
}

struct Acl {
    lists: Vec<(Zones, Vec<Rule>)>,
    counters: [Arc<Counter>; 4],
}

struct Rule {
    action: Action,
    /// None is every type.
    types: Vec<RecordType>,
    /// None is every client.
    networks: Vec<Prefix>,
}

const fn family(name: &'static str, help: &'static str) -> Family {
    Family { name, help }
}

pub(super) fn set_up(setup: &mut Setup<'_>, directives: &[Directive]) -> Result<Plugins, CorefileError> {
    static FAMILIES: [(&str, Action, Family); 4] = ACTIONS;
    let mut lists = Vec::new();
    for directive in directives {
        let mut zones = directive.words().zones()?;
        if zones.is_empty() {
            zones = setup.zones.to_vec();
        }
        let rules = directive.lines().map(|(action, words)| rule(action, words)).collect::<Result<_, _>>()?;
        lists.push((Zones(zones.into()), rules));
    }
    let zone = setup.zones.first().map(ToString::to_string).unwrap_or_default();
    let labels = [("server", setup.server), ("view", ""), ("zone", &*zone)];
    let counters = std::array::from_fn(|at| setup.world.registry.counter(&FAMILIES[at].2, &labels));
    Ok(vec![Arc::new(Acl { lists, counters })])
}

fn rule(action: &str, mut words: Words<'_>) -> Result<Rule, CorefileError> {
    let Some((_, action, _)) = ACTIONS.iter().find(|row| row.0 == action) else {
        return Err(unknown(&words, action));
    };
    let mut rule = Rule { action: *action, types: Vec::new(), networks: Vec::new() };
    let mut section = "";
    while let Some(word) = words.next() {
        match (section, word) {
            (_, "type" | "net") => section = word,
            ("type", "*" | "ANY") => rule.types.clear(),
            ("type", word) => {
                let rtype = RecordType::parse(word);
                rule.types.push(rtype.ok_or_else(|| words.fault(format!("{word:?} is not a record type")))?);
            }
            ("net", "*") => rule.networks.clear(),
            ("net", word) => {
                let network = parse_prefix(word);
                rule.networks.push(network.ok_or_else(|| words.fault(format!("{word:?} is not a network")))?);
            }
            _ => return Err(words.fault(format!("expected type or net before {word:?}"))),
        }
    }
    Ok(rule)
}

impl Acl {
    fn decide(&self, query: &Query) -> Action {
        let client = query.client.peer.ip();
        let fits = |rule: &&Rule| {
            (rule.types.is_empty() || rule.types.contains(&query.rtype()))
                && (rule.networks.is_empty() || rule.networks.iter().any(|network| contains(network, client)))
        };
        let lists = self.lists.iter().filter(|(zones, _)| zones.contains(query.name()));
        lists.flat_map(|(_, rules)| rules).find(fits).map_or(Action::Allow, |rule| rule.action)
    }
}

impl Plugin for Acl {
    fn serve<'a>(&'a self, query: &'a mut Query, next: Next<'a>) -> Serving<'a> {
        let action = self.decide(query);
        let index = ACTIONS.iter().position(|row| row.1 == action).unwrap_or_default();
        self.counters[index].add();
        match action {
            Action::Allow => {
                return Box::pin(async move {
                    let response = next.serve(query).await;
                    // The next client may not be allowed.
                    Response { stable: None, ..response }
                });
            }
            Action::Drop => return Box::pin(std::future::ready(Response::silence())),
            Action::Block | Action::Filter => query.answered_by = "acl",
        }
        let (rcode, error) =
            if action == Action::Block { (Rcode::REFUSED, BLOCKED) } else { (Rcode::NO_ERROR, FILTERED) };
        ready(Message { options: extended_error(error, ""), ..Message::new(rcode) })
    }
}
