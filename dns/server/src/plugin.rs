//! The plugins: one table in the order they are asked, whatever the order in the Corefile.
//!
//! The order is CoreDNS 1.14's. A new plugin is a row here and a module of its own.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use fairlead_zone::Name;
use futures::future::BoxFuture;

use crate::{
    chain::{Plugin, Slot},
    corefile::{CorefileError, Directive, Key},
    generation::Parts,
    world::World,
};

mod acl;
mod any;
mod autopath;
mod bind;
mod bufsize;
mod cache;
mod chaos;
mod debug;
mod dns64;
mod errors;
mod file;
mod forward;
mod health;
mod hosts;
mod kubernetes;
mod loadbalance;
mod local;
mod log;
mod looping;
mod prometheus;
mod ready;
mod reload;
mod rewrite;
mod root;
mod template;
mod tls;
mod transfer;
mod whoami;

pub(crate) use loadbalance::shuffle;
pub(crate) use tls::client_config;

/// What a set-up gives: plugins to be asked one after another, none when the directive only sets something.
pub(crate) type Plugins = Vec<Arc<dyn Plugin>>;
/// Reads all uses of a directive in a server block.
type SetUp = fn(&mut Setup<'_>, &[Directive]) -> Result<Plugins, CorefileError>;

/// All directives.
const DIRECTIVES: [(&str, SetUp); 28] = [
    ("root", root::set_up),
    ("tls", tls::set_up),
    ("reload", reload::set_up),
    ("bufsize", bufsize::set_up),
    ("bind", bind::set_up),
    ("debug", debug::set_up),
    ("ready", ready::set_up),
    ("health", health::set_up),
    ("prometheus", prometheus::set_up),
    ("errors", errors::set_up),
    ("log", log::set_up),
    ("local", local::set_up),
    ("dns64", dns64::set_up),
    ("any", any::set_up),
    ("chaos", chaos::set_up),
    ("loadbalance", loadbalance::set_up),
    ("rewrite", rewrite::set_up),
    ("autopath", autopath::set_up),
    ("acl", acl::set_up),
    ("cache", cache::set_up),
    ("template", template::set_up),
    ("transfer", transfer::set_up),
    ("hosts", hosts::set_up),
    ("kubernetes", kubernetes::set_up),
    ("file", file::set_up),
    ("loop", looping::set_up),
    ("forward", forward::set_up),
    ("whoami", whoami::set_up),
];

/// What a set-up may use and what it may add to.
pub(crate) struct Setup<'a> {
    /// What outlives a Corefile.
    pub(crate) world: &'a Arc<World>,
    /// Zones of the server block.
    pub(crate) zones: &'a [Name],
    /// Its keys.
    pub(crate) keys: &'a [Key],
    /// The `server` label of its metrics: its first listener.
    pub(crate) server: &'a str,
    /// Where relative paths begin.
    pub(crate) directory: PathBuf,
    /// What the server block has besides plugins.
    pub(crate) block: BlockParts,
    /// What the Corefile has besides server blocks.
    pub(crate) parts: &'a mut Parts,
}

/// What a server block has besides plugins.
#[derive(Default)]
pub(crate) struct BlockParts {
    /// Addresses or interfaces to listen on, and those to leave out.
    pub(crate) bind: Vec<String>,
    pub(crate) bind_except: Vec<String>,
    pub(crate) tls: Option<Arc<rustls::ServerConfig>>,
    /// Counted for `prometheus`.
    pub(crate) metered: bool,
    /// Answers for names that are not its own.
    pub(crate) recursion: bool,
    /// Panics are not caught.
    pub(crate) debug: bool,
    /// Who is told of changes of zones.
    pub(crate) secondaries: Vec<transfer::Secondaries>,
}

/// Sets the plugins of a server block up.
pub(crate) fn set_up(setup: &mut Setup<'_>, directives: &[Directive]) -> Result<Vec<Slot>, CorefileError> {
    if let Some(unknown) = directives.iter().find(|known| row(&known.name.text).is_none()) {
        let known: Vec<&str> = DIRECTIVES.iter().map(|row| row.0).collect();
        let hint = closest(&unknown.name.text, &known);
        return Err(unknown.fault(None, format!("unknown directive{hint}; known are {}", known.join(", "))));
    }
    let mut slots = Vec::new();
    for (name, set_up) in DIRECTIVES {
        let uses: Vec<Directive> =
            directives.iter().filter(|directive| directive.name.text == name).cloned().collect();
        if !uses.is_empty() {
            slots.extend(set_up(setup, &uses)?.into_iter().map(|plugin| Slot { name, plugin }));
            setup.world.plugin_enabled(setup.server, setup.zones, name);
        }
    }
    Ok(slots)
}

fn row(name: &str) -> Option<&'static (&'static str, SetUp)> {
    DIRECTIVES.iter().find(|row| row.0 == name)
}

/// `: did you mean …?` when a known word differs in one letter, or in two neighbours that changed places.
fn closest(word: &str, known: &[&str]) -> String {
    let near = |other: &&&str| {
        let (a, b) = (word.as_bytes(), other.as_bytes());
        let head = a.iter().zip(b).take_while(|(a, b)| a == b).count();
        let tail = a[head..].iter().rev().zip(b[head..].iter().rev()).take_while(|(a, b)| a == b).count();
        let (rest_a, rest_b) = (a.len() - head - tail, b.len() - head - tail);
        rest_a.max(rest_b) <= 1
            || (rest_a == 2 && rest_b == 2 && a[head] == b[head + 1] && a[head + 1] == b[head])
    };
    known.iter().find(near).map_or(String::new(), |known| format!(", did you mean {known}?"))
}

impl Setup<'_> {
    /// A path relative to where the Corefile is.
    pub(crate) fn path(&self, text: &str) -> PathBuf {
        self.directory.join(Path::new(text))
    }

    /// Runs beside the server until `stop`.
    pub(crate) fn spawn(&mut self, task: BoxFuture<'static, ()>) {
        self.parts.tasks.push(task);
    }
}

/// The only use of a directive that may be used once.
fn once(directives: &[Directive]) -> Result<&Directive, CorefileError> {
    match directives {
        [one] => Ok(one),
        [_, second, ..] => Err(second.fault(None, "can be used once in a server block")),
        [] => unreachable!("a set-up has at least one use"),
    }
}

/// One plugin.
fn one(plugin: impl Plugin + 'static) -> Result<Plugins, CorefileError> {
    Ok(vec![Arc::new(plugin)])
}

#[cfg(test)]
mod tests {
    use super::closest;

    #[test]
    fn a_slip_of_the_pen_is_recognised() {
        let known = ["cache", "forward", "errors"];
        for (word, expected) in [
            ("cahce", ", did you mean cache?"),
            ("forwad", ", did you mean forward?"),
            ("error", ", did you mean errors?"),
            ("proxy", ""),
        ] {
            assert_eq!(closest(word, &known), expected, "{word}");
        }
    }
}
