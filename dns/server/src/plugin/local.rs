//! `local`: names of this host only, which nobody else should be asked (RFC 6303, RFC 6761 §6.3).

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use fairlead_zone::{Class, Name, Record, RecordData, RecordType, Soa};

use super::{Plugins, Setup, once, one};
use crate::{
    chain::{Message, Next, Plugin, Query, Serving, Zones, ready},
    corefile::{CorefileError, Directive},
    metrics::{Counter, Family},
};

/// As CoreDNS chose it: a day.
const TTL_SECS: u32 = 86_400;
const ZONES: [&str; 4] = ["localhost", "0.in-addr.arpa", "127.in-addr.arpa", "255.in-addr.arpa"];
const LOCALHOST_REQUESTS: Family = Family {
    name: "coredns_local_localhost_requests_total",
    help: "Counter of localhost.<domain> requests.",
};

struct Local {
    zones: Zones,
    localhost: Name,
    loopback: Name,
    requests: Arc<Counter>,
}

pub(super) fn set_up(setup: &mut Setup<'_>, directives: &[Directive]) -> Result<Plugins, CorefileError> {
    let directive = once(directives)?;
    directive.words().end()?;
    directive.no_body()?;
    let name = |text: &str| Name::parse(text).map_err(|e| directive.fault(None, e.to_string()));
    one(Local {
        zones: Zones(ZONES.iter().map(|zone| name(zone)).collect::<Result<_, _>>()?),
        localhost: name("localhost")?,
        loopback: name("1.0.0.127.in-addr.arpa")?,
        requests: setup.world.registry.counter(&LOCALHOST_REQUESTS, &[]),
    })
}

impl Plugin for Local {
    fn serve<'a>(&'a self, query: &'a mut Query, next: Next<'a>) -> Serving<'a> {
        let name = query.name().clone();
        let mut labels = name.labels();
        let below = labels.next().is_some_and(|label| label.eq_ignore_ascii_case(b"localhost"))
            && labels.next().is_some();
        let zone = self.zones.find(&name);
        if query.request.question.class != Class::IN || (zone.is_none() && !below) {
            return next.serve(query);
        }
        if below {
            self.requests.add();
        }
        query.answered_by = "local";
        let soa = Soa {
            primary: self.localhost.clone(),
            mailbox: Name::join(&[b"root"], self.localhost.as_wire())
                .unwrap_or_else(|_| self.localhost.clone()),
            serial: 1,
            refresh_secs: 0,
            retry_secs: 0,
            expire_secs: 0,
            minimum_secs: TTL_SECS,
        };
        let record = |data| Record { name: name.clone(), ttl_secs: TTL_SECS, data };
        let apex = zone == Some(&name);
        let data = match query.rtype() {
            RecordType::A if below || name == self.localhost => Some(RecordData::A(Ipv4Addr::LOCALHOST)),
            RecordType::AAAA if below || name == self.localhost => {
                Some(RecordData::Aaaa(Ipv6Addr::LOCALHOST))
            }
            RecordType::SOA if apex => Some(RecordData::Soa(Box::new(soa.clone()))),
            RecordType::NS if apex => Some(RecordData::Ns(self.localhost.clone())),
            RecordType::PTR if name == self.loopback => Some(RecordData::Ptr(self.localhost.clone())),
            _ => None,
        };
        let mut message = Message::found(data.map(record).into_iter().collect());
        if message.answers.is_empty() {
            let owner = zone.unwrap_or(&name).clone();
            message.authority.push(Record { name: owner, ..record(RecordData::Soa(Box::new(soa))) });
        }
        ready(message)
    }
}
