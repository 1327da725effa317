//! Throughput against no load balancing: a bar for the median of the rounds, and a line over it from the least to the largest.

use super::{
    Row,
    chart::{Compared, compared},
};

/// What the operations of ratios end with; rows with the least and the largest of the rounds go on with these.
const RATIO: &str = "-ratio";
const LOW: &str = "-low";
const HIGH: &str = "-high";

/// Whether a row says how far rounds were apart.
pub(super) fn is_spread(row: &Row) -> bool {
    row.unit == "ratio" && (row.op.ends_with(LOW) || row.op.ends_with(HIGH))
}

/// A chart for each path and family: its title, and the drawing.
pub(super) fn charts(rows: &[Row]) -> Vec<(String, String)> {
    let mut charts: Vec<(String, Vec<Compared>)> = Vec::new();
    for row in rows.iter().filter(|row| row.unit == "ratio" && !is_spread(row)) {
        let Row { path, family, op, mode, value, .. } = row;
        let title = format!("Throughput, relative to no load balancing: {path}, {family}");
        let of_rounds = |which: &str| {
            let same = |other: &&Row| {
                (&other.mode, &other.path, &other.family, other.services)
                    == (mode, path, family, row.services)
                    && other.op.strip_suffix(which) == Some(op)
            };
            rows.iter().find(same).map_or(*value, |other| other.value)
        };
        let bar = Compared {
            group: op.strip_suffix(RATIO).unwrap_or(op).to_owned(),
            name: mode.clone(),
            value: *value,
            low: of_rounds(LOW),
            high: of_rounds(HIGH),
        };
        match charts.iter_mut().find(|chart| chart.0 == title) {
            Some((_, bars)) => bars.push(bar),
            None => charts.push((title, vec![bar])),
        }
    }
    charts.into_iter().map(|(title, bars)| (title, compared(&bars))).collect()
}
