//! `chaos [VERSION] [AUTHOR…]`: what servers say of themselves in class CH (RFC 4892).

use fairlead_zone::{Class, Record, RecordData, RecordType};

use super::{Plugins, Setup, once, one};
use crate::{
    chain::{Message, Next, Plugin, Query, Serving, ready},
    corefile::{CorefileError, Directive},
};

struct Chaos {
    version: String,
    authors: Vec<String>,
    host: String,
}

pub(super) fn set_up(_: &mut Setup<'_>, directives: &[Directive]) -> Result<Plugins, CorefileError> {
    let directive = once(directives)?;
    directive.no_body()?;
    let mut words = directive.words();
    let version =
        words.next().map_or_else(|| format!("Fairlead-{}", env!("CARGO_PKG_VERSION")), str::to_owned);
    let mut authors: Vec<String> = words.all().into_iter().map(str::to_owned).collect();
    if authors.is_empty() {
        authors.push("The Fairlead authors".into());
    }
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
    one(Chaos { version, authors, host: if host.is_empty() { "localhost".into() } else { host } })
}

impl Plugin for Chaos {
    fn serve<'a>(&'a self, query: &'a mut Query, next: Next<'a>) -> Serving<'a> {
        if query.request.question.class != Class::CHAOS || query.rtype() != RecordType::TXT {
            return next.serve(query);
        }
        let texts: Vec<&String> = match query.name().to_string().to_ascii_lowercase().as_str() {
            "version.bind." | "version.server." => vec![&self.version],
            "authors.bind." => self.authors.iter().collect(),
            "hostname.bind." | "id.server." => vec![&self.host],
            _ => return next.serve(query),
        };
        query.answered_by = "chaos";
        let record = |text: &String| Record {
            name: query.name().clone(),
            ttl_secs: 0,
            data: RecordData::Txt(text.as_bytes().into()),
        };
        ready(Message { authoritative: false, ..Message::found(texts.into_iter().map(record).collect()) })
    }
}
