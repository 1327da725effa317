//! Words and `--name value` pairs of the command line.

use std::{collections::VecDeque, env, str::FromStr};

/// The command line without the program's name.
pub(crate) struct Args(VecDeque<String>);

impl Args {
    /// As the process was started.
    pub(crate) fn from_env() -> Self {
        Self(env::args().skip(1).collect())
    }

    /// Takes the next word.
    pub(crate) fn word(&mut self) -> Option<String> {
        self.0.pop_front()
    }

    /// Looks at the next word.
    pub(crate) fn peek(&self) -> Option<&str> {
        self.0.front().map(String::as_str)
    }

    /// All words that are left and belong to no option.
    pub(crate) fn words(&self) -> Vec<String> {
        let is_value = |n: usize| n > 0 && self.0[n - 1].starts_with("--");
        let words = self.0.iter().enumerate();
        words
            .filter(|(n, word)| !word.starts_with("--") && !is_value(*n))
            .map(|(_, word)| word.clone())
            .collect()
    }

    /// The first such word, which must be there.
    pub(crate) fn target(&self, what: &str) -> Result<String, String> {
        self.words().into_iter().next().ok_or_else(|| format!("{what} is missing"))
    }

    /// The value of `--name`, or `default`.
    pub(crate) fn option<T: FromStr>(&self, name: &str, default: T) -> Result<T, String> {
        let Some(position) = self.0.iter().position(|word| word == name) else { return Ok(default) };
        let value = self.0.get(position + 1).ok_or_else(|| format!("{name} needs a value"))?;
        value.parse().map_err(|_| format!("{name}: {value:?} is no number"))
    }
}
