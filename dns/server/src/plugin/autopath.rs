//! `autopath [ZONE…] RESOLV-CONF|@kubernetes`: walks a client's search list in its place.
//!
//! A client with `ndots:5` asks for `www.example.org.demo.svc.cluster.local` first. Its next questions are known, so
//! they are asked here, and the first name that exists is the answer, behind an alias. `@kubernetes` knows the search
//! list of a pod from its address.

use std::{path::Path, sync::Arc};

use fairlead_zone::{Class, Name, Rcode, Record, RecordData, RecordType};
use futures::FutureExt;

use super::{Plugins, Setup, once};
use crate::{
    chain::{Next, Plugin, Query, Response, Serving, Zones},
    corefile::{CorefileError, Directive},
    metrics::{Counter, Family},
};

const SUCCESSES: Family =
    Family { name: "coredns_autopath_success_total", help: "Counter of requests that did autopath." };

struct Autopath {
    zones: Zones,
    /// From a file.
    path: Vec<Name>,
    /// Ask the plugins behind for the path of the client, and go on with `path`.
    by_client: bool,
    successes: Arc<Counter>,
}

pub(super) fn set_up(setup: &mut Setup<'_>, directives: &[Directive]) -> Result<Plugins, CorefileError> {
    let directive = once(directives)?;
    directive.no_body()?;
    let mut words = directive.words();
    let mut args = words.all();
    let source = args
        .pop()
        .ok_or_else(|| directive.fault(None, "needs a file like /etc/resolv.conf or @kubernetes"))?;
    let mut zones = Vec::new();
    for arg in args {
        zones.extend(crate::corefile::parse_zone(arg).map_err(|message| directive.fault(None, message))?);
    }
    if zones.is_empty() {
        zones = setup.zones.to_vec();
    }
    let by_client = source == "@kubernetes";
    if source.starts_with('@') && !by_client {
        return Err(directive.fault(None, format!("{source} has no search lists; only @kubernetes has")));
    }
    let path = if by_client {
        search_list(Path::new("/etc/resolv.conf")).unwrap_or_default()
    } else {
        search_list(&setup.path(source)).map_err(|message| directive.fault(None, message))?
    };
    let zone = setup.zones.first().map(ToString::to_string).unwrap_or_default();
    let labels = [("server", setup.server), ("view", ""), ("zone", &*zone)];
    let successes = setup.world.registry.counter(&SUCCESSES, &labels);
    Ok(vec![Arc::new(Autopath { zones: Zones(zones.into()), path, by_client, successes })])
}

/// The search list of a resolv.conf; the last line wins.
fn search_list(file: &Path) -> Result<Vec<Name>, String> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("cannot read {}: {e}", file.display()))?;
    let line = text
        .lines()
        .rev()
        .find_map(|line| line.trim().strip_prefix("search ").or(line.trim().strip_prefix("domain ")));
    Ok(line.unwrap_or("").split_whitespace().filter_map(|word| Name::parse(word).ok()).collect())
}

impl Autopath {
    /// The search list for a client, the name itself last.
    fn path_for(&self, query: &Query, next: Next<'_>) -> Option<Vec<Name>> {
        let client = query.client.peer.ip();
        let mut path = if self.by_client {
            next.behind().find_map(|plugin| plugin.search_path(client))?
        } else {
            Vec::new()
        };
        path.extend(self.path.iter().cloned());
        path.push(Name::root());
        Some(path)
    }
}

impl Plugin for Autopath {
    fn serve<'a>(&'a self, query: &'a mut Query, next: Next<'a>) -> Serving<'a> {
        let question = &query.request.question;
        let plain = matches!(question.rtype, RecordType::A | RecordType::AAAA) && question.class == Class::IN;
        if !plain || !self.zones.contains(&question.name) {
            return next.serve(query);
        }
        let asked = question.name.clone();
        let walk = self.path_for(query, next).and_then(|path| {
            let start = asked.find_suffix(path.first()?).filter(|start| *start > 0 && path.len() > 1)?;
            Some((path, start))
        });
        async move {
            let Some((path, start)) = walk else {
                let response = next.serve(query).await;
                return Response { stable: None, ..response };
            };
            let mut first = None;
            for domain in &path {
                let base: Vec<&[u8]> = labels(&asked.as_wire()[..start]).collect();
                let Ok(name) = Name::join(&base, domain.as_wire()) else { continue };
                query.request.question.name = name.clone();
                let mut response = next.serve(query).await;
                let found = response.rcode() == Rcode::NO_ERROR;
                if found && name != asked {
                    alias(&mut response, &asked, &name);
                    self.successes.add();
                    query.answered_by = "autopath";
                }
                if found {
                    query.request.question.name = asked.clone();
                    return Response { stable: None, ..response };
                }
                first.get_or_insert(response);
            }
            query.request.question.name = asked.clone();
            let response = first.unwrap_or_else(|| Response::status(Rcode::SERV_FAIL));
            Response { stable: None, ..response }
        }
        .boxed()
    }
}

/// The labels of the beginning of a name in wire form.
fn labels(mut wire: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = wire.split_first()?;
        let (label, rest) = rest.split_at_checked(usize::from(*length))?;
        wire = rest;
        Some(label)
    })
}

/// Puts an alias from the name that was asked before the answer for another one.
fn alias(response: &mut Response, asked: &Name, found: &Name) {
    let Some(message) = response.message_mut() else { return };
    let ttl_secs = message.answers.iter().map(|record| record.ttl_secs).min().unwrap_or(0);
    if !message.answers.is_empty() {
        let data = RecordData::Cname(found.clone());
        message.answers.insert(0, Record { name: asked.clone(), ttl_secs, data });
    }
}
