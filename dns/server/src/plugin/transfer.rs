//! `transfer [ZONE…] { to ADDRESS… }`: whole zones for those who may have them (RFC 5936).
//!
//! An incremental transfer is answered with the whole zone, which RFC 1995 §4 allows. The servers that are named by their
//! addresses are told when a zone of `file` has changed.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use fairlead_model::Prefix;
use fairlead_zone::{Rcode, Record, RecordData, RecordType};

use super::{Plugins, Setup};
use crate::{
    chain::{Body, Message, Next, Plugin, Query, Response, Serving, Zones, ready},
    corefile::{CorefileError, Directive, unknown},
    net::{contains, parse_prefix},
};

mod notify;

pub(crate) use notify::notify;

/// Where DNS is spoken when no port is given.
const PORT: u16 = 53;
/// Records in one message; with names of usual length that is some 16 KiB.
const RECORDS_PER_MESSAGE: usize = 200;

struct Transfer {
    rules: Vec<(Zones, To)>,
}

/// Who may ask.
enum To {
    Everybody,
    Some(Vec<Prefix>),
}

/// Who is told of changes of some zones.
pub(crate) struct Secondaries {
    pub(crate) zones: Zones,
    pub(crate) addresses: Vec<SocketAddr>,
}

pub(super) fn set_up(setup: &mut Setup<'_>, directives: &[Directive]) -> Result<Plugins, CorefileError> {
    let mut rules = Vec::new();
    for directive in directives {
        let mut zones = directive.words().zones()?;
        if zones.is_empty() {
            zones = setup.zones.to_vec();
        }
        let zones = Zones(zones.into());
        let (to, addresses) = to(directive)?;
        setup.block.secondaries.push(Secondaries { zones: zones.clone(), addresses });
        rules.push((zones, to));
    }
    Ok(vec![Arc::new(Transfer { rules })])
}

/// Who may ask, and who is told of changes.
fn to(directive: &Directive) -> Result<(To, Vec<SocketAddr>), CorefileError> {
    let (mut secondaries, mut networks) = (Vec::new(), Vec::new());
    let mut everybody = false;
    for (option, mut words) in directive.lines() {
        if option != "to" {
            return Err(unknown(&words, option));
        }
        while let Some(word) = words.next() {
            let address =
                word.parse().or_else(|_| word.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, PORT)));
            match address {
                Ok(address) => {
                    secondaries.push(address);
                    networks.extend(parse_prefix(&address.ip().to_string()));
                }
                Err(_) if word == "*" => everybody = true,
                Err(_) => networks.push(parse_prefix(word).ok_or_else(|| {
                    words.fault(format!("{word:?} is neither an address nor a network nor *"))
                })?),
            }
        }
    }
    match (everybody, networks.is_empty()) {
        (true, _) => Ok((To::Everybody, secondaries)),
        (false, false) => Ok((To::Some(networks), secondaries)),
        (false, true) => Err(directive.fault(None, "needs `to` with addresses, networks or *")),
    }
}

impl Plugin for Transfer {
    fn serve<'a>(&'a self, query: &'a mut Query, next: Next<'a>) -> Serving<'a> {
        if !matches!(query.rtype(), RecordType::AXFR | RecordType::IXFR) {
            return next.serve(query);
        }
        let name = query.name();
        let Some((_, to)) = self.rules.iter().find(|(zones, _)| zones.contains(name)) else {
            return next.serve(query);
        };
        let client = query.client.peer.ip().to_canonical();
        let allowed = match to {
            To::Everybody => true,
            To::Some(networks) => networks.iter().any(|network| contains(network, client)),
        };
        if !allowed {
            return ready(Response::status(Rcode::REFUSED));
        }
        let Some(records) = next.behind().find_map(|plugin| plugin.records(name)) else {
            return ready(Response::status(Rcode::NOT_AUTH));
        };
        let stream = query.client.transport.base() == 1;
        match (stream, query.rtype(), records.first()) {
            // Who has it all is told that (RFC 1995 §2).
            (true, RecordType::IXFR, Some(soa)) if is_held(soa, query.request.serial) => {
                ready(Message::found(vec![soa.clone()]))
            }
            (true, _, _) => ready(Body::Transfer(messages(records))),
            // Over UDP the SOA says that it does not fit (RFC 1995 §4).
            (false, RecordType::IXFR, Some(soa)) => ready(Message::found(vec![soa.clone()])),
            (false, ..) => ready(Response::status(Rcode::REFUSED)),
        }
    }
}

/// Whether somebody with a serial has a zone already, or a newer one (RFC 1982).
fn is_held(soa: &Record, held: Option<u32>) -> bool {
    match (&soa.data, held) {
        (RecordData::Soa(soa), Some(held)) => held.wrapping_sub(soa.serial).cast_signed() >= 0,
        _ => false,
    }
}

/// The records in messages, the SOA first and last.
fn messages(mut records: Vec<Record>) -> Vec<Message> {
    records.extend(records.first().cloned());
    records.chunks(RECORDS_PER_MESSAGE).map(|records| Message::found(records.to_vec())).collect()
}

#[cfg(test)]
mod tests {
    use fairlead_zone::Name;

    use super::*;

    #[test]
    fn a_transfer_begins_and_ends_with_the_soa_in_several_messages() {
        let record = |last: u16| Record {
            name: Name::parse(&format!("n{last}.example.org")).unwrap(),
            ttl_secs: 5,
            data: RecordData::A([10, 0, last.to_be_bytes()[0], last.to_be_bytes()[1]].into()),
        };
        let messages = messages((0..450).map(record).collect());
        let all: Vec<&Record> = messages.iter().flat_map(|message| &message.answers).collect();
        assert_eq!((messages.len(), all.len()), (3, 451));
        assert_eq!(all[0], all[450]);
    }
}
