//! What a proxy mode has in the kernel.

use std::{collections::BTreeSet, fs, path::Path};

use fairlead_agent::ProxyMode;
use fairlead_testkit::{
    Netns,
    netns::{command, run_in},
};

/// Finds things in a node's namespace and its agent's pins.
type Find = fn(&Netns, &Path) -> Vec<String>;

/// Kinds of things that only proxy modes make.
const KINDS: &[(&str, Find)] = &[
    ("rule", rules),
    ("table", tables),
    ("set", sets),
    ("server", servers),
    ("address", addresses),
    ("socket program", socket_programs),
    ("service in the maps", services),
];

/// What there is of each mode while it is in charge.
pub(crate) fn kinds(mode: ProxyMode) -> BTreeSet<&'static str> {
    let kinds: &[_] = match mode {
        ProxyMode::Ebpf => &["socket program", "service in the maps"],
        ProxyMode::Iptables => &["rule"],
        ProxyMode::Nftables => &["table"],
        ProxyMode::Ipvs => &["rule", "set", "server", "address"],
    };
    kinds.iter().copied().collect()
}

/// What is there of all modes, as kind and name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Traces(BTreeSet<(&'static str, String)>);

impl Traces {
    pub(crate) fn of(node: &Netns, pins: &Path) -> Self {
        let of_kind =
            |&(kind, find): &(&'static str, Find)| find(node, pins).into_iter().map(move |name| (kind, name));
        Self(KINDS.iter().flat_map(of_kind).collect())
    }

    pub(crate) fn kinds(&self) -> BTreeSet<&'static str> {
        self.0.iter().map(|(kind, _)| *kind).collect()
    }

    /// What only one of them has.
    pub(crate) fn difference<'a>(&'a self, other: &'a Self) -> Vec<&'a (&'static str, String)> {
        self.0.symmetric_difference(&other.0).collect()
    }

    /// Takes out what contains this; whether there was any.
    pub(crate) fn take(&mut self, part: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|(_, name)| !name.contains(part));
        self.0.len() < before
    }
}

fn rules(node: &Netns, _: &Path) -> Vec<String> {
    let of_program = |program: &str| {
        let saved = node.exec(program, &[]);
        // A chain's line ends with its counters.
        let lines = saved.lines().filter(|line| line.contains("KUBE-"));
        lines.map(|line| format!("{program} {}", line.split(" [").next().unwrap_or(line))).collect::<Vec<_>>()
    };
    ["iptables-save", "ip6tables-save"].into_iter().flat_map(of_program).collect()
}

fn tables(node: &Netns, _: &Path) -> Vec<String> {
    containing(&node.exec("nft", &["list", "tables"]), "kube-proxy")
}

fn sets(node: &Netns, _: &Path) -> Vec<String> {
    containing(&node.exec("ipset", &["list", "-name"]), "KUBE-")
}

/// Those of IPVS; none where the kernel has it not.
fn servers(node: &Netns, _: &Path) -> Vec<String> {
    let listed =
        run_in(&node.path(), || fs::read_to_string("/proc/thread-self/net/ip_vs").unwrap_or_default());
    let is_server = |line: &&str| line.starts_with("TCP") || line.starts_with("UDP");
    listed.lines().skip(1).filter(is_server).map(str::to_owned).collect()
}

/// But for the link-local one, which the kernel gives it.
fn addresses(node: &Netns, _: &Path) -> Vec<String> {
    let rows = containing(&node.ip(&["-brief", "address", "show"]), "kube-ipvs0");
    let words = rows.iter().flat_map(|row| row.split_whitespace());
    words.filter(|word| !word.starts_with("fe80:")).map(str::to_owned).collect()
}

fn socket_programs(_: &Netns, pins: &Path) -> Vec<String> {
    let links = fs::read_dir(pins.join("links")).expect("the agent has pinned links");
    let names = links.filter_map(Result::ok).map(|entry| entry.file_name().to_string_lossy().into_owned());
    // The others have the name of their interface behind a hyphen.
    names.filter(|name| !name.contains('-')).collect()
}

fn services(_: &Netns, pins: &Path) -> Vec<String> {
    let map = pins.join("maps/SERVICES");
    containing(&command("bpftool", &["map", "dump", "pinned", &map.to_string_lossy()]), "element")
        .into_iter()
        .filter(|line| !line.contains(" 0 elements"))
        .collect()
}

fn containing(text: &str, part: &str) -> Vec<String> {
    text.lines().filter(|line| line.contains(part)).map(str::to_owned).collect()
}
