//! Names of a service, of its ports and of its endpoints (specification sections 2.3 and 2.4).

use std::{collections::BTreeSet, net::IpAddr};

use super::{Query, below};
use crate::{
    Answer, Name, Record, RecordData, RecordType, Zone,
    entry::{Endpoint, Entry, Kind, Port, undashed},
};

/// Something a name of a service stands for.
struct Target<'a> {
    address: IpAddr,
    /// The endpoint; none for the service's own addresses.
    endpoint: Option<&'a Endpoint>,
    ports: &'a [Port],
}

/// Which ports a name asks for.
#[derive(Clone, Copy)]
enum Ports<'a> {
    All,
    Named { port: &'a [u8], protocol: &'a [u8] },
}

/// The label above which names of topology zones are.
const ZONAL: &[u8] = b"_zone";
/// How a zone is asked for, and whether others do when there is nothing in it.
const WAYS: [(&[u8], bool); 2] = [(b"pin", false), (b"prefer", true)];

impl Zone {
    /// Answers at and below the name of a service that is no alias.
    pub(super) fn service(&self, query: &Query<'_>, entry: &Entry, below: &[&[u8]]) -> Answer {
        let mut ports = Ports::All;
        let targets = match below {
            _ if self.config.no_endpoints && entry.kind == Kind::Headless => return self.missing(query),
            [_] if self.config.no_endpoints => return self.missing(query),
            [] => own_targets(entry),
            [protocol] if owns_protocol(entry, protocol) => return self.no_data(query),
            [above @ .., marker]
                if self.config.zonal
                    && marker.eq_ignore_ascii_case(ZONAL)
                    && entry.kind == Kind::Headless =>
            {
                return self.zonal(query, entry, above);
            }
            [host] => {
                let address = undashed(host);
                endpoints(entry, |end| self.is_named(entry, end, host, address))
            }
            [port, protocol] => {
                ports = Ports::Named { port, protocol };
                let mut targets = own_targets(entry);
                targets.retain(|target| ports.of(target).next().is_some());
                targets
            }
            _ => return self.missing(query),
        };
        let named = matches!(entry.kind, Kind::ClusterIp(_)) && below.is_empty();
        if targets.is_empty() && !named {
            return self.missing(query);
        }
        self.records_for(query, entry, &targets, ports)
    }

    /// Answers `<zone>.<pin|prefer>._zone.<service>`: endpoints of one topology zone, or of all when it is only
    /// preferred and has none. What nothing is in exists all the same (CoreDNS's option `zonal`).
    fn zonal(&self, query: &Query<'_>, entry: &Entry, above: &[&[u8]]) -> Answer {
        let prefers =
            |way: &[u8]| WAYS.iter().find(|(name, _)| way.eq_ignore_ascii_case(name)).map(|(_, all)| *all);
        let (zone, prefers) = match above {
            [] => return self.no_data(query),
            [way] if prefers(way).is_some() => return self.no_data(query),
            [zone, way] => (zone, prefers(way)),
            _ => return self.missing(query),
        };
        let Some(prefers) = prefers else { return self.missing(query) };
        let mut targets = endpoints(entry, |end| entry.is_in_zone(end, zone));
        if targets.is_empty() && prefers {
            targets = own_targets(entry);
        }
        self.records_for(query, entry, &targets, Ports::All)
    }

