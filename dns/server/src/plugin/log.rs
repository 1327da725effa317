//! `log [NAME…] [FORMAT] [{ class CLASS…; minDuration DURATION }]`: a line for each question and its answer, as CoreDNS writes it.

use std::{fmt::Write, sync::Arc, time::Duration};

use fairlead_zone::{Rcode, RecordType};
use futures::FutureExt;

use super::{Plugins, Setup};
use crate::{
    chain::{Body, Next, Plugin, Query, Response, Serving, Zones},
    corefile::{CorefileError, Directive, parse_zone, unknown},
    metrics::Transport,
};

const COMMON: &str = r#"{remote}:{port} - {>id} "{type} {class} {name} {proto} {size} {>do} {>bufsize}" {rcode} {>rflags} {rsize} {duration}"#;
const COMBINED: &str = r#"{remote}:{port} - {>id} "{type} {class} {name} {proto} {size} {>do} {>bufsize}" {rcode} {>rflags} {rsize} {duration} "{>opcode}""#;
const CLASSES: [(&str, Class); 4] =
    [("all", Class::All), ("success", Class::Success), ("denial", Class::Denial), ("error", Class::Error)];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Class {
    All,
    Success,
    Denial,
    Error,
}

struct Log {
    rules: Vec<Rule>,
}

struct Rule {
    names: Zones,
    format: String,
    classes: Vec<Class>,
    /// What takes longer is written, whatever its class.
    slow: Option<Duration>,
}

pub(super) fn set_up(_: &mut Setup<'_>, directives: &[Directive]) -> Result<Plugins, CorefileError> {
    let rules = directives.iter().map(rule).collect::<Result<_, _>>()?;
    Ok(vec![Arc::new(Log { rules })])
}

fn rule(directive: &Directive) -> Result<Rule, CorefileError> {
    let mut words = directive.words();
    let mut args = words.all();
    let format = match args.last() {
        Some(last) if last.contains('{') => args.pop().unwrap_or(COMMON),
        _ => COMMON,
    };
    let format = format.replace("{common}", COMMON).replace("{combined}", COMBINED);
    let mut names = Vec::new();
    for arg in &args {
        names.extend(parse_zone(arg).map_err(|message| directive.fault(None, message))?);
    }
    if names.is_empty() {
        names.push(fairlead_zone::Name::root());
    }
    let (mut classes, mut slow) = (Vec::new(), None);
    for (option, mut words) in directive.lines() {
        match option {
            "class" if words.peek().is_none() => {
                return Err(words.fault("class needs all, success, denial or error"));
            }
            "class" => {
                while let Some(word) = words.next() {
                    let class = CLASSES.iter().find(|row| row.0 == word);
                    classes.push(class.ok_or_else(|| words.fault(format!("{word:?} is not a class")))?.1);
                }
            }
            "minDuration" => {
                slow = Some(words.duration()?);
                words.end()?;
            }
            _ => return Err(unknown(&words, option)),
        }
    }
    if classes.is_empty() {
        classes.push(Class::All);
    }
    Ok(Rule { names: Zones(names.into()), format, classes, slow })
}

impl Rule {
    fn wants(&self, response: &Response, took: Duration) -> bool {
        let class = classify(response);
        self.slow.is_some_and(|slow| took > slow)
            || self.classes.iter().any(|wanted| *wanted == Class::All || *wanted == class)
    }
}

/// What an answer is: records or a referral, a denial, or a failure.
fn classify(response: &Response) -> Class {
    let (answers, soa) = match &response.body {
        Body::Message(message) => (
            message.answers.len(),
            message.authority.iter().any(|record| record.data.rtype() == RecordType::SOA),
        ),
        Body::Reply { reply, .. } => return reply_class(reply),
        Body::Transfer(_) | Body::Silence => return Class::Success,
    };
    match response.rcode() {
        Rcode::NX_DOMAIN => Class::Denial,
        Rcode::NO_ERROR if answers == 0 && soa => Class::Denial,
        Rcode::NO_ERROR => Class::Success,
        _ => Class::Error,
    }
}

