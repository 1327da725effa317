//! iptables, and the little of ipset that goes with it.

use std::{collections::BTreeMap, collections::BTreeSet, net::IpAddr};

use super::{Chains, Choices, End, Node, Packet, covers, every_end, words};

/// Tables as `iptables-restore --noflush` leaves them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tables {
    tables: BTreeMap<String, Chains>,
    /// ipsets by name.
    pub(crate) sets: BTreeMap<String, BTreeSet<String>>,
}

/// A packet on its way.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) packet: Packet,
    pub(crate) mark: u32,
    pub(crate) translated: Option<(IpAddr, u16)>,
    pub(crate) masqueraded: bool,
}

impl State {
    pub(crate) fn new(packet: Packet) -> Self {
        Self { packet, mark: 0, translated: None, masqueraded: false }
    }

    fn to(&self) -> (IpAddr, u16) {
        self.translated.unwrap_or((self.packet.dst, self.packet.port))
    }
}

/// What a chain said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    Accept,
    Drop,
    Reject,
}

const BUILT_IN: &[(&str, &[&str])] = &[
    ("filter", &["INPUT", "FORWARD", "OUTPUT"]),
    ("nat", &["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"]),
    ("mangle", &["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"]),
];

impl Tables {
    pub(crate) fn new() -> Self {
        let mut tables = Self::default();
        for (table, chains) in BUILT_IN {
            let chains = chains.iter().map(|chain| ((*chain).to_owned(), Vec::new()));
            tables.tables.insert((*table).to_owned(), chains.collect());
        }
        tables
    }

