//! `template CLASS TYPE [ZONE…] { match REGEX…; answer|additional|authority RECORD; rcode CODE; ederror CODE [TEXT];
//! fallthrough [ZONE…] }`: answers made of what was asked. Whoever asks for an address and is answered with an alias gets
//! what is at its end, too.
//!
//! Of Go's templates there are fields: `{{ .Name }}`, `{{ .Zone }}`, `{{ .Type }}`, `{{ .Class }}`, `{{ .Remote }}`,
//! `{{ .Message.Id }}`, `{{ .Question.Name }}`, `{{ .Group.NAME }}` and `{{ index .Match N }}`; dashes at the braces
//! take the space away there. Anything else is an error at the start.

use std::sync::Arc;

use fairlead_zone::{Class, Name, Question, Rcode, Record, RecordData, RecordType};
use futures::FutureExt;
use regex::{Captures, Regex};

use super::{Plugins, Setup};
use crate::{
    chain::{Message, Next, Plugin, Query, Response, Serving, Zones, ready},
    codec::extended_error,
    corefile::{CorefileError, Directive, Words, unknown},
    metrics::{Counter, Family},
    records::parse_zone_text,
};

const MATCHES: Family =
    Family { name: "coredns_template_matches_total", help: "Counter of template regex matches." };
const FAILURES: Family =
    Family { name: "coredns_template_failures_total", help: "Counter of template failures." };

struct Templates {
    templates: Vec<Template>,
    failures: Arc<Counter>,
}

struct Template {
    class: Class,
    rtype: RecordType,
    zones: Zones,
    regexes: Vec<Regex>,
    answer: Vec<Text>,
    additional: Vec<Text>,
    authority: Vec<Text>,
    rcode: Rcode,
    error: Vec<u8>,
    fallthrough: Zones,
    matches: Arc<Counter>,
}

/// A text with places to fill.
#[derive(Debug, PartialEq, Eq)]
struct Text(Vec<Piece>);

#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Name,
    Zone,
    Type,
    Class,
    Remote,
    Id,
    Group(String),
    Match(usize),
}

pub(super) fn set_up(setup: &mut Setup<'_>, directives: &[Directive]) -> Result<Plugins, CorefileError> {
    let templates =
        directives.iter().map(|directive| template(setup, directive)).collect::<Result<_, _>>()?;
    let failures = setup.world.registry.counter(&FAILURES, &[("server", setup.server)]);
    Ok(vec![Arc::new(Templates { templates, failures })])
}

fn template(setup: &Setup<'_>, directive: &Directive) -> Result<Template, CorefileError> {
    let mut words = directive.words();
    let word = words.need("a class and a type")?;
    let class = Class::parse(word).ok_or_else(|| words.fault(format!("{word:?} is not a class")))?;
    let word = words.need("a type")?;
    let rtype =
        RecordType::parse(word).ok_or_else(|| words.fault(format!("{word:?} is not a record type")))?;
    let mut zones = words.zones()?;
    if zones.is_empty() {
        zones = setup.zones.to_vec();
    }
    let zone = zones.first().map(ToString::to_string).unwrap_or_default();
    let labels = [
        ("class", &*class.to_string()),
        ("server", setup.server),
        ("type", &*rtype.to_string()),
        ("view", ""),
        ("zone", &*zone),
    ];
    let mut template = Template {
        class,
        rtype,
        zones: Zones(zones.into()),
        regexes: Vec::new(),
        answer: Vec::new(),
        additional: Vec::new(),
        authority: Vec::new(),
        rcode: Rcode::NO_ERROR,
        error: Vec::new(),
        fallthrough: Zones::default(),
        matches: setup.world.registry.counter(&MATCHES, &labels),
    };
    for (option, words) in directive.lines() {
        template.option(option, words)?;
    }
    if template.regexes.is_empty() {
        template.regexes.push(Regex::new(".*").map_err(|e| directive.fault(None, e.to_string()))?);
    }
    Ok(template)
}

