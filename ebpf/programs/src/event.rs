//! Connection records in the ring buffer.

use fairlead_abi::event::FlowEvent;

use crate::maps::{EVENTS, Maps};

/// Writes a record, or counts it as lost when the ring is full.
#[inline(always)]
pub(crate) fn write(event: FlowEvent) {
    match EVENTS.reserve::<FlowEvent>(0) {
        Some(mut entry) => {
            entry.write(event);
            entry.submit(0);
        }
        None => Maps.count_lost_event(),
    }
}
