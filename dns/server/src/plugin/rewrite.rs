//! `rewrite [continue|stop] FIELD …`: alters questions, and turns the answers back.
//!
//! Fields are `name`, `type`, `class`, `edns0`, `ttl`, `cname` and `rcode`. A rule that applies is the last one unless
//! it says `continue`. The client always gets its own question back; the names in the answer are turned back by
//! `answer auto`, `answer name` and `answer value`, and for an exact name always.

use std::sync::Arc;

use fairlead_zone::{Class, Name, Question, Rcode, RecordData, RecordType};
use futures::FutureExt;
use regex::Regex;

use super::{Plugins, Setup};
use crate::{
    chain::{Message, Next, Plugin, Query, Response, Serving},
    codec::{Edns, UDP_MAX_EDNS},
    corefile::{CorefileError, Directive},
};

mod edns;
mod matcher;
mod parse;

use edns::EdnsRule;
use matcher::{Matcher, substitute};

struct Rewrite {
    rules: Vec<Rule>,
}

/// One rule.
struct Rule {
    /// Whether later rules are looked at too.
    go_on: bool,
    action: Action,
}

enum Action {
    Name { matcher: Matcher, to: String, answers: Vec<AnswerRule>, auto: bool },
    Type(RecordType, RecordType),
    Class(Class, Class),
    Edns(EdnsRule),
    Ttl { matcher: Matcher, least: u32, most: u32 },
    Cname { matcher: Matcher, to: String },
    Rcode { matcher: Matcher, from: Rcode, to: Rcode },
}

/// Turns names of an answer back.
struct AnswerRule {
    from: Regex,
    to: String,
    /// In values of records; else in their owners.
    values: bool,
}

/// What is to be done to the answer.
enum Revert<'a> {
    /// One name is another one, as owner and as value.
    Exactly(Name, Name),
    /// Names by pattern.
    Pattern(&'a AnswerRule),
    Ttl(u32, u32),
    Cname(&'a Matcher, &'a str),
    Rcode(Rcode, Rcode),
}

pub(super) fn set_up(_: &mut Setup<'_>, directives: &[Directive]) -> Result<Plugins, CorefileError> {
    let rules = directives.iter().map(parse::rule).collect::<Result<_, _>>()?;
    Ok(vec![Arc::new(Rewrite { rules })])
}

impl Rewrite {
    /// Alters the question; gives what is to be undone.
    fn alter(&self, query: &mut Query) -> Vec<Revert<'_>> {
        let mut reverts = Vec::new();
        for rule in &self.rules {
            if rule.action.alter(query, &mut reverts) && !rule.go_on {
                break;
            }
        }
        reverts
    }
}

impl Action {
    /// Whether the rule applied.
    fn alter<'a>(&'a self, query: &mut Query, reverts: &mut Vec<Revert<'a>>) -> bool {
        let question = &mut query.request.question;
        match self {
            Self::Name { matcher, to, answers, auto } => {
                let Some(name) = matcher.rewrite(&question.name, to) else { return false };
                if *auto {
                    reverts.push(Revert::Exactly(name.clone(), question.name.clone()));
                }
                reverts.extend(answers.iter().map(Revert::Pattern));
                question.name = name;
                true
            }
            Self::Type(from, to) if question.rtype == *from => {
                question.rtype = *to;
                true
            }
            Self::Class(from, to) if question.class == *from => {
                question.class = *to;
                true
            }
            Self::Type(..) | Self::Class(..) => false,
            Self::Edns(rule) => {
                let context = query.clone();
                let empty =
                    || Edns { payload_max: UDP_MAX_EDNS, version: 0, dnssec_ok: false, options: Vec::new() };
                rule.apply(&context, &mut query.request.edns.get_or_insert_with(empty).options)
            }
            Self::Ttl { matcher, least, most } => {
                let applies = matcher.matches(&question.name);
                reverts.extend(applies.then_some(Revert::Ttl(*least, *most)));
                applies
            }
            Self::Cname { matcher, to } => {
                reverts.push(Revert::Cname(matcher, to));
                true
            }
            Self::Rcode { matcher, from, to } => {
                let applies = matcher.matches(&question.name);
                reverts.extend(applies.then_some(Revert::Rcode(*from, *to)));
                applies
            }
        }
    }
}