fn reply_class(reply: &crate::relay::Reply) -> Class {
    match reply.meaning {
        crate::relay::Meaning::Success => Class::Success,
        crate::relay::Meaning::Denial => Class::Denial,
        crate::relay::Meaning::Failure => Class::Error,
    }
}

impl Plugin for Log {
    fn serve<'a>(&'a self, query: &'a mut Query, next: Next<'a>) -> Serving<'a> {
        async move {
            let asked = query.request.question.clone();
            let mut response = next.serve(query).await;
            let Some(rule) = self.rules.iter().find(|rule| rule.names.contains(&asked.name)) else {
                return response;
            };
            if rule.wants(&response, query.received.elapsed()) {
                response.stable = None;
                let rewritten = std::mem::replace(&mut query.request.question, asked);
                tracing::info!(target: "log", "{}", line(&rule.format, query, &mut response));
                query.request.question = rewritten;
            }
            response
        }
        .boxed()
    }
}

/// Replaces the placeholders of a format; what is unknown is `-`.
fn line(format: &str, query: &Query, response: &mut Response) -> String {
    let mut text = String::new();
    let mut rest = format;
    while let Some(start) = rest.find('{') {
        text.push_str(&rest[..start]);
        let Some(length) = rest[start..].find('}') else { break };
        value(&rest[start..=start + length], query, response, &mut text);
        rest = &rest[start + length + 1..];
    }
    text.push_str(rest);
    text
}

fn value(placeholder: &str, query: &Query, response: &mut Response, text: &mut String) {
    let request = &query.request;
    let edns = request.edns.as_ref();
    let written = match placeholder {
        "{type}" => write!(text, "{}", request.question.rtype),
        "{class}" => write!(text, "{}", request.question.class),
        "{name}" => write!(text, "{}", request.question.name),
        "{proto}" => write!(text, "{}", protocol(query.client.transport)),
        "{remote}" => match query.client.peer.ip() {
            std::net::IpAddr::V6(address) => write!(text, "[{address}]"),
            address => write!(text, "{address}"),
        },
        "{local}" => write!(text, "{}", query.client.local.ip()),
        "{port}" => write!(text, "{}", query.client.peer.port()),
        "{size}" => write!(text, "{}", query.size),
        "{rcode}" => write!(text, "{}", response.rcode()),
        "{rsize}" => write!(text, "{}", size(query, response)),
        "{duration}" => write!(text, "{:.9}s", query.received.elapsed().as_secs_f64()),
        "{>id}" => write!(text, "{}", request.id),
        "{>opcode}" => write!(text, "0"),
        "{>do}" => write!(text, "{}", request.dnssec_ok()),
        "{>bufsize}" => write!(text, "{}", edns.map_or(512, |edns| edns.payload_max)),
        "{>rflags}" => write!(text, "{}", flags(query, response)),
        _ => write!(text, "-"),
    };
    written.expect("a string takes all text");
}

fn protocol(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp => "udp",
        Transport::Tcp => "tcp",
        Transport::Tls => "tls",
        Transport::Https => "https",
        Transport::Quic => "quic",
    }
}

fn size(query: &Query, response: &mut Response) -> usize {
    match &response.body {
        Body::Reply { reply, .. } => reply.size(),
        Body::Message(message) => {
            let mut out = Vec::new();
            crate::codec::encode(&mut out, &query.request, message, true, query.size_max());
            out.len()
        }
        Body::Transfer(_) | Body::Silence => 0,
    }
}

fn flags(query: &Query, response: &Response) -> String {
    let mut flags = vec!["qr"];
    if let Body::Message(message) = &response.body {
        flags.extend(message.authoritative.then_some("aa"));
        flags.extend(message.truncated.then_some("tc"));
    }
    flags.extend(query.request.recursion_desired.then_some("rd"));
    if matches!(response.body, Body::Reply { .. }) {
        flags.push("ra");
    }
    flags.join(",")
}
