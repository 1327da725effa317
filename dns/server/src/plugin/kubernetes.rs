//! `kubernetes [ZONE…] [{ … }]`: the names of the cluster.
//!
//! The names come from the feed, whatever `endpoint`, `tls` and `kubeconfig` say. Before the first snapshot a missing
//! name is a failure, never a denial, and never another server's business.

use std::{collections::BTreeSet, sync::Arc};

use fairlead_model::ObjectName;
use fairlead_zone::{
    Answer, Class, Name, Pods, Question, Rcode, Record, RecordType, Selection, ZoneConfig, pod_key,
};
use futures::{FutureExt, StreamExt};

use super::{Plugins, Setup};
use crate::{
    Labelled,
    chain::{Lasting, Message, Next, Plugin, Query, Response, Serving, Zones, ready},
    corefile::{CorefileError, Directive, Words, unknown},
    sync::ClusterNames,
};

struct Kubernetes {
    names: Arc<ClusterNames>,
    fallthrough: Zones,
}

/// Options of CoreDNS's that are about how it reads the API; the feed does that here.
const ABOUT_THE_API: [&str; 7] = [
    "endpoint",
    "tls",
    "kubeconfig",
    "apiserver_qps",
    "apiserver_burst",
    "apiserver_max_inflight",
    "startup_timeout",
];
/// Options that select objects by label.
const BY_LABEL: [(&str, Labelled); 2] =
    [("labels", Labelled::Services), ("namespace_labels", Labelled::Namespaces)];

/// What the lines of a directive say.
struct Options<'a> {
    config: ZoneConfig,
    fallthrough: Zones,
    selectors: Vec<Selector<'a>>,
}

/// Objects of a kind by their labels.
#[derive(Clone)]
struct Selector<'a> {
    kind: Labelled,
    text: String,
    /// Where it is written.
    words: Words<'a>,
}

pub(super) fn set_up(setup: &mut Setup<'_>, directives: &[Directive]) -> Result<Plugins, CorefileError> {
    directives.iter().map(|directive| plugin(setup, directive)).collect()
}

fn plugin(setup: &mut Setup<'_>, directive: &Directive) -> Result<Arc<dyn Plugin>, CorefileError> {
    if !setup.world.config.has_cluster {
        return Err(directive.fault(None, "there is no cluster here; give --kubeconfig, or leave it out"));
    }
    let mut zones = directive.words().zones()?;
    if zones.is_empty() {
        zones = setup.zones.to_vec();
    }
    let (reverse_zones, domains): (Vec<Name>, Vec<Name>) = zones.into_iter().partition(is_reverse);
    let listen = setup.world.config.listen.iter().map(std::net::SocketAddr::ip);
    let mut config = ZoneConfig {
        reverse_zones,
        dns_service: setup.world.config.dns_service.clone(),
        addresses: listen.filter(|address| !address.is_unspecified()).collect(),
        ..ZoneConfig::new(Name::root())
    };
    config.domains = domains;
    if config.domains.is_empty() {
        return Err(directive.fault(None, "needs a zone besides reverse zones, such as cluster.local"));
    }
    let mut options = Options { config, fallthrough: Zones::default(), selectors: Vec::new() };
    options.read(directive)?;
    let Options { config, fallthrough, selectors } = options;
    let names = setup.world.cluster.names(config);
    for selector in selectors {
        follow(setup, &names, selector)?;
    }
    Ok(Arc::new(Kubernetes { names, fallthrough }))
}

/// Shows only the objects of a kind that match a selector, as soon as it is known which these are.
fn follow(
    setup: &mut Setup<'_>,
    names: &Arc<ClusterNames>,
    selector: Selector<'_>,
) -> Result<(), CorefileError> {
    let Selector { kind, text: selector, words } = selector;
    let Some(labels) = &setup.world.config.labels else {
        return Err(words.fault("nobody knows labels here"));
    };
    let mut selected = labels
        .select(kind, &selector)
        .map_err(|error| words.fault(format!("{selector:?} is not a label selector: {error}")))?;
    let (cluster, names) = (Arc::clone(&setup.world.cluster), Arc::clone(names));
    // What an earlier Corefile learned is true until somebody says otherwise.
    let known = cluster.selected(kind, &selector);
    cluster.configure(&names, |config| show(config, kind, known));
    let following = async move {
        while let Some(objects) = selected.next().await {
            cluster.select(kind, &selector, objects.clone());
            cluster.configure(&names, |config| show(config, kind, Some(objects)));
        }
    };
    setup.spawn(following.boxed());
    Ok(())
}

fn show(config: &mut ZoneConfig, kind: Labelled, objects: Option<BTreeSet<ObjectName>>) {
    match kind {
        Labelled::Services => {
            config.services =
                objects.map_or(Selection::Unknown, |objects| Selection::These(Arc::new(objects)));
        }
        Labelled::Namespaces => {
            let namespaces =
                objects.map(|objects| objects.iter().map(|object| Box::from(&*object.name)).collect());
            config.namespaces = namespaces.unwrap_or(Selection::Unknown);
        }
        Labelled::Pods => {
            let pods = objects.map(|objects| objects.iter().map(pod_key).collect());
            config.pod_names = pods.unwrap_or(Selection::Unknown);
        }
    }
}

