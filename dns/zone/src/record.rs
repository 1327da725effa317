//! Questions, records and answers: the vocabulary between the zone and the codec.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::Name;

/// A record type (IANA "Resource Record (RR) TYPEs").
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct RecordType(pub u16);

/// A class (IANA "DNS CLASSes").
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Class(pub u16);

/// A response code (IANA "DNS RCODEs"); above 15 only with EDNS.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
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
}

impl RecordType {
    /// IPv4 address.
    pub const A: Self = Self(1);
    /// Name server.
    pub const NS: Self = Self(2);
    /// Alias.
    pub const CNAME: Self = Self(5);
    /// Start of authority.
    pub const SOA: Self = Self(6);
    /// Name of an address.
    pub const PTR: Self = Self(12);
    /// Mail exchange.
    pub const MX: Self = Self(15);
    /// Text.
    pub const TXT: Self = Self(16);
    /// IPv6 address.
    pub const AAAA: Self = Self(28);
    /// Service location.
    pub const SRV: Self = Self(33);
    /// EDNS pseudo record (RFC 6891).
    pub const OPT: Self = Self(41);
    /// Service binding.
    pub const SVCB: Self = Self(64);
    /// Service binding for HTTPS.
    pub const HTTPS: Self = Self(65);
    /// Incremental zone transfer.
    pub const IXFR: Self = Self(251);
    /// Zone transfer.
    pub const AXFR: Self = Self(252);
    /// Every type (RFC 8482).
    pub const ANY: Self = Self(255);
}

impl Class {
    /// The Internet.
    pub const IN: Self = Self(1);
}

impl Rcode {
    /// No error.
    pub const NO_ERROR: Self = Self(0);
    /// The question could not be read.
    pub const FORM_ERR: Self = Self(1);
    /// The server could not find out.
    pub const SERV_FAIL: Self = Self(2);
    /// The name does not exist.
    pub const NX_DOMAIN: Self = Self(3);
    /// The server does not do that.
    pub const NOT_IMP: Self = Self(4);
    /// The server will not do that.
    pub const REFUSED: Self = Self(5);
    /// EDNS version not supported.
    pub const BAD_VERS: Self = Self(16);
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
