//! Services as an nftables table, in the input of `nft -f`.
//!
//! The table, its chains, sets and maps are kube-proxy's. Dispatch is a map look-up, so a sync writes just what changed:
//! elements, and the chains of the services that changed, in one transaction. A chain that nothing leads to any more is
//! emptied at once and deleted a little later, because kernels before 6.2 release the last reference to it late.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use fairlead_model::{ObjectName, View};

use self::service::Rendered;
use crate::{
    Scope,
    classic::{Config, Family, Port},
    select::{Place, node_addresses},
};

pub mod fixed;
mod service;

/// How long an emptied chain rests before it is deleted.
const REST_MS: u64 = 1_000;

/// What the kernel has of our table.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Observed {
    /// Names of chains.
    pub chains: BTreeSet<String>,
    /// Names of sets with their timeouts in seconds, 0 for none.
    pub sets: BTreeMap<String, u32>,
    /// How many rules a chain has, and how many elements a set or map.
    pub sizes: BTreeMap<String, usize>,
}

/// How many chains are filled in one transaction. For each of their maps the kernel looks through all of the transaction
/// (`__nft_set_trans_bind` and `nft_set_lookup_byid` in net/netfilter/nf_tables_api.c), so that ten thousand services
/// in one take fifty times as long as a thousand.
const AHEAD_MAX: usize = 512;

/// What to give to `nft -f`, in order. Each script is one transaction.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Scripts {
    /// First: deletes chains that were emptied before. It may fail, see [`Planner::keep_what_is_left`].
    pub cleaning: Option<String>,
    /// Fill chains to which nothing leads yet, when there are many.
    pub ahead: Vec<String>,
    /// The change.
    pub change: Option<String>,
}

impl Scripts {
    /// All of them but the cleaning, in order.
    pub fn changes(&self) -> impl Iterator<Item = &str> {
        self.ahead.iter().chain(&self.change).map(String::as_str)
    }
}

/// Makes scripts; knows what the last ones wrote.
#[derive(Clone, Debug)]
pub struct Planner {
    config: Config,
    family: Family,
    services: BTreeMap<ObjectName, Rendered>,
    elements: Elements,
    /// None once the first plan brought it in line.
    observed: Option<Observed>,
    /// Emptied chains and when.
    resting: BTreeMap<String, u64>,
    /// Those that the last plan deletes.
    leaving: BTreeSet<String>,
}

