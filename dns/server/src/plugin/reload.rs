//! `reload [INTERVAL] [JITTER] | off`: the Corefile is looked at now and then and taken over when it changed.

use std::time::Duration;

use super::{Plugins, Setup, once};
use crate::corefile::{CorefileError, Directive};

/// CoreDNS's values, and its least ones.
const INTERVAL: Duration = Duration::from_secs(30);
const JITTER: Duration = Duration::from_secs(15);
const INTERVAL_MIN: Duration = Duration::from_secs(2);
const JITTER_MIN: Duration = Duration::from_secs(1);

pub(super) fn set_up(setup: &mut Setup<'_>, directives: &[Directive]) -> Result<Plugins, CorefileError> {
    let directive = once(directives)?;
    directive.no_body()?;
    let mut words = directive.words();
    if words.peek() == Some("off") {
        return Ok(Vec::new());
    }
    let (mut interval, mut jitter) = (INTERVAL, JITTER);
    if words.peek().is_some() {
        interval = words.duration()?.max(INTERVAL_MIN);
        jitter = jitter.min(interval / 2);
    }
    if words.peek().is_some() {
        jitter = words.duration()?.max(JITTER_MIN).min(interval / 2);
    }
    words.end()?;
    setup.parts.reload = Some((interval, jitter));
    Ok(Vec::new())
}
