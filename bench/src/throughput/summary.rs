//! Medians, and ratios to no load balancing, of what was measured in several rounds.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    op::Op,
    place::{NONE, Path},
};

/// What a measurement is of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Key {
    pub(super) family: &'static str,
    pub(super) path: Path,
    pub(super) op: Op,
    /// Its place in the list of modes, and its name.
    pub(super) mode: (usize, &'static str),
}

/// A measurement, by round.
pub(super) type Samples = BTreeMap<Key, BTreeMap<u32, f64>>;

/// One number.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(super) struct Row {
    /// `throughput`.
    pub(super) bench: &'static str,
    /// How services are programmed, or `none`.
    pub(super) mode: &'static str,
    /// `ipv4` or `ipv6`.
    pub(super) family: &'static str,
    /// `same-node` or `cross-node`.
    pub(super) path: &'static str,
    /// How many services there are beside the two that are asked.
    pub(super) services: u32,
    /// The operation; with `-ratio`, `-ratio-low` and `-ratio-high` its ratio to no load balancing in the same round:
    /// the median of the rounds, the least and the largest.
    pub(super) op: String,
    /// The number: the median of the rounds, where it is no ratio.
    pub(super) value: f64,
    /// `Gbit/s`, `1/s` or `ratio`.
    pub(super) unit: &'static str,
}

/// Median, least and largest.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Spread {
    /// Of a list that is not empty.
    pub(super) fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let (low, high) = (values[0], values[values.len() - 1]);
        let (left, right) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        Self { median: f64::midpoint(left, right), low, high }
    }
}

/// A line for people and for machines.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Line {
    pub(super) key: Key,
    pub(super) measured: Spread,
    /// To no load balancing; none for that itself.
    pub(super) ratio: Option<Spread>,
}

/// Every measurement with its ratio.
pub(super) fn lines(samples: &Samples) -> Vec<Line> {
    let line = |(key, rounds): (&Key, &BTreeMap<u32, f64>)| {
        let floor = samples.iter().find(|(other, _)| {
            other.mode.1 == NONE && (other.family, other.path, other.op) == (key.family, key.path, key.op)
        });
        let floor = floor.filter(|_| key.mode.1 != NONE);
        // Each round against its own, so that what the machine does meanwhile concerns both.
        let ratios = floor.map(|(_, floor)| {
            rounds.iter().filter_map(|(round, value)| Some(value / floor.get(round)?)).collect::<Vec<_>>()
        });
        let ratio = ratios.filter(|ratios| !ratios.is_empty()).map(Spread::of);
        Line { key: *key, measured: Spread::of(rounds.values().copied().collect()), ratio }
    };
    samples.iter().map(line).collect()
}

impl Line {
    /// As rows.
    pub(super) fn rows(&self, services: u32) -> Vec<Row> {
        let Key { family, path, op, mode } = self.key;
        let path = path.name();
        let (name, unit) = op.row();
        let services = if mode.1 == NONE { 0 } else { services };
        let row = |op: String, value: f64, unit| Row {
            bench: "throughput",
            mode: mode.1,
            family,
            path,
            services,
            op,
            value: (value * 1e4).round() / 1e4,
            unit,
        };
        let mut rows = vec![row(name.to_owned(), self.measured.median, unit)];
        if let Some(Spread { median, low, high }) = self.ratio {
            for (what, value) in [("ratio", median), ("ratio-low", low), ("ratio-high", high)] {
                rows.push(row(format!("{name}-{what}"), value, "ratio"));
            }
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(index: usize, mode: &'static str) -> Key {
        Key { family: "ipv4", path: Path::SameNode, op: Op::TcpRr, mode: (index, mode) }
    }

    #[test]
    fn a_ratio_compares_measurements_of_one_round() {
        let rounds = |values: [f64; 3]| (0..).zip(values).collect::<BTreeMap<u32, f64>>();
        // The machine is slow in the last round, for both.
        let samples = Samples::from([
            (key(0, NONE), rounds([100.0, 110.0, 50.0])),
            (key(1, "ebpf"), rounds([110.0, 99.0, 60.0])),
        ]);
        let lines = lines(&samples);
        assert_eq!(lines[0].ratio, None);
        let ratio = lines[1].ratio.expect("it is compared");
        let near = |value: f64, expected: f64| (value - expected).abs() < 1e-9;
        assert!(near(ratio.median, 1.1) && near(ratio.low, 0.9) && near(ratio.high, 1.2), "{ratio:?}");
        let rows = lines[1].rows(1_000);
        let ops: Vec<_> = rows.iter().map(|row| (row.op.as_str(), row.unit, row.value)).collect();
        assert_eq!(
            ops,
            [
                ("tcp-rr", "1/s", 99.0),
                ("tcp-rr-ratio", "ratio", 1.1),
                ("tcp-rr-ratio-low", "ratio", 0.9),
                ("tcp-rr-ratio-high", "ratio", 1.2),
            ]
        );
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(Spread::of(vec![3.0, 1.0, 2.0]), Spread { median: 2.0, low: 1.0, high: 3.0 });
        assert_eq!(Spread::of(vec![4.0, 1.0]), Spread { median: 2.5, low: 1.0, high: 4.0 });
    }
}