impl Template {
    fn option(&mut self, option: &str, mut words: Words<'_>) -> Result<(), CorefileError> {
        match option {
            "match" => {
                if words.peek().is_none() {
                    return Err(words.fault("match needs a regular expression"));
                }
                while let Some(word) = words.next() {
                    let regex = Regex::new(word);
                    self.regexes.push(
                        regex.map_err(|_| words.fault(format!("{word:?} is not a regular expression")))?,
                    );
                }
            }
            "answer" | "additional" | "authority" => {
                let texts = match option {
                    "answer" => &mut self.answer,
                    "additional" => &mut self.additional,
                    _ => &mut self.authority,
                };
                let text = words.all().join(" ");
                texts.push(Text::parse(&text).map_err(|message| words.fault(message))?);
            }
            "rcode" => {
                let word = words.need("a response code like NXDOMAIN")?;
                self.rcode = Rcode::parse(word)
                    .ok_or_else(|| words.fault(format!("{word:?} is not a response code")))?;
            }
            "ederror" => {
                let code = words.value("a number of an extended error")?;
                self.error = extended_error(code, &words.all().join(" "));
            }
            "upstream" => {
                words.all();
            }
            "fallthrough" => self.fallthrough = words.zones_or_all()?,
            _ => return Err(unknown(&words, option)),
        }
        Ok(())
    }

    /// Whether the template is for such questions at all.
    fn is_for(&self, query: &Query) -> bool {
        let question = &query.request.question;
        let class = [self.class, question.class].contains(&Class::ANY) || self.class == question.class;
        let rtype = [self.rtype, question.rtype].contains(&RecordType::ANY) || self.rtype == question.rtype;
        class && rtype && self.zones.contains(&question.name)
    }

    fn answer(&self, query: &Query, captures: &Captures<'_>, regex: &Regex) -> Result<Message, String> {
        let fill = |texts: &[Text]| -> Result<Vec<Record>, String> {
            let lines: Vec<String> =
                texts.iter().map(|text| text.fill(query, &self.zones, captures, regex)).collect();
            if lines.is_empty() {
                Ok(Vec::new())
            } else {
                parse_zone_text(&lines.join("\n"), &fairlead_zone::Name::root())
            }
        };
        Ok(Message {
            rcode: self.rcode,
            authority: fill(&self.authority)?,
            additional: fill(&self.additional)?,
            options: self.error.clone(),
            ..Message::found(fill(&self.answer)?)
        })
    }
}

/// The end of the first alias of an answer to a question for addresses.
fn alias_end(query: &Query, message: &Message) -> Option<Name> {
    if !matches!(query.rtype(), RecordType::A | RecordType::AAAA) {
        return None;
    }
    message.answers.iter().find_map(|record| match &record.data {
        RecordData::Cname(target) => Some(target.clone()),
        _ => None,
    })
}

/// Appends what can be found at the end of an alias.
async fn follow(query: &mut Query, mut message: Message, target: Name) -> Response {
    let question = Question { name: target, rtype: query.rtype(), class: Class::IN };
    let end = query.lookup(question).await.into_message();
    if end.rcode == Rcode::NO_ERROR {
        message.truncated = end.truncated;
        message.answers.extend(end.answers);
    }
    message.into()
}

impl Plugin for Templates {
    fn serve<'a>(&'a self, query: &'a mut Query, next: Next<'a>) -> Serving<'a> {
        let name = query.name().to_string().to_ascii_lowercase();
        for template in self.templates.iter().filter(|template| template.is_for(query)) {
            let found = template.regexes.iter().find_map(|regex| Some((regex, regex.captures(&name)?)));
            let Some((regex, captures)) = found else {
                if template.fallthrough.contains(query.name()) {
                    continue;
                }
                query.answered_by = "template";
                return ready(Response::status(Rcode::SERV_FAIL));
            };
            template.matches.add();
            let message = template.answer(query, &captures, regex);
            query.answered_by = "template";
            return match message {
                Ok(message) => match alias_end(query, &message) {
                    Some(target) => follow(query, message, target).boxed(),
                    None => ready(message),
                },
                Err(message) => {
                    self.failures.add();
                    query.error = Some(format!("template: {message}"));
                    ready(Response::status(Rcode::SERV_FAIL))
                }
            };
        }
        next.serve(query)
    }
}

