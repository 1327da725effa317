//! `prometheus [ADDRESS]`: counts the server block's questions and serves all metrics as `/metrics`.

use super::{Plugins, Setup, health, once};
use crate::corefile::{CorefileError, Directive};

pub(super) fn set_up(setup: &mut Setup<'_>, directives: &[Directive]) -> Result<Plugins, CorefileError> {
    let directive = once(directives)?;
    directive.no_body()?;
    let at = health::address(directive.words(), ([127, 0, 0, 1], 9153).into())?;
    setup.block.metered = true;
    if let Some(at) = setup.world.endpoint(setup.world.config.metrics, at) {
        setup.parts.endpoints.entry(at).or_default().metrics = true;
    }
    Ok(Vec::new())
}
