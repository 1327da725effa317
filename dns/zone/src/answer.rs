//! Answers: which zone a question is for, and what the names of the zone's own schema mean.

use std::net::IpAddr;

use crate::{
    Answer, Class, Name, Origin, Pods, Question, Rcode, Record, RecordData, RecordType, Soa, Zone,
    entry::{Kind, undashed},
};

mod reverse;
pub(crate) mod service;

/// The version of the specification (its section 2.2) that the zone follows.
const SPECIFICATION_VERSION: &[u8] = b"1.1.0";
/// How long the version may be kept; CoreDNS's value.
const VERSION_TTL_SECS: u32 = 28_800;
/// Longest chain of external names inside the zone.
const LINKS_MAX: usize = 10;
/// Longest TTL of an SOA; CoreDNS's value.
const SOA_TTL_MAX_SECS: u32 = 300;

/// A question for the cluster domain.
#[derive(Clone, Copy)]
struct Query<'a> {
    name: &'a Name,
    /// The domain in the case of the question; names in answers are put before it.
    domain: &'a [u8],
    rtype: RecordType,
}

/// What a name is.
enum Lookup {
    Answer(Answer),
    Alias(Name),
}

impl Zone {
    /// Answers a question; `None` when the name is in none of the zones.
    pub fn answer(&self, question: &Question) -> Option<Answer> {
        let origin = if self.config.domain_of(&question.name).is_some() {
            Origin::Cluster
        } else {
            self.config.reverse_zone_of(&question.name).map(|_| Origin::Reverse)?
        };
        let transfer = matches!(question.rtype, RecordType::AXFR | RecordType::IXFR);
        if question.class != Class::IN || transfer {
            return Some(Answer::empty(origin, Rcode::REFUSED));
        }
        match origin {
            Origin::Cluster => self.follow(question),
            Origin::Reverse => self.reverse(question),
        }
    }

    /// Answers in the cluster domain, through aliases inside it.
    fn follow(&self, question: &Question) -> Option<Answer> {
        let mut chain: Vec<Record> = Vec::new();
        let mut name = question.name.clone();
        loop {
            let Some(domain) = self.config.domain_of(&name) else {
                let answer = Answer::empty(Origin::Cluster, Rcode::NO_ERROR);
                return Some(Answer { answers: chain, authoritative: true, chase: Some(name), ..answer });
            };
            let query = Query { name: &name, domain: suffix(&name, domain), rtype: question.rtype };
            let target = match self.lookup(&query) {
                Lookup::Answer(mut answer) => {
                    answer.answers.splice(0..0, chain);
                    return Some(answer);
                }
                Lookup::Alias(target) => target,
            };
            chain.push(self.record(&name, RecordData::Cname(target.clone())));
            if question.rtype == RecordType::CNAME {
                return Some(Answer::found(chain));
            }
            // A loop, or a chain that is as bad as one: there is nothing at its end.
            if chain.len() > LINKS_MAX {
                let domain = suffix(&question.name, self.config.domain_of(&question.name)?);
                return Some(self.no_data(&Query { name: &question.name, domain, rtype: question.rtype }));
            }
            name = target;
        }
    }

    /// What a name below the cluster domain is.
    fn lookup(&self, query: &Query<'_>) -> Lookup {
        let own = query.name.as_wire().len() - query.domain.len();
        let mut at = 0;
        let labels = query.name.labels().take_while(|label| {
            at += 1 + label.len();
            at <= own
        });
        let labels: Vec<&[u8]> = labels.collect();
        let (last, above) = match labels.split_last() {
            None => return Lookup::Answer(self.apex(query)),
            Some((last, above)) => (*last, above),
        };
        let answer = match above {
            _ if last.eq_ignore_ascii_case(b"svc") => return self.services(query, above),
            _ if last.eq_ignore_ascii_case(b"pod") => self.pods(query, above),
            [] if last.eq_ignore_ascii_case(b"dns-version") => self.version(query),
            [] if last.eq_ignore_ascii_case(b"dns") => self.no_data(query),
            [ns] if last.eq_ignore_ascii_case(b"dns") && ns.eq_ignore_ascii_case(b"ns") => {
                self.addresses(query, &self.server_addresses())
            }
            _ => self.missing(query),
        };
        Lookup::Answer(answer)
    }

    fn services(&self, query: &Query<'_>, labels: &[&[u8]]) -> Lookup {
        Lookup::Answer(match labels {
            [] => self.no_data(query),
            [namespace] if self.has_namespace(namespace) => self.no_data(query),
            [below @ .., service, namespace] => match self.entry(service, namespace) {
                Some(entry) => match &entry.kind {
                    Kind::External(target) if below.is_empty() => return Lookup::Alias(target.clone()),
                    Kind::External(_) => self.missing(query),
                    Kind::ClusterIp(_) | Kind::Headless => self.service(query, entry, below),
                },
                None => self.missing(query),
            },
            _ => self.missing(query),
        })
    }

    /// Pods by address.
    fn pods(&self, query: &Query<'_>, labels: &[&[u8]]) -> Answer {
        match labels {
            [] => self.no_data(query),
            [.., namespace] if !self.has_namespace(namespace) => self.missing(query),
            [_] => self.no_data(query),
            [pod, namespace] => match undashed(pod) {
                Some(address) if self.has_pod(address, namespace) => self.addresses(query, &[address]),
                _ => self.missing(query),
            },
            _ => self.missing(query),
        }
    }

    fn has_pod(&self, address: IpAddr, namespace: &[u8]) -> bool {
        match self.config.pods {
            Pods::Disabled => false,
            Pods::Insecure => true,
            Pods::Verified => {
                let owner = self.namespace_of(address);
                owner.is_some_and(|owner| owner.as_bytes().eq_ignore_ascii_case(namespace))
            }
        }
    }

