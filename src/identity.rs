//! Who a daemon is: the certificate in its kubeconfig, with which it speaks to the API and the feed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use fairlead_wire::FeedEndpoint;
use hyper::Uri;
use serde::Deserialize;

/// Port of the feed, beside the API.
pub(crate) const FEED_PORT: u16 = 6444;

/// The parts of a kubeconfig's current context that a daemon needs, as PEM texts.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The API server.
    pub(crate) server: String,
    /// Authority of its certificate and of ours.
    pub(crate) ca_pem: String,
    /// Our certificate.
    pub(crate) cert_pem: String,
    /// Its key.
    pub(crate) key_pem: String,
    file: PathBuf,
}

impl std::fmt::Debug for Identity {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("server", &self.server)
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// Reads a kubeconfig with a client certificate.
    pub(crate) fn read(file: &Path) -> anyhow::Result<Self> {
        let what = || format!("cannot use the kubeconfig {}", file.display());
        let text = fs::read_to_string(file).with_context(|| {
            format!("cannot read the kubeconfig {}; `fairlead kubeconfig` makes one", file.display())
        })?;
        let parsed: Kubeconfig = serde_yaml_ng::from_str(&text).with_context(what)?;
        parsed.identity(file).with_context(what)
    }

    /// A client of the API server.
    pub(crate) async fn client(&self) -> anyhow::Result<kube::Client> {
        client(&self.file).await
    }

    /// How to reach the feed: at `url`, or beside the API server.
    pub(crate) fn feed(&self, url: Option<&str>) -> anyhow::Result<FeedEndpoint> {
        let url = match url {
            Some(url) => url.to_owned(),
            None => format!("https://{}:{FEED_PORT}", self.host()?),
        };
        let uri: Option<Uri> = url.parse().ok().filter(|uri: &Uri| uri.scheme_str() == Some("https"));
        let name = uri.as_ref().and_then(Uri::host);
        let name = name.with_context(|| format!("--feed {url} is not a URL such as https://HOST:6444"))?;
        Ok(FeedEndpoint {
            server_name: name.trim_matches(['[', ']']).to_owned(),
            url,
            ca_pem: self.ca_pem.clone(),
            cert_pem: self.cert_pem.clone(),
            key_pem: self.key_pem.clone(),
        })
    }

    /// The API server's host, an IPv6 address in brackets.
    pub(crate) fn host(&self) -> anyhow::Result<String> {
        let uri: Uri =
            self.server.parse().with_context(|| format!("{} names no URL as server", self.file.display()))?;
        Ok(uri.host().with_context(|| format!("{} names no host", self.server))?.to_owned())
    }
}

/// A client with the credentials of a kubeconfig.
pub(crate) async fn client(kubeconfig: &Path) -> anyhow::Result<kube::Client> {
    let problem = || format!("cannot use the kubeconfig {}", kubeconfig.display());
    let file = kube::config::Kubeconfig::read_from(kubeconfig).with_context(problem)?;
    let config = kube::Config::from_custom_kubeconfig(file, &kube::config::KubeConfigOptions::default())
        .await
        .with_context(problem)?;
    kube::Client::try_from(config).with_context(problem)
}

/// This machine's name, for nodes that are not given one.
pub(crate) fn host_name() -> anyhow::Result<String> {
    let name =
        fs::read_to_string("/proc/sys/kernel/hostname").context("cannot read the host name; give --name")?;
    Ok(name.trim().to_lowercase())
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Kubeconfig {
    current_context: String,
    clusters: Vec<NamedCluster>,
    users: Vec<NamedUser>,
    contexts: Vec<NamedContext>,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    user: User,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize)]
struct Context {
    cluster: String,
    user: String,
}

impl Kubeconfig {
    fn identity(&self, file: &Path) -> anyhow::Result<Identity> {
        let current = &self.current_context;
        let context = self.contexts.iter().find(|c| c.name == *current);
        let context = &context.with_context(|| format!("it has no context {current}"))?.context;
        let cluster = self.clusters.iter().find(|c| c.name == context.cluster);
        let cluster = &cluster.with_context(|| format!("it has no cluster {}", context.cluster))?.cluster;
        let user = self.users.iter().find(|u| u.name == context.user);
        let user = &user.with_context(|| format!("it has no user {}", context.user))?.user;
        let pem = |name: &str, data: &Option<String>, path: &Option<PathBuf>| pem(file, name, data, path);
        Ok(Identity {
            server: cluster.server.clone(),
            ca_pem: pem(
                "certificate-authority",
                &cluster.certificate_authority_data,
                &cluster.certificate_authority,
            )?,
            cert_pem: pem("client-certificate", &user.client_certificate_data, &user.client_certificate)?,
            key_pem: pem("client-key", &user.client_key_data, &user.client_key)?,
            file: file.to_owned(),
        })
    }
}

/// A PEM text, inline or in a file beside the kubeconfig.
fn pem(file: &Path, name: &str, data: &Option<String>, path: &Option<PathBuf>) -> anyhow::Result<String> {
    match (data, path) {
        (Some(data), _) => {
            let bytes = STANDARD.decode(data).with_context(|| format!("its {name}-data is not base64"))?;
            String::from_utf8(bytes).with_context(|| format!("its {name}-data is not PEM"))
        }
        (None, Some(path)) => {
            let path = file.parent().unwrap_or(Path::new("")).join(path);
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        }
        (None, None) => bail!("it has no {name}; a daemon needs a client certificate"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::Identity;

    const TEXT: &str = "\
apiVersion: v1
kind: Config
current-context: a
contexts: [{name: a, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: 'https://[fd00::1]:6443', certificate-authority-data: Q0E=}}]
users: [{name: u, user: {client-certificate-data: Q0VSVA==, client-key: key.pem}}]
";

    #[test]
    fn certificates_are_read_inline_and_from_files() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("kubeconfig");
        fs::write(&file, TEXT).unwrap();
        let missing = format!("{:#}", Identity::read(&file).unwrap_err());
        assert!(missing.contains("key.pem"), "{missing}");
        fs::write(dir.path().join("key.pem"), "KEY").unwrap();
        let identity = Identity::read(&file).unwrap();
        assert_eq!((identity.ca_pem.as_str(), identity.cert_pem.as_str()), ("CA", "CERT"));
        assert_eq!(identity.key_pem, "KEY");
    }

    #[test]
    fn the_feed_is_beside_the_api_unless_given() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("kubeconfig");
        fs::write(&file, TEXT.replace("client-key: key.pem", "client-key-data: S0VZ")).unwrap();
        let identity = Identity::read(&file).unwrap();
        let feed = identity.feed(None).unwrap();
        assert_eq!((feed.url.as_str(), feed.server_name.as_str()), ("https://[fd00::1]:6444", "fd00::1"));
        assert_eq!(identity.feed(Some("https://feed.example:1")).unwrap().server_name, "feed.example");
        assert!(identity.feed(Some("nonsense")).is_err());
    }
}
