//! `errors [{ stacktrace; consolidate DURATION REGEXP [LEVEL] [show_first] }]`: says what went wrong with a question.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::FutureExt;
use regex::Regex;

use super::{Plugins, Setup, once};
use crate::{
    chain::{Next, Plugin, Query, Serving},
    corefile::{CorefileError, Directive, Words, unknown},
};

const LEVELS: [(&str, Level); 4] =
    [("warning", Level::Warning), ("error", Level::Error), ("info", Level::Info), ("debug", Level::Debug)];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Level {
    Warning,
    Error,
    Info,
    Debug,
}

struct Errors {
    patterns: Vec<Arc<Pattern>>,
}

/// Errors that are counted and said together.
struct Pattern {
    every: Duration,
    regex: Regex,
    level: Level,
    show_first: bool,
    since: Mutex<Option<(Instant, u64)>>,
}

pub(super) fn set_up(setup: &mut Setup<'_>, directives: &[Directive]) -> Result<Plugins, CorefileError> {
    let directive = once(directives)?;
    let mut words = directive.words();
    if words.peek() == Some("stdout") {
        words.next();
    }
    words.end()?;
    let mut patterns = Vec::new();
    for (option, words) in directive.lines() {
        match option {
            "stacktrace" => words.end()?,
            "consolidate" => patterns.push(Arc::new(consolidate(words)?)),
            _ => return Err(unknown(&words, option)),
        }
    }
    for pattern in patterns.iter().cloned() {
        setup.spawn(report(pattern).boxed());
    }
    Ok(vec![Arc::new(Errors { patterns })])
}

fn consolidate(mut words: Words<'_>) -> Result<Pattern, CorefileError> {
    let every = words.duration()?;
    if every.is_zero() {
        return Err(words.fault("the duration must be longer than 0"));
    }
    let text = words.need("a regular expression")?;
    let regex = Regex::new(text).map_err(|_| words.fault(format!("{text:?} is not a regular expression")))?;
    let mut pattern =
        Pattern { every, regex, level: Level::Error, show_first: false, since: Mutex::new(None) };
    while let Some(word) = words.next() {
        match LEVELS.iter().find(|row| row.0 == word) {
            Some((_, level)) => pattern.level = *level,
            None if word == "show_first" => pattern.show_first = true,
            None => return Err(words.fault(format!("{word:?} is neither a level nor show_first"))),
        }
    }
    Ok(pattern)
}

async fn report(pattern: Arc<Pattern>) {
    loop {
        tokio::time::sleep(pattern.every).await;
        let counted = pattern.since.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((start, count)) = counted {
            let text = format!(
                "{count} errors like {:?} occurred in last {:?}",
                pattern.regex.as_str(),
                start.elapsed().max(pattern.every)
            );
            pattern.level.say(&text);
        }
    }
}

impl Level {
    fn say(self, text: &str) {
        match self {
            Self::Warning => tracing::warn!(target: "errors", "{text}"),
            Self::Error => tracing::error!(target: "errors", "{text}"),
            Self::Info => tracing::info!(target: "errors", "{text}"),
            Self::Debug => tracing::debug!(target: "errors", "{text}"),
        }
    }
}

impl Errors {
    fn say(&self, query: &Query, error: &str) {
        let Some(pattern) = self.patterns.iter().find(|pattern| pattern.regex.is_match(error)) else {
            tracing::error!(target: "errors", "{} {}: {error}", query.name(), query.rtype());
            return;
        };
        let mut since = pattern.since.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, count) = since.get_or_insert((Instant::now(), 0));
        *count += 1;
        if *count == 1 && pattern.show_first {
            pattern.level.say(&format!("{} {}: {error}", query.name(), query.rtype()));
        }
    }
}

impl Plugin for Errors {
    fn serve<'a>(&'a self, query: &'a mut Query, next: Next<'a>) -> Serving<'a> {
        async move {
            let response = next.serve(query).await;
            if let Some(error) = query.error.take() {
                self.say(query, &error);
            }
            response
        }
        .boxed()
    }
}
