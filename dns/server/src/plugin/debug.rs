//! `debug`: the server says what it does in detail.

use super::{Plugins, Setup, once};
use crate::corefile::{CorefileError, Directive};

pub(super) fn set_up(setup: &mut Setup<'_>, directives: &[Directive]) -> Result<Plugins, CorefileError> {
    let directive = once(directives)?;
    directive.words().end()?;
    directive.no_body()?;
    setup.block.debug = true;
    Ok(Vec::new())
}
