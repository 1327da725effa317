//! The wire format: tags, lengths and numbers.

use super::ProtobufError;

/// A field as it is on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Raw<'b> {
    Varint(u64),
    /// Four or eight bytes; no field that is read here is one.
    Fixed,
    Bytes(&'b [u8]),
}

/// What is left of a message.
#[derive(Debug)]
pub(super) struct Reader<'b> {
    bytes: &'b [u8],
}

impl<'b> Reader<'b> {
    pub(super) fn new(bytes: &'b [u8]) -> Self {
        Self { bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The next field's number and content.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Raw<'b>)>, ProtobufError> {
        if self.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).ok().filter(|number| *number > 0);
        let number = number.ok_or(ProtobufError::Malformed("a field number out of range"))?;
        let raw = match tag & 7 {
            0 => Raw::Varint(self.varint()?),
            1 => {
                self.take(8)?;
                Raw::Fixed
            }
            2 => {
                let length = self.varint()?;
                Raw::Bytes(self.take(usize::try_from(length).map_err(|_| ProtobufError::Truncated)?)?)
            }
            5 => {
                self.take(4)?;
                Raw::Fixed
            }
            _ => return Err(ProtobufError::Malformed("an unknown wire type")),
        };
        Ok(Some((number, raw)))
    }

    pub(super) fn varint(&mut self) -> Result<u64, ProtobufError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(ProtobufError::Malformed("a number of more than 64 bits"))
    }

    fn take(&mut self, length: usize) -> Result<&'b [u8], ProtobufError> {
        let (taken, rest) = self.bytes.split_at_checked(length).ok_or(ProtobufError::Truncated)?;
        self.bytes = rest;
        Ok(taken)
    }
}
