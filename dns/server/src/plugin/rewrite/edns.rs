//! EDNS options that a question gets on its way (`rewrite edns0 …`).

use std::net::IpAddr;

use crate::{
    chain::Query,
    codec::{option, options},
    corefile::{CorefileError, Words},
    metrics::Transport,
};

/// Codes (IANA "DNS EDNS0 Option Codes").
const NSID: u16 = 3;
const SUBNET: u16 = 8;
/// The codes for local use (RFC 6891 §9).
const LOCAL: std::ops::RangeInclusive<u16> = 65_001..=65_534;

/// What is done to an option.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Act {
    Set,
    Append,
    Replace,
    Unset,
}

#[derive(Clone, Debug)]
enum Value {
    /// Nothing, which asks for it.
    Empty,
    Bytes(Vec<u8>),
    /// `{qname}` and the like.
    Variable(String),
    /// Lengths of the client's network, for IPv4 and IPv6 (RFC 7871).
    Subnet(u8, u8),
}

/// One `edns0` rule.
#[derive(Clone, Debug)]
pub(super) struct EdnsRule {
    code: u16,
    act: Act,
    value: Value,
}

impl EdnsRule {
    /// `local|nsid|subnet set|append|replace|unset …`
    pub(super) fn read(words: &mut Words<'_>) -> Result<Self, CorefileError> {
        let kind = words.need("local, nsid or subnet")?;
        let act = match words.need("set, append, replace or unset")? {
            "set" => Act::Set,
            "append" => Act::Append,
            "replace" => Act::Replace,
            "unset" => Act::Unset,
            other => return Err(words.fault(format!("{other:?} is not set, append, replace or unset"))),
        };
        let (code, value) = match kind {
            "nsid" => (NSID, Value::Empty),
            "subnet" if act == Act::Unset => (SUBNET, Value::Empty),
            "subnet" => {
                (SUBNET, Value::Subnet(words.number("a length", 0..=32)?, words.number("a length", 0..=128)?))
            }
            "local" => {
                let word = words.need("a code like 0xffee")?;
                let code = number(word).filter(|code| LOCAL.contains(code));
                let code = code.ok_or_else(|| {
                    words.fault(format!("{word:?} is not a code for local use (65001 to 65534)"))
                })?;
                (code, if act == Act::Unset { Value::Empty } else { local_value(words)? })
            }
            other => return Err(words.fault(format!("{other:?} is not local, nsid or subnet"))),
        };
        if words.peek() == Some("revert") {
            words.next();
        }
        Ok(Self { code, act, value })
    }

    /// Whether the rule applied.
    pub(super) fn apply(&self, query: &Query, bytes: &mut Vec<u8>) -> bool {
        let present = options(bytes).any(|(code, _)| code == self.code);
        let applies = match self.act {
            Act::Set => true,
            Act::Append => !present,
            Act::Replace | Act::Unset => present,
        };
        if !applies {
            return false;
        }
        let mut new: Vec<u8> = options(bytes)
            .filter(|(code, _)| *code != self.code)
            .flat_map(|(code, value)| option(code, value))
            .collect();
        if self.act != Act::Unset {
            new.extend(option(self.code, &self.value.bytes(query)));
        }
        *bytes = new;
        true
    }
}

fn number(text: &str) -> Option<u16> {
    match text.strip_prefix("0x") {
        Some(digits) => u16::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

fn local_value(words: &mut Words<'_>) -> Result<Value, CorefileError> {
    let word = words.need("a value")?;
    if let Some(digits) = word.strip_prefix("0x") {
        let byte = |at| digits.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
        let bytes = (0..digits.len()).step_by(2).map(byte).collect::<Option<Vec<u8>>>();
        return bytes.map(Value::Bytes).ok_or_else(|| words.fault(format!("{word:?} is not a row of bytes")));
    }
    let variable = word.strip_prefix('{').and_then(|word| word.strip_suffix('}'));
    match variable {
        Some("qname" | "qtype" | "client_ip" | "client_port" | "protocol" | "server_ip" | "server_port") => {
            Ok(Value::Variable(variable.unwrap_or_default().to_owned()))
        }
        Some(other) => Err(words.fault(format!("{{{other}}} is not a variable; known are qname, qtype, client_ip, client_port, protocol, server_ip, server_port"))),
        None => Ok(Value::Bytes(word.as_bytes().to_vec())),
    }
}

impl Value {
    fn bytes(&self, query: &Query) -> Vec<u8> {
        let address = |address: IpAddr| match address.to_canonical() {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let (peer, local) = (query.client.peer, query.client.local);
        match self {
            Self::Empty => Vec::new(),
            Self::Bytes(bytes) => bytes.clone(),
            Self::Variable(name) => match name.as_str() {
                "qname" => query.name().to_string().into_bytes(),
                "qtype" => query.rtype().0.to_be_bytes().to_vec(),
                "client_ip" => address(peer.ip()),
                "client_port" => peer.port().to_be_bytes().to_vec(),
                "server_ip" => address(local.ip()),
                "server_port" => local.port().to_be_bytes().to_vec(),
                _ => {
                    if query.client.transport == Transport::Udp {
                        b"udp".to_vec()
                    } else {
                        b"tcp".to_vec()
                    }
                }
            },
            Self::Subnet(v4, v6) => {
                let octets = address(peer.ip());
                let (family, length) = if octets.len() == 4 { (1u8, *v4) } else { (2, *v6) };
                let size = usize::from(length).div_ceil(8);
                let mut value = vec![0, family, length, 0];
                value.extend_from_slice(&octets[..size]);
                if let (Some(last), spare @ 1..) =
                    (value.last_mut().filter(|_| size > 0), (size * 8 - usize::from(length)) as u32)
                {
                    *last &= u8::MAX.checked_shl(spare).unwrap_or(0);
                }
                value
            }
        }
    }
}