    /// The records of a type that say what a name stands for.
    fn records_for(
        &self,
        query: &Query<'_>,
        entry: &Entry,
        targets: &[Target<'_>],
        ports: Ports<'_>,
    ) -> Answer {
        match query.rtype {
            RecordType::A | RecordType::AAAA => {
                let addresses = targets.iter().map(|target| target.address).collect::<BTreeSet<_>>();
                self.addresses(query, &addresses.into_iter().collect::<Vec<_>>())
            }
            RecordType::SRV => self.locations(query, entry, targets, ports),
            _ => self.no_data(query),
        }
    }

    fn is_named(&self, entry: &Entry, endpoint: &Endpoint, label: &[u8], address: Option<IpAddr>) -> bool {
        match entry.name_of(endpoint, self.config.endpoint_pod_names) {
            Some(name) => name.as_bytes().eq_ignore_ascii_case(label),
            None => address == Some(endpoint.address),
        }
    }

    /// SRV records of all targets and ports, with the addresses of their hosts.
    fn locations(
        &self,
        query: &Query<'_>,
        entry: &Entry,
        targets: &[Target<'_>],
        ports: Ports<'_>,
    ) -> Answer {
        let count = targets.iter().map(|target| ports.of(target).count()).sum::<usize>();
        let weight = u16::try_from(100 / count.max(1)).map_or(1, |weight| weight.max(1));
        let mut seen = BTreeSet::new();
        let mut seen_hosts = BTreeSet::new();
        let mut answer = Answer::found(Vec::with_capacity(count));
        for target in targets.iter().filter(|target| ports.of(target).next().is_some()) {
            let label = target.endpoint.map(|end| entry.label_of(end, self.config.endpoint_pod_names));
            let host = host_name(entry, label.as_deref(), query.domain);
            for port in ports.of(target) {
                if seen.insert((label.clone(), port.port)) {
                    let data = RecordData::Srv { priority: 0, weight, port: port.port, target: host.clone() };
                    answer.answers.push(self.record(query.name, data));
                }
            }
            if seen_hosts.insert((label, target.address)) {
                answer.additional.push(self.address_record(&host, target.address));
            }
        }
        if answer.answers.is_empty() { self.no_data(query) } else { answer }
    }

    /// The names of an address, as PTR values: the service that has it as its own, else every endpoint that does.
    pub(super) fn names_of(&self, address: IpAddr, domain: &[u8]) -> Vec<RecordData> {
        let mut names: Vec<Name> = Vec::new();
        for entry in self.owners_of(address) {
            if matches!(&entry.kind, Kind::ClusterIp(own) if own.contains(&address)) {
                return vec![RecordData::Ptr(host_name(entry, None, domain))];
            }
            let endpoints = entry.endpoints.iter().filter(|_| !self.config.no_endpoints);
            for endpoint in endpoints.filter(|end| end.address == address) {
                let name =
                    host_name(entry, Some(&entry.label_of(endpoint, self.config.endpoint_pod_names)), domain);
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        names.into_iter().map(RecordData::Ptr).collect()
    }

    /// PTR records for an address.
    pub(super) fn pointers(&self, name: &Name, address: IpAddr) -> Vec<Record> {
        let Some(domain) = self.config.domains.first().map(Name::as_wire) else { return Vec::new() };
        self.names_of(address, domain).into_iter().map(|data| self.record(name, data)).collect()
    }
}

impl Ports<'_> {
    fn of<'t>(self, target: &Target<'t>) -> impl Iterator<Item = &'t Port> {
        target.ports.iter().filter(move |own| match self {
            Self::All => true,
            Self::Named { port, protocol } => own.has_name(port) && own.has_protocol(protocol),
        })
    }
}

/// What the service's own name stands for: its addresses, or its endpoints when it is headless.
fn own_targets(entry: &Entry) -> Vec<Target<'_>> {
    match &entry.kind {
        Kind::ClusterIp(addresses) => addresses
            .iter()
            .map(|address| Target { address: *address, endpoint: None, ports: &entry.ports })
            .collect(),
        Kind::Headless | Kind::External(_) => endpoints(entry, |_| true),
    }
}

fn endpoints<'a>(entry: &'a Entry, wanted: impl Fn(&Endpoint) -> bool) -> Vec<Target<'a>> {
    let wanted = entry.endpoints.iter().filter(|end| wanted(end));
    wanted
        .map(|end| Target { address: end.address, endpoint: Some(end), ports: entry.ports_of(end) })
        .collect()
}

/// Whether `_<protocol>` has port names below it: then it exists and is empty (RFC 8020).
fn owns_protocol(entry: &Entry, label: &[u8]) -> bool {
    let targets = own_targets(entry);
    let mut ports = targets.iter().flat_map(|target| target.ports);
    label.starts_with(b"_") && ports.any(|port| !port.name.is_empty() && port.has_protocol(label))
}

/// `[<endpoint>.]<service>.<namespace>.svc.<domain>`
pub(crate) fn host_name(entry: &Entry, label: Option<&str>, domain: &[u8]) -> Name {
    let service = [entry.name.name.as_bytes(), entry.name.namespace.as_bytes(), b"svc"];
    let labels: Vec<&[u8]> = label.iter().map(|label| label.as_bytes()).chain(service).collect();
    below(&labels, domain)
}
