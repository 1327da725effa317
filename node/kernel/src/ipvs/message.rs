//! Generic netlink messages: attributes in, attributes out (`include/uapi/linux/{netlink,genetlink}.h`).

/// `NLMSG_ERROR`.
pub(super) const ERROR: u16 = 2;
/// `NLMSG_DONE`.
pub(super) const DONE: u16 = 3;
/// `NLM_F_REQUEST | NLM_F_ACK`.
pub(super) const REQUEST: u16 = 0x1 | 0x4;
/// `NLM_F_DUMP`.
pub(super) const DUMP: u16 = 0x300;
/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;
/// Both flags of an attribute's type.
const TYPE_MASK: u16 = 0x3fff;
/// Of `nlmsghdr`.
const HEADER_LEN: usize = 16;
/// Of `nlmsghdr` and `genlmsghdr`.
const BODY_AT: usize = HEADER_LEN + 4;

/// Attributes that are being written.
#[derive(Debug, Default)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    pub(super) fn put(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length = u16::try_from(value.len() + 4).expect("attributes here are short");
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    pub(super) fn nest(&mut self, kind: u16, inner: &Self) -> &mut Self {
        self.put(kind | NESTED, &inner.0)
    }
}

/// A request to a generic netlink family.
pub(super) fn request(family: u16, command: u8, flags: u16, attributes: &Attributes) -> Vec<u8> {
    let length = u32::try_from(BODY_AT + attributes.0.len()).expect("requests are short");
    let mut bytes = Vec::with_capacity(length as usize);
    bytes.extend(length.to_ne_bytes());
    bytes.extend(family.to_ne_bytes());
    bytes.extend((REQUEST | flags).to_ne_bytes());
    // Sequence number and port: there is one request at a time, and the kernel fills in the port.
    bytes.extend([0; 8]);
    // Version 1 of the family, and two reserved bytes.
    bytes.extend([command, 1, 0, 0]);
    bytes.extend(&attributes.0);
    bytes
}

/// What the kernel answered with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Answer<'a> {
    /// Attributes.
    Data(&'a [u8]),
    /// An error number; 0 is an acknowledgement.
    End(i32),
}

/// The messages in a datagram.
pub(super) fn answers(datagram: &[u8]) -> Vec<Answer<'_>> {
    let mut answers = Vec::new();
    let mut rest = datagram;
    while let (Some(length), Some(kind)) = (u32_at(rest, 0), u16_at(rest, 4)) {
        let length = length as usize;
        if length < HEADER_LEN || length > rest.len() {
            break;
        }
        answers.push(match kind {
            ERROR => Answer::End(u32_at(rest, HEADER_LEN).map_or(0, |code| -code.cast_signed())),
            DONE => Answer::End(0),
            _ => Answer::Data(rest.get(BODY_AT..length).unwrap_or_default()),
        });
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    answers
}

/// Kind and value of each attribute.
pub(super) fn attributes(bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut found = Vec::new();
    let mut rest = bytes;
    while let (Some(length), Some(kind)) = (u16_at(rest, 0), u16_at(rest, 2)) {
        let length = usize::from(length);
        let Some(value) = rest.get(4..length) else { break };
        found.push((kind & TYPE_MASK, value));
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

pub(super) fn find<'a>(attributes: &[(u16, &'a [u8])], kind: u16) -> Option<&'a [u8]> {
    attributes.iter().find(|(found, _)| *found == kind).map(|(_, value)| *value)
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let mut inner = Attributes::default();
        inner.put(3, b"abc").put(4, &7u32.to_ne_bytes());
        let mut outer = Attributes::default();
        outer.nest(1, &inner);
        let bytes = request(0x1b, 4, DUMP, &outer);
        assert_eq!(bytes.len() % 4, 0);
        let [Answer::Data(body)] = answers(&bytes)[..] else { panic!("one message") };
        let read = attributes(body);
        let inner = attributes(find(&read, 1).expect("the nest"));
        assert_eq!(find(&inner, 3), Some(&b"abc"[..]));
        assert_eq!(find(&inner, 4).and_then(|value| u32_at(value, 0)), Some(7));
    }

    #[test]
    fn an_error_is_its_number_and_rubbish_is_nothing() {
        let mut error = Vec::new();
        error.extend(36u32.to_ne_bytes());
        error.extend(ERROR.to_ne_bytes());
        error.extend([0; 10]);
        error.extend((-17i32).to_ne_bytes());
        error.extend([0; 16]);
        assert_eq!(answers(&error), [Answer::End(17)]);
        assert_eq!(answers(&[1, 0, 0, 0, 0, 0, 0, 0]), []);
        assert_eq!(attributes(&[200, 0, 1, 0, 5]), []);
    }
}
