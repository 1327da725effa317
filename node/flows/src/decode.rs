//! Bytes of the ring buffer to records.

use fairlead_abi::event::FlowEvent;
use zerocopy::FromBytes;

/// The bytes are not a record.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a record of {found} bytes where {} were expected; programs and agent are of different builds", size_of::<FlowEvent>())]
pub struct DecodeError {
    found: usize,
}

/// Reads one record. The bytes may be unaligned; the kernel may pad them at the end.
///
/// # Errors
/// There are too few.
pub fn decode(bytes: &[u8]) -> Result<FlowEvent, DecodeError> {
    FlowEvent::read_from_prefix(bytes).map(|(event, _)| event).map_err(|_| DecodeError { found: bytes.len() })
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes;

    use super::*;

    #[test]
    fn a_record_is_read_from_unaligned_and_padded_bytes_and_a_short_one_is_refused() {
        let event = FlowEvent { time_ns: 7, srtt_us: 3, ..FlowEvent::default() };
        let mut bytes = vec![0xff];
        bytes.extend(event.as_bytes());
        bytes.extend([0; 4]);
        assert_eq!(decode(&bytes[1..]), Ok(event));
        assert_eq!(decode(&bytes[..10]), Err(DecodeError { found: 10 }));
    }
}