/// A set or map, and a key in it.
type Element = (&'static str, String);
/// What an element leads to, empty in a set.
type Value = String;

/// Elements with everybody who wants them. A service endpoint may be another one's as well, and nothing forbids two
/// services to have the same external address: the first by name has it.
#[derive(Clone, Debug, Default)]
struct Elements(BTreeMap<Element, BTreeMap<ObjectName, Value>>);

impl Elements {
    fn get(&self, element: &Element) -> Option<&Value> {
        self.0.get(element)?.values().next()
    }

    fn put(&mut self, owner: &ObjectName, element: Element, value: Value) {
        self.0.entry(element).or_default().insert(owner.clone(), value);
    }

    fn remove(&mut self, owner: &ObjectName, element: &Element) {
        if let Some(owners) = self.0.get_mut(element) {
            owners.remove(owner);
            if owners.is_empty() {
                self.0.remove(element);
            }
        }
    }
}

impl Planner {
    /// Starts from what the kernel has.
    pub fn adopt(config: Config, family: Family, observed: Observed) -> Self {
        Self {
            config,
            family,
            services: BTreeMap::new(),
            elements: Elements::default(),
            observed: Some(observed),
            resting: BTreeMap::new(),
            leaving: BTreeSet::new(),
        }
    }

    /// What makes the kernel hold what the view asks for. Assumes that it will be applied.
    pub fn plan(&mut self, view: &View, scope: Scope<'_>, now_ms: u64) -> Scripts {
        if !view.is_complete() {
            return Scripts::default();
        }
        let cleaning = self.release(now_ms);
        let observed = self.observed.take();
        let touched = match scope {
            Scope::Changed(changes) if observed.is_none() => changes.services.clone(),
            _ => self.all(view),
        };
        let mut change = Change::default();
        let mut before: BTreeMap<Element, Option<Value>> = BTreeMap::new();
        let nodes = node_addresses(view);
        let zone = view.node(&self.config.node).map(|node| node.zone.clone()).unwrap_or_default();
        let node = self.config.node.clone();
        for name in touched {
            let ports = Port::all(
                view,
                &name,
                self.family,
                Place { node: &node, zone: &zone, node_addresses: &nodes },
            );
            let new = Rendered::new(&ports, &self.config, self.family);
            let old = self.services.remove(&name).unwrap_or_default();
            for element in old.elements.keys().chain(new.elements.keys()) {
                before.entry(element.clone()).or_insert_with(|| self.elements.get(element).cloned());
            }
            for element in old.elements.keys() {
                self.elements.remove(&name, element);
            }
            for (element, value) in &new.elements {
                self.elements.put(&name, element.clone(), value.clone());
            }
            change.difference(&old, &new);
            if new != Rendered::default() {
                self.services.insert(name, new);
            }
        }
        for (element, before) in before {
            let after = self.elements.get(&element).cloned();
            if before != after {
                change.elements.insert(element, (before, after));
            }
        }
        if let Some(observed) = &observed {
            change.over(observed);
        }
        // What came back before it was deleted needs to be deleted no more.
        let returns = |chain: &str| change.chains.get(chain).is_some_and(Option::is_some);
        self.resting.retain(|chain, _| !returns(chain));
        self.leaving.retain(|chain| !returns(chain));
        let gone = change.chains.iter().filter(|(_, content)| content.is_none());
        self.resting.extend(gone.map(|(chain, _)| (chain.clone(), now_ms)));
        let writes_all = observed.is_some();
        let ahead = change.take_ahead(self.family, writes_all);
        let fixed = writes_all.then(|| fixed::script(&self.config, self.family));
        Scripts { cleaning, ahead, change: change.script(self.family, fixed) }
    }

    /// Deletes the chains that have rested.
    fn release(&mut self, now_ms: u64) -> Option<String> {
        let has_rested = |_: &String, since: &mut u64| since.saturating_add(REST_MS) <= now_ms;
        self.leaving = self.resting.extract_if(.., has_rested).map(|(chain, _)| chain).collect();
        let table = fixed::table(self.family);
        let lines = self.leaving.iter().map(|chain| format!("delete chain {table} {chain}\n"));
        (!self.leaving.is_empty()).then(|| lines.collect())
    }

    /// The kernel has refused [`Scripts::cleaning`], because something of it is still in use: it is for later.
    pub fn keep_what_is_left(&mut self, now_ms: u64) {
        self.resting.extend(std::mem::take(&mut self.leaving).into_iter().map(|chain| (chain, now_ms)));
    }

    /// Whether the kernel has what was planned, as far as numbers of rules and elements can tell.
    pub fn is_intact(&self, observed: &Observed) -> bool {
        let mut wanted = fixed::sizes(&self.config, self.family);
        for (chain, rules) in self.services.values().flat_map(|service| &service.chains) {
            wanted.insert(chain.clone(), rules.len());
        }
        for (container, _) in self.elements.0.keys() {
            *wanted.entry((*container).to_owned()).or_default() += 1;
        }
        let sets = self.services.values().flat_map(|service| service.sets.keys());
        wanted.iter().all(|(name, size)| observed.sizes.get(name) == Some(size))
            && sets.into_iter().all(|set| observed.sets.contains_key(set))
    }

    /// When a plan has emptied chains to delete next.
    pub fn next_release_ms(&self) -> Option<u64> {
        self.resting.values().min().map(|since| since.saturating_add(REST_MS))
    }

    fn all(&self, view: &View) -> BTreeSet<ObjectName> {
        view.services().map(|service| service.name.clone()).chain(self.services.keys().cloned()).collect()
    }
}

/// One transaction, before it is text.
#[derive(Debug, Default)]
struct Change {
    /// New content of chains; none empties them.
    chains: BTreeMap<String, Option<Vec<String>>>,
    /// Chains to which nothing leads, because they were not there before.
    fresh: BTreeSet<String>,
    /// Affinity sets with their timeouts; none deletes them.
    sets: BTreeMap<String, Option<u32>>,
    /// Sets that are to be deleted before they are made.
    remade: BTreeSet<String>,
    /// Values before and after.
    elements: BTreeMap<Element, (Option<Value>, Option<Value>)>,
}

impl Change {
    fn difference(&mut self, old: &Rendered, new: &Rendered) {
        for chain in old.chains.keys().filter(|chain| !new.chains.contains_key(*chain)) {
            self.chains.insert(chain.clone(), None);
        }
        // A set is remade with the timeout it should have; all that names it is written anew then.
        let retimed = old.sets.iter().any(|(set, secs)| new.sets.get(set).is_some_and(|new| new != secs));
        for (chain, rules) in &new.chains {
            if !old.chains.contains_key(chain) {
                self.fresh.insert(chain.clone());
            }
            if retimed || old.chains.get(chain) != Some(rules) {
                self.chains.insert(chain.clone(), Some(rules.clone()));
            }
        }
        for set in old.sets.keys().filter(|set| !new.sets.contains_key(*set)) {
            self.sets.insert(set.clone(), None);
        }
        for (set, secs) in &new.sets {
            match old.sets.get(set) {
                Some(old) if old == secs => {}
                Some(_) => {
                    self.remade.insert(set.clone());
                    self.sets.insert(set.clone(), Some(*secs));
                }
                None => {
                    self.sets.insert(set.clone(), Some(*secs));
                }
            }
        }
    }

    /// Takes into account what the kernel has already: leftovers go, and affinities that are right stay.
    fn over(&mut self, observed: &Observed) {
        self.fresh.retain(|chain| !observed.chains.contains(chain));
        for chain in observed.chains.iter().filter(|chain| service::is_service_chain(chain)) {
            self.chains.entry(chain.clone()).or_insert(None);
        }
        for (set, secs) in observed.sets.iter().filter(|(set, _)| service::is_affinity_set(set)) {
            match self.sets.get(set) {
                None => {
                    self.sets.insert(set.clone(), None);
                }
                Some(Some(wanted)) if wanted != secs => {
                    self.remade.insert(set.clone());
                }
                Some(_) => {}
            }
        }
    }

    /// Takes the fresh chains out of the transaction and makes transactions of them that can go before it, if they are many. Not
    /// where a set is remade, which must not be named meanwhile.
    fn take_ahead(&mut self, family: Family, writes_all: bool) -> Vec<String> {
        if self.fresh.len() <= AHEAD_MAX || !self.remade.is_empty() {
            return Vec::new();
        }
        let (mut chains, rest): (BTreeMap<_, _>, _) =
            std::mem::take(&mut self.chains).into_iter().partition(|(chain, _)| self.fresh.contains(chain));
        self.chains = rest;
        let (sets, rest) = std::mem::take(&mut self.sets).into_iter().partition(|(_, secs)| secs.is_some());
        self.sets = rest;
        let declared = if writes_all { fixed::declarations(family) } else { String::new() };
        let names = chains.keys().map(|chain| (chain.clone(), Some(Vec::new()))).collect();
        let declare = Self { chains: names, sets, ..Self::default() };
        let mut scripts = vec![declare.script(family, Some(declared))];
        while !chains.is_empty() {
            let rest = chains.keys().nth(AHEAD_MAX).cloned().map(|first| chains.split_off(&first));
            scripts.push(Self { chains, ..Self::default() }.script(family, None));
            chains = rest.unwrap_or_default();
        }
        scripts.into_iter().flatten().collect()
    }

    /// In an order in which nothing is named before it is there or removed while it is named.
    fn script(&self, family: Family, fixed: Option<String>) -> Option<String> {
        let table = fixed::table(family);
        if fixed.is_none() && self.chains.is_empty() && self.sets.is_empty() && self.elements.is_empty() {
            return None;
        }
        let mut text = fixed.unwrap_or_default();
        for (chain, _) in self.chains.iter().filter(|(_, content)| content.is_some()) {
            let _ = writeln!(text, "add chain {table} {chain}");
        }
        for (element, (before, _)) in &self.elements {
            if before.is_some() {
                let _ = writeln!(text, "delete element {table} {} {{ {} }}", element.0, element.1);
            }
        }
        for chain in self.chains.keys() {
            let _ = writeln!(text, "flush chain {table} {chain}");
        }
        for (set, secs) in &self.sets {
            if secs.is_none() || self.remade.contains(set) {
                let _ = writeln!(text, "delete set {table} {set}");
            }
            if let Some(secs) = secs {
                let kind = fixed::address_type(family);
                let flags = "flags dynamic,timeout ;";
                let _ = writeln!(text, "add set {table} {set} {{ type {kind} ; {flags} timeout {secs}s ; }}");
            }
        }
        for (chain, rules) in &self.chains {
            for rule in rules.iter().flatten() {
                let _ = writeln!(text, "add rule {table} {chain} {rule}");
            }
        }
        for (element, (_, after)) in &self.elements {
            let Some(value) = after else { continue };
            let value = if value.is_empty() { String::new() } else { format!(" : {value}") };
            let _ = writeln!(text, "add element {table} {} {{ {}{value} }}", element.0, element.1);
        }
        Some(text)
    }
}

#[cfg(test)]
mod tests;
