//! `root DIR`: where relative paths of the server block begin.

use super::{Plugins, Setup, once};
use crate::corefile::{CorefileError, Directive};

pub(super) fn set_up(setup: &mut Setup<'_>, directives: &[Directive]) -> Result<Plugins, CorefileError> {
    let directive = once(directives)?;
    let mut words = directive.words();
    setup.directory = setup.path(words.need("a directory")?);
    words.end()?;
    directive.no_body()?;
    Ok(Vec::new())
}
