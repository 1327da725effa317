//! Removes what connections and clients have left in maps that grow.
//!
//! The programs write when a connection was last seen and never scan; this does. A full table refuses what is new, so the
//! fuller it is the more often it is looked through, and the sooner goes what nobody would miss: connections that have ended
//! and those that nobody has answered.

use std::{
    collections::{HashMap as StdHashMap, HashSet},
    os::fd::AsFd,
    time::Duration,
};

use aya::maps::{HashMap, MapData, PerCpuArray};
use fairlead_abi::{
    conntrack::{
        CT_ANSWERED, CT_BACKEND_FIN, CT_CLIENT_FIN, CT_MASQUERADED, CT_REPLY, CT_RESET, ConntrackKey,
        ConntrackValue, FragmentKey, FragmentValue,
    },
    names::{self, MapSpec},
    service::{AffinityKey, AffinityValue, ServiceKey, ServiceValue, TCP, UDP},
    socket::{OriginKey, OriginValue},
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::{
    Capacities, KernelError,
    bpf::{batch::read_all, pins::Pins, programs::open_pinned},
    tables::ignore_absent,
};

/// How long a connection is remembered after its last packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timeouts {
    /// TCP, both sides are there.
    pub tcp_established: Duration,
    /// TCP, one side has ended.
    pub tcp_close_wait: Duration,
    /// TCP, both sides have ended, or one has reset it.
    pub tcp_closing: Duration,
    /// TCP, nobody has answered.
    pub tcp_half_open: Duration,
    /// UDP, somebody has answered.
    pub udp_answered: Duration,
    /// UDP, nobody has answered.
    pub udp: Duration,
    /// Anything else.
    pub other: Duration,
}

impl Default for Timeouts {
    /// Those of the kernel's connection tracking as kube-proxy sets it up (established 24 h, close-wait 1 h), with its own
    /// numbers for the rest but a shorter one for UDP that is answered.
    fn default() -> Self {
        Self {
            tcp_established: Duration::from_secs(24 * 60 * 60),
            tcp_close_wait: Duration::from_secs(60 * 60),
            tcp_closing: Duration::from_secs(60),
            tcp_half_open: Duration::from_secs(120),
            udp_answered: Duration::from_secs(180),
            udp: Duration::from_secs(60),
            other: Duration::from_secs(30),
        }
    }
}

impl Timeouts {
    /// For the state that the flags of both directions tell.
    fn of(&self, proto: u8, flags: u16) -> Duration {
        const BOTH_FIN: u16 = CT_CLIENT_FIN | CT_BACKEND_FIN;
        match proto {
            TCP if flags & CT_RESET != 0 || flags & BOTH_FIN == BOTH_FIN => self.tcp_closing,
            TCP if flags & BOTH_FIN != 0 => self.tcp_close_wait,
            TCP if flags & CT_ANSWERED != 0 => self.tcp_established,
            TCP => self.tcp_half_open,
            UDP if flags & CT_ANSWERED != 0 => self.udp_answered,
            UDP => self.udp,
            _ => self.other,
        }
    }
}

/// How full a table may be before [`Timeouts::under_pressure`] shortens anything.
const PRESSURE: f64 = 0.5;

/// What is left of the time of ended and unanswered connections in a full table.
const LEAST: f64 = 1.0 / 30.0;

impl Timeouts {
    /// Shorter ones for what nobody would miss, the shorter the fuller the table is; all of them for an established
    /// connection.
    fn under_pressure(&self, ratio: f64) -> Self {
        let part = ((1.0 - ratio) / (1.0 - PRESSURE)).clamp(LEAST, 1.0);
        Self {
            tcp_closing: self.tcp_closing.mul_f64(part),
            tcp_half_open: self.tcp_half_open.mul_f64(part),
            udp: self.udp.mul_f64(part),
            other: self.other.mul_f64(part),
            ..*self
        }
    }
}

/// How full a map is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Fill {
    /// Entries that stay.
    pub entries: u64,
    /// Entries that there is room for.
    pub capacity: u64,
    /// Entries that were removed because their time was over, this time.
    pub removed: u64,
}

impl Fill {
    /// From 0, empty, to 1, full.
    pub fn ratio(&self) -> f64 {
        if self.capacity == 0 { 0.0 } else { self.entries as f64 / self.capacity as f64 }
    }
}

