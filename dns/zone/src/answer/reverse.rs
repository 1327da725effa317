//! Reverse names: the zones of the service and pod networks, and addresses of endpoints elsewhere.

use super::{Answer, Name, Origin, Question, Record, RecordData, RecordType, Zone};
use crate::{
    Class,
    arpa::{self, Reverse},
};

impl Zone {
    /// The reverse zone that a name is in.
    pub(super) fn reverse_zone(&self, name: &Name) -> Option<&Name> {
        self.reverse_zones.iter().find(|zone| name.find_suffix(zone).is_some())
    }

    /// Answers in a reverse zone.
    pub(super) fn reverse(&self, question: &Question) -> Option<Answer> {
        let zone = self.reverse_zone(&question.name)?;
        let soa = || {
            let start = question.name.as_wire().len() - zone.as_wire().len();
            let owner = Name::join(&[], &question.name.as_wire()[start..]).unwrap_or_else(|_| zone.clone());
            self.soa_of(&owner, self.config.cluster_domain.as_wire())
        };
        let no_data = || Answer { authority: vec![soa()], ..found(Vec::new()) };
        if question.name == *zone {
            return Some(match question.rtype {
                RecordType::SOA => found(vec![soa()]),
                RecordType::NS => {
                    let server = self.server_name(self.config.cluster_domain.as_wire());
                    let data = RecordData::Ns(server.clone());
                    let addresses = self.server_addresses();
                    let additional = addresses.iter().map(|address| self.address_record(&server, *address));
                    Answer {
                        additional: additional.collect(),
                        ..found(vec![self.record(&question.name, data)])
                    }
                }
                _ => no_data(),
            });
        }
        Some(match arpa::parse(&question.name) {
            Some(Reverse::Address(address)) => {
                let pointers = self.pointers(&question.name, address);
                match question.rtype {
                    _ if pointers.is_empty() => self.denial(Origin::Reverse, soa),
                    RecordType::PTR => found(pointers),
                    _ => no_data(),
                }
            }
            // Whether an address below exists is not worth a search: a denial here would deny all of them (RFC 8020).
            Some(Reverse::Network) => no_data(),
            Some(Reverse::Malformed) | None => self.denial(Origin::Reverse, soa),
        })
    }

    /// Answers for an endpoint whose address is in none of the networks, a node's for example. What we do not know
    /// there is not ours to deny.
    pub(super) fn reverse_elsewhere(&self, question: &Question) -> Option<Answer> {
        if question.rtype != RecordType::PTR || question.class != Class::IN {
            return None;
        }
        let Some(Reverse::Address(address)) = arpa::parse(&question.name) else { return None };
        let pointers = self.pointers(&question.name, address);
        (!pointers.is_empty()).then(|| found(pointers))
    }
}

fn found(answers: Vec<Record>) -> Answer {
    Answer { origin: Origin::Reverse, ..Answer::found(answers) }
}
