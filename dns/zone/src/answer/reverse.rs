//! Reverse names: the zones of the service and pod networks, and addresses of endpoints elsewhere.

use super::{Answer, Name, Origin, Question, Record, RecordData, RecordType, Zone};
use crate::arpa::{self, Reverse};

impl Zone {
    /// Answers in a reverse zone.
    pub(super) fn reverse(&self, question: &Question) -> Option<Answer> {
        let zone = self.config.reverse_zone_of(&question.name)?;
        let domain = self.config.domains.first()?;
        let soa = || {
            let start = question.name.as_wire().len() - zone.as_wire().len();
            let owner = Name::join(&[], &question.name.as_wire()[start..]).unwrap_or_else(|_| zone.clone());
            self.soa_of(&owner, domain.as_wire())
        };
        let no_data = || Answer { authority: vec![soa()], ..found(Vec::new()) };
        if question.name == *zone {
            return Some(match question.rtype {
                RecordType::SOA => found(vec![soa()]),
                RecordType::NS => {
                    let server = self.server_name(domain.as_wire());
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
            Some(Reverse::Network) => Answer { unknown: true, ..no_data() },
            Some(Reverse::Malformed) | None => self.denial(Origin::Reverse, soa),
        })
    }
}

fn found(answers: Vec<Record>) -> Answer {
    Answer { origin: Origin::Reverse, ..Answer::found(answers) }
}