/// How full a map is that lets go of its oldest entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LruFill {
    /// Entries it has.
    pub entries: u64,
    /// Entries that it let go of since this program began.
    pub evicted: u64,
}

/// What was found and removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Collected {
    /// `CONNTRACK`.
    pub conntrack: Fill,
    /// `AFFINITY`.
    pub affinity: Fill,
    /// Those of [`names::LRU`].
    pub lru: [LruFill; names::LRU.len()],
    /// Connections with the node's address and a port of the reserved range in place of the client's, before what has
    /// expired was removed.
    pub masqueraded: u64,
}

/// Pause between two rounds while the maps are nearly empty.
const INTERVAL_MAX: Duration = Duration::from_secs(30);
/// Pause while one of them is nearly full.
const INTERVAL_MIN: Duration = Duration::from_secs(1);

impl Collected {
    /// When to look again: the fuller, the sooner.
    pub fn next_in(&self) -> Duration {
        let room = 1.0 - self.conntrack.ratio().max(self.affinity.ratio()).clamp(0.0, 1.0);
        INTERVAL_MAX.mul_f64(room * room).max(INTERVAL_MIN)
    }
}

/// The collector.
pub struct Garbage {
    conntrack: HashMap<MapData, ConntrackKey, ConntrackValue>,
    affinity: HashMap<MapData, AffinityKey, AffinityValue>,
    whole: Whole,
    added: PerCpuArray<MapData, u64>,
    /// Entries of each of [`names::LRU`] that were gone before this program began, once that is known.
    gone_before: Option<[u64; names::LRU.len()]>,
    capacities: Capacities,
}

/// The maps for reading them at once.
struct Whole {
    conntrack: MapData,
    affinity: MapData,
    services: MapData,
    origins: MapData,
    fragments: MapData,
}

impl Garbage {
    pub(crate) fn open(pins: &Pins, capacities: &Capacities) -> Result<Self, KernelError> {
        let whole = |spec: MapSpec| {
            MapData::from_pin(pins.map(spec.name)).map_err(KernelError::map(spec.name, "opening"))
        };
        Ok(Self {
            conntrack: open_pinned(pins, names::CONNTRACK)?,
            affinity: open_pinned(pins, names::AFFINITY)?,
            whole: Whole {
                conntrack: whole(names::CONNTRACK)?,
                affinity: whole(names::AFFINITY)?,
                services: whole(names::SERVICES)?,
                origins: whole(names::ORIGINS)?,
                fragments: whole(names::FRAGMENTS)?,
            },
            added: open_pinned(pins, names::ADDED)?,
            gone_before: None,
            capacities: *capacities,
        })
    }

    /// Removes what has expired at `now_ns` of `CLOCK_MONOTONIC`.
    ///
    /// # Errors
    /// A map cannot be read or written.
    pub fn collect(&mut self, now_ns: u64, timeouts: &Timeouts) -> Result<Collected, KernelError> {
        let (conntrack, masqueraded) = self.collect_conntrack(now_ns, timeouts)?;
        let affinity = self.collect_affinity(now_ns)?;
        Ok(Collected { conntrack, affinity, lru: self.look_at_lru()?, masqueraded })
    }

    /// What these maps were given and do not have any more.
    fn look_at_lru(&mut self) -> Result<[LruFill; names::LRU.len()], KernelError> {
        // Before the entries: what is added meanwhile must not seem to be gone.
        let mut added = [0; names::LRU.len()];
        for (index, added) in (0..).zip(&mut added) {
            let values = self.added.get(&index, 0).map_err(KernelError::map(names::ADDED.name, "reading"))?;
            *added = values.iter().sum();
        }
        let origins: Vec<(OriginKey, OriginValue)> = read(names::ORIGINS, &self.whole.origins)?;
        let fragments: Vec<(FragmentKey, FragmentValue)> = read(names::FRAGMENTS, &self.whole.fragments)?;
        let entries = [origins.len() as u64, fragments.len() as u64];
        let gone: [u64; names::LRU.len()] =
            std::array::from_fn(|index| added[index].saturating_sub(entries[index]));
        let before = self.gone_before.get_or_insert(gone);
        Ok(std::array::from_fn(|index| LruFill {
            entries: entries[index],
            evicted: gone[index].saturating_sub(before[index]),
        }))
    }

