//! The zones of a server block: `[scheme://]zone[:port]`, where a zone may be a network.

use std::net::IpAddr;

use fairlead_model::Prefix;
use fairlead_zone::{Name, reverse_zones};

/// How questions come to a listener.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) enum Scheme {
    /// UDP and TCP.
    Dns,
    /// DNS over TLS (RFC 7858).
    Tls,
    /// DNS over HTTPS (RFC 8484).
    Https,
    /// DNS over QUIC (RFC 9250).
    Quic,
}

/// Prefix in a Corefile and port by default.
const SCHEMES: [(&str, Scheme, u16); 4] = [
    ("dns", Scheme::Dns, 53),
    ("tls", Scheme::Tls, 853),
    ("https", Scheme::Https, 443),
    ("quic", Scheme::Quic, 853),
];

/// What a server block is for: one key may be several zones.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Key {
    pub(crate) scheme: Scheme,
    pub(crate) zones: Vec<Name>,
    pub(crate) port: u16,
}

impl Scheme {
    /// As a Corefile and the metrics write it.
    pub(crate) fn as_str(self) -> &'static str {
        SCHEMES.iter().find(|row| row.1 == self).map_or("dns", |row| row.0)
    }
}

/// Reads a key of a server block.
pub(crate) fn parse_key(text: &str) -> Result<Key, String> {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (scheme, rest),
        None => ("dns", text),
    };
    let Some((_, scheme, port)) = SCHEMES.iter().find(|row| row.0 == scheme).copied() else {
        return Err(format!("{text:?} has the scheme {scheme:?}; known are dns, tls, https and quic"));
    };
    let (zone, port) = split_port(rest, port)?;
    let zone = if zone.is_empty() { "." } else { zone };
    Ok(Key { scheme, zones: parse_zone(zone)?, port })
}

/// Splits a port off; colons in an IPv6 network are no port's.
fn split_port(text: &str, default: u16) -> Result<(&str, u16), String> {
    let Some((head, port)) = text.rsplit_once(':') else { return Ok((text, default)) };
    // `fd00::/8` ends in a length; `[fd00::]/8:53` and `fd00::/8:53` have a port.
    let is_port = !port.contains('/') && (!head.contains(':') || head.contains('/'));
    if !is_port {
        return Ok((text, default));
    }
    let number = port.parse().map_err(|_| format!("{text:?}: {port:?} is not a port"))?;
    Ok((head, number))
}

/// The zones of a name, or of a network: its reverse zones.
pub(crate) fn parse_zone(text: &str) -> Result<Vec<Name>, String> {
    if let Some((address, length)) = text.split_once('/') {
        let address: IpAddr = address
            .trim_matches(['[', ']'])
            .parse()
            .map_err(|_| format!("{text:?} is neither a zone nor a network like 10.0.0.0/8"))?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let length = length.parse().ok().filter(|length| *length <= longest);
        let length = length.ok_or_else(|| format!("{text:?}: the length is not between 0 and {longest}"))?;
        return Ok(reverse_zones(Prefix { address, length }));
    }
    let name = Name::parse(text).map_err(|e| format!("{text:?} is not a zone: {e}"))?;
    // No zone is called so, but a block that lost its form reads like one.
    if text.contains(['{', '}']) {
        return Err(format!("{text:?} is not a zone: a brace stands by itself, at the end of its line"));
    }
    Ok(vec![name])
}
