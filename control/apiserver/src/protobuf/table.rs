//! The field table; its rows are made by the build script.

/// A protobuf message.
#[derive(Debug)]
pub(super) struct Message {
    /// In the order of their numbers.
    pub(super) fields: &'static [Field],
}

/// A field of a message.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) number: u16,
    /// The name in JSON.
    pub(super) name: &'static str,
    pub(super) form: Form,
    pub(super) label: Label,
    /// Whether a zero on the wire means that nothing was set.
    pub(super) drops_zero: bool,
}

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Bool,
    Int32,
    Int64,
    String,
    /// Base64 in JSON.
    Bytes,
    /// An object: its row in [`MESSAGES`].
    Message(u16),
    /// A message of one text, which is the value in JSON.
    Quantity,
    IntOrString,
    Time,
    MicroTime,
    /// A message of bytes that are JSON themselves.
    Json,
    /// A message that is a list of texts.
    Strings,
}

/// How often a field may be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Label {
    One,
    /// A message whose fields belong to its owner in JSON.
    Inline,
    Repeated,
    /// Entries with texts as keys.
    Map,
}

include!(concat!(env!("OUT_DIR"), "/protobuf_table.rs"));
