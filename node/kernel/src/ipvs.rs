//! Virtual servers of IPVS, the dummy interface with their addresses, and the ipsets around them.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
};

use fairlead_plan::{
    classic::Family,
    iptables::fixed::{Jump, Table},
    ipvs::{self as plan, INTERFACE, Observed, Op, Plan, Server, sets},
};

use self::client::Client;
use crate::{
    KernelError, iptables,
    net::{Netlink, sysctl},
    tool,
};

mod client;
mod message;

/// Kernel parameters that this mode needs (`NewProxier` in `pkg/proxy/ipvs/proxier.go`): conntrack entries, without
/// which nothing is masqueraded; no connection kept to an endpoint that is gone.
const PARAMETERS: &[(&str, &str)] = &[
    ("ipv4/vs/conntrack", "1"),
    ("ipv4/vs/expire_nodest_conn", "1"),
    ("ipv4/vs/expire_quiescent_template", "1"),
    ("ipv4/ip_forward", "1"),
];

/// What the kernel says of a value that it does not take (`ip_vs_new_dest` in net/netfilter/ipvs/ip_vs_ctl.c,
/// `inet6_addr_add` in net/ipv6/addrconf.c).
const REFUSALS: [i32; 2] = [libc::EINVAL, libc::EADDRNOTAVAIL];

/// A handle on IPVS of one network namespace.
pub struct Ipvs {
    client: Client,
    netlink: Netlink,
}

impl Ipvs {
    /// Opens it in the namespace of the calling thread and sets the kernel's parameters.
    ///
    /// # Errors
    /// The kernel has no IPVS, no ipset or no dummy interfaces.
    pub fn open() -> Result<Self, KernelError> {
        let client = client()?.ok_or_else(|| KernelError::MissingFeature {
            feature: "IPVS",
            remedy: "load its modules (`modprobe ip_vs_rr`), or use another --proxy-mode".to_owned(),
        })?;
        for (name, value) in PARAMETERS {
            sysctl::set(name, value)?;
        }
        Ok(Self { client, netlink: Netlink::connect()? })
    }

    /// What there is of a family.
    ///
    /// # Errors
    /// The kernel or a tool does not answer.
    pub async fn observe(&self, family: Family) -> Result<Observed, KernelError> {
        let failed = || KernelError::file("listing", "virtual servers of IPVS");
        let mut servers = BTreeMap::new();
        for (server, affinity) in self.client.servers().map_err(failed())? {
            if Family::of(&server.address) == family {
                servers.insert(server, (affinity, self.client.endpoints(&server).map_err(failed())?));
            }
        }
        let bound = addresses_of(INTERFACE)?.into_iter().filter(|address| Family::of(address) == family);
        let saved = tool::expect("ipset", &["save"], None).await?;
        Ok(Observed {
            servers,
            bound: bound.collect(),
            sets: sets::parse(&saved, family),
            saved: iptables::observe(family).await?,
        })
    }

    /// Applies a plan. Returns the additions that the kernel does not take for what they are, such as an endpoint with a
    /// broadcast address; nothing else is kept back for them.
    ///
    /// # Errors
    /// What the failed step met; those before it are applied.
    pub async fn apply(&self, family: Family, plan: &Plan) -> Result<Vec<(Op, KernelError)>, KernelError> {
        if !plan.sets.is_empty() {
            tool::expect("ipset", &["restore"], Some(&plan.sets)).await?;
        }
        let refused = self.add(&plan.additions).await?;
        if let Some(restore) = &plan.restore {
            iptables::apply(family, restore).await?;
        }
        for op in &plan.removals {
            self.apply_op(*op).await?;
        }
        Ok(refused)
    }

    async fn add(&self, ops: &[Op]) -> Result<Vec<(Op, KernelError)>, KernelError> {
        let mut refused: Vec<(Op, KernelError)> = Vec::new();
        for op in ops {
            let is_missing = |server: &Server| {
                refused.iter().any(|(op, _)| matches!(op, Op::PutServer(other, _) if other == server))
            };
            if matches!(op, Op::PutEndpoint(server, ..) if is_missing(server)) {
                continue;
            }
            match self.apply_op(*op).await {
                Err(error) if REFUSALS.contains(&error.errno().unwrap_or_default()) => {
                    refused.push((*op, error));
                }
                other => other?,
            }
        }
        Ok(refused)
    }

    async fn apply_op(&self, op: Op) -> Result<(), KernelError> {
        let (server, done) = match op {
            Op::PutServer(server, affinity) => (server, self.client.put_server(&server, affinity)),
            Op::PutEndpoint(server, target, weight) => {
                (server, self.client.put_endpoint(&server, &target, weight))
            }
            Op::DeleteEndpoint(server, target) => (server, self.client.delete_endpoint(&server, &target)),
            Op::DeleteServer(server) => (server, self.client.delete_server(&server)),
            Op::Bind(address) => return self.bind(address).await,
            Op::Unbind(address) => return self.netlink.delete_address(INTERFACE, address).await,
        };
        done.map_err(changing(&server))
    }

    async fn bind(&self, address: IpAddr) -> Result<(), KernelError> {
        let link = match self.netlink.link(INTERFACE).await? {
            Some(link) => link,
            None => self.netlink.add_dummy(INTERFACE).await?,
        };
        let length = if address.is_ipv4() { 32 } else { 128 };
        self.netlink.add_address(link.index, address, length).await
    }
}

/// A socket; none where the kernel has no IPVS.
fn client() -> Result<Option<Client>, KernelError> {
    match Client::open() {
        Ok(client) => Ok(Some(client)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(KernelError::file("opening", "generic netlink family IPVS")(error)),
    }
}

fn changing(server: &Server) -> impl FnOnce(io::Error) -> KernelError {
    KernelError::file("changing virtual server", server.to_string())
}

/// Takes away the servers at addresses of the interface and those that were `made` elsewhere, and then the interface, which
/// a kernel without IPVS may have as well. Sets no parameters.
///
/// # Errors
/// A step fails; call again.
pub async fn remove(made: &BTreeSet<Server>) -> Result<(), KernelError> {
    if let Some(client) = client()? {
        let bound = addresses_of(INTERFACE)?;
        for (server, _) in
            client.servers().map_err(KernelError::file("listing", "virtual servers of IPVS"))?
        {
            if plan::is_ours(&server, &bound, made) {
                client.delete_server(&server).map_err(changing(&server))?;
            }
        }
    }
    Netlink::connect()?.delete_link(INTERFACE).await
}

/// Takes away rules and sets, which need no IPVS to be there.
///
/// # Errors
/// A tool is missing or fails.
pub async fn remove_rules(
    family: Family,
    ours: impl Fn(Table, &str) -> bool,
    jumps: &[Jump],
) -> Result<(), KernelError> {
    iptables::remove(family, ours, jumps).await?;
    let held = sets::parse(&tool::expect("ipset", &["save"], None).await?, family);
    for set in held.keys() {
        tool::expect("ipset", &["destroy", set], None).await?;
    }
    Ok(())
}

/// Addresses of an interface; none when it is not there.
fn addresses_of(interface: &str) -> Result<BTreeSet<IpAddr>, KernelError> {
    Ok(crate::net::interfaces::all()?
        .into_iter()
        .filter(|(name, _)| name == interface)
        .map(|row| row.1)
        .collect())
}
