//! What happens to a packet under the rules that a mode writes: small simulators for the tests.
//!
//! They read the very text that the tools get, and know just the matches and targets that occur in it; anything else
//! is a panic. A random choice is tried in every way.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use fairlead_model::Prefix;

use super::contains;

pub(crate) mod iptables;
pub(crate) mod nftables;
pub(crate) mod table;

/// The first packet of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Packet {
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) protocol: &'static str,
    pub(crate) port: u16,
}

/// Where it gets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum End {
    /// Nowhere, silently.
    Dropped,
    /// Nowhere, and the sender is told.
    Refused,
    /// There.
    Arrives {
        /// Destination.
        to: (IpAddr, u16),
        /// From the node's address instead of its own.
        masqueraded: bool,
    },
}

/// A node that traces packets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Node {
    /// Addresses of its interfaces, loopback among them.
    pub(crate) local: Vec<IpAddr>,
}

impl Node {
    pub(crate) fn is_local(&self, address: IpAddr) -> bool {
        self.local.contains(&address) || address.is_loopback()
    }
}

/// Choices that were made on the way, to be made otherwise the next time.
#[derive(Debug, Default)]
pub(crate) struct Choices {
    made: Vec<(usize, usize)>,
    next: usize,
}

impl Choices {
    /// One of `options`.
    pub(crate) fn choose(&mut self, options: usize) -> usize {
        if self.next == self.made.len() {
            self.made.push((0, options));
        }
        self.next += 1;
        self.made[self.next - 1].0
    }

    fn advance(&mut self) -> bool {
        self.next = 0;
        while let Some((taken, options)) = self.made.pop() {
            if taken + 1 < options {
                self.made.push((taken + 1, options));
                return true;
            }
        }
        false
    }
}

/// Every end that is possible.
pub(crate) fn every_end(mut run: impl FnMut(&mut Choices) -> End) -> BTreeSet<End> {
    let mut choices = Choices::default();
    let mut ends = BTreeSet::new();
    loop {
        ends.insert(run(&mut choices));
        if !choices.advance() {
            return ends;
        }
    }
}

/// `address` or `address/length` covers the address.
pub(crate) fn covers(text: &str, address: IpAddr) -> bool {
    match text.split_once('/') {
        None => text.parse() == Ok(address),
        Some((network, length)) => {
            let prefix = Prefix {
                address: network.parse().expect("an address"),
                length: length.parse().expect("a length"),
            };
            contains(prefix, address)
        }
    }
}

/// Words of a line; quotes hold words together.
pub(crate) fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut quoted = false;
    let mut word = String::new();
    for character in line.chars() {
        match character {
            '"' => quoted = !quoted,
            ' ' if !quoted => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            other => word.push(other),
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Chains by name with their rules as words.
pub(crate) type Chains = BTreeMap<String, Vec<Vec<String>>>;
