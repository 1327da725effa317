//! nftables, as far as our table uses it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{Chains, Choices, End, Node, Packet, covers, every_end, words};
use crate::nftables::Observed;

/// A table as `nft -f` leaves it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    chains: Chains,
    /// Base chains: hook and priority.
    hooks: BTreeMap<String, (String, i32)>,
    /// Sets and maps; sets have empty values.
    containers: BTreeMap<String, BTreeMap<String, String>>,
    /// Timeouts of sets that have one.
    timeouts: BTreeMap<String, u32>,
}

struct State {
    packet: Packet,
    to: (IpAddr, u16),
    mark: u32,
    masqueraded: bool,
    translated: bool,
}

enum Flow {
    /// The chain came to its end, or was left by a verdict that ends only it.
    Next,
    /// Evaluation of the hook's chain is over.
    Accept,
    Stop(End),
}

impl Table {
    /// Runs a script; what the real one refuses is a panic.
    pub(crate) fn run(&mut self, script: &str) {
        for line in script.lines() {
            let words = words(line);
            let arguments: Vec<&str> = words.iter().map(String::as_str).collect();
            let ["add" | "delete" | "flush", kind, _, "kube-proxy", ..] = arguments[..] else {
                panic!("{line}")
            };
            match (arguments[0], kind, &arguments[4..]) {
                (_, "table", _) => {}
                ("add", "chain", [name, rest @ ..]) => {
                    self.chains.entry((*name).to_owned()).or_default();
                    if let Some(at) = rest.iter().position(|word| *word == "hook") {
                        let priority = rest[at + 3].parse().expect("a number");
                        self.hooks.insert((*name).to_owned(), (rest[at + 1].to_owned(), priority));
                    }
                }
                ("flush", "chain", [name]) => self.chains.get_mut(*name).expect("the chain").clear(),
                ("delete", "chain", [name]) => {
                    // The kernel takes the rules along.
                    self.chains.remove(*name).expect("the chain");
                    self.hooks.remove(*name);
                }
                ("add", "rule", [chain, rule @ ..]) => {
                    let rule = rule.iter().map(|word| (*word).to_owned()).collect();
                    self.chains.get_mut(*chain).unwrap_or_else(|| panic!("no chain {chain}")).push(rule);
                }
                ("add", "set" | "map", [name, rest @ ..]) => {
                    self.containers.entry((*name).to_owned()).or_default();
                    if let Some(at) = rest.iter().position(|word| *word == "timeout") {
                        let secs = rest[at + 1].trim_end_matches('s').parse().expect("a number");
                        let old = self.timeouts.insert((*name).to_owned(), secs);
                        assert!(old.is_none_or(|old| old == secs), "{name} has another timeout");
                    }
                }
                ("flush", "set" | "map", [name]) => {
                    self.containers.get_mut(*name).expect("the set").clear();
                }
                ("delete", "set", [name]) => {
                    self.containers.remove(*name).expect("the set");
                    self.timeouts.remove(*name);
                }
                (verb, "element", [name, "{", element @ .., "}"]) => self.element(verb, name, element),
                _ => panic!("{line}"),
            }
        }
        self.check();
    }

    fn element(&mut self, verb: &str, name: &str, element: &[&str]) {
        let at = element.iter().position(|word| *word == ":").unwrap_or(element.len());
        let (key, value) = (element[..at].join(" "), element.get(at + 1..).unwrap_or_default().join(" "));
        let container = self.containers.get_mut(name).unwrap_or_else(|| panic!("no {name}"));
        match verb {
            "add" => {
                let old = container.insert(key.clone(), value.clone());
                assert!(old.is_none_or(|old| old == value), "{name}: {key} is there");
            }
            _ => drop(container.remove(&key).unwrap_or_else(|| panic!("{name} has no {key}"))),
        }
    }

    /// Everything that is named is there.
    fn check(&self) {
        let values = self.containers.values().flat_map(BTreeMap::values);
        let values = values.map(|value| words(value));
        for rule in self.chains.values().flatten().cloned().chain(values) {
            for (index, word) in rule.iter().enumerate() {
                let next = rule.get(index + 1).map(|name| name.trim_end_matches(','));
                if word == "goto" || word == "jump" {
                    assert!(next.is_some_and(|name| self.chains.contains_key(name)), "{rule:?}");
                }
                if let Some(set) = word.strip_prefix('@') {
                    assert!(self.containers.contains_key(set), "{rule:?}");
                }
            }
        }
    }

