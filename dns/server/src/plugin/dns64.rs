//! `dns64 [PREFIX] [{ prefix PREFIX; translate_all; allow_ipv4 }]`: IPv6 addresses made of IPv4 ones (RFC 6147).

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use fairlead_model::Prefix;
use fairlead_zone::{Class, Question, Rcode, Record, RecordData, RecordType};
use futures::FutureExt;

use super::{Plugins, Setup, once};
use crate::{
    chain::{Message, Next, Plugin, Query, Response, Serving},
    corefile::{CorefileError, Directive, Words, unknown},
    metrics::{Counter, Family},
    net::parse_prefix,
};

const TRANSLATED: Family = Family {
    name: "coredns_dns64_requests_translated_total",
    help: "Counter of DNS requests translated by dns64.",
};
/// TTL of a made-up address when the denial has no SOA (RFC 6147 §5.1.7).
const TTL_MAX_SECS: u32 = 600;

struct Dns64 {
    prefix: Prefix,
    translate_all: bool,
    allow_ipv4: bool,
    translated: Arc<Counter>,
}

pub(super) fn set_up(setup: &mut Setup<'_>, directives: &[Directive]) -> Result<Plugins, CorefileError> {
    let directive = once(directives)?;
    let zone = setup.zones.first().map(ToString::to_string).unwrap_or_default();
    let labels = [("server", setup.server), ("view", ""), ("zone", &*zone)];
    let mut plugin = Dns64 {
        prefix: Prefix { address: Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0).into(), length: 96 },
        translate_all: false,
        allow_ipv4: false,
        translated: setup.world.registry.counter(&TRANSLATED, &labels),
    };
    let words = directive.words();
    if words.peek().is_some() {
        plugin.prefix = prefix(words)?;
    }
    for (option, words) in directive.lines() {
        match option {
            "prefix" => plugin.prefix = prefix(words)?,
            "translate_all" => plugin.translate_all = true,
            "allow_ipv4" => plugin.allow_ipv4 = true,
            _ => return Err(unknown(&words, option)),
        }
    }
    Ok(vec![Arc::new(plugin)])
}

/// A prefix of one of the lengths of RFC 6052 §2.2, whose bits 64 to 71 are zero.
fn prefix(mut words: Words<'_>) -> Result<Prefix, CorefileError> {
    let word = words.need("a prefix like 64:ff9b::/96")?;
    let usable = |prefix: &Prefix| match prefix.address {
        IpAddr::V6(address) => {
            matches!(prefix.length, 32 | 40 | 48 | 56 | 64 | 96) && address.octets()[8] == 0
        }
        IpAddr::V4(_) => false,
    };
    let prefix = parse_prefix(word).filter(usable);
    let prefix = prefix.ok_or_else(|| {
        words.fault(format!("{word:?} is not an IPv6 prefix of 32, 40, 48, 56, 64 or 96 bits"))
    })?;
    words.end()?;
    Ok(prefix)
}

/// An IPv4 address behind a prefix; octet 8 stays zero (RFC 6052 §2.2).
fn translate(prefix: Prefix, address: Ipv4Addr) -> Ipv6Addr {
    let IpAddr::V6(base) = prefix.address else { return address.to_ipv6_mapped() };
    let mut octets = base.octets();
    let mut at = usize::from(prefix.length / 8);
    for octet in address.octets() {
        if at == 8 {
            at += 1;
        }
        octets[at] = octet;
        at += 1;
    }
    octets.into()
}

impl Dns64 {
    /// Whether an answer to AAAA is to be replaced.
    fn replaces(&self, message: &Message) -> bool {
        if message.rcode != Rcode::NO_ERROR {
            return message.rcode != Rcode::NX_DOMAIN;
        }
        let real = |record: &Record| match record.data {
            RecordData::Aaaa(address) => address.to_ipv4_mapped().is_none(),
            _ => false,
        };
        self.translate_all || !message.answers.iter().any(real)
    }

    async fn synthesize(&self, query: &mut Query, original: Response) -> Response {
        let question = Question { rtype: RecordType::A, ..query.request.question.clone() };
        let found = query.lookup(question).await.into_message();
        let is_address = |record: &Record| matches!(record.data, RecordData::A(_));
        if found.rcode != Rcode::NO_ERROR || !found.answers.iter().any(is_address) {
            return original;
        }
        let denial = original.into_message();
        let soa = denial.authority.iter().find(|record| record.data.rtype() == RecordType::SOA);
        let ttl_max = soa.map_or(TTL_MAX_SECS, |soa| soa.ttl_secs);
        let answers = found.answers.into_iter().map(|record| match record.data {
            RecordData::A(address) => Record {
                ttl_secs: record.ttl_secs.min(ttl_max),
                data: RecordData::Aaaa(translate(self.prefix, address)),
                ..record
            },
            _ => record,
        });
        self.translated.add();
        query.answered_by = "dns64";
        Message { answers: answers.collect(), ..Message::new(Rcode::NO_ERROR) }.into()
    }
}

impl Plugin for Dns64 {
    fn serve<'a>(&'a self, query: &'a mut Query, next: Next<'a>) -> Serving<'a> {
        let client_fits = self.allow_ipv4 || query.client.peer.ip().to_canonical().is_ipv6();
        let question = &query.request.question;
        if question.rtype != RecordType::AAAA
            || question.class != Class::IN
            || !client_fits
            || query.depth > 0
        {
            return next.serve(query);
        }
        async move {
            let mut response = next.serve(query).await;
            response.stable = None;
            match response.message_mut() {
                Some(message) if self.replaces(message) => self.synthesize(query, response).await,
                _ => response,
            }
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_go_behind_the_prefix_as_rfc_6052_shows() {
        let rows = [
            ("2001:db8::/32", "2001:db8:c000:221::"),
            ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
            ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
            ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
            ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
            ("64:ff9b::/96", "64:ff9b::192.0.2.33"),
        ];
        for (prefix, expected) in rows {
            let translated = translate(parse_prefix(prefix).unwrap(), [192, 0, 2, 33].into());
            assert_eq!(translated, expected.parse::<Ipv6Addr>().unwrap(), "{prefix}");
        }
    }
}
