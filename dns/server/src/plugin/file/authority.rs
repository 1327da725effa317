//! One zone's records, and what they answer (RFC 1034 §4.3.2, RFC 4592, RFC 6672).

use std::collections::HashMap;

use fairlead_zone::{Name, Rcode, Record, RecordData, RecordType};

use super::target;
use crate::chain::Message;

/// Longest chain of aliases inside a zone.
const LINKS_MAX: usize = 9;

/// A zone.
pub(super) struct Authority {
    origin: Name,
    /// By name; names with nothing but names below them are empty.
    nodes: HashMap<Name, Vec<Record>>,
    soa: Record,
}

/// What a zone says.
pub(super) struct Found {
    pub(super) message: Message,
    /// An alias leads to this name outside the zone.
    pub(super) chase: Option<Name>,
}

impl From<Message> for Found {
    fn from(message: Message) -> Self {
        Self { message, chase: None }
    }
}

impl Authority {
    /// A zone needs one SOA, and an alias stands alone.
    pub(super) fn new(origin: Name, records: Vec<Record>) -> Result<Self, String> {
        let mut nodes: HashMap<Name, Vec<Record>> = HashMap::new();
        let mut soa = None;
        for record in records {
            if record.name.find_suffix(&origin).is_none() {
                continue;
            }
            if record.data.rtype() == RecordType::SOA && record.name == origin {
                soa = Some(record.clone());
            }
            for ancestor in ancestors(&record.name, &origin) {
                nodes.entry(ancestor).or_default();
            }
            nodes.entry(record.name.clone()).or_default().push(record);
        }
        let Some(soa) = soa else { return Err(format!("there is no SOA record for {origin}")) };
        Ok(Self { origin, nodes, soa })
    }

    pub(super) fn origin(&self) -> &Name {
        &self.origin
    }

    /// The version of the zone.
    pub(super) fn serial(&self) -> u32 {
        match &self.soa.data {
            RecordData::Soa(soa) => soa.serial,
            _ => 0,
        }
    }

    /// All records, the SOA first.
    pub(super) fn records(&self) -> Vec<Record> {
        let mut rest: Vec<&Record> =
            self.nodes.values().flatten().filter(|record| **record != self.soa).collect();
        rest.sort_by_cached_key(|record| (record.name.to_string(), record.data.rtype()));
        std::iter::once(&self.soa).chain(rest).cloned().collect()
    }

    /// Answers a question for a name in the zone.
    pub(super) fn answer(&self, name: &Name, rtype: RecordType) -> Found {
        let mut chain: Vec<Record> = Vec::new();
        let mut name = name.clone();
        loop {
            if name.find_suffix(&self.origin).is_none() {
                return Found { message: Message::found(chain), chase: Some(name) };
            }
            if let Some(referral) = self.referral(&name, rtype) {
                return Message { answers: chain, ..referral }.into();
            }
            let Some((records, owner)) = self.node(&name, &mut chain) else {
                return self.denial(Rcode::NX_DOMAIN, chain).into();
            };
            let Some(records) = records else {
                // A DNAME made an alias of it.
                match chain.last().and_then(target).cloned() {
                    Some(target) if chain.len() < LINKS_MAX => name = target,
                    _ => return self.denial(Rcode::SERV_FAIL, Vec::new()).into(),
                }
                continue;
            };
            let as_asked = |record: &Record| Record { name: owner.clone(), ..record.clone() };
            let wanted: Vec<Record> = records
                .iter()
                .filter(|record| record.data.rtype() == rtype || rtype == RecordType::ANY)
                .map(as_asked)
                .collect();
            if !wanted.is_empty() {
                chain.extend(wanted);
                let additional = self.additional(&chain);
                return Message { additional, ..Message::found(chain) }.into();
            }
            let Some(alias) = records.iter().find(|record| record.data.rtype() == RecordType::CNAME) else {
                return self.denial(Rcode::NO_ERROR, chain).into();
            };
            chain.push(as_asked(alias));
            let next = target(alias).cloned().filter(|_| chain.len() < LINKS_MAX);
            // A loop, or as bad as one: none of it is worth sending.
            let Some(next) = next else { return self.denial(Rcode::SERV_FAIL, Vec::new()).into() };
            name = next;
        }
    }