impl Text {
    fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text.to_owned();
        while let Some(start) = rest.find("{{") {
            let length = rest[start..].find("}}").ok_or_else(|| format!("{text:?}: {{{{ is not closed"))?;
            let (mut before, mut inner) = (&rest[..start], &rest[start + 2..start + length]);
            let mut after = &rest[start + length + 2..];
            if let Some(trimmed) = inner.strip_prefix("- ") {
                (before, inner) = (before.trim_end(), trimmed);
            }
            if let Some(trimmed) = inner.strip_suffix(" -") {
                (after, inner) = (after.trim_start(), trimmed);
            }
            pieces.push(Piece::Text(before.to_owned()));
            pieces.push(Piece::parse(inner.trim())?);
            rest = after.to_owned();
        }
        pieces.push(Piece::Text(rest));
        Ok(Self(pieces))
    }

    fn fill(&self, query: &Query, zones: &Zones, captures: &Captures<'_>, regex: &Regex) -> String {
        let question = &query.request.question;
        let value = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Name => question.name.to_string().to_ascii_lowercase(),
            Piece::Zone => zones.find(&question.name).map(ToString::to_string).unwrap_or_default(),
            Piece::Type => question.rtype.to_string(),
            Piece::Class => question.class.to_string(),
            Piece::Remote => query.client.peer.ip().to_string(),
            Piece::Id => query.request.id.to_string(),
            Piece::Match(index) => captures.get(*index).map_or("", |group| group.as_str()).to_owned(),
            Piece::Group(name) => {
                let index = regex.capture_names().position(|known| known == Some(name)).or(name.parse().ok());
                let group = index.and_then(|index| captures.get(index));
                group.map_or("", |group| group.as_str()).to_owned()
            }
        };
        self.0.iter().map(value).collect()
    }
}

impl Piece {
    fn parse(expression: &str) -> Result<Self, String> {
        let words: Vec<&str> = expression.split_whitespace().collect();
        Ok(match words.as_slice() {
            [".Name" | ".Question.Name"] => Self::Name,
            [".Zone"] => Self::Zone,
            [".Type"] => Self::Type,
            [".Class"] => Self::Class,
            [".Remote"] => Self::Remote,
            [".Message.Id"] => Self::Id,
            ["index", ".Match", index] => {
                let index = index.parse();
                Self::Match(index.map_err(|_| format!("{expression:?}: the index is no number"))?)
            }
            ["index", ".Group", name] => Self::Group(name.trim_matches('"').to_owned()),
            [field] if field.starts_with(".Group.") => Self::Group(field[".Group.".len()..].to_owned()),
            _ => {
                return Err(format!(
                    "{{{{ {expression} }}}} is not supported; there are .Name .Zone .Type .Class .Remote .Message.Id .Group.NAME and index .Match N"
                ));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_known_and_everything_else_is_refused() {
        let text = Text::parse("{{ .Name }} 60 IN A {{- .Group.a -}} .{{index .Match 2}}").unwrap();
        let expected = [
            Piece::Text(String::new()),
            Piece::Name,
            Piece::Text(" 60 IN A".into()),
            Piece::Group("a".into()),
            Piece::Text(".".into()),
            Piece::Match(2),
            Piece::Text(String::new()),
        ];
        assert_eq!(text, Text(expected.into()));
        for text in ["{{ .Name", "{{ if .Name }}x{{ end }}", "{{ .Meta \"x\" }}", "{{ index .Match x }}"] {
            assert!(Text::parse(text).is_err(), "{text}");
        }
    }
}
