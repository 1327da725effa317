//! Questions, records and answers: the vocabulary between the zone and the codec.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
};

use crate::Name;

/// A record type (IANA "Resource Record (RR) TYPEs").
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct RecordType(pub u16);

/// A class (IANA "DNS CLASSes").
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Class(pub u16);

/// A response code (IANA "DNS RCODEs"); above 15 only with EDNS.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Rcode(pub u16);

/// What a client asks.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Question {
    /// The name, in the case the client wrote it.
    pub name: Name,
    /// The type.
    pub rtype: RecordType,
    /// The class.
    pub class: Class,
}

/// One record of class IN.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Owner.
    pub name: Name,
    /// How long others may keep it.
    pub ttl_secs: u32,
    /// Type and value.
    pub data: RecordData,
}

/// The value of a record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RecordData {
    /// An IPv4 address.
    A(Ipv4Addr),
    /// An IPv6 address.
    Aaaa(Ipv6Addr),
    /// The name this one is an alias of.
    Cname(Name),
    /// A name server.
    Ns(Name),
    /// The name of an address.
    Ptr(Name),
    /// Where a service is (RFC 2782).
    Srv {
        /// Lower first.
        priority: u16,
        /// Share among equal priorities.
        weight: u16,
        /// Port.
        port: u16,
        /// Host.
        target: Name,
    },
    /// One character string of at most 255 bytes.
    Txt(Box<[u8]>),
    /// Start of authority.
    Soa(Box<Soa>),
    /// A record of another server, its value uncompressed.
    Opaque {
        /// Type.
        rtype: RecordType,
        /// RDATA.
        value: Box<[u8]>,
    },
}

/// Start of authority (RFC 1035 §3.3.13).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Soa {
    /// Primary name server.
    pub primary: Name,
    /// Mailbox of who is responsible.
    pub mailbox: Name,
    /// Version of the zone.
    pub serial: u32,
    /// How often a secondary asks.
    pub refresh_secs: u32,
    /// How often it asks again after a failure.
    pub retry_secs: u32,
    /// When it gives up.
    pub expire_secs: u32,
    /// How long a negative answer may be kept (RFC 2308).
    pub minimum_secs: u32,
}

/// Which of our zones an answer is from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// The cluster domain.
    Cluster,
    /// A reverse zone.
    Reverse,
}

/// What the zone says to a question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Response code.
    pub rcode: Rcode,
    /// The AA bit.
    pub authoritative: bool,
    /// Which zone it is from.
    pub origin: Origin,
    /// Answer section.
    pub answers: Vec<Record>,
    /// Authority section: the SOA of a negative answer.
    pub authority: Vec<Record>,
    /// Additional section: addresses of the targets.
    pub additional: Vec<Record>,
    /// The last alias leads outside the zone: whoever can should ask for this name and append what it gets.
    pub chase: Option<Name>,
    /// Nothing is known of the name: somebody else may know it.
    pub unknown: bool,
}

/// Defines codes with their names, and reads and writes those.
macro_rules! codes {
    ($kind:ident, $prefix:literal, $($constant:ident = $value:literal $text:literal, $doc:literal;)*) => {
        impl $kind {
            $(#[doc = $doc] pub const $constant: Self = Self($value);)*

            /// The code of a mnemonic in any case, or of its number behind the generic prefix (RFC 3597 §5).
            pub fn parse(text: &str) -> Option<Self> {
                $(if text.eq_ignore_ascii_case($text) {
                    return Some(Self::$constant);
                })*
                let number = text.get(..$prefix.len()).filter(|head| head.eq_ignore_ascii_case($prefix));
                number.and_then(|_| text[$prefix.len()..].parse().ok()).map(Self)
            }

            /// The mnemonic, where there is one.
            pub fn mnemonic(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some($text),)*
                    _ => None,
                }
            }
        }

        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.mnemonic() {
                    Some(text) => f.write_str(text),
                    None => write!(f, concat!($prefix, "{}"), self.0),
                }
            }
        }
    };
}

