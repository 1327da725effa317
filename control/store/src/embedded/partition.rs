//! The two partitions of the history.
//!
//! Leases are renewed every few seconds and events are told by the thousand, and nobody asks what they were: in an idle
//! cluster nearly every write is one of them. Their changes are kept apart and shortly, so that they push no change of
//! anything else out of the history. Revisions are counted across both.

use redb::TableDefinition;

use super::schema::{LOG, LOG_BRIEF, META_COMPACTED, META_COMPACTED_BRIEF};

/// A part of the history.
#[derive(Clone, Copy)]
pub(super) struct Partition {
    /// Where it is kept.
    pub(super) log: TableDefinition<'static, u64, &'static [u8]>,
    /// The name of the last revision that it has forgotten.
    pub(super) compacted: &'static str,
}

pub(super) const LASTING: Partition = Partition { log: LOG, compacted: META_COMPACTED };
pub(super) const BRIEF: Partition = Partition { log: LOG_BRIEF, compacted: META_COMPACTED_BRIEF };

/// What the keys of the brief partition begin with.
const BRIEF_PREFIXES: &[&str] = &["/registry/events/", "/registry/leases/", "/registry/masterleases/"];

/// Whether the changes of a key are in the brief partition.
pub(super) fn is_brief(key: &str) -> bool {
    BRIEF_PREFIXES.iter().any(|prefix| key.starts_with(prefix))
}

/// The partitions in which there may be changes of keys with a prefix.
pub(super) fn of_prefix(prefix: &str) -> &'static [Partition] {
    if is_brief(prefix) {
        &[BRIEF]
    } else if BRIEF_PREFIXES.iter().any(|brief| brief.starts_with(prefix)) {
        &[LASTING, BRIEF]
    } else {
        &[LASTING]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_looked_for_where_its_keys_may_be() {
        let rows: [(&str, &[&str]); 6] = [
            ("", &["log", "log_brief"]),
            ("/registry/", &["log", "log_brief"]),
            ("/registry/event", &["log", "log_brief"]),
            ("/registry/leases/", &["log_brief"]),
            ("/registry/events/a/b", &["log_brief"]),
            ("/registry/pods/", &["log"]),
        ];
        for (prefix, expected) in rows {
            let found: Vec<String> = of_prefix(prefix).iter().map(|part| part.log.to_string()).collect();
            let named = |name: &&str| found.iter().any(|found| found.contains(&format!("{name}<")));
            assert_eq!(found.len(), expected.len(), "{prefix}: {found:?}");
            assert!(expected.iter().all(named), "{prefix}: {found:?}");
        }
    }
}
