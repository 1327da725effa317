//! Reading the words of one line.

use std::{fmt::Display, ops::RangeInclusive, str::FromStr, time::Duration};

use fairlead_zone::Name;

use super::{CorefileError, Directive, Token, parse_duration, parse_zone};
use crate::chain::Zones;

/// The words of a line that are not read yet.
#[derive(Clone)]
pub(crate) struct Words<'a> {
    directive: &'a Directive,
    /// The word before the next one.
    last: &'a Token,
    rest: &'a [Token],
}

impl<'a> Words<'a> {
    pub(super) fn new(directive: &'a Directive, last: &'a Token, rest: &'a [Token]) -> Self {
        Self { directive, last, rest }
    }

    /// An error at the last word that was read.
    pub(crate) fn fault(&self, message: impl Into<String>) -> CorefileError {
        self.directive.fault(Some(self.last), message)
    }

    /// The next word, if there is one.
    pub(crate) fn next(&mut self) -> Option<&'a str> {
        let (first, rest) = self.rest.split_first()?;
        (self.last, self.rest) = (first, rest);
        Some(&first.text)
    }

    /// The next word without reading it.
    pub(crate) fn peek(&self) -> Option<&'a str> {
        self.rest.first().map(|token| token.text.as_str())
    }

    /// The next word, which must be there.
    pub(crate) fn need(&mut self, what: &str) -> Result<&'a str, CorefileError> {
        let before = self.last.text.clone();
        self.next().ok_or_else(|| self.fault(format!("{before} needs {what}")))
    }

    /// All other words.
    pub(crate) fn all(&mut self) -> Vec<&'a str> {
        std::iter::from_fn(|| self.next()).collect()
    }

    /// Nothing may follow.
    pub(crate) fn end(mut self) -> Result<(), CorefileError> {
        match self.next() {
            Some(word) => Err(self.fault(format!("unexpected {word:?}"))),
            None => Ok(()),
        }
    }

    /// The next word as a value of a kind.
    pub(crate) fn value<T: FromStr>(&mut self, what: &str) -> Result<T, CorefileError> {
        let word = self.need(what)?;
        word.parse().map_err(|_| self.fault(format!("{word:?} is not {what}")))
    }

    /// The next word as a number within bounds.
    pub(crate) fn number<T>(&mut self, what: &str, bounds: RangeInclusive<T>) -> Result<T, CorefileError>
    where
        T: FromStr + PartialOrd + Display,
    {
        let value: T = self.value(what)?;
        if bounds.contains(&value) {
            return Ok(value);
        }
        Err(self.fault(format!("{value} is not {what} between {} and {}", bounds.start(), bounds.end())))
    }

    /// The next word as a duration.
    pub(crate) fn duration(&mut self) -> Result<Duration, CorefileError> {
        let word = self.need("a duration like 5s")?;
        parse_duration(word).ok_or_else(|| self.fault(format!("{word:?} is not a duration like 5s or 1m30s")))
    }

    /// The other words as zones; networks become their reverse zones.
    pub(crate) fn zones(&mut self) -> Result<Vec<Name>, CorefileError> {
        let mut zones = Vec::new();
        while let Some(word) = self.next() {
            zones.extend(parse_zone(word).map_err(|message| self.fault(message))?);
        }
        Ok(zones)
    }

    /// The other words as zones, or all names when there is none.
    pub(crate) fn zones_or_all(&mut self) -> Result<Zones, CorefileError> {
        let mut zones = self.zones()?;
        if zones.is_empty() {
            zones.push(Name::root());
        }
        Ok(Zones(zones.into()))
    }
}

/// An error for a line that a directive does not know.
pub(crate) fn unknown(words: &Words<'_>, option: &str) -> CorefileError {
    words.fault(format!("unknown property {option:?}"))
}