fn is_reverse(zone: &Name) -> bool {
    let labels: Vec<String> =
        zone.labels().map(|label| String::from_utf8_lossy(label).to_ascii_lowercase()).collect();
    matches!(
        labels.iter().rev().map(String::as_str).take(2).collect::<Vec<_>>()[..],
        ["arpa", "in-addr" | "ip6"]
    )
}

impl<'a> Options<'a> {
    fn read(&mut self, directive: &'a Directive) -> Result<(), CorefileError> {
        let mut namespaces = BTreeSet::new();
        for (option, mut words) in directive.lines() {
            match option {
                "namespaces" => {
                    namespaces.extend(words.all().into_iter().map(Box::from));
                    if namespaces.is_empty() {
                        return Err(words.fault("needs a namespace"));
                    }
                    self.config.namespaces = namespaces.iter().cloned().collect();
                }
                "fallthrough" => self.fallthrough = words.zones_or_all()?,
                _ => self.option(option, &mut words)?,
            }
            words.end()?;
        }
        let by_label = self.selectors.iter().any(|selector| selector.kind == Labelled::Namespaces);
        if by_label && !namespaces.is_empty() {
            return Err(directive.fault(None, "takes either namespaces or namespace_labels, not both"));
        }
        // One selector is for everything that has a name by itself.
        if self.config.pods == Pods::Verified {
            let services = self.selectors.iter().filter(|selector| selector.kind == Labelled::Services);
            let pods: Vec<Selector<'a>> =
                services.map(|selector| Selector { kind: Labelled::Pods, ..selector.clone() }).collect();
            self.selectors.extend(pods);
        }
        Ok(())
    }

    fn option(&mut self, option: &str, words: &mut Words<'a>) -> Result<(), CorefileError> {
        let config = &mut self.config;
        match option {
            "pods" => {
                config.pods = match words.need("disabled, insecure or verified")? {
                    "disabled" => Pods::Disabled,
                    "insecure" => Pods::Insecure,
                    "verified" => Pods::Verified,
                    other => {
                        return Err(words.fault(format!("{other:?} is not disabled, insecure or verified")));
                    }
                }
            }
            "ttl" => config.ttl_secs = words.number("a TTL", 0..=3600)?,
            "endpoint_pod_names" => config.endpoint_pod_names = true,
            "noendpoints" => config.no_endpoints = true,
            "zonal" => config.zonal = true,
            "ignore" => match words.next() {
                Some("empty_service") => config.ignore_empty = true,
                _ => return Err(words.fault("only `ignore empty_service` is known")),
            },
            _ if ABOUT_THE_API.contains(&option) => {
                tracing::info!("kubernetes: {option} has no effect: the cluster's names come from the feed");
                words.all();
            }
            "multicluster" => {
                return Err(words.fault(
                    "multicluster is not supported: the API has no ServiceImports (multicluster.x-k8s.io) to serve",
                ));
            }
            _ => {
                let Some((_, kind)) = BY_LABEL.iter().find(|(name, _)| *name == option) else {
                    return Err(unknown(words, option));
                };
                let selector = words.all().join(" ");
                if selector.is_empty() {
                    return Err(words.fault("needs a label selector, such as tier=front"));
                }
                self.selectors.push(Selector { kind: *kind, text: selector, words: words.clone() });
            }
        }
        Ok(())
    }
}

impl Plugin for Kubernetes {
    fn serve<'a>(&'a self, query: &'a mut Query, next: Next<'a>) -> Serving<'a> {
        let question = &query.request.question;
        let stamp = self.names.zone.load().stamp(question);
        let zone = self.names.zone.load();
        let Some(mut answer) = zone.answer(question) else { return next.serve(query) };
        if answer.unknown && zone.is_synced() && self.fallthrough.contains(&question.name) {
            return next.serve(query);
        }
        drop(zone);
        query.answered_by = "kubernetes";
        match answer.chase.take() {
            Some(target) => chase(query, answer, target).boxed(),
            None => ready(Response { stable: Some(Lasting::Cluster(stamp)), ..Message::from(answer).into() }),
        }
    }

    fn is_ready(&self) -> bool {
        self.names.zone.load().is_synced()
    }

    fn records(&self, zone: &Name) -> Option<Vec<Record>> {
        self.names.zone.load().records(zone)
    }

    fn search_path(&self, client: std::net::IpAddr) -> Option<Vec<Name>> {
        let zone = self.names.zone.load();
        let namespace = zone.namespace_of(client.to_canonical())?;
        let domain = zone.config().domains.first()?;
        let below = |labels: &[&[u8]]| Name::join(labels, domain.as_wire()).ok();
        let path = [below(&[namespace.as_bytes(), b"svc"]), below(&[b"svc"]), below(&[])];
        Some(path.into_iter().flatten().collect())
    }
}

/// Appends what is at the end of an alias; its rcode is that of the whole (RFC 6604). Where nobody may be asked, the
/// alias alone is the answer.
async fn chase(query: &mut Query, answer: Answer, target: Name) -> Response {
    let rtype = query.rtype();
    if matches!(rtype, RecordType::CNAME) {
        return Message::from(answer).into();
    }
    let end = query.lookup(Question { name: target, rtype, class: Class::IN }).await.into_message();
    let mut message = Message::from(answer);
    if end.rcode == Rcode::REFUSED {
        return message.into();
    }
    message.rcode = end.rcode;
    message.truncated = end.truncated;
    message.answers.extend(end.answers);
    message.live = false;
    message.into()
}