impl Revert<'_> {
    async fn apply(&self, query: &mut Query, message: &mut Message) {
        match self {
            Self::Exactly(from, to) => {
                let back = |name: &mut Name| {
                    if name == from {
                        name.clone_from(to);
                    }
                };
                for record in message.records_mut() {
                    back(&mut record.name);
                    map_names(&mut record.data, back);
                }
            }
            Self::Pattern(rule) => {
                let back = |name: &mut Name| {
                    if let Some(new) = substitute(&rule.from, name, &rule.to) {
                        *name = new;
                    }
                };
                for record in message.records_mut() {
                    if rule.values {
                        map_names(&mut record.data, back);
                    } else {
                        back(&mut record.name);
                    }
                }
            }
            Self::Ttl(least, most) => {
                for record in message.records_mut() {
                    record.ttl_secs = record.ttl_secs.clamp(*least, *most);
                }
            }
            Self::Cname(matcher, to) => other_alias(matcher, to, query, message).await,
            Self::Rcode(from, to) => {
                if message.rcode == *from {
                    message.rcode = *to;
                }
            }
        }
    }
}

/// Leads an alias elsewhere: what was behind it is replaced by what is there.
async fn other_alias(matcher: &Matcher, to: &str, query: &mut Query, message: &mut Message) {
    let found = message.answers.iter().enumerate().find_map(|(at, record)| match &record.data {
        RecordData::Cname(target) => Some((at, matcher.rewrite(target, to)?)),
        _ => None,
    });
    let Some((at, target)) = found else { return };
    message.answers.truncate(at + 1);
    message.answers[at].data = RecordData::Cname(target.clone());
    if query.rtype() == RecordType::CNAME {
        return;
    }
    let question = Question { name: target, ..query.request.question.clone() };
    let end = query.lookup(question).await.into_message();
    message.rcode = end.rcode;
    message.answers.extend(end.answers);
}

/// Alters the names in a value.
fn map_names(data: &mut RecordData, map: impl Fn(&mut Name)) {
    match data {
        RecordData::Cname(name) | RecordData::Ns(name) | RecordData::Ptr(name) => map(name),
        RecordData::Srv { target, .. } => map(target),
        RecordData::Soa(soa) => {
            map(&mut soa.primary);
            map(&mut soa.mailbox);
        }
        RecordData::Opaque { rtype: RecordType::MX, value } => {
            let Some(mut name) = value.get(2..).and_then(|name| Name::from_wire(name).ok()) else { return };
            map(&mut name);
            *value = [&value[..2], name.as_wire()].concat().into();
        }
        RecordData::A(_) | RecordData::Aaaa(_) | RecordData::Txt(_) | RecordData::Opaque { .. } => {}
    }
}

impl Plugin for Rewrite {
    fn serve<'a>(&'a self, query: &'a mut Query, next: Next<'a>) -> Serving<'a> {
        let asked = query.request.clone();
        let reverts = self.alter(query);
        let altered = !reverts.is_empty() || query.request != asked;
        if !altered {
            return async move {
                let response = next.serve(query).await;
                // A rule may look at more of a question than its name, type and class.
                let edns = self.rules.iter().any(|rule| matches!(rule.action, Action::Edns(_)));
                Response { stable: response.stable.filter(|_| !edns), ..response }
            }
            .boxed();
        }
        async move {
            let mut response = next.serve(query).await;
            response.stable = None;
            query.request = asked;
            if !reverts.is_empty()
                && let Some(mut message) = response.message_mut().map(std::mem::take)
            {
                for revert in reverts.iter().rev() {
                    revert.apply(query, &mut message).await;
                }
                return Response { rotate: response.rotate, ..message.into() };
            }
            response
        }
        .boxed()
    }
}
