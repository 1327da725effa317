//! When connections began whose sockets keep nothing.

use std::collections::HashMap;

use fairlead_abi::event::{FLOW_END, FLOW_START, FlowEvent};

/// How many open connections are remembered; 24 bytes each.
const OPEN_MAX: usize = 1 << 18;

/// The starts of open connections by socket cookie, for the records of their ends. A connection that began before this was
/// made, or while too many were open, ends without one.
#[derive(Debug, Default)]
pub struct Starts {
    open: HashMap<u64, u64>,
}

impl Starts {
    /// Remembers the start that a record tells of, or adds it to the record of the end.
    pub fn join(&mut self, event: &mut FlowEvent) {
        match event.kind {
            // A socket that keeps its service keeps its start as well.
            FLOW_START if event.service_id == 0 && self.open.len() < OPEN_MAX => {
                self.open.insert(event.cookie, event.start_ns);
            }
            FLOW_END => {
                let start = self.open.remove(&event.cookie);
                if event.start_ns == 0 {
                    event.start_ns = start.unwrap_or_default();
                }
                // A burst of connections is no reason to hold on to its memory.
                if self.open.capacity() > 4 * self.open.len().max(1_024) {
                    self.open.shrink_to(2 * self.open.len());
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: u8, cookie: u64, start_ns: u64, service_id: u32) -> FlowEvent {
        FlowEvent { kind, cookie, start_ns, service_id, ..FlowEvent::default() }
    }

    fn end(starts: &mut Starts, cookie: u64, start_ns: u64) -> u64 {
        let mut end = event(FLOW_END, cookie, start_ns, 0);
        starts.join(&mut end);
        end.start_ns
    }

    #[test]
    fn an_end_gets_the_start_of_its_socket_and_of_no_other() {
        let mut starts = Starts::default();
        starts.join(&mut event(FLOW_START, 1, 100, 0));
        starts.join(&mut event(FLOW_START, 2, 200, 0));
        starts.join(&mut event(FLOW_START, 3, 300, 7));
        assert_eq!(end(&mut starts, 2, 0), 200);
        assert_eq!(end(&mut starts, 2, 0), 0, "it was the end");
        assert_eq!(end(&mut starts, 3, 300), 300, "the socket of a service tells it itself");
        assert_eq!(end(&mut starts, 4, 0), 0, "it began before");
        assert_eq!(end(&mut starts, 1, 0), 100);
    }

    #[test]
    fn no_more_are_remembered_than_there_is_room_for_and_memory_is_given_back() {
        let mut starts = Starts::default();
        let all = OPEN_MAX as u64 + 10;
        (1..=all).for_each(|cookie| starts.join(&mut event(FLOW_START, cookie, cookie, 0)));
        assert_eq!(starts.open.len(), OPEN_MAX);
        let known = (1..=all).filter(|cookie| end(&mut starts, *cookie, 0) == *cookie).count();
        assert_eq!(known, OPEN_MAX);
        assert!(starts.open.capacity() <= 8 * 1_024, "{}", starts.open.capacity());
    }
}
