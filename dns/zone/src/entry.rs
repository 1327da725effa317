//! One service with its endpoints, as the zone keeps it.

use std::{net::IpAddr, sync::Arc};

use fairlead_model::{EndpointSlice, ObjectName, Protocol, Service, ServiceKind};

use crate::Name;

/// A service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    pub(crate) name: Arc<ObjectName>,
    pub(crate) kind: Kind,
    /// The service's own ports.
    pub(crate) ports: Arc<[Port]>,
    /// Ready endpoints in the order of their slices.
    pub(crate) endpoints: Box<[Endpoint]>,
    /// Port lists of the slices; [`Endpoint::slice`] points into it.
    pub(crate) slice_ports: Box<[Arc<[Port]>]>,
    /// Names of endpoints, one behind the other: a hundred thousand allocations less in a large cluster.
    names: Box<str>,
    /// Topology zones that its endpoints are in; [`Endpoint::zone`] points into it.
    zones: Box<[Arc<str>]>,
}

/// What the service's own name means.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Cluster addresses; none while the service waits for them.
    ClusterIp(Box<[IpAddr]>),
    /// Its endpoints.
    Headless,
    /// An alias.
    External(Name),
}

/// Lists of ports that were made lately. Most services have the same few, which then are there once.
#[derive(Clone, Debug, Default)]
pub(crate) struct PortLists(Vec<Arc<[Port]>>);

/// A port with what a `_port._proto` name needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Port {
    pub(crate) name: Box<str>,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
}

/// A ready endpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Endpoint {
    pub(crate) address: IpAddr,
    pub(crate) slice: u16,
    /// Past the end when its zone is not known.
    zone: u16,
    /// Where its name is in the names of the entry.
    name_at: u32,
    name_len: u8,
    named: Named,
}

/// What an endpoint is called after.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Named {
    /// Its address only.
    Nothing,
    /// What its slice says.
    Hostname,
    /// Its pod, for those who want that.
    Pod,
}

/// Lists that are remembered.
const LISTS_MAX: usize = 16;

/// The place of a zone that is not known.
const NO_ZONE: u16 = u16::MAX;

/// Longest label (RFC 1035 §2.3.4).
const LABEL_MAX: usize = 63;

impl Entry {
    /// Joins a service with its slices.
    pub(crate) fn new<'a>(
        service: &Service,
        slices: impl Iterator<Item = &'a EndpointSlice>,
        lists: &mut PortLists,
    ) -> Self {
        let kind = match &service.kind {
            ServiceKind::ClusterIp => Kind::ClusterIp(service.addresses.as_slice().into()),
            ServiceKind::Headless => Kind::Headless,
            // The API refuses external names that are no names; one that came through has no records.
            ServiceKind::ExternalName(target) => {
                Name::parse(target).map_or(Kind::ClusterIp(Box::default()), Kind::External)
            }
        };
        let (mut endpoints, mut names) = (Vec::new(), String::new());
        let (mut slice_ports, mut zones) = (Vec::new(), Vec::new());
        for (slice, index) in slices.zip(0u16..) {
            let ports = slice.ports.iter().map(|port| Port::new(&port.name, port.protocol, port.port));
            slice_ports.push(lists.share(ports.collect()));
            let ready = slice.endpoints.iter().filter(|end| end.ready || service.publish_not_ready);
            endpoints.extend(ready.map(|end| Endpoint {
                slice: index,
                zone: place_of(&end.zone, &mut zones),
                ..Endpoint::new(end, &mut names)
            }));
        }
        let ports = service.ports.iter().map(|port| Port::new(&port.name, port.protocol, port.port));
        Self {
            name: Arc::new(service.name.clone()),
            kind,
            ports: lists.share(ports.collect()),
            endpoints: endpoints.into(),
            slice_ports: slice_ports.into(),
            names: names.into(),
            zones: zones.into(),
        }
    }

    /// Whether an endpoint is in a topology zone, by its label in any case; one whose zone is not known is in none.
    pub(crate) fn is_in_zone(&self, endpoint: &Endpoint, label: &[u8]) -> bool {
        let zone = self.zones.get(usize::from(endpoint.zone));
        zone.is_some_and(|zone| zone.as_bytes().eq_ignore_ascii_case(label))
    }

    /// The name of an endpoint; one without is called after its address.
    pub(crate) fn name_of(&self, endpoint: &Endpoint, pod_names: bool) -> Option<&str> {
        let counts = match endpoint.named {
            Named::Nothing => false,
            Named::Hostname => true,
            Named::Pod => pod_names,
        };
        let (start, len) = (endpoint.name_at as usize, usize::from(endpoint.name_len));
        counts.then(|| self.names.get(start..start + len)).flatten()
    }

    /// The label of an endpoint below the service.
    pub(crate) fn label_of(&self, endpoint: &Endpoint, pod_names: bool) -> String {
        self.name_of(endpoint, pod_names).map_or_else(|| dashed(endpoint.address), str::to_owned)
    }

    /// The addresses whose reverse names this service may answer.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let own: &[IpAddr] = match &self.kind {
            Kind::ClusterIp(addresses) => addresses,
            Kind::Headless | Kind::External(_) => &[],
        };
        own.iter().copied().chain(self.endpoints.iter().map(|end| end.address))
    }

    /// Whether it leads nowhere; an alias leads to its name.
    pub(crate) fn is_empty(&self) -> bool {
        self.endpoints.is_empty() && !matches!(self.kind, Kind::External(_))
    }

    /// The ports of an endpoint.
    pub(crate) fn ports_of(&self, endpoint: &Endpoint) -> &[Port] {
        &self.slice_ports[usize::from(endpoint.slice)]
    }
}

