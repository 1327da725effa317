//! Certificates of a development cluster, all from the API server's own authority.

use std::path::Path;

use anyhow::Context as _;
use fairlead_apiserver::pki::{self, Pki};

use super::{children, topology::node_addresses};
use crate::paths::{ClusterPaths, node_name};

/// Common name and group of an administrator, who may do everything.
pub(crate) const ADMINISTRATOR: (&str, &str) = ("kubernetes-admin", "system:masters");
/// Group of the nodes.
pub(crate) const NODES: &str = "system:nodes";

/// Opens the authority of a state directory.
pub(crate) fn open(dir: &Path) -> anyhow::Result<Pki> {
    Pki::open_or_create(dir)
        .with_context(|| format!("cannot use the certificate authority in {}", dir.display()))
}

/// The user name of a node.
pub(crate) fn node_user(name: &str) -> String {
    format!("system:node:{name}")
}

/// A kubeconfig with a new certificate for `user`, which may serve as `addresses` too.
pub(crate) fn kubeconfig(
    pki: &Pki,
    (user, groups): (&str, &[&str]),
    addresses: &[String],
    server: &str,
) -> anyhow::Result<String> {
    let issued = pki.issue(user, groups, addresses)?;
    Ok(pki::kubeconfig(server, pki.ca_pem(), &issued.cert_pem, &issued.key_pem))
}

/// Writes the administrator's kubeconfig and one for each node.
pub(crate) fn write_all(paths: &ClusterPaths, nodes: u8, api_port: u16) -> anyhow::Result<()> {
    let authority = open(&paths.pki())?;
    let (user, group) = ADMINISTRATOR;
    // The one that the API server writes as well, so that it is there before the API server is.
    let issued = authority.stored("admin", user, &[group], &[])?;
    let url = children::host_url(api_port);
    let text = pki::kubeconfig(&url, authority.ca_pem(), &issued.cert_pem, &issued.key_pem);
    pki::write_private(&paths.kubeconfig(), &text)?;
    for index in 1..=nodes {
        let name = node_name(index);
        let mut names: Vec<_> = node_addresses(index).iter().map(ToString::to_string).collect();
        names.push(name.clone());
        let text = kubeconfig(&authority, (&node_user(&name), &[NODES]), &names, &children::api_url())?;
        pki::write_private(&children::node_kubeconfig(paths, &name), &text)?;
    }
    Ok(())
}