    /// Applies a restore. As the real one, it refuses rules for chains that are not there and the removal of chains
    /// that are still in use.
    pub(crate) fn restore(&mut self, text: &str) {
        let mut table = String::new();
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('*') {
                name.clone_into(&mut table);
                continue;
            }
            let chains = self.tables.get_mut(&table).expect("a table");
            let mut rule = words(line);
            if let Some(chain) = line.strip_prefix(':') {
                chains.insert(chain.split(' ').next().expect("a name").to_owned(), Vec::new());
                continue;
            }
            if line == "COMMIT" {
                check(chains, &table);
                continue;
            }
            let rest = rule.split_off(2);
            let (command, name) = (rule[0].as_str(), rule[1].as_str());
            let chain = chains.get_mut(name).unwrap_or_else(|| panic!("no chain {name}: {line}"));
            match command {
                "-A" => chain.push(rest),
                "-I" => chain.insert(0, rest[1..].to_vec()),
                "-D" => {
                    let at = chain.iter().position(|rule| *rule == rest).expect("the rule");
                    chain.remove(at);
                }
                "-X" => {
                    assert!(chain.is_empty(), "{name} is not empty");
                    chains.remove(name);
                }
                other => panic!("{other}"),
            }
        }
    }

    /// As `iptables-save` would print it.
    pub(crate) fn save(&self) -> String {
        use std::fmt::Write as _;
        let mut text = String::new();
        for (table, chains) in &self.tables {
            let _ = writeln!(text, "*{table}");
            for chain in chains.keys() {
                let _ = writeln!(text, ":{chain} - [0:0]");
            }
            for (chain, rules) in chains {
                for rule in rules {
                    let rule: Vec<String> = rule
                        .iter()
                        .map(|word| if word.contains(' ') { format!("\"{word}\"") } else { word.clone() })
                        .collect();
                    let _ = writeln!(text, "-A {chain} {}", rule.join(" "));
                }
            }
            text.push_str("COMMIT\n");
        }
        text
    }

    /// Empties everything, as somebody's `iptables -F; iptables -X` does.
    pub(crate) fn flush(&mut self) {
        *self = Self::new();
    }

    pub(crate) fn chains(&self, table: &str) -> &Chains {
        &self.tables[table]
    }

    /// Every end of a packet on a node.
    pub(crate) fn ends(&self, node: &Node, packet: Packet) -> BTreeSet<End> {
        every_end(|choices| self.trace(node, packet, choices))
    }

    fn trace(&self, node: &Node, packet: Packet, choices: &mut Choices) -> End {
        let mut state = State::new(packet);
        let outgoing = node.is_local(packet.src);
        let first = if outgoing { "OUTPUT" } else { "PREROUTING" };
        self.walk("nat", first, node, &mut state, choices);
        let mut filters = Vec::new();
        if outgoing {
            filters.push("OUTPUT");
        }
        if node.is_local(state.to().0) {
            filters.push("INPUT");
        } else if !outgoing {
            filters.push("FORWARD");
        }
        for chain in filters {
            match self.walk("filter", chain, node, &mut state, choices) {
                Some(Verdict::Drop) => return End::Dropped,
                Some(Verdict::Reject) => return End::Refused,
                _ => {}
            }
        }
        self.walk("nat", "POSTROUTING", node, &mut state, choices);
        End::Arrives { to: state.to(), masqueraded: state.masqueraded }
    }

    /// Runs a chain; none when it came to its end.
    pub(crate) fn walk(
        &self,
        table: &str,
        chain: &str,
        node: &Node,
        state: &mut State,
        choices: &mut Choices,
    ) -> Option<Verdict> {
        let rules = self.tables[table].get(chain).unwrap_or_else(|| panic!("no chain {chain}"));
        for rule in rules {
            let Some(target) = self.matches(rule, node, state, choices) else { continue };
            match target.as_slice() {
                [] => {}
                [name] if name == "RETURN" => return None,
                [name] if name == "ACCEPT" => return Some(Verdict::Accept),
                [name] if name == "DROP" => return Some(Verdict::Drop),
                [name] if name == "REJECT" => return Some(Verdict::Reject),
                [name, flag, to] if name == "DNAT" && flag == "--to-destination" => {
                    let to: std::net::SocketAddr = to.parse().expect("a socket address");
                    state.translated = Some((to.ip(), to.port()));
                    return Some(Verdict::Accept);
                }
                [name, ..] if name == "MASQUERADE" => {
                    state.masqueraded = true;
                    return Some(Verdict::Accept);
                }
                [name, operation, mark] if name == "MARK" => {
                    let mark = number(mark);
                    match operation.as_str() {
                        "--or-mark" => state.mark |= mark,
                        "--xor-mark" => state.mark ^= mark,
                        other => panic!("{other}"),
                    }
                }
                [chain] => {
                    if let Some(verdict) = self.walk(table, chain, node, state, choices) {
                        return Some(verdict);
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        None
    }

    /// The rule's target when the packet matches.
    fn matches(
        &self,
        rule: &[String],
        node: &Node,
        state: &State,
        choices: &mut Choices,
    ) -> Option<Vec<String>> {
        let (to, port) = state.to();
        let mut words = rule.iter().map(String::as_str);
        let mut negated = false;
        while let Some(word) = words.next() {
            let mut value = || words.next().expect("a value");
            let matched = match word {
                "!" => {
                    negated = true;
                    continue;
                }
                "-m" | "--comment" | "--mode" => {
                    value();
                    continue;
                }
                "--reap" => continue,
                "-j" => return Some(words.map(str::to_owned).fold(Vec::new(), push)),
                "-p" | "--vproto" => value() == state.packet.protocol,
                "--dport" => value() == port.to_string(),
                "-s" => covers(value(), state.packet.src),
                "-d" => covers(value(), to),
                "--src-type" => value() == "LOCAL" && node.is_local(state.packet.src),
                "--dst-type" => value() == "LOCAL" && node.is_local(to),
                "--ctstate" => value().split(',').any(|state| state == "NEW"),
                "--mark" => {
                    let (value, mask) = value().split_once('/').expect("a mask");
                    state.mark & number(mask) == number(value)
                }
                "--probability" => {
                    value();
                    choices.choose(2) == 1
                }
                // Nobody was here before.
                "--name" => {
                    value();
                    let check = words.clone().next() == Some("--rcheck");
                    for _ in 0..if check { 3 } else { 1 } {
                        words.next();
                    }
                    !check
                }
                "--match-set" => {
                    let (set, fields) = (value(), words.next().expect("directions"));
                    self.in_set(set, fields, state)
                }
                "--physdev-is-in" => false,
                other => panic!("{other} in {rule:?}"),
            };
            if matched == negated {
                return None;
            }
            negated = false;
        }
        Some(Vec::new())
    }

    fn in_set(&self, set: &str, fields: &str, state: &State) -> bool {
        let (to, port) = state.to();
        let src = state.packet.src;
        let numbered = format!("{}:{port}", state.packet.protocol);
        let members = self.sets.get(set).unwrap_or_else(|| panic!("no set {set}"));
        members.iter().any(|member| {
            let parts: Vec<&str> = member.split(',').collect();
            match (fields, parts.as_slice()) {
                ("dst", [one]) => *one == port.to_string() || one.parse() == Ok(to),
                ("dst,dst", [address, number]) => covers(address, to) && *number == numbered,
                ("src,dst", [address, number]) => covers(address, src) && *number == numbered,
                ("dst,dst,src", [address, number, from]) => {
                    covers(address, to) && *number == numbered && covers(from, src)
                }
                other => panic!("{other:?}"),
            }
        })
    }
}

fn push(mut words: Vec<String>, word: String) -> Vec<String> {
    words.push(word);
    words
}

fn number(text: &str) -> u32 {
    u32::from_str_radix(text.trim_start_matches("0x"), 16).expect("a mark")
}

/// Every jump leads somewhere.
fn check(chains: &Chains, table: &str) {
    const TARGETS: &[&str] = &["RETURN", "ACCEPT", "DROP", "REJECT", "DNAT", "MASQUERADE", "MARK"];
    for (chain, rules) in chains {
        for rule in rules {
            let target = rule.iter().position(|word| word == "-j").and_then(|at| rule.get(at + 1));
            if let Some(target) = target {
                let known = TARGETS.contains(&target.as_str()) || chains.contains_key(target);
                assert!(known, "{table}: {chain} leads to {target}, which is not there");
            }
        }
    }
}