impl PortLists {
    fn share(&mut self, ports: Vec<Port>) -> Arc<[Port]> {
        if let Some(known) = self.0.iter().find(|known| ***known == *ports) {
            return Arc::clone(known);
        }
        if self.0.len() == LISTS_MAX {
            self.0.remove(0);
        }
        let list: Arc<[Port]> = ports.into();
        self.0.push(Arc::clone(&list));
        list
    }
}

impl Port {
    fn new(name: &str, protocol: Protocol, port: u16) -> Self {
        Self { name: name.into(), protocol, port }
    }

    /// Whether `_<protocol>` is this port's protocol.
    pub(crate) fn has_protocol(&self, label: &[u8]) -> bool {
        label
            .strip_prefix(b"_")
            .is_some_and(|name| name.eq_ignore_ascii_case(self.protocol.as_str().as_bytes()))
    }

    /// Whether `_<name>` is this port's name; a port without a name has none.
    pub(crate) fn has_name(&self, label: &[u8]) -> bool {
        let name = label.strip_prefix(b"_");
        !self.name.is_empty() && name.is_some_and(|name| name.eq_ignore_ascii_case(self.name.as_bytes()))
    }
}

impl Endpoint {
    /// Its hostname comes before its pod, and what is no label is no name. Of the first slice, and of no zone.
    fn new(endpoint: &fairlead_model::Endpoint, names: &mut String) -> Self {
        let choices = [(&endpoint.hostname, Named::Hostname), (&endpoint.pod, Named::Pod)];
        let chosen = choices.into_iter().find(|(name, _)| (1..=LABEL_MAX).contains(&name.len()));
        let (name, named) = chosen.map_or(("", Named::Nothing), |(name, named)| (&**name, named));
        let (name_at, name_len) = (names.len() as u32, name.len() as u8);
        names.push_str(name);
        Self { address: endpoint.address, slice: 0, zone: NO_ZONE, name_at, name_len, named }
    }
}

/// Where a zone is in a list, which grows by it when it is new.
fn place_of(zone: &Arc<str>, zones: &mut Vec<Arc<str>>) -> u16 {
    if zone.is_empty() {
        return NO_ZONE;
    }
    let place = zones.iter().position(|known| known == zone).unwrap_or_else(|| {
        zones.push(Arc::clone(zone));
        zones.len() - 1
    });
    u16::try_from(place).unwrap_or(NO_ZONE)
}

/// An address as a label. The last group of an IPv6 address is written out, since a label must not end in a dash.
pub(crate) fn dashed(address: IpAddr) -> String {
    let mut text = address.to_string().replace(['.', ':'], "-");
    if text.ends_with('-') {
        text.push('0');
    }
    text
}

/// Reads a label of four numbers or eight groups with dashes, in any spelling of the address.
pub(crate) fn undashed(label: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(label).ok()?;
    let dashes = text.matches('-').count();
    if dashes == 3 && !text.contains("--") {
        return text.replace('-', ".").parse().ok().map(IpAddr::V4);
    }
    if text.contains(['.', ':']) {
        return None;
    }
    text.replace('-', ":").parse().ok().map(IpAddr::V6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_as_labels_read_back() {
        let rows = [
            ("10.244.1.7", "10-244-1-7"),
            ("fd00:244::7", "fd00-244--7"),
            ("fd00:244::", "fd00-244--0"),
            ("::1", "--1"),
            ("1:2:3:4:5:6:7:8", "1-2-3-4-5-6-7-8"),
        ];
        for (address, label) in rows {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(dashed(address), label);
            assert_eq!(undashed(label.as_bytes()), Some(address));
        }
        for label in ["a-b-c-d", "10-244-1", "10-244-1-7-9", "10.244.1.7", "10-244--7", "256-1-1-1", ""] {
            assert_eq!(undashed(label.as_bytes()).filter(IpAddr::is_ipv4), None, "{label}");
        }
    }
}
