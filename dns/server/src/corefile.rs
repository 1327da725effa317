//! The Corefile: CoreDNS's configuration, read into server blocks.
//!
//! The grammar is the Caddyfile's: blocks of zones with directives, one a line, some with a block of their own;
//! snippets, imports and environment variables. What a directive means is its plugin's business.

use std::{fmt, sync::Arc, time::Duration};

mod lexer;
mod parser;
mod words;
mod zones;

pub(crate) use parser::{Surroundings, parse};
pub(crate) use words::{Words, unknown};
pub(crate) use zones::{Key, Scheme, parse_key, parse_zone};

/// A word with its place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) file: Arc<str>,
    pub(crate) line: u32,
}

/// A server block as it is written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Block {
    /// Its zones, as they are written.
    pub(crate) keys: Vec<Token>,
    /// In the order of the file.
    pub(crate) directives: Vec<Directive>,
}

/// A directive as it is written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Directive {
    pub(crate) name: Token,
    /// What follows on its line.
    pub(crate) args: Vec<Token>,
    /// The lines of its block.
    pub(crate) body: Vec<Line>,
}

/// A line of a directive's block; never empty.
pub(crate) type Line = Vec<Token>;

/// What is wrong in a Corefile, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CorefileError {
    file: Arc<str>,
    line: u32,
    /// Empty where it is no directive's fault.
    directive: String,
    message: String,
}

impl CorefileError {
    pub(crate) fn new(at: &Token, directive: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { file: Arc::clone(&at.file), line: at.line, directive: directive.into(), message }
    }
}

impl fmt::Display for CorefileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, directive, message } = self;
        let separator = if directive.is_empty() { "" } else { ": " };
        write!(f, "{file}:{line}: {directive}{separator}{message}")
    }
}

impl std::error::Error for CorefileError {}

impl Directive {
    /// An error of this directive, at a word or at its name.
    pub(crate) fn fault(&self, at: Option<&Token>, message: impl Into<String>) -> CorefileError {
        CorefileError::new(at.unwrap_or(&self.name), &self.name.text, message)
    }

    /// Its arguments, to be read one by one.
    pub(crate) fn words(&self) -> Words<'_> {
        Words::new(self, &self.name, &self.args)
    }

    /// The lines of its block, each as its first word and the others.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (&str, Words<'_>)> {
        self.body.iter().filter_map(|line| {
            let (first, rest) = line.split_first()?;
            Some((first.text.as_str(), Words::new(self, first, rest)))
        })
    }

    /// Refuses a block.
    pub(crate) fn no_body(&self) -> Result<(), CorefileError> {
        match self.body.first().and_then(|line| line.first()) {
            Some(first) => Err(self.fault(Some(first), "takes no block")),
            None => Ok(()),
        }
    }
}

/// A duration as Go writes them: `1h30m`, `500ms`, `0`.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, f64); 7] =
        [("ms", 1e-3), ("us", 1e-6), ("µs", 1e-6), ("ns", 1e-9), ("h", 3600.0), ("m", 60.0), ("s", 1.0)];
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let value: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let (unit, scale) = UNITS.iter().find(|(unit, _)| rest.starts_with(unit))?;
        seconds += value * scale;
        rest = &rest[unit.len()..];
    }
    (!text.is_empty()).then(|| Duration::try_from_secs_f64(seconds).ok())?
}

#[cfg(test)]
mod tests;
