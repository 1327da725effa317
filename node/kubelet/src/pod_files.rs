//! The managed files of a pod: `/etc/hosts`, `/etc/hostname`, `/etc/resolv.conf`. Pure texts and their writing.

use std::{
    fmt::Write as _,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use k8s_openapi::api::core::v1::Pod;

use crate::{Error, spec::BindMount};

/// Longest host name (`HOST_NAME_MAX` less the terminator upstream keeps free).
const HOSTNAME_MAX: usize = 63;
const FILES: [&str; 3] = ["hosts", "hostname", "resolv.conf"];

/// What names resolve by default in the cluster.
#[derive(Clone, Debug)]
pub(crate) struct ClusterDns {
    pub(crate) servers: Vec<IpAddr>,
    pub(crate) domain: String,
}

/// The pod's host name.
pub(crate) fn hostname(pod: &Pod) -> String {
    let given = pod.spec.as_ref().and_then(|spec| spec.hostname.clone()).filter(|name| !name.is_empty());
    let mut name = given.or_else(|| pod.metadata.name.clone()).unwrap_or_default();
    name.truncate(HOSTNAME_MAX);
    name.trim_end_matches(['-', '.']).to_owned()
}

/// Writes the files into `directory`. Idempotent. Blocks.
pub(crate) fn write(
    pod: &Pod,
    addresses: &[IpAddr],
    dns: &ClusterDns,
    directory: &Path,
) -> Result<(), Error> {
    fs::create_dir_all(directory).map_err(Error::file("create", directory))?;
    let texts = [hosts(pod, addresses, dns), format!("{}\n", hostname(pod)), resolv_conf(pod, dns)];
    for (name, text) in FILES.iter().zip(texts) {
        let path = directory.join(name);
        fs::write(&path, text).map_err(Error::file("write", &path))?;
    }
    Ok(())
}

/// Their mounts in every container.
pub(crate) fn mounts(directory: &Path) -> Vec<BindMount> {
    FILES
        .iter()
        .map(|name| BindMount {
            source: directory.join(name).to_string_lossy().into_owned(),
            destination: Path::new("/etc").join(name).to_string_lossy().into_owned(),
            read_only: false,
            propagation: "rprivate",
        })
        .collect()
}

/// The file a container's last words are read from.
pub(crate) fn termination_log(directory: &Path, container_id: &str) -> PathBuf {
    directory.join(format!("termination-{container_id}"))
}

fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or("default")
}

fn hosts(pod: &Pod, addresses: &[IpAddr], dns: &ClusterDns) -> String {
    let mut text = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
                    fe00::0\tip6-localnet\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
        .to_owned();
    let spec = pod.spec.as_ref();
    let hostname = hostname(pod);
    let names = match spec.and_then(|s| s.subdomain.as_deref()).filter(|name| !name.is_empty()) {
        Some(sub) => format!("{hostname}.{sub}.{}.svc.{}\t{hostname}", namespace(pod), dns.domain),
        None => hostname,
    };
    for address in addresses {
        let _infallible = writeln!(text, "{address}\t{names}");
    }
    for alias in spec.and_then(|s| s.host_aliases.as_ref()).into_iter().flatten() {
        let names = alias.hostnames.iter().flatten().cloned().collect::<Vec<_>>().join("\t");
        let _infallible = writeln!(text, "{}\t{names}", alias.ip);
    }
    text
}

fn resolv_conf(pod: &Pod, dns: &ClusterDns) -> String {
    let spec = pod.spec.as_ref();
    let host_network = spec.and_then(|s| s.host_network).unwrap_or(false);
    let policy = spec.and_then(|s| s.dns_policy.as_deref()).unwrap_or("ClusterFirst");
    let node = || fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let mut parts = match (policy, host_network) {
        ("None", _) => ResolvConf::default(),
        ("Default", _) | ("ClusterFirst", true) => ResolvConf::parse(&node()),
        _ => ResolvConf {
            servers: dns.servers.iter().map(ToString::to_string).collect(),
            searches: vec![
                format!("{}.svc.{}", namespace(pod), dns.domain),
                format!("svc.{}", dns.domain),
                dns.domain.clone(),
            ],
            options: vec!["ndots:5".to_owned()],
        },
    };
    if let Some(own) = spec.and_then(|s| s.dns_config.as_ref()) {
        parts.servers.extend(own.nameservers.iter().flatten().cloned());
        parts.searches.extend(own.searches.iter().flatten().cloned());
        for option in own.options.iter().flatten() {
            let name = option.name.clone().unwrap_or_default();
            parts.options.retain(|known| known.split(':').next() != Some(&name));
            parts.options.push(option.value.as_ref().map_or(name.clone(), |value| format!("{name}:{value}")));
        }
    }
    parts.text()
}

#[derive(Default)]
struct ResolvConf {
    servers: Vec<String>,
    searches: Vec<String>,
    options: Vec<String>,
}

impl ResolvConf {
    fn parse(text: &str) -> Self {
        let mut out = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let list = match words.next() {
                Some("nameserver") => &mut out.servers,
                Some("search") => &mut out.searches,
                Some("options") => &mut out.options,
                _ => continue,
            };
            list.extend(words.map(ToOwned::to_owned));
        }
        out
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for server in &self.servers {
            let _infallible = writeln!(text, "nameserver {server}");
        }
        for (name, words) in [("search", &self.searches), ("options", &self.options)] {
            if !words.is_empty() {
                let _infallible = writeln!(text, "{name} {}", words.join(" "));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn dns() -> ClusterDns {
        ClusterDns { servers: vec!["10.96.0.10".parse().unwrap()], domain: "cluster.local".into() }
    }

    fn pod(spec: &serde_json::Value) -> Pod {
        serde_json::from_value(json!({ "metadata": { "name": "echo-1", "namespace": "demo" }, "spec": spec }))
            .unwrap()
    }

    #[test]
    fn cluster_first_searches_the_namespace_first() {
        assert_eq!(
            resolv_conf(&pod(&json!({ "containers": [] })), &dns()),
            "nameserver 10.96.0.10\nsearch demo.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n"
        );
    }

    #[test]
    fn the_pods_own_options_replace_those_of_the_policy() {
        let spec = json!({ "containers": [], "dnsConfig": { "nameservers": ["1.2.3.4"], "searches": ["x"],
            "options": [{ "name": "ndots", "value": "1" }, { "name": "edns0" }] } });
        assert_eq!(
            resolv_conf(&pod(&spec), &dns()),
            "nameserver 10.96.0.10\nnameserver 1.2.3.4\n\
             search demo.svc.cluster.local svc.cluster.local cluster.local x\noptions ndots:1 edns0\n"
        );
    }

    #[test]
    fn hosts_names_the_pod_with_its_subdomain_and_aliases() {
        let spec = json!({ "containers": [], "hostname": "h", "subdomain": "s",
            "hostAliases": [{ "ip": "9.9.9.9", "hostnames": ["nine", "noves"] }] });
        let text = hosts(&pod(&spec), &["10.244.0.2".parse().unwrap()], &dns());
        assert!(text.contains("10.244.0.2\th.s.demo.svc.cluster.local\th\n"), "{text}");
        assert!(text.ends_with("9.9.9.9\tnine\tnoves\n"), "{text}");
    }
}
