//! `bufsize [SIZE]`: the largest answer over UDP, whatever the client takes.

use super::{Plugins, Setup, once, one};
use crate::{
    chain::{Next, Plugin, Query, Serving},
    codec::UDP_MAX_EDNS,
    corefile::{CorefileError, Directive},
};

struct Bufsize(u16);

pub(super) fn set_up(_: &mut Setup<'_>, directives: &[Directive]) -> Result<Plugins, CorefileError> {
    let directive = once(directives)?;
    directive.no_body()?;
    let mut words = directive.words();
    let size = if words.peek().is_some() { words.number("a size", 512..=4096)? } else { UDP_MAX_EDNS };
    words.end()?;
    one(Bufsize(size))
}

impl Plugin for Bufsize {
    fn serve<'a>(&'a self, query: &'a mut Query, next: Next<'a>) -> Serving<'a> {
        query.udp_cap = self.0;
        next.serve(query)
    }
}
