//! `whoami`: tells a client its own address, port and transport in the additional section.

use std::net::IpAddr;

use fairlead_zone::{Name, Record, RecordData};

use super::{Plugins, Setup, once, one};
use crate::{
    chain::{Message, Next, Plugin, Query, Serving, ready},
    corefile::{CorefileError, Directive},
};

struct Whoami;

pub(super) fn set_up(_: &mut Setup<'_>, directives: &[Directive]) -> Result<Plugins, CorefileError> {
    let directive = once(directives)?;
    directive.words().end()?;
    directive.no_body()?;
    one(Whoami)
}

impl Plugin for Whoami {
    fn serve<'a>(&'a self, query: &'a mut Query, _: Next<'a>) -> Serving<'a> {
        query.answered_by = "whoami";
        let peer = query.client.peer;
        let address = match peer.ip().to_canonical() {
            IpAddr::V4(address) => RecordData::A(address),
            IpAddr::V6(address) => RecordData::Aaaa(address),
        };
        let protocol: &[u8] = if query.client.transport.base() == 0 { b"_udp" } else { b"_tcp" };
        let owner = Name::join(&[protocol], query.name().as_wire()).unwrap_or_else(|_| query.name().clone());
        let location = RecordData::Srv { priority: 0, weight: 0, port: peer.port(), target: Name::root() };
        let additional = vec![
            Record { name: query.name().clone(), ttl_secs: 0, data: address },
            Record { name: owner, ttl_secs: 0, data: location },
        ];
        ready(Message { additional, ..Message::found(Vec::new()) })
    }
}
