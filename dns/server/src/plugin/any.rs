//! `any`: a question for every type gets one small record instead of all of them (RFC 8482).

use fairlead_zone::{Class, Record, RecordData, RecordType};

use super::{Plugins, Setup, once, one};
use crate::{
    chain::{Message, Next, Plugin, Query, Serving, ready},
    corefile::{CorefileError, Directive},
};

struct Any;

/// As CoreDNS chose it.
const TTL_SECS: u32 = 8482;
/// HINFO: two character strings.
const VALUE: &[u8] = b"\x0dANY obsoleted\x0cSee RFC 8482";

pub(super) fn set_up(_: &mut Setup<'_>, directives: &[Directive]) -> Result<Plugins, CorefileError> {
    let directive = once(directives)?;
    directive.words().end()?;
    directive.no_body()?;
    one(Any)
}

impl Plugin for Any {
    fn serve<'a>(&'a self, query: &'a mut Query, next: Next<'a>) -> Serving<'a> {
        if query.rtype() != RecordType::ANY || query.request.question.class != Class::IN {
            return next.serve(query);
        }
        query.answered_by = "any";
        let data = RecordData::Opaque { rtype: RecordType::HINFO, value: VALUE.into() };
        ready(Message::found(vec![Record { name: query.name().clone(), ttl_secs: TTL_SECS, data }]))
    }
}