    fn collect_conntrack(&mut self, now_ns: u64, timeouts: &Timeouts) -> Result<(Fill, u64), KernelError> {
        let entries: Vec<(ConntrackKey, ConntrackValue)> = read(names::CONNTRACK, &self.whole.conntrack)?;
        let takes_port = |flags: u16| flags & (CT_MASQUERADED | CT_REPLY) == CT_MASQUERADED;
        let masqueraded = entries.iter().filter(|(_, value)| takes_port(value.flags)).count() as u64;
        let found = entries.len() as u64;
        let capacity = self.capacities.conntrack.into();
        let timeouts = timeouts.under_pressure(Fill { entries: found, capacity, removed: 0 }.ratio());
        let mut removed = 0;
        for (key, seen_ns) in expired_connections(entries, now_ns, &timeouts) {
            // A packet may have come since.
            let same = self.conntrack.get(&key, 0).is_ok_and(|value| value.seen_ns == seen_ns);
            if same {
                ignore_absent(self.conntrack.remove(&key))
                    .map_err(KernelError::map(names::CONNTRACK.name, "deleting from"))?;
                removed += 1;
            }
        }
        Ok((Fill { entries: found.saturating_sub(removed), capacity, removed }, masqueraded))
    }

    fn collect_affinity(&mut self, now_ns: u64) -> Result<Fill, KernelError> {
        let entries: Vec<(AffinityKey, AffinityValue)> = read(names::AFFINITY, &self.whole.affinity)?;
        let found = entries.len() as u64;
        let mut removed = 0;
        if !entries.is_empty() {
            let services: Vec<(ServiceKey, ServiceValue)> = read(names::SERVICES, &self.whole.services)?;
            let seconds: StdHashMap<u32, u32> =
                services.iter().map(|(_, value)| (value.service_id, value.affinity_secs)).collect();
            for (key, value) in entries {
                let seconds = seconds.get(&key.service_id).copied().unwrap_or_default();
                let idle = Duration::from_nanos(now_ns.saturating_sub(value.used_ns));
                let same = || self.affinity.get(&key, 0).is_ok_and(|now| now.used_ns == value.used_ns);
                if idle > Duration::from_secs(seconds.into()) && same() {
                    ignore_absent(self.affinity.remove(&key))
                        .map_err(KernelError::map(names::AFFINITY.name, "deleting from"))?;
                    removed += 1;
                }
            }
        }
        let capacity = self.capacities.affinity.into();
        Ok(Fill { entries: found.saturating_sub(removed), capacity, removed })
    }
}

/// Entries whose connection has expired, with the time at which each was last seen. Both directions of a connection go
/// together, when neither has been seen for as long as the state of both allows.
fn expired_connections(
    entries: Vec<(ConntrackKey, ConntrackValue)>,
    now_ns: u64,
    timeouts: &Timeouts,
) -> Vec<(ConntrackKey, u64)> {
    let entries: StdHashMap<ConntrackKey, ConntrackValue> = entries.into_iter().collect();
    let mut expired = HashSet::new();
    for (key, value) in &entries {
        let other_key = other(key, value);
        let other = entries.get(&other_key);
        let seen_ns = other.map_or(0, |other| other.seen_ns).max(value.seen_ns);
        let flags = other.map_or(0, |other| other.flags) | value.flags;
        let idle = Duration::from_nanos(now_ns.saturating_sub(seen_ns));
        if idle > timeouts.of(key.proto, flags) {
            expired.insert((*key, value.seen_ns));
            expired.extend(other.map(|other| (other_key, other.seen_ns)));
        }
    }
    expired.into_iter().collect()
}

/// Key of the entry of the other direction.
fn other(key: &ConntrackKey, value: &ConntrackValue) -> ConntrackKey {
    ConntrackKey {
        src: value.dst,
        dst: value.src,
        src_port: value.dst_port,
        dst_port: value.src_port,
        proto: key.proto,
        _pad: [0; 3],
    }
}

