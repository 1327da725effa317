//! What `iptables-save` prints, as far as it concerns us.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Section,
    fixed::{CANARY, FIREWALL, Jump, Table},
};

/// How the names of a service's own chains begin.
const SERVICE_PREFIXES: &[&str] = &["KUBE-SVC-", "KUBE-SVL-", "KUBE-SEP-", "KUBE-FW-", "KUBE-EXT-"];

/// Chains that upstream's kubelet makes; they say that it manages [`FIREWALL`].
const KUBELET_CANARY: &str = "KUBE-KUBELET-CANARY";

/// A dump of all tables.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Saved {
    tables: BTreeMap<Table, Content>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Content {
    chains: BTreeSet<String>,
    /// Lines `-A CHAIN ...`.
    rules: Vec<String>,
}

impl Saved {
    /// Reads a dump; tables and lines that do not concern us are skipped.
    pub fn parse(dump: &str) -> Self {
        let mut tables: BTreeMap<Table, Content> = BTreeMap::new();
        let mut table = None;
        for line in dump.lines() {
            if let Some(name) = line.strip_prefix('*') {
                let known = [Table::Filter, Table::Nat, Table::Mangle];
                table = known.into_iter().find(|table| table.as_str() == name.trim());
            }
            let Some(content) = table.map(|table| tables.entry(table).or_default()) else { continue };
            if let Some(chain) = line.strip_prefix(':') {
                content.chains.extend(chain.split(' ').next().map(str::to_owned));
            } else if line.starts_with("-A ") {
                content.rules.push(line.to_owned());
            }
        }
        Self { tables }
    }

    /// Chains of services in `nat`.
    pub fn service_chains(&self) -> impl Iterator<Item = String> + '_ {
        let chains = self.tables.get(&Table::Nat).into_iter().flat_map(|content| &content.chains);
        chains.filter(|chain| is_service_chain(chain)).cloned()
    }

    /// Whether a built-in chain leads to ours.
    pub fn has_jump(&self, jump: &Jump) -> bool {
        self.rules(jump.table).any(|rule| jump.is(rule))
    }

    /// Whether a chain is there.
    pub fn has_chain(&self, table: Table, chain: &str) -> bool {
        self.tables.get(&table).is_some_and(|content| content.chains.contains(chain))
    }

    /// How many rules each chain has.
    pub(crate) fn sizes(&self) -> BTreeMap<(Table, &str), usize> {
        let mut sizes = BTreeMap::new();
        for (table, content) in &self.tables {
            sizes.extend(content.chains.iter().map(|chain| ((*table, chain.as_str()), 0)));
            for chain in content.rules.iter().filter_map(|rule| chain_of(rule)) {
                *sizes.entry((*table, chain)).or_default() += 1;
            }
        }
        sizes
    }

    fn rules(&self, table: Table) -> impl Iterator<Item = &String> {
        self.tables.get(&table).into_iter().flat_map(|content| &content.rules)
    }

    /// The restore that takes away every chain that is `ours` and every jump to one, and these jumps to chains that
    /// stay; none when there is nothing. Chains of others stay, also when their names begin like ours.
    pub fn removal(&self, ours: &dyn Fn(Table, &str) -> bool, jumps: &[Jump]) -> Option<String> {
        let mut text = String::new();
        for (table, content) in &self.tables {
            let kubelet =
                content.chains.contains(KUBELET_CANARY) || self.has_chain(Table::Mangle, KUBELET_CANARY);
            let gone = |chain: &str| {
                content.chains.contains(chain) && ours(*table, chain) && !(chain == FIREWALL && kubelet)
            };
            let mut section = Section::new(*table, &[]);
            for rule in &content.rules {
                let from = chain_of(rule).unwrap_or_default();
                let to = rule.rsplit_once(" -j ").and_then(|(_, to)| to.split(' ').next());
                let is_named = jumps.iter().any(|jump| jump.table == *table && jump.is(rule));
                if !gone(from) && (to.is_some_and(&gone) || is_named) {
                    section.rules.push(rule.replacen("-A ", "-D ", 1));
                }
            }
            for chain in content.chains.iter().filter(|chain| gone(chain)) {
                section.chain(chain);
                section.remove(chain);
            }
            if !section.is_empty() {
                section.write(&mut text);
            }
        }
        (!text.is_empty()).then_some(text)
    }
}

impl Section {
    fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.rules.is_empty()
    }
}

/// Whether a chain of `nat` belongs to one service.
pub fn is_service_chain(chain: &str) -> bool {
    SERVICE_PREFIXES.iter().any(|prefix| chain.starts_with(prefix))
}

fn chain_of(rule: &str) -> Option<&str> {
    rule.strip_prefix("-A ")?.split(' ').next()
}

/// Whether this mode makes the chain.
pub fn is_ours(table: Table, chain: &str) -> bool {
    chain == CANARY
        || match table {
            Table::Filter => chain == FIREWALL || super::FILTER_CHAINS.contains(&chain),
            Table::Nat => super::NAT_CHAINS.contains(&chain) || is_service_chain(chain),
            Table::Mangle => false,
        }
}
