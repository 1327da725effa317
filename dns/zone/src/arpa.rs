//! Reverse names: `d.c.b.a.in-addr.arpa` (RFC 1035 §3.5) and `….ip6.arpa` (RFC 3596 §2.5).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fairlead_model::Prefix;

use crate::Name;

const ROOT: &[u8] = &[0];

/// What a name under `in-addr.arpa` or `ip6.arpa` stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reverse {
    /// An address.
    Address(IpAddr),
    /// Well formed, but above an address: a network.
    Network,
    /// Under the tree, but no address.
    Malformed,
}

/// Reads a reverse name; `None` for other names.
pub(crate) fn parse(name: &Name) -> Option<Reverse> {
    let labels: Vec<&[u8]> = name.labels().collect();
    let (tree, rest) = match labels.as_slice() {
        [rest @ .., tree, arpa] if arpa.eq_ignore_ascii_case(b"arpa") => (*tree, rest),
        _ => return None,
    };
    if tree.eq_ignore_ascii_case(b"in-addr") {
        Some(digits::<4>(rest, octet).map_or(Reverse::Malformed, |(bytes, complete)| {
            if complete { Reverse::Address(Ipv4Addr::from(bytes).into()) } else { Reverse::Network }
        }))
    } else if tree.eq_ignore_ascii_case(b"ip6") {
        Some(digits::<32>(rest, nibble).map_or(Reverse::Malformed, |(nibbles, complete)| {
            let bits = nibbles.iter().fold(0u128, |bits, &nibble| bits << 4 | u128::from(nibble));
            if complete { Reverse::Address(Ipv6Addr::from(bits).into()) } else { Reverse::Network }
        }))
    } else {
        None
    }
}

/// The reverse zones that cover a network: one, or several when its length is no whole octet or nibble.
pub fn zones(network: Prefix) -> Vec<Name> {
    let (bits, width, tree): (u128, u32, &[u8]) = match network.address {
        IpAddr::V4(address) => (u128::from(u32::from(address)) << 96, 8, b"in-addr"),
        IpAddr::V6(address) => (address.into(), 4, b"ip6"),
    };
    let length = u32::from(network.length).min(if width == 8 { 32 } else { 128 });
    let digits = length.div_ceil(width);
    let spare = digits * width - length;
    let zone = |index: u128| {
        // The last digit's lowest `spare` bits enumerate the zones.
        let bits = if digits == 0 { bits } else { bits | index << (128 - digits * width) };
        let labels: Vec<String> = (1..=digits)
            .rev()
            .map(|digit| {
                let value = bits >> (128 - digit * width) & ((1 << width) - 1);
                if width == 8 { value.to_string() } else { format!("{value:x}") }
            })
            .collect();
        let labels: Vec<&[u8]> =
            labels.iter().map(String::as_bytes).chain([tree, b"arpa".as_slice()]).collect();
        Name::join(&labels, ROOT).expect("at most 34 short labels")
    };
    (0..1u128 << spare).map(zone).collect()
}

/// Reads up to `N` digits, last one first; says whether all were there.
fn digits<const N: usize>(labels: &[&[u8]], read: fn(&[u8]) -> Option<u8>) -> Option<([u8; N], bool)> {
    if labels.len() > N {
        return None;
    }
    let mut digits = [0; N];
    for (digit, label) in digits.iter_mut().zip(labels.iter().rev()) {
        *digit = read(label)?;
    }
    Some((digits, labels.len() == N))
}

fn octet(label: &[u8]) -> Option<u8> {
    let text = str::from_utf8(label).ok()?;
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

fn nibble(label: &[u8]) -> Option<u8> {
    match label {
        [digit] => char::from(*digit).to_digit(16).and_then(|value| u8::try_from(value).ok()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reverse_names_read_as_addresses_networks_or_neither() {
        let rows = [
            ("10.0.96.10.in-addr.arpa", Some(Reverse::Address([10, 96, 0, 10].into()))),
            ("0.96.10.IN-ADDR.arpa", Some(Reverse::Network)),
            ("in-addr.arpa", Some(Reverse::Network)),
            ("1.10.0.96.10.in-addr.arpa", Some(Reverse::Malformed)),
            ("256.0.96.10.in-addr.arpa", Some(Reverse::Malformed)),
            ("01.0.96.10.in-addr.arpa", Some(Reverse::Malformed)),
            ("+1.0.96.10.in-addr.arpa", Some(Reverse::Malformed)),
            ("6.9.0.0.0.0.d.f.ip6.arpa", Some(Reverse::Network)),
            ("g.ip6.arpa", Some(Reverse::Malformed)),
            ("arpa", None),
            ("10.in-addr.example", None),
        ];
        for (text, expected) in rows {
            assert_eq!(parse(&Name::parse(text).unwrap()), expected, "{text}");
        }
        let full = "a.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.0.d.f.ip6.arpa";
        let address = "fd00:96::a".parse().unwrap();
        assert_eq!(parse(&Name::parse(full).unwrap()), Some(Reverse::Address(address)));
    }

    #[test]
    fn a_network_is_covered_by_whole_octets_or_nibbles() {
        let texts = |address: &str, length| {
            let network = Prefix { address: address.parse().unwrap(), length };
            zones(network).iter().map(Name::to_string).collect::<Vec<_>>()
        };
        assert_eq!(texts("10.96.0.0", 16), ["96.10.in-addr.arpa."]);
        assert_eq!(texts("10.96.0.0", 15), ["96.10.in-addr.arpa.", "97.10.in-addr.arpa."]);
        assert_eq!(texts("10.96.0.0", 12).len(), 16);
        assert_eq!(texts("0.0.0.0", 0), ["in-addr.arpa."]);
        assert_eq!(texts("fd00:96::", 112), [format!("{}6.9.0.0.0.0.d.f.ip6.arpa.", "0.".repeat(20))]);
        assert_eq!(texts("fd00:244::", 56), [format!("{}4.4.2.0.0.0.d.f.ip6.arpa.", "0.".repeat(6))]);
        assert_eq!(texts("fc00::", 7), ["c.f.ip6.arpa.", "d.f.ip6.arpa."]);
    }
}
