//! Connection records in the ring buffer.

use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use fairlead_abi::{event::FlowEvent, names};

use crate::maps::{EVENTS, Maps};

/// The reader looks at the ring by itself ten times a second; to wake it for each record would cost a connection more than all
/// else that is done for it. It is woken when this much is waiting.
const WAKE_AT: u64 = names::EVENTS.capacity as u64 / 4;

/// Writes a record, or counts it as lost when the ring is full. It is made where it stays.
#[inline(always)]
pub(crate) fn write(make: impl FnOnce() -> FlowEvent) {
    let waiting = EVENTS.query(BPF_RB_AVAIL_DATA as u64);
    let wake = if waiting > WAKE_AT { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP };
    match EVENTS.reserve::<FlowEvent>(0) {
        Some(mut entry) => {
            entry.write(make());
            entry.submit(wake as u64);
        }
        None => Maps.count_lost_event(),
    }
}
