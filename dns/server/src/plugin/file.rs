//! `file DBFILE [ZONE…] [{ reload DURATION; fallthrough [ZONE…]; upstream }]`: zones from a file (RFC 1035 §5).

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use fairlead_zone::{Class, Name, Question, Rcode, Record, RecordData, RecordType};
use futures::FutureExt;

use super::{Plugins, Setup, transfer::notify};
use crate::{
    chain::{Message, Next, Plugin, Query, Serving, Zones, ready},
    corefile::{CorefileError, Directive, unknown},
    records::parse_zone_text,
};

mod authority;

use authority::{Authority, Found};

/// How often the file is looked at; CoreDNS's value.
const RELOAD: Duration = Duration::from_secs(60);

struct File {
    zones: Vec<Arc<ArcSwap<Authority>>>,
    fallthrough: Zones,
}

pub(super) fn set_up(setup: &mut Setup<'_>, directives: &[Directive]) -> Result<Plugins, CorefileError> {
    directives.iter().map(|directive| plugin(setup, directive)).collect()
}

fn plugin(setup: &mut Setup<'_>, directive: &Directive) -> Result<Arc<dyn Plugin>, CorefileError> {
    let mut words = directive.words();
    let file = setup.path(words.need("a zone file")?);
    let mut origins = words.zones()?;
    if origins.is_empty() {
        origins = setup.zones.to_vec();
    }
    let (mut reload, mut fallthrough) = (RELOAD, Zones::default());
    for (option, mut words) in directive.lines() {
        match option {
            "reload" => reload = words.duration()?,
            "fallthrough" => fallthrough = words.zones_or_all()?,
            // Aliases that lead outside are always followed.
            "upstream" => {
                words.all();
            }
            _ => return Err(unknown(&words, option)),
        }
    }
    let mut zones = Vec::new();
    for origin in origins {
        let authority = read(&file, &origin).map_err(|message| directive.fault(None, message))?;
        let zone = Arc::new(ArcSwap::from_pointee(authority));
        let concerned = setup.block.secondaries.iter().filter(|rule| rule.zones.contains(&origin));
        let secondaries = concerned.flat_map(|rule| rule.addresses.iter().copied()).collect();
        let followed = Followed { file: file.clone(), origin, zone: Arc::clone(&zone), secondaries };
        setup.spawn(followed.follow(reload).boxed());
        zones.push(zone);
    }
    Ok(Arc::new(File { zones, fallthrough }))
}

fn read(file: &Path, origin: &Name) -> Result<Authority, String> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("cannot read {}: {e}", file.display()))?;
    let records =
        parse_zone_text(&text, origin).map_err(|e| format!("{} is not a zone file: {e}", file.display()))?;
    Authority::new(origin.clone(), records).map_err(|message| format!("{}: {message}", file.display()))
}

/// A zone whose file is looked at.
struct Followed {
    file: PathBuf,
    origin: Name,
    zone: Arc<ArcSwap<Authority>>,
    /// Servers that are told of it.
    secondaries: Vec<SocketAddr>,
}

impl Followed {
    /// Takes the file over when its serial is another one. Whoever keeps a copy is told of that, and at the start, since
    /// nobody knows what has changed before.
    async fn follow(self, every: Duration) {
        notify(&self.origin, &self.secondaries).await;
        while !every.is_zero() {
            tokio::time::sleep(every).await;
            match read(&self.file, &self.origin) {
                Ok(authority) if authority.serial() != self.zone.load().serial() => {
                    tracing::info!(zone = %self.origin, serial = authority.serial(), "the zone file changed");
                    self.zone.store(Arc::new(authority));
                    notify(&self.origin, &self.secondaries).await;
                }
                Ok(_) => {}
                Err(message) => tracing::warn!("file: {message}; the zone stays as it was"),
            }
        }
    }
}

impl File {
    fn zone_of(&self, name: &Name) -> Option<Arc<Authority>> {
        let zones = self.zones.iter().map(|zone| zone.load_full());
        let covering = zones.filter(|zone| name.find_suffix(zone.origin()).is_some());
        covering.max_by_key(|zone| zone.origin().as_wire().len())
    }
}

impl Plugin for File {
    fn serve<'a>(&'a self, query: &'a mut Query, next: Next<'a>) -> Serving<'a> {
        let question = query.request.question.clone();
        let Some(zone) = self.zone_of(&question.name) else { return next.serve(query) };
        if question.class != Class::IN || matches!(question.rtype, RecordType::AXFR | RecordType::IXFR) {
            return ready(Message::new(Rcode::REFUSED));
        }
        let found = zone.answer(&question.name, question.rtype);
        let missing = matches!(&found, Found { message, .. } if message.rcode == Rcode::NX_DOMAIN);
        if missing && self.fallthrough.contains(&question.name) {
            return next.serve(query);
        }
        query.answered_by = "file";
        match found {
            Found { message, chase: None } => ready(message),
            Found { mut message, chase: Some(name) } => async move {
                let end = query.lookup(Question { name, ..question }).await.into_message();
                if !matches!(end.rcode, Rcode::REFUSED | Rcode::SERV_FAIL) {
                    message.rcode = end.rcode;
                }
                message.answers.extend(end.answers);
                message.into()
            }
            .boxed(),
        }
    }

    fn records(&self, zone: &Name) -> Option<Vec<Record>> {
        let own = self.zones.iter().map(|own| own.load_full()).find(|own| own.origin() == zone)?;
        Some(own.records())
    }
}

/// The name that an alias leads to.
fn target(record: &Record) -> Option<&Name> {
    match &record.data {
        RecordData::Cname(target) => Some(target),
        _ => None,
    }
}