    pub(crate) fn chains(&self) -> &Chains {
        &self.chains
    }

    pub(crate) fn sets(&self) -> BTreeMap<String, u32> {
        let timeout = |name: &String| self.timeouts.get(name).copied().unwrap_or_default();
        self.containers.keys().map(|name| (name.clone(), timeout(name))).collect()
    }

    /// As the kernel layer sees it.
    pub(crate) fn observe(&self) -> Observed {
        let chains = self.chains.iter().map(|(name, rules)| (name.clone(), rules.len()));
        let containers = self.containers.iter().map(|(name, elements)| (name.clone(), elements.len()));
        Observed {
            chains: self.chains.keys().cloned().collect(),
            sets: self.sets(),
            sizes: chains.chain(containers).collect(),
        }
    }

    pub(crate) fn elements(&self, container: &str) -> Vec<&str> {
        self.containers[container].keys().map(String::as_str).collect()
    }

    /// Every end of a packet on a node.
    pub(crate) fn ends(&self, node: &Node, packet: Packet) -> BTreeSet<End> {
        every_end(|choices| self.trace(node, packet, choices))
    }

    fn trace(&self, node: &Node, packet: Packet, choices: &mut Choices) -> End {
        let to = (packet.dst, packet.port);
        let mut state = State { packet, to, mark: 0, masqueraded: false, translated: false };
        let outgoing = node.is_local(packet.src);
        let mut hooks = vec![if outgoing { "output" } else { "prerouting" }];
        let mut done = 0;
        while done < hooks.len() {
            let mut chains: Vec<(&i32, &String)> = self
                .hooks
                .iter()
                .filter(|(_, (hook, _))| hook == hooks[done])
                .map(|(name, (_, priority))| (priority, name))
                .collect();
            chains.sort();
            for (_, chain) in chains {
                if let Flow::Stop(end) = self.walk(chain, node, &mut state, choices) {
                    return end;
                }
            }
            if done == 0 {
                match (node.is_local(state.to.0), outgoing) {
                    (true, _) => hooks.push("input"),
                    (false, false) => hooks.push("forward"),
                    (false, true) => {}
                }
                hooks.push("postrouting");
            }
            done += 1;
        }
        End::Arrives { to: state.to, masqueraded: state.masqueraded }
    }

    fn walk(&self, chain: &str, node: &Node, state: &mut State, choices: &mut Choices) -> Flow {
        for rule in &self.chains[chain] {
            let (verdict, leaves) = self.rule(rule, node, state, choices);
            match verdict {
                Flow::Next if leaves => return Flow::Next,
                Flow::Next => {}
                other => return other,
            }
        }
        Flow::Next
    }

    /// Runs a rule; the second value says that its chain is left.
    fn rule(&self, rule: &[String], node: &Node, state: &mut State, choices: &mut Choices) -> (Flow, bool) {
        let words: Vec<&str> = rule.iter().map(String::as_str).collect();
        let mut rest = words.as_slice();
        while !rest.is_empty() {
            let (matched, after) = match rest {
                ["ct", "state", "new", after @ ..] => (true, after),
                ["ct", "status", "dnat", after @ ..] => (state.translated, after),
                ["comment", _, after @ ..] => (true, after),
                ["fib", "saddr", "type", "local", after @ ..] => (node.is_local(state.packet.src), after),
                ["fib", "daddr", "type", "local", after @ ..] => (node.is_local(state.to.0), after),
                ["meta", "mark", "and", mark, "!=", "0", after @ ..] => {
                    (state.mark & number(mark) != 0, after)
                }
                ["meta", "mark", "set", "meta", "mark", operation, mark, after @ ..] => {
                    match *operation {
                        "or" => state.mark |= number(mark),
                        _ => state.mark ^= number(mark),
                    }
                    (true, after)
                }
                ["update", _, "{", _, _, "}", after @ ..] => (true, after),
                ["meta", "l4proto", protocol, "dnat", .., "to", to] => {
                    assert_eq!(*protocol, state.packet.protocol);
                    let to: std::net::SocketAddr = to.parse().expect("a socket address");
                    return self.translate(state, (to.ip(), to.port()));
                }
                [
                    "meta",
                    "l4proto",
                    _,
                    "dnat",
                    _,
                    "to",
                    "numgen",
                    "random",
                    "mod",
                    count,
                    "map",
                    "{",
                    map @ ..,
                    "}",
                ] => {
                    let chosen = choose(count, map, choices);
                    let [address, ".", port] = chosen[..] else { panic!("{chosen:?}") };
                    let to = (address.parse().expect("an address"), port.parse().expect("a port"));
                    return self.translate(state, to);
                }
                ["numgen", "random", "mod", count, "vmap", "{", map @ .., "}"] => {
                    let chosen = choose(count, map, choices);
                    return self.verdict(&chosen, node, state, choices);
                }
                ["masquerade", "fully-random"] => {
                    state.masqueraded = true;
                    return (Flow::Accept, true);
                }
                ["reject" | "drop" | "goto" | "jump", ..] => {
                    let end = rest.iter().position(|word| *word == "comment").unwrap_or(rest.len());
                    return self.verdict(&rest[..end], node, state, choices);
                }
                _ => match self.field_match(rest, state) {
                    Ok(found) => found,
                    Err(verdict) => {
                        let words: Vec<&str> = verdict.split(' ').collect();
                        return self.verdict(&words, node, state, choices);
                    }
                },
            };
            if !matched {
                return (Flow::Next, false);
            }
            rest = after;
        }
        (Flow::Next, false)
    }