    /// The records of a name, or of the wildcard that stands for it, with the owner they get. Where a DNAME is above
    /// the name, the chain gets it with the alias that it makes, and there are no records.
    fn node(&self, name: &Name, chain: &mut Vec<Record>) -> Option<(Option<&Vec<Record>>, Name)> {
        if let Some((dname, target)) = self.dname(name) {
            chain.push(dname.clone());
            let data = RecordData::Cname(target);
            chain.push(Record { name: name.clone(), ttl_secs: dname.ttl_secs, data });
            return Some((None, name.clone()));
        }
        if let Some(records) = self.nodes.get(name) {
            return Some((Some(records), name.clone()));
        }
        // The closest encloser decides: only a wildcard right below it counts (RFC 4592 §3.3.1).
        let encloser = ancestors(name, &self.origin).find(|ancestor| self.nodes.contains_key(ancestor))?;
        let wildcard = Name::join(&[b"*"], encloser.as_wire()).ok()?;
        self.nodes.get(&wildcard).map(|records| (Some(records), name.clone()))
    }

    /// The DNAME above a name and what the name becomes by it.
    fn dname(&self, name: &Name) -> Option<(&Record, Name)> {
        ancestors(name, &self.origin).find_map(|ancestor| {
            let records = self.nodes.get(&ancestor)?;
            let record = records.iter().find(|record| record.data.rtype() == RecordType::DNAME)?;
            let RecordData::Opaque { value, .. } = &record.data else { return None };
            let labels: Vec<&[u8]> =
                name.labels().take(name.labels().count() - ancestor.labels().count()).collect();
            Some((record, Name::join(&labels, value).ok()?))
        })
    }

    /// The name servers of a zone that was cut off above the name, with their addresses.
    fn referral(&self, name: &Name, rtype: RecordType) -> Option<Message> {
        let own = std::iter::once(name.clone()).filter(|_| rtype != RecordType::DS);
        let above: Vec<Name> =
            own.chain(ancestors(name, &self.origin)).filter(|above| *above != self.origin).collect();
        // The cut nearest to the apex counts: below it nothing is ours.
        above.iter().rev().find_map(|cut| {
            let records = self.nodes.get(cut)?;
            let servers: Vec<Record> =
                records.iter().filter(|record| record.data.rtype() == RecordType::NS).cloned().collect();
            if servers.is_empty() {
                return None;
            }
            let additional = self.additional(&servers);
            Some(Message { authority: servers, additional, ..Message::new(Rcode::NO_ERROR) })
        })
    }

    /// Addresses of the hosts in records, as far as the zone has them.
    fn additional(&self, records: &[Record]) -> Vec<Record> {
        let mut found: Vec<Record> = Vec::new();
        for record in records {
            let host = match &record.data {
                RecordData::Ns(host) | RecordData::Srv { target: host, .. } => host.clone(),
                RecordData::Opaque { rtype: RecordType::MX, value } => {
                    let Some(host) = value.get(2..).and_then(|name| Name::from_wire(name).ok()) else {
                        continue;
                    };
                    host
                }
                _ => continue,
            };
            let addresses = self.nodes.get(&host).into_iter().flatten();
            let addresses =
                addresses.filter(|record| matches!(record.data, RecordData::A(_) | RecordData::Aaaa(_)));
            for address in addresses {
                if !found.contains(address) {
                    found.push(address.clone());
                }
            }
        }
        found
    }

    fn denial(&self, rcode: Rcode, answers: Vec<Record>) -> Message {
        let mut soa = self.soa.clone();
        if let RecordData::Soa(value) = &soa.data {
            soa.ttl_secs = soa.ttl_secs.min(value.minimum_secs);
        }
        Message { authoritative: true, answers, authority: vec![soa], ..Message::new(rcode) }
    }
}