    fn version(&self, query: &Query<'_>) -> Answer {
        if query.rtype != RecordType::TXT {
            return self.no_data(query);
        }
        let data = RecordData::Txt(SPECIFICATION_VERSION.into());
        Answer::found(vec![Record { name: query.name.clone(), ttl_secs: VERSION_TTL_SECS, data }])
    }

    fn apex(&self, query: &Query<'_>) -> Answer {
        match query.rtype {
            RecordType::SOA => Answer::found(vec![self.soa(query.domain)]),
            RecordType::NS => {
                let server = self.server_name(query.domain);
                let addresses = self.server_addresses();
                let additional = addresses.iter().map(|address| self.address_record(&server, *address));
                Answer {
                    additional: additional.collect(),
                    ..Answer::found(vec![self.record(query.name, RecordData::Ns(server.clone()))])
                }
            }
            _ => self.no_data(query),
        }
    }

    /// The name server: the service that leads here, else a name made for the purpose.
    pub(crate) fn server_name(&self, domain: &[u8]) -> Name {
        let service = &self.config.dns_service;
        let labels: [&[u8]; 3] = match self.server_entry() {
            Some(_) => [service.name.as_bytes(), service.namespace.as_bytes(), b"svc"],
            None => return below(&[b"ns", b"dns"], domain),
        };
        below(&labels, domain)
    }

    pub(crate) fn server_addresses(&self) -> Vec<IpAddr> {
        self.server_entry().unwrap_or(&self.config.addresses).to_vec()
    }

    /// The addresses of the service that leads here, if it has any.
    fn server_entry(&self) -> Option<&[IpAddr]> {
        let service = &self.config.dns_service;
        let entry = self.entry(service.name.as_bytes(), service.namespace.as_bytes())?;
        match &entry.kind {
            Kind::ClusterIp(addresses) if !addresses.is_empty() => Some(addresses),
            _ => None,
        }
    }

    /// An answer of addresses: those of the family asked for.
    fn addresses(&self, query: &Query<'_>, addresses: &[IpAddr]) -> Answer {
        let mut records = Vec::with_capacity(addresses.len());
        let wanted = addresses.iter().filter(|address| family(**address) == query.rtype);
        records.extend(wanted.map(|address| self.address_record(query.name, *address)));
        if records.is_empty() { self.no_data(query) } else { Answer::found(records) }
    }

    /// The name exists, the type does not.
    fn no_data(&self, query: &Query<'_>) -> Answer {
        Answer { authority: vec![self.soa(query.domain)], ..Answer::found(Vec::new()) }
    }

    /// The name does not exist, as far as we know yet.
    fn missing(&self, query: &Query<'_>) -> Answer {
        self.denial(Origin::Cluster, || self.soa(query.domain))
    }

    fn denial(&self, origin: Origin, soa: impl FnOnce() -> Record) -> Answer {
        if !self.is_synced() {
            return Answer { unknown: true, ..Answer::empty(origin, Rcode::SERV_FAIL) };
        }
        let answer = Answer::empty(origin, Rcode::NX_DOMAIN);
        Answer { authoritative: true, authority: vec![soa()], unknown: true, ..answer }
    }

    /// The SOA of the cluster domain, its names in the case of the question.
    pub(crate) fn soa(&self, domain: &[u8]) -> Record {
        self.soa_of(&below(&[], domain), domain)
    }

    /// An SOA whose server and mailbox are in the cluster domain.
    fn soa_of(&self, owner: &Name, domain: &[u8]) -> Record {
        let soa = Soa {
            primary: below(&[b"ns", b"dns"], domain),
            mailbox: below(&[b"hostmaster"], domain),
            serial: self.serial,
            refresh_secs: 7200,
            retry_secs: 1800,
            expire_secs: 86_400,
            minimum_secs: self.config.ttl_secs,
        };
        let ttl_secs = self.config.ttl_secs.min(SOA_TTL_MAX_SECS);
        Record { name: owner.clone(), ttl_secs, data: RecordData::Soa(Box::new(soa)) }
    }

    pub(crate) fn record(&self, name: &Name, data: RecordData) -> Record {
        Record { name: name.clone(), ttl_secs: self.config.ttl_secs, data }
    }

    pub(crate) fn address_record(&self, name: &Name, address: IpAddr) -> Record {
        self.record(
            name,
            match address {
                IpAddr::V4(address) => RecordData::A(address),
                IpAddr::V6(address) => RecordData::Aaaa(address),
            },
        )
    }
}

impl Answer {
    fn empty(origin: Origin, rcode: Rcode) -> Self {
        Self {
            rcode,
            authoritative: false,
            origin,
            answers: Vec::new(),
            authority: Vec::new(),
            additional: Vec::new(),
            chase: None,
            unknown: false,
        }
    }

    fn found(answers: Vec<Record>) -> Self {
        Self { authoritative: true, answers, ..Self::empty(Origin::Cluster, Rcode::NO_ERROR) }
    }
}

/// A domain as the end of a name writes it.
fn suffix<'a>(name: &'a Name, domain: &Name) -> &'a [u8] {
    &name.as_wire()[name.as_wire().len() - domain.as_wire().len()..]
}

/// The record type of an address.
fn family(address: IpAddr) -> RecordType {
    if address.is_ipv4() { RecordType::A } else { RecordType::AAAA }
}

/// Labels of the cluster's objects before a domain in wire form. Object names are at most 63 bytes each, so with any
/// usable domain they fit; where they do not, the domain itself stands for what has no name.
pub(crate) fn below(labels: &[&[u8]], domain: &[u8]) -> Name {
    Name::join(labels, domain)
        .or_else(|_| Name::join(&[], domain))
        .expect("a domain that came from a name is one")
}
