//! Reading `rewrite`.

use fairlead_zone::{Class, Rcode, RecordType};
use regex::Regex;

use super::{Action, AnswerRule, EdnsRule, Matcher, Rule};
use crate::corefile::{CorefileError, Directive, Line, Token, Words};

const KINDS: [&str; 5] = ["exact", "prefix", "suffix", "substring", "regex"];

/// A rule, on one line or in a block. A block's lines are read as one.
pub(super) fn rule(directive: &Directive) -> Result<Rule, CorefileError> {
    let mut args = directive.args.clone();
    let mut go_on = false;
    if let Some(mode) = args.first().filter(|word| matches!(word.text.as_str(), "continue" | "stop")) {
        go_on = mode.text == "continue";
        args.remove(0);
    }
    let lines: Vec<&Line> = directive.body.iter().collect();
    let words: Vec<Token> = args.into_iter().chain(lines.into_iter().flatten().cloned()).collect();
    let flat = Directive { name: directive.name.clone(), args: words, body: Vec::new() };
    let mut words = flat.words();
    let action = match words.need("a field: name, type, class, edns0, ttl, cname or rcode")? {
        "name" => name(&mut words)?,
        "type" => {
            let mut rtype = || {
                let word = words.need("two record types")?;
                RecordType::parse(word).ok_or_else(|| words.fault(format!("{word:?} is not a record type")))
            };
            Action::Type(rtype()?, rtype()?)
        }
        "class" => {
            let mut class = || {
                let word = words.need("two classes")?;
                Class::parse(word).ok_or_else(|| words.fault(format!("{word:?} is not a class")))
            };
            Action::Class(class()?, class()?)
        }
        "edns0" => Action::Edns(EdnsRule::read(&mut words)?),
        "ttl" => ttl(&mut words)?,
        "cname" => {
            let (kind, from) = kind_and_from(&mut words)?;
            let to = replacement(kind, words.need("a name to lead to")?);
            Action::Cname { matcher: matcher(kind, from, &words)?, to }
        }
        "rcode" => rcode(&mut words)?,
        other => {
            return Err(words.fault(format!(
                "{other:?} is not a field; known are name, type, class, edns0, ttl, cname, rcode"
            )));
        }
    };
    words.end()?;
    Ok(Rule { go_on, action })
}

/// The way to compare, which is `exact` when it is left out, and what to compare with.
fn kind_and_from<'a>(words: &mut Words<'a>) -> Result<(&'a str, &'a str), CorefileError> {
    let first = words.need("a name")?;
    if KINDS.contains(&first) && words.peek().is_some() {
        return Ok((first, words.need("a name")?));
    }
    Ok(("exact", first))
}

fn matcher(kind: &str, from: &str, words: &Words<'_>) -> Result<Matcher, CorefileError> {
    let lower = from.to_ascii_lowercase();
    Ok(match kind {
        "prefix" => Matcher::Prefix(lower),
        "substring" => Matcher::Substring(lower),
        "suffix" => Matcher::Suffix(dotted(&lower)),
        "regex" => {
            let regex = Regex::new(from);
            Matcher::Regex(regex.map_err(|_| words.fault(format!("{from:?} is not a regular expression")))?)
        }
        _ => Matcher::Exact(dotted(&lower)),
    })
}

fn replacement(kind: &str, to: &str) -> String {
    if matches!(kind, "exact" | "suffix") { dotted(to) } else { to.to_owned() }
}

fn dotted(text: &str) -> String {
    if text.ends_with('.') { text.to_owned() } else { format!("{text}.") }
}

fn name(words: &mut Words<'_>) -> Result<Action, CorefileError> {
    let (kind, from) = kind_and_from(words)?;
    let to = replacement(kind, words.need("a name to ask instead")?);
    let matcher = matcher(kind, from, words)?;
    let (mut answers, mut auto) = (Vec::new(), kind == "exact");
    while let Some(word) = words.next() {
        if word != "answer" {
            return Err(words.fault(format!("expected answer before {word:?}")));
        }
        match words.need("auto, name or value")? {
            "auto" if kind == "regex" => {
                return Err(
                    words.fault("a regular expression cannot be turned back automatically; use answer name")
                );
            }
            "auto" => auto = true,
            which @ ("name" | "value") => {
                let from = words.need("a regular expression")?;
                let regex = Regex::new(from)
                    .map_err(|_| words.fault(format!("{from:?} is not a regular expression")))?;
                let to = words.need("a name")?.to_owned();
                answers.push(AnswerRule { from: regex, to, values: which == "value" });
            }
            // Without a word: the names of owners.
            from => {
                let regex = Regex::new(from)
                    .map_err(|_| words.fault(format!("{from:?} is not a regular expression")))?;
                let to = words.need("a name")?.to_owned();
                answers.push(AnswerRule { from: regex, to, values: false });
            }
        }
    }
    // What is turned back by a pattern is not turned back by itself.
    auto &= answers.is_empty() || kind != "exact";
    Ok(Action::Name { matcher, to, answers, auto })
}

fn ttl(words: &mut Words<'_>) -> Result<Action, CorefileError> {
    let (kind, from) = kind_and_from(words)?;
    let matcher = matcher(kind, from, words)?;
    let range = words.need("a TTL or a range like 30-300")?;
    let (least, most) = range.split_once('-').unwrap_or((range, range));
    // An open end is no limit.
    let least = if least.is_empty() { Some(0) } else { least.parse().ok() };
    let most = if most.is_empty() { Some(u32::MAX >> 1) } else { most.parse().ok() };
    match (least, most) {
        (Some(least), Some(most)) if least <= most => Ok(Action::Ttl { matcher, least, most }),
        _ => Err(words.fault(format!("{range:?} is neither a TTL nor a range like 30-300"))),
    }
}

fn rcode(words: &mut Words<'_>) -> Result<Action, CorefileError> {
    let (kind, from) = kind_and_from(words)?;
    let matcher = matcher(kind, from, words)?;
    let mut code = || {
        let word = words.need("two response codes")?;
        let number = word.parse().ok().map(Rcode);
        Rcode::parse(word).or(number).ok_or_else(|| words.fault(format!("{word:?} is not a response code")))
    };
    let (from, to) = (code()?, code()?);
    Ok(Action::Rcode { matcher, from, to })
}