/// The names above a name, nearest first, down to the origin.
fn ancestors<'a>(name: &Name, origin: &'a Name) -> impl Iterator<Item = Name> + use<'a> {
    let mut current = name.clone();
    std::iter::from_fn(move || {
        if current == *origin || current.as_wire().len() == 1 {
            return None;
        }
        let skip = 1 + usize::from(current.as_wire()[0]);
        current = Name::from_wire(&current.as_wire()[skip..]).ok()?;
        Some(current.clone())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::parse_zone_text;

    const ZONE: &str = "
$TTL 300
@        IN SOA ns1 admin 7 7200 1800 86400 60
@        IN NS  ns1
@        IN MX  10 mail
ns1      IN A   192.0.2.53
mail     IN A   192.0.2.25
www      IN CNAME web
web      IN A   192.0.2.80
out      IN CNAME www.example.net.
loop1    IN CNAME loop2
loop2    IN CNAME loop1
*.wild   IN A   192.0.2.99
a.wild   IN TXT \"here\"
deep.ent IN A   192.0.2.1
old      IN DNAME new
x.new    IN A   192.0.2.7
sub      IN NS  ns.sub
ns.sub   IN A   192.0.2.54
";

    /// `rcode aa? answers / authority / additional > chase`
    fn answer(name: &str, rtype: RecordType) -> String {
        let origin = Name::parse("example.org").unwrap();
        let zone = Authority::new(origin.clone(), parse_zone_text(ZONE, &origin).unwrap()).unwrap();
        let found = zone.answer(&Name::parse(name).unwrap(), rtype);
        let show = |records: &[Record]| {
            let texts: Vec<String> = records
                .iter()
                .map(|r| {
                    format!(
                        "{}{}",
                        r.name
                            .labels()
                            .next()
                            .map_or(String::new(), |l| String::from_utf8_lossy(l).into_owned() + ":"),
                        r.data.rtype()
                    )
                })
                .collect();
            texts.join(" ")
        };
        let message = &found.message;
        let chase = found.chase.map_or(String::new(), |name| format!(" > {name}"));
        let aa = if message.authoritative { " aa" } else { "" };
        format!(
            "{}{aa} {} / {} / {}{chase}",
            message.rcode,
            show(&message.answers),
            show(&message.authority),
            show(&message.additional)
        )
    }

    #[test]
    fn a_zone_answers_as_the_rfcs_say() {
        let rows = [
            ("web.example.org", RecordType::A, "NOERROR aa web:A /  / "),
            ("WEB.example.org", RecordType::AAAA, "NOERROR aa  / example:SOA / "),
            ("nope.example.org", RecordType::A, "NXDOMAIN aa  / example:SOA / "),
            ("www.example.org", RecordType::A, "NOERROR aa www:CNAME web:A /  / "),
            ("www.example.org", RecordType::CNAME, "NOERROR aa www:CNAME /  / "),
            ("out.example.org", RecordType::A, "NOERROR aa out:CNAME /  /  > www.example.net."),
            ("example.org", RecordType::MX, "NOERROR aa example:MX /  / mail:A"),
            ("q.wild.example.org", RecordType::A, "NOERROR aa q:A /  / "),
            ("p.q.wild.example.org", RecordType::A, "NOERROR aa p:A /  / "),
            ("a.wild.example.org", RecordType::A, "NOERROR aa  / example:SOA / "),
            ("b.a.wild.example.org", RecordType::A, "NXDOMAIN aa  / example:SOA / "),
            ("ent.example.org", RecordType::A, "NOERROR aa  / example:SOA / "),
            ("x.old.example.org", RecordType::A, "NOERROR aa old:DNAME x:CNAME x:A /  / "),
            ("host.sub.example.org", RecordType::A, "NOERROR  / sub:NS / ns:A"),
            ("sub.example.org", RecordType::NS, "NOERROR  / sub:NS / ns:A"),
        ];
        for (name, rtype, expected) in rows {
            assert_eq!(answer(name, rtype), expected, "{name} {rtype}");
        }
        assert!(answer("loop1.example.org", RecordType::A).starts_with("SERVFAIL"));
    }

    #[test]
    fn a_zone_without_an_soa_is_none() {
        let origin = Name::parse("example.org").unwrap();
        let records = parse_zone_text("www 60 IN A 192.0.2.1", &origin).unwrap();
        assert!(Authority::new(origin, records).is_err());
    }
}