    /// A match on header fields, joined by dots; or the verdict of a map.
    fn field_match<'a>(
        &self,
        mut rest: &'a [&'a str],
        state: &State,
    ) -> Result<(bool, &'a [&'a str]), String> {
        let mut key = Vec::new();
        loop {
            let (value, after) = match rest {
                ["ip" | "ip6", "saddr", after @ ..] => (state.packet.src.to_string(), after),
                ["ip" | "ip6", "daddr", after @ ..] => (state.to.0.to_string(), after),
                ["meta", "l4proto", after @ ..] => (state.packet.protocol.to_owned(), after),
                ["th", "dport", after @ ..] => (state.to.1.to_string(), after),
                other => panic!("{other:?}"),
            };
            key.push(value);
            rest = after;
            match rest {
                [".", after @ ..] => rest = after,
                _ => break,
            }
        }
        let key = key.join(" . ");
        let (negated, after) = match rest {
            ["!=", after @ ..] => (true, after),
            _ => (false, rest),
        };
        let found = |set: &[&str]| {
            let address = key.parse().expect("an address");
            set.iter().any(|text| covers(text.trim_end_matches(','), address))
        };
        let (matched, after) = match after {
            ["vmap", map, after @ ..] => match self.containers[&map[1..]].get(&key) {
                Some(verdict) => return Err(verdict.clone()),
                None => (false, after),
            },
            ["{", rest @ ..] => {
                let end = rest.iter().position(|word| *word == "}").expect("closed");
                (found(&rest[..end]), &rest[end + 1..])
            }
            [set, after @ ..] if set.starts_with('@') => {
                (self.containers[&set[1..]].contains_key(&key), after)
            }
            [one, after @ ..] => (found(&[one]), after),
            [] => panic!("nothing to compare with"),
        };
        Ok((matched != negated, after))
    }

    fn translate(&self, state: &mut State, to: (IpAddr, u16)) -> (Flow, bool) {
        state.to = to;
        state.translated = true;
        (Flow::Accept, true)
    }

    fn verdict(&self, words: &[&str], node: &Node, state: &mut State, choices: &mut Choices) -> (Flow, bool) {
        match words {
            ["reject"] => (Flow::Stop(End::Refused), true),
            ["drop"] => (Flow::Stop(End::Dropped), true),
            ["goto", chain] => (self.walk(chain, node, state, choices), true),
            ["jump", chain] => (self.walk(chain, node, state, choices), false),
            other => panic!("{other:?}"),
        }
    }
}

/// The value of one of the entries `0 : VALUE, 1 : VALUE`.
fn choose<'a>(count: &str, map: &'a [&'a str], choices: &mut Choices) -> Vec<&'a str> {
    let count: usize = count.parse().expect("a number");
    let mut entries: Vec<Vec<&str>> = vec![Vec::new()];
    for word in map {
        entries.last_mut().expect("one").push(word.trim_end_matches(','));
        if word.ends_with(',') {
            entries.push(Vec::new());
        }
    }
    assert_eq!(entries.len(), count);
    let index = choices.choose(count);
    assert_eq!(entries[index][..2], [index.to_string().as_str(), ":"]);
    entries[index][2..].to_vec()
}

fn number(text: &str) -> u32 {
    u32::from_str_radix(text.trim_start_matches("0x"), 16).expect("a mark")
}