codes! { RecordType, "TYPE",
    A = 1 "A", "IPv4 address.";
    NS = 2 "NS", "Name server.";
    CNAME = 5 "CNAME", "Alias.";
    SOA = 6 "SOA", "Start of authority.";
    PTR = 12 "PTR", "Name of an address.";
    HINFO = 13 "HINFO", "Host information.";
    MX = 15 "MX", "Mail exchange.";
    TXT = 16 "TXT", "Text.";
    AAAA = 28 "AAAA", "IPv6 address.";
    LOC = 29 "LOC", "Location.";
    SRV = 33 "SRV", "Service location.";
    NAPTR = 35 "NAPTR", "Naming authority pointer.";
    CERT = 37 "CERT", "Certificate.";
    DNAME = 39 "DNAME", "Alias of a whole subtree.";
    OPT = 41 "OPT", "EDNS pseudo record (RFC 6891).";
    DS = 43 "DS", "Delegation signer.";
    SSHFP = 44 "SSHFP", "SSH key fingerprint.";
    RRSIG = 46 "RRSIG", "Signature.";
    NSEC = 47 "NSEC", "Next name.";
    DNSKEY = 48 "DNSKEY", "Zone key.";
    NSEC3 = 50 "NSEC3", "Next hashed name.";
    NSEC3PARAM = 51 "NSEC3PARAM", "Parameters of hashed names.";
    TLSA = 52 "TLSA", "TLS certificate association.";
    SVCB = 64 "SVCB", "Service binding.";
    HTTPS = 65 "HTTPS", "Service binding for HTTPS.";
    SPF = 99 "SPF", "Sender policy.";
    IXFR = 251 "IXFR", "Incremental zone transfer.";
    AXFR = 252 "AXFR", "Zone transfer.";
    ANY = 255 "ANY", "Every type (RFC 8482).";
    URI = 256 "URI", "URI.";
    CAA = 257 "CAA", "Certification authority authorization.";
}

codes! { Class, "CLASS",
    IN = 1 "IN", "The Internet.";
    CHAOS = 3 "CH", "Chaosnet; servers describe themselves in it.";
    HESIOD = 4 "HS", "Hesiod.";
    NONE = 254 "NONE", "None (RFC 2136).";
    ANY = 255 "ANY", "Every class.";
}

codes! { Rcode, "RCODE",
    NO_ERROR = 0 "NOERROR", "No error.";
    FORM_ERR = 1 "FORMERR", "The question could not be read.";
    SERV_FAIL = 2 "SERVFAIL", "The server could not find out.";
    NX_DOMAIN = 3 "NXDOMAIN", "The name does not exist.";
    NOT_IMP = 4 "NOTIMP", "The server does not do that.";
    REFUSED = 5 "REFUSED", "The server will not do that.";
    YX_DOMAIN = 6 "YXDOMAIN", "The name should not exist (RFC 2136, RFC 6672).";
    YX_RRSET = 7 "YXRRSET", "The records should not exist.";
    NX_RRSET = 8 "NXRRSET", "The records should exist.";
    NOT_AUTH = 9 "NOTAUTH", "The server has not the zone.";
    NOT_ZONE = 10 "NOTZONE", "The name is not in the zone.";
    BAD_VERS = 16 "BADVERS", "EDNS version not supported.";
}

impl RecordData {
    /// The type of the value.
    pub fn rtype(&self) -> RecordType {
        match self {
            Self::A(_) => RecordType::A,
            Self::Aaaa(_) => RecordType::AAAA,
            Self::Cname(_) => RecordType::CNAME,
            Self::Ns(_) => RecordType::NS,
            Self::Ptr(_) => RecordType::PTR,
            Self::Srv { .. } => RecordType::SRV,
            Self::Txt(_) => RecordType::TXT,
            Self::Soa(_) => RecordType::SOA,
            Self::Opaque { rtype, .. } => *rtype,
        }
    }
}
