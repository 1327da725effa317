//! `bind ADDRESS|INTERFACE… [{ except ADDRESS|INTERFACE… }]`: where the server block listens.

use super::{Plugins, Setup};
use crate::corefile::{CorefileError, Directive, unknown};

pub(super) fn set_up(setup: &mut Setup<'_>, directives: &[Directive]) -> Result<Plugins, CorefileError> {
    for directive in directives {
        let mut words = directive.words();
        let places = words.all();
        if places.is_empty() {
            return Err(words.fault("needs an address or an interface"));
        }
        setup.block.bind.extend(places.into_iter().map(str::to_owned));
        for (option, mut words) in directive.lines() {
            match option {
                "except" => setup.block.bind_except.extend(words.all().into_iter().map(str::to_owned)),
                _ => return Err(unknown(&words, option)),
            }
        }
    }
    Ok(Vec::new())
}
