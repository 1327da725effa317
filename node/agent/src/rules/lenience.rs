//! For a while after the programs, packets that conntrack cannot place are let through.
//!
//! Pods' packets went past the host's stack. When they no longer do, conntrack meets connections of which it has seen a half,
//! or the answer to a request that it has not seen. With the rule that drops what it cannot place, a connection that is
//! being made would wait for its request to be repeated, and one whose half is remembered would stand still.

/// For how long conntrack remembers a request that it has seen no answer to (`SYN_SENT` in
/// `net/netfilter/nf_conntrack_proto_tcp.c`: two minutes), and a little.
const FORGETS_MS: u64 = 125_000;

/// Whether the rule is left away.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Lenience {
    /// It is there.
    #[default]
    Over,
    /// The programs still carry packets.
    Begun,
    /// They have handed over; the rule comes at this time.
    Until(u64),
}

impl Lenience {
    /// The programs have handed over.
    pub(crate) fn hand_over(&mut self, now_ms: u64) {
        if *self == Self::Begun {
            *self = Self::Until(now_ms.saturating_add(FORGETS_MS));
        }
    }

    /// Whether packets are let through now.
    pub(crate) fn holds(&mut self, now_ms: u64) -> bool {
        if self.due_ms().is_some_and(|due| due <= now_ms) {
            *self = Self::Over;
        }
        *self != Self::Over
    }

    /// When it is to be looked at again.
    pub(crate) fn due_ms(self) -> Option<u64> {
        match self {
            Self::Until(due) => Some(due),
            Self::Over | Self::Begun => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_until_conntrack_has_forgotten_what_it_saw_half_of() {
        let mut lenience = Lenience::Begun;
        assert!(lenience.holds(u64::MAX), "as long as the programs are not through");
        lenience.hand_over(1_000);
        let due = lenience.due_ms().expect("it ends");
        assert!(due >= 121_000);
        lenience.hand_over(due - 1);
        assert_eq!(lenience.due_ms(), Some(due), "it is not put off");
        assert!(lenience.holds(due - 1));
        assert!(!lenience.holds(due));
        assert_eq!(lenience.due_ms(), None);
    }

    #[test]
    fn a_mode_that_follows_another_kind_is_not_lenient() {
        let mut lenience = Lenience::default();
        lenience.hand_over(1_000);
        assert!(!lenience.holds(1_000));
        assert_eq!(lenience.due_ms(), None);
    }
}
