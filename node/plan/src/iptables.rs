//! Services as iptables rules, in the input of `iptables-restore --noflush`.
//!
//! Chains, rules and their order are kube-proxy's. A sync rewrites the few chains that lead to services, because their
//! order counts, and of the chains of a service only those that changed; one restore is one transaction per table.
//! What is there is known from `iptables-save`, see [`saved::Saved`].

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use fairlead_model::{ObjectName, View};

use self::{
    fixed::{FILTER_CHAINS, JUMPS, NAT_CHAINS, Table},
    saved::Saved,
    service::Rendered,
};
use crate::{
    Scope,
    classic::{Config, Family, Port},
    select::{Place, node_addresses},
};

pub mod fixed;
pub mod saved;
mod service;

/// Past this many endpoints the comments of their rules are left out: they are almost half of the text.
const COMMENTED_ENDPOINTS_MAX: usize = 1_000;

/// Makes restores; knows what the last one wrote.
#[derive(Clone, Debug)]
pub struct Planner {
    config: Config,
    family: Family,
    services: BTreeMap<ObjectName, Vec<Rendered>>,
    /// What there is; none after the first plan, which brings it in line.
    saved: Option<Saved>,
}

/// Input of one `iptables-restore` or `ip6tables-restore`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Restore {
    /// The text.
    pub text: String,
    /// How many rules it has.
    pub rules: usize,
}

impl Planner {
    /// Starts from what `iptables-save` printed. Leftovers of former services go with the first plan.
    pub fn adopt(config: Config, family: Family, saved: Saved) -> Self {
        Self { config, family, services: BTreeMap::new(), saved: Some(saved) }
    }

    /// What makes the kernel hold what the view asks for; none when it does. Assumes that it will be applied.
    pub fn plan(&mut self, view: &View, scope: Scope<'_>) -> Option<Restore> {
        if !view.is_complete() {
            return None;
        }
        let saved = self.saved.take();
        let scope = if saved.is_some() { Scope::All } else { scope };
        let nodes = node_addresses(view);
        let zone = view.node(&self.config.node).map(|node| node.zone.clone()).unwrap_or_default();
        let node = self.config.node.clone();
        let touched = self.touched(view, scope);
        let mut chains: BTreeMap<String, Option<Vec<String>>> = BTreeMap::new();
        let mut changed = saved.is_some();
        let place = Place { node: &node, zone: &zone, node_addresses: &nodes };
        let touched: BTreeMap<ObjectName, Vec<Port>> = touched
            .into_iter()
            .map(|name| {
                let ports = Port::all(view, &name, self.family, place);
                (name, ports)
            })
            .collect();
        let commented = self.endpoints_with(&touched) <= COMMENTED_ENDPOINTS_MAX;
        for (name, ports) in touched {
            let rendered: Vec<Rendered> =
                ports.iter().map(|port| Rendered::new(port, &self.config, self.family, commented)).collect();
            let old = self.services.remove(&name).unwrap_or_default();
            if old != rendered {
                changed = true;
                difference(&old, &rendered, saved.is_some(), &mut chains);
            } else if saved.is_some() {
                difference(&[], &rendered, true, &mut chains);
            }
            if !rendered.is_empty() {
                self.services.insert(name, rendered);
            }
        }
        if !changed {
            return None;
        }
        if let Some(saved) = &saved {
            for chain in saved.service_chains() {
                chains.entry(chain).or_insert(None);
            }
        }
        Some(self.restore(&chains, saved.as_ref()))
    }

    /// Whether the kernel has what was planned, as far as chains and their numbers of rules can tell.
    pub fn is_intact(&self, saved: &Saved) -> bool {
        let mut wanted: BTreeMap<(Table, String), usize> = BTreeMap::new();
        for section in self.shared() {
            for chain in &section.chains {
                wanted.entry((section.table, chain.clone())).or_default();
            }
            for rule in &section.rules {
                let chain = rule.split(' ').nth(1).unwrap_or_default();
                *wanted.entry((section.table, chain.to_owned())).or_default() += 1;
            }
        }
        for (chain, rules) in self.services.values().flatten().flat_map(|port| &port.chains) {
            wanted.insert((Table::Nat, chain.clone()), rules.len());
        }
        let canaries =
            [Table::Filter, Table::Nat, Table::Mangle].map(|table| (table, fixed::CANARY.to_owned()));
        wanted.extend(canaries.map(|key| (key, 0)));
        let is_made = |jump: &&fixed::Jump| wanted.contains_key(&(jump.table, jump.to.to_owned()));
        let sizes = saved.sizes();
        JUMPS.iter().filter(is_made).all(|jump| saved.has_jump(jump))
            && wanted.iter().all(|(key, size)| sizes.get(&(key.0, key.1.as_str())) == Some(size))
    }

