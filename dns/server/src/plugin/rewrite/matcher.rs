//! Which names a rule is for, and what becomes of them. Names are compared as text in lower case with the final dot.

use fairlead_zone::Name;
use regex::Regex;

/// A way to compare.
#[derive(Clone, Debug)]
pub(super) enum Matcher {
    Exact(String),
    Prefix(String),
    Suffix(String),
    Substring(String),
    Regex(Regex),
}

impl Matcher {
    /// Whether a name fits.
    pub(super) fn matches(&self, name: &Name) -> bool {
        let text = lower(name);
        match self {
            Self::Exact(from) => text == *from,
            Self::Prefix(from) => text.starts_with(from),
            Self::Suffix(from) => text.ends_with(from),
            Self::Substring(from) => text.contains(from),
            Self::Regex(regex) => regex.is_match(&text),
        }
    }

    /// What a name becomes; nothing when it does not fit, or when what it becomes is no name.
    pub(super) fn rewrite(&self, name: &Name, to: &str) -> Option<Name> {
        let text = lower(name);
        let new = match self {
            Self::Exact(from) => (text == *from).then(|| to.to_owned())?,
            Self::Prefix(from) => format!("{to}{}", text.strip_prefix(from.as_str())?),
            Self::Suffix(from) => format!("{}{to}", text.strip_suffix(from.as_str())?),
            Self::Substring(from) if text.contains(from) => text.replace(from, to),
            Self::Substring(_) => return None,
            Self::Regex(regex) => return substitute(regex, name, to),
        };
        Name::parse(&new).ok()
    }
}

/// The template with `{0}`, `{1}` … replaced by what the expression found.
pub(super) fn substitute(regex: &Regex, name: &Name, template: &str) -> Option<Name> {
    let text = lower(name);
    let captures = regex.captures(&text)?;
    let mut new = template.to_owned();
    for (index, group) in captures.iter().enumerate() {
        new = new.replace(&format!("{{{index}}}"), group.map_or("", |group| group.as_str()));
    }
    Name::parse(&new).ok()
}

fn lower(name: &Name) -> String {
    name.to_string().to_ascii_lowercase()
}
