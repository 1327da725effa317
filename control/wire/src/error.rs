//! What can be wrong with a message.

/// A message that cannot be turned into a value of the model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// An address is neither 4 nor 16 bytes long.
    #[error("the feed sent an address of {length} bytes in {field}; 4 or 16 are possible")]
    AddressLength {
        /// Message and field.
        field: &'static str,
        /// Bytes received.
        length: usize,
    },
    /// A field that must be set is not.
    #[error("the feed sent a message without {field}; is its version newer than this one's?")]
    Missing {
        /// Message and field.
        field: &'static str,
    },
    /// An enumeration or number outside its range.
    #[error("the feed sent {value} in {field}, which this version does not know")]
    OutOfRange {
        /// Message and field.
        field: &'static str,
        /// Value received.
        value: i64,
    },
    /// A message of one update arrived inside another one.
    #[error("the feed mixed the messages of two updates (sequence {expected} and {received})")]
    Interleaved {
        /// Sequence of the update that was being assembled.
        expected: u64,
        /// Sequence of the message.
        received: u64,
    },
}