    /// The endpoints that have a chain once these services are what they are to be.
    fn endpoints_with(&self, touched: &BTreeMap<ObjectName, Vec<Port>>) -> usize {
        let others = self.services.iter().filter(|(name, _)| !touched.contains_key(*name));
        let written: usize = others.flat_map(|(_, ports)| ports).map(|port| port.endpoints).sum();
        written + touched.values().flatten().map(|port| port.reachable().len()).sum::<usize>()
    }

    fn touched(&self, view: &View, scope: Scope<'_>) -> BTreeSet<ObjectName> {
        match scope {
            Scope::All => {
                let known = self.services.keys().cloned();
                view.services().map(|service| service.name.clone()).chain(known).collect()
            }
            Scope::Changed(changes) => changes.services.clone(),
        }
    }

    fn restore(&self, chains: &BTreeMap<String, Option<Vec<String>>>, saved: Option<&Saved>) -> Restore {
        let [filter, mut nat] = self.shared();
        for (chain, content) in chains {
            nat.chain(chain);
            match content {
                Some(lines) => nat.rules.extend(lines.iter().cloned()),
                None => nat.remove(chain),
            }
        }
        restore([filter, nat], JUMPS, saved)
    }

    /// The chains that all services share, as every restore writes them: `filter`, then `nat`.
    fn shared(&self) -> [Section; 2] {
        let mut filter = Section::new(Table::Filter, FILTER_CHAINS);
        let mut nat = Section::new(Table::Nat, NAT_CHAINS);
        fixed::filter_head(&self.config, self.family, &mut filter);
        fixed::nat_head(&self.config, &mut nat);
        for port in self.services.values().flatten() {
            filter.rules.extend(port.filter.iter().cloned());
            nat.rules.extend(port.nat.iter().cloned());
        }
        fixed::nat_tail(&self.config, self.family, &mut nat);
        fixed::filter_tail(&self.config, &mut filter);
        [filter, nat]
    }
}

/// The text of two tables; with the jumps to them that are missing in what was saved, and the canaries.
pub(crate) fn restore(mut sections: [Section; 2], jumps: &[fixed::Jump], saved: Option<&Saved>) -> Restore {
    if let Some(saved) = saved {
        for section in &mut sections {
            for jump in jumps.iter().filter(|jump| !saved.has_jump(jump)) {
                if section.table == jump.table && section.chains.iter().any(|chain| chain == jump.to) {
                    section.rules.push(jump.insertion());
                }
            }
            section.chain(fixed::CANARY);
        }
    }
    let mangle = saved.map(|_| Section::new(Table::Mangle, &[fixed::CANARY]));
    let (mut text, mut rules) = (String::new(), 0);
    for section in sections.iter().chain(&mangle) {
        rules += section.rules.len();
        section.write(&mut text);
    }
    Restore { text, rules }
}

/// The chains that `new` has and `old` has not, or has otherwise (all of them when `every`), with their rules; those
/// that only `old` has, without.
fn difference(
    old: &[Rendered],
    new: &[Rendered],
    every: bool,
    chains: &mut BTreeMap<String, Option<Vec<String>>>,
) {
    let all = |ports: &[Rendered]| -> BTreeMap<String, Vec<String>> {
        ports.iter().flat_map(|port| port.chains.clone()).collect()
    };
    let (old, new) = (all(old), all(new));
    for chain in old.keys().filter(|chain| !new.contains_key(*chain)) {
        chains.entry(chain.clone()).or_insert(None);
    }
    for (chain, lines) in new {
        if every || old.get(&chain) != Some(&lines) {
            chains.insert(chain, Some(lines));
        }
    }
}

/// One table of a restore.
pub(crate) struct Section {
    table: Table,
    /// Made when they are not there, else flushed.
    chains: Vec<String>,
    pub(crate) rules: Vec<String>,
    /// Deleted at the end.
    removals: Vec<String>,
}

impl Section {
    pub(crate) fn new(table: Table, chains: &[&str]) -> Self {
        let chains = chains.iter().map(|chain| (*chain).to_owned()).collect();
        Self { table, chains, rules: Vec::new(), removals: Vec::new() }
    }

    pub(crate) fn chain(&mut self, chain: &str) {
        self.chains.push(chain.to_owned());
    }

    pub(crate) fn rule(&mut self, chain: &str, rule: &str) {
        self.rules.push(format!("-A {chain} {rule}"));
    }

    pub(crate) fn remove(&mut self, chain: &str) {
        self.removals.push(chain.to_owned());
    }

    pub(crate) fn write(&self, text: &mut String) {
        let _ = writeln!(text, "*{}", self.table.as_str());
        for chain in &self.chains {
            let _ = writeln!(text, ":{chain} - [0:0]");
        }
        for rule in &self.rules {
            let _ = writeln!(text, "{rule}");
        }
        for chain in &self.removals {
            let _ = writeln!(text, "-X {chain}");
        }
        text.push_str("COMMIT\n");
    }
}

#[cfg(test)]
mod tests;
