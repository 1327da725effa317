//! What a machine needs for the proxy modes with rules: iptables, nftables, IPVS.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::Initramfs;

/// Modules of the kernel. Nothing is loaded later, when a rule asks for it.
pub(crate) const MODULES: &[&str] = &[
    "dummy",
    "nf_conntrack_netlink",
    "iptable_filter",
    "iptable_mangle",
    "iptable_nat",
    "ip6table_filter",
    "ip6table_mangle",
    "ip6table_nat",
    "xt_MASQUERADE",
    "xt_addrtype",
    "xt_comment",
    "xt_conntrack",
    "xt_ipvs",
    "xt_mark",
    "xt_multiport",
    "xt_nat",
    "xt_nfacct",
    "xt_physdev",
    "xt_recent",
    "xt_set",
    "xt_statistic",
    "xt_tcpudp",
    "ipt_REJECT",
    "ip6t_REJECT",
    "nf_tables",
    "nft_chain_nat",
    "nft_compat",
    "nft_ct",
    "nft_fib_inet",
    "nft_hash",
    "nft_limit",
    "nft_masq",
    "nft_nat",
    "nft_numgen",
    "nft_objref",
    "nft_reject_inet",
    "nft_reject_ipv4",
    "nft_reject_ipv6",
    "ip_set_bitmap_port",
    "ip_set_hash_ip",
    "ip_set_hash_ipport",
    "ip_set_hash_ipportip",
    "ip_set_hash_ipportnet",
    "ip_set_hash_net",
    "ip_set_list_set",
    "ip_vs_rr",
];

/// Programs of this machine.
const TOOLS: &[&str] = &["nft", "ipset", "conntrack"];
/// The variant of iptables that programs the kernel's own tables, which is the one that is measured; it is known by the
/// names that it is called by.
const IPTABLES: &str = "/usr/sbin/xtables-legacy-multi";
const IPTABLES_NAMES: &[&str] =
    &["iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore"];
/// Where it looks for matches and targets, on each architecture.
const EXTENSIONS: &[&str] = &["/usr/lib/x86_64-linux-gnu/xtables", "/usr/lib/aarch64-linux-gnu/xtables"];
/// Names of protocols.
const PROTOCOLS: &str = "/etc/protocols";

/// Puts the programs of these modes into a root file system.
pub(crate) fn add_tools(files: &mut Initramfs) -> Result<()> {
    TOOLS.iter().try_for_each(|tool| files.tool(tool))?;
    files.program(Path::new(IPTABLES), Path::new(IPTABLES))?;
    for name in IPTABLES_NAMES {
        files.program(&Path::new("/usr/sbin").join(name), Path::new(IPTABLES))?;
    }
    for folder in EXTENSIONS.iter().map(Path::new).filter(|folder| folder.exists()) {
        for extension in extensions(folder)? {
            files.program(&extension, &extension)?;
        }
    }
    files.bytes(
        Path::new(PROTOCOLS),
        b"icmp 1 ICMP\ntcp 6 TCP\nudp 17 UDP\nipv6-icmp 58 IPv6-ICMP\nsctp 132 SCTP\n",
    );
    Ok(())
}

/// Those of IPv4, IPv6 and both, not those of bridges.
fn extensions(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
    let is_wanted = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        ["libxt_", "libipt_", "libip6t_"].iter().any(|start| name.starts_with(start))
    };
    Ok(paths.filter(is_wanted).collect())
}