fn read<K, V>(spec: MapSpec, map: &MapData) -> Result<Vec<(K, V)>, KernelError>
where
    K: FromBytes + IntoBytes + Immutable + Copy,
    V: FromBytes + IntoBytes + Immutable + Copy,
{
    read_all(map.fd().as_fd()).map_err(KernelError::file("reading eBPF map", spec.name))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use fairlead_abi::{Addr16, Be16, conntrack::CT_REPLY};

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Both entries of a connection whose directions were last seen at these seconds, with flags.
    fn connection(proto: u8, flags: u16, seen: [u64; 2]) -> Vec<(ConntrackKey, ConntrackValue)> {
        let at = |last| Addr16::from(Ipv4Addr::new(10, 0, 0, last));
        let port = Be16::new;
        let key = |src, dst, src_port, dst_port| ConntrackKey {
            src: at(src),
            dst: at(dst),
            src_port: port(src_port),
            dst_port: port(dst_port),
            proto,
            _pad: [0; 3],
        };
        let value = |src, dst, src_port, dst_port, seen, flags| ConntrackValue {
            seen_ns: seen * SECOND,
            src: at(src),
            dst: at(dst),
            src_port: port(src_port),
            dst_port: port(dst_port),
            flags,
            ..ConntrackValue::default()
        };
        // A client, 1, reaches a service, 2, and is masqueraded as 3 towards the backend, 4.
        vec![
            (key(1, 2, 1000, 80), value(3, 4, 61_000, 8080, seen[0], flags)),
            (key(4, 3, 8080, 61_000), value(2, 1, 80, 1000, seen[1], flags | CT_REPLY)),
        ]
    }

    #[test]
    fn a_connection_expires_as_a_whole_when_its_state_s_time_is_over() {
        let timeouts = Timeouts::default();
        let both_fin = CT_ANSWERED | CT_CLIENT_FIN | CT_BACKEND_FIN;
        #[rustfmt::skip]
        let table = [
            ("established", TCP, CT_ANSWERED, 24 * 60 * 60),
            ("half closed", TCP, CT_ANSWERED | CT_CLIENT_FIN, 60 * 60),
            ("closed", TCP, both_fin, 60),
            ("reset", TCP, CT_ANSWERED | CT_RESET, 60),
            ("half open", TCP, 0, 120),
            ("datagrams", UDP, 0, 60),
            ("answered datagrams", UDP, CT_ANSWERED, 180),
            ("an echo", 1, CT_ANSWERED, 30),
        ];
        for (name, proto, flags, seconds) in table {
            for seen in [[10, 0], [0, 10]] {
                let expired = |now| expired_connections(connection(proto, flags, seen), now, &timeouts).len();
                assert_eq!(expired((10 + seconds) * SECOND), 0, "{name}: one direction keeps the other");
                assert_eq!(expired((10 + seconds) * SECOND + 1), 2, "{name}");
            }
        }
    }

    #[test]
    fn in_a_full_table_ended_and_unanswered_connections_go_soon_and_no_other() {
        let timeouts = Timeouts::default();
        let seconds = |timeouts: Timeouts| {
            [timeouts.tcp_closing, timeouts.tcp_half_open, timeouts.udp, timeouts.other].map(|t| t.as_secs())
        };
        let table = [
            (0.0, [60, 120, 60, 30]),
            (0.5, [60, 120, 60, 30]),
            (0.75, [30, 60, 30, 15]),
            (1.0, [2, 4, 2, 1]),
        ];
        for (ratio, expected) in table {
            let pressed = timeouts.under_pressure(ratio);
            assert_eq!(seconds(pressed), expected, "{ratio}");
            let kept = |t: Timeouts| [t.tcp_established, t.tcp_close_wait, t.udp_answered];
            assert_eq!(kept(pressed), kept(timeouts), "{ratio}");
        }
    }

    #[test]
    fn half_of_a_connection_expires_alone() {
        let mut half = connection(UDP, 0, [10, 10]);
        half.pop();
        assert_eq!(expired_connections(half, 100 * SECOND, &Timeouts::default()).len(), 1);
    }

    #[test]
    fn a_fuller_map_is_looked_through_more_often() {
        let at = |entries| {
            let conntrack = Fill { entries, capacity: 100, removed: 0 };
            Collected { conntrack, ..Collected::default() }.next_in()
        };
        assert_eq!((at(0), at(100)), (INTERVAL_MAX, INTERVAL_MIN));
        assert!(at(10) > at(50) && at(50) > at(80));
    }
}
