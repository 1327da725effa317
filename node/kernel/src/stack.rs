//! What the host's stack does for packets that the programs hand to it translated: it masquerades those that carry a mark.
//! Needed where the pods' network is somebody else's, who alone knows by which interface and address another node's pod is
//! reached.

use std::{fs, ops::RangeInclusive, path::Path};

use crate::{
    KernelError, ServiceOptions,
    bpf::pins::{Made, Pins, absent_is_fine},
    net::namespace::own_cookie,
    nft,
    options::{Carriage, Forwarding},
};

/// Our table in the family `inet`.
const TABLE: &str = "fairlead-masquerade";
const FAMILY: &str = "inet";
/// How the stack masquerades.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Masquerade {
    /// The bits of a packet's mark that ask for it.
    mark: u32,
    /// Ports to masquerade with.
    ports: RangeInclusive<u16>,
    /// The table as `nft` showed it when it was made; its words are not those of the script.
    made: Option<String>,
}

impl Masquerade {
    /// What a node with these options needs; none when its programs do without.
    pub(crate) fn of(options: &ServiceOptions) -> Option<Self> {
        let needed = options.forwarding == Forwarding::Stack && options.carriage != Carriage::Rules;
        let ports = beside(&options.node_ports);
        needed.then_some(Self { mark: options.masquerade_mark, ports, made: None })
    }

    /// Makes the table, or makes it as it is to be.
    pub(crate) async fn apply(&mut self) -> Result<(), KernelError> {
        nft::run(&self.script()).await?;
        self.made = nft::text_of(FAMILY, TABLE).await?;
        Ok(())
    }

    /// Makes the table again if somebody has changed it; says whether that was so.
    pub(crate) async fn repair(&mut self) -> Result<bool, KernelError> {
        let whole = self.made.is_some() && nft::text_of(FAMILY, TABLE).await? == self.made;
        if !whole {
            self.apply().await?;
        }
        Ok(!whole)
    }

    /// One transaction. The mark goes off again: what encapsulates the packet may inherit it.
    fn script(&self) -> String {
        let (mark, rest) = (self.mark, !self.mark);
        let (first, last) = (self.ports.start(), self.ports.end());
        format!(
            "add table {FAMILY} {TABLE}\n\
             delete table {FAMILY} {TABLE}\n\
             table {FAMILY} {TABLE} {{\n\
             chain nat-postrouting {{\n\
             type nat hook postrouting priority srcnat;\n\
             meta mark & {mark:#x} == {mark:#x} meta l4proto {{ tcp, udp, sctp }} counter masquerade to :{first}-{last} fully-random\n\
             }}\n\
             chain filter-postrouting {{\n\
             type filter hook postrouting priority srcnat + 1;\n\
             meta mark & {mark:#x} == {mark:#x} meta mark set meta mark & {rest:#x}\n\
             }}\n\
             }}\n"
        )
    }
}

/// The wider range of ports below or above those of node ports: an answer to a node port would be taken for a client. It has to be
/// wide, because the stack remembers a connection for two minutes after its end, and for each backend and port there is one of
/// a kind.
fn beside(node_ports: &RangeInclusive<u16>) -> RangeInclusive<u16> {
    let below = 1_024..=node_ports.start().saturating_sub(1);
    let above = node_ports.end().saturating_add(1)..=u16::MAX;
    if above.len() >= below.len() { above } else { below }
}

/// Takes the table away if a node with these pins made it in the network namespace of the calling thread.
///
/// # Errors
/// `nft` is missing or fails.
pub async fn retire_masquerade(bpffs_dir: &Path) -> Result<(), KernelError> {
    let pins = Pins::new(bpffs_dir);
    if !pins.has_made(Made::Masquerade, own_cookie()?) {
        return Ok(());
    }
    nft::run(&format!("add table {FAMILY} {TABLE}\ndelete table {FAMILY} {TABLE}\n")).await?;
    let note = pins.made(Made::Masquerade);
    absent_is_fine(fs::remove_file(&note), &note)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_to_masquerade_with_are_many_and_no_node_ports() {
        for (node_ports, expected) in [
            (30_000..=32_767, 32_768..=65_535),
            (40_000..=50_000, 1_024..=39_999),
            (1_024..=2_000, 2_001..=65_535),
        ] {
            assert_eq!(beside(&node_ports), expected);
        }
    }
}
