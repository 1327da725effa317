//! `ready [ADDRESS] [{ monitor until-ready|continuously }]`: `/ready` says OK when every plugin can do its work.

use super::{Plugins, Setup, health, once};
use crate::corefile::{CorefileError, Directive, unknown};

pub(super) fn set_up(setup: &mut Setup<'_>, directives: &[Directive]) -> Result<Plugins, CorefileError> {
    let directive = once(directives)?;
    let at = health::address(directive.words(), ([0, 0, 0, 0], 8181).into())?;
    for (option, mut words) in directive.lines() {
        match (option, words.next()) {
            ("monitor", Some("until-ready")) => setup.parts.ready_continuously = false,
            ("monitor", Some("continuously")) => setup.parts.ready_continuously = true,
            ("monitor", _) => return Err(words.fault("monitor is until-ready or continuously")),
            _ => return Err(unknown(&words, option)),
        }
    }
    if let Some(at) = setup.world.endpoint(setup.world.config.ready, at) {
        setup.parts.endpoints.entry(at).or_default().ready = true;
    }
    Ok(Vec::new())
}
