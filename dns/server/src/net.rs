//! Networks of addresses.

use std::net::IpAddr;

use fairlead_model::Prefix;

/// Reads a network, or an address as the network of itself.
pub(crate) fn parse_prefix(text: &str) -> Option<Prefix> {
    let (address, length) =
        text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
    let address: IpAddr = address.parse().ok()?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let length = length.map_or(Some(longest), |length| length.parse().ok())?;
    (length <= longest).then_some(Prefix { address, length })
}

/// Whether an address is in a network.
pub(crate) fn contains(network: &Prefix, address: IpAddr) -> bool {
    match (network.address, address.to_canonical()) {
        (IpAddr::V4(network_address), IpAddr::V4(address)) => {
            let spare = 32 - u32::from(network.length).min(32);
            let mask = u32::MAX.checked_shl(spare).unwrap_or(0);
            u32::from(network_address) & mask == u32::from(address) & mask
        }
        (IpAddr::V6(network_address), IpAddr::V6(address)) => {
            let spare = 128 - u32::from(network.length).min(128);
            let mask = u128::MAX.checked_shl(spare).unwrap_or(0);
            u128::from(network_address) & mask == u128::from(address) & mask
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_their_addresses_only() {
        let rows = [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("0.0.0.0/0", "8.8.8.8", true),
            ("::/0", "8.8.8.8", false),
            ("::/0", "fd00::1", true),
            ("fd00::/16", "fd00:1::1", true),
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("192.0.2.0/24", "::ffff:192.0.2.7", true),
        ];
        for (network, address, inside) in rows {
            assert_eq!(
                contains(&parse_prefix(network).unwrap(), address.parse().unwrap()),
                inside,
                "{network} {address}"
            );
        }
        for text in ["10.0.0.0/33", "x", "10.0.0.0/", "fd00::/129"] {
            assert_eq!(parse_prefix(text), None, "{text}");
        }
    }
}
