//! `hosts [FILE [ZONE…]] [{ INLINE…; ttl SECONDS; no_reverse; reload DURATION; fallthrough [ZONE…];
//! fallthrough_unsupported }]`: names from a
//! file like `/etc/hosts`.
//!
//! A name that is not there and does not fall through is SERVFAIL: such a file has no SOA to deny with.

use std::{
    collections::HashMap,
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use fairlead_zone::{Class, Name, Rcode, Record, RecordData, RecordType, reverse_zones};
use futures::FutureExt;

use super::{Plugins, Setup, once};
use crate::{
    chain::{Message, Next, Plugin, Query, Response, Serving, Zones, ready},
    corefile::{CorefileError, Directive},
    metrics::{Family, Gauge},
    net::parse_prefix,
};

const ENTRIES: Family =
    Family { name: "coredns_hosts_entries", help: "The combined number of entries in hosts and Corefile." };
const RELOADED: Family = Family {
    name: "coredns_hosts_reload_timestamp_seconds",
    help: "The timestamp of the last reload of hosts file.",
};
/// CoreDNS's values.
const TTL_SECS: u32 = 3600;
const RELOAD: Duration = Duration::from_secs(5);

struct Hosts {
    zones: Zones,
    fallthrough: Zones,
    /// Questions for other types of names that are there fall through as well.
    unsupported: bool,
    ttl_secs: u32,
    table: Arc<ArcSwap<Table>>,
}

/// The file with the lines of the Corefile.
#[derive(Default)]
struct Table {
    addresses: HashMap<Name, Vec<IpAddr>>,
    /// By reverse name.
    names: HashMap<Name, Vec<Name>>,
}

struct Source {
    file: PathBuf,
    inline: Vec<String>,
    reverse: bool,
    entries: Arc<Gauge>,
    reloaded: Arc<Gauge>,
}

pub(super) fn set_up(setup: &mut Setup<'_>, directives: &[Directive]) -> Result<Plugins, CorefileError> {
    let directive = once(directives)?;
    let mut words = directive.words();
    let file = setup.path(words.next().unwrap_or("/etc/hosts"));
    let mut zones = words.zones()?;
    if zones.is_empty() {
        zones = setup.zones.to_vec();
    }
    let registry = &setup.world.registry;
    let (entries, reloaded) = (registry.gauge(&ENTRIES, &[]), registry.gauge(&RELOADED, &[]));
    let mut source = Source { file, inline: Vec::new(), reverse: true, entries, reloaded };
    let (mut fallthrough, mut ttl_secs, mut reload) = (None, TTL_SECS, RELOAD);
    let mut unsupported = None;
    for (option, mut words) in directive.lines() {
        match option {
            "ttl" => ttl_secs = words.number("a TTL", 1..=65_535)?,
            "no_reverse" => source.reverse = false,
            "reload" => reload = words.duration()?,
            "fallthrough" => fallthrough = Some(words.zones_or_all()?),
            "fallthrough_unsupported" => unsupported = Some(words.clone()),
            address if address.parse::<IpAddr>().is_ok() => {
                let names = words.all();
                if names.is_empty() {
                    return Err(words.fault(format!("{address} has no name")));
                }
                source.inline.push(format!("{address} {}", names.join(" ")));
            }
            _ => return Err(words.fault(format!("{option:?} is neither an address nor a property"))),
        }
    }
    if let Some(words) = unsupported.as_ref().filter(|_| fallthrough.is_none()) {
        return Err(words.fault("fallthrough_unsupported needs fallthrough"));
    }
    let (fallthrough, unsupported) = (fallthrough.unwrap_or_default(), unsupported.is_some());
    if source.file.is_dir() {
        return Err(directive.fault(None, format!("{} is a directory", source.file.display())));
    }
    if !source.file.exists() {
        tracing::warn!("hosts: {} does not exist yet", source.file.display());
    }
    let table = Arc::new(ArcSwap::from_pointee(source.read()));
    if !reload.is_zero() {
        setup.spawn(follow(source, Arc::clone(&table), reload).boxed());
    }
    Ok(vec![Arc::new(Hosts { zones: Zones(zones.into()), fallthrough, unsupported, ttl_secs, table })])
}

async fn follow(source: Source, table: Arc<ArcSwap<Table>>, every: Duration) {
    let stamp = |source: &Source| {
        let metadata = std::fs::metadata(&source.file).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    let mut known = stamp(&source);
    loop {
        tokio::time::sleep(every).await;
        let now = stamp(&source);
        if now != known {
            known = now;
            table.store(Arc::new(source.read()));
        }
    }
}

impl Source {
    fn read(&self) -> Table {
        let text = std::fs::read_to_string(&self.file).unwrap_or_default();
        let mut table = Table::default();
        let mut entries = 0;
        for line in text.lines().chain(self.inline.iter().map(String::as_str)) {
            entries += table.add(line, self.reverse);
        }
        self.entries.set(entries);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.reloaded.set(since.as_secs());
        table
    }
}

impl Table {
    /// Adds a line; says how many names it had. What cannot be read is left out, as everybody does with such files.
    fn add(&mut self, line: &str, reverse: bool) -> u64 {
        let mut words = line.split('#').next().unwrap_or("").split_whitespace();
        let address = words.next().and_then(|word| word.split('%').next()?.parse::<IpAddr>().ok());
        let Some(address) = address else { return 0 };
        let mut count = 0;
        for name in words.filter_map(|word| Name::parse(word).ok()) {
            count += 1;
            let addresses = self.addresses.entry(name.clone()).or_default();
            if !addresses.contains(&address) {
                addresses.push(address);
            }
            if reverse && !name.labels().any(|label| label == b"*") {
                let owner =
                    parse_prefix(&address.to_string()).map(reverse_zones).and_then(|mut zones| zones.pop());
                let names = owner.map(|owner| self.names.entry(owner).or_default());
                if let Some(names) = names.filter(|names| !names.contains(&name)) {
                    names.push(name);
                }
            }
        }
        count
    }

    /// The addresses of a name, or of the wildcard for its first label.
    fn addresses(&self, name: &Name) -> Option<&Vec<IpAddr>> {
        self.addresses.get(name).or_else(|| {
            let labels: Vec<&[u8]> = name.labels().collect();
            let (_, rest) = labels.split_first()?;
            let wildcard: Vec<&[u8]> = std::iter::once(&b"*"[..]).chain(rest.iter().copied()).collect();
            self.addresses.get(&Name::join(&wildcard, &[0]).ok()?)
        })
    }
}

impl Plugin for Hosts {
    fn serve<'a>(&'a self, query: &'a mut Query, next: Next<'a>) -> Serving<'a> {
        let question = &query.request.question;
        let in_zone = self.zones.contains(&question.name);
        if question.class != Class::IN || !(in_zone || question.rtype == RecordType::PTR) {
            return next.serve(query);
        }
        let table = self.table.load();
        let record = |data| Record { name: question.name.clone(), ttl_secs: self.ttl_secs, data };
        if question.rtype == RecordType::PTR {
            let Some(names) = table.names.get(&question.name) else { return next.serve(query) };
            let answers = names.iter().map(|name| record(RecordData::Ptr(name.clone()))).collect();
            query.answered_by = "hosts";
            return ready(Message::found(answers));
        }
        let Some(addresses) = table.addresses(&question.name) else {
            if self.fallthrough.contains(&question.name) {
                return next.serve(query);
            }
            query.answered_by = "hosts";
            return ready(Response::status(Rcode::SERV_FAIL));
        };
        let supported = matches!(question.rtype, RecordType::A | RecordType::AAAA);
        if !supported && self.unsupported && self.fallthrough.contains(&question.name) {
            return next.serve(query);
        }
        let wanted = addresses.iter().filter_map(|address| match (address, question.rtype) {
            (IpAddr::V4(address), RecordType::A) => Some(record(RecordData::A(*address))),
            (IpAddr::V6(address), RecordType::AAAA) => Some(record(RecordData::Aaaa(*address))),
            _ => None,
        });
        let answers = wanted.collect();
        query.answered_by = "hosts";
        ready(Message::found(answers))
    }
}
