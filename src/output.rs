//! How results are printed: a table for people, JSON or YAML for programs.

use std::{fmt::Write as _, io::Write as _, time::Duration};

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

/// How to print.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// One JSON document.
    Json,
    /// One YAML document.
    Yaml,
}

/// Prints `value` as JSON or YAML, or what `table` makes of it.
pub(crate) fn print<T: Serialize>(
    format: Format,
    value: &T,
    table: impl FnOnce(&T) -> String,
) -> anyhow::Result<()> {
    let text = match format {
        Format::Table => table(value),
        Format::Json => serde_json::to_string_pretty(value)?,
        Format::Yaml => serde_yaml_ng::to_string(value)?,
    };
    line(text.trim_end())
}

/// Writes a line to standard output. An output that is closed is an error and never a panic.
pub(crate) fn line(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()?;
    Ok(())
}

/// Lays rows out in columns the way kubectl does.
pub(crate) fn columns(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().copied());
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    let mut text = String::new();
    for row in table.lines() {
        let _ = writeln!(text, "{}", row.trim_end());
    }
    text
}

/// A number of bytes, as `340 B` or `1.2 KiB`.
pub(crate) fn bytes(count: u64) -> String {
    scaled(count as f64, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB"])
}

/// A number, as `340` or `1.2 k`.
pub(crate) fn count(count: u64) -> String {
    scaled(count as f64, 1000.0, &["", "k", "M", "G", "T", "P"]).trim_end().to_owned()
}

/// A rate of bytes, as `1.2 KiB/s`.
pub(crate) fn bytes_per_sec(rate: f64) -> String {
    format!("{}/s", scaled(rate.round(), 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB"]))
}

/// A rate of events, as `1.2 k/s`.
pub(crate) fn per_sec(rate: f64) -> String {
    format!("{}/s", scaled(rate, 1000.0, &["", "k", "M", "G", "T", "P"]).trim_end())
}

/// The time of day as flow records write it.
pub(crate) fn rfc3339_now() -> String {
    format!("{:.6}", jiff::Timestamp::now())
}

/// A duration, as `92 µs`, `12 ms` or `1.4 s`.
pub(crate) fn duration(length: Duration) -> String {
    match length.as_micros() {
        us @ 0..1_000 => format!("{us} µs"),
        us @ 1_000..1_000_000 => format!("{} ms", us / 1_000),
        us if us < 60_000_000 => format!("{:.1} s", us as f64 / 1e6),
        us => format!("{} min {} s", us / 60_000_000, us / 1_000_000 % 60),
    }
}

fn scaled(mut value: f64, step: f64, units: &[&str]) -> String {
    let mut unit = 0;
    while value >= step && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    let name = units[unit];
    if unit == 0 && value.fract() == 0.0 {
        format!("{value:.0} {name}")
    } else {
        format!("{value:.1} {name}")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{bytes, bytes_per_sec, columns, count, duration, per_sec};

    #[test]
    fn quantities_read_well() {
        for (got, want) in [
            (bytes(0), "0 B"),
            (bytes(340), "340 B"),
            (bytes(1_229), "1.2 KiB"),
            (bytes(5 << 30), "5.0 GiB"),
            (count(999), "999"),
            (count(12_300), "12.3 k"),
            (bytes_per_sec(2048.0), "2.0 KiB/s"),
            (per_sec(0.5), "0.5/s"),
            (per_sec(3.0), "3/s"),
            (duration(Duration::from_micros(92)), "92 µs"),
            (duration(Duration::from_millis(12)), "12 ms"),
            (duration(Duration::from_millis(1_430)), "1.4 s"),
            (duration(Duration::from_secs(61)), "1 min 1 s"),
        ] {
            assert_eq!(got, want);
        }
    }

    #[test]
    fn columns_are_aligned_and_lines_have_no_blanks_at_their_ends() {
        let text =
            columns(&["NAME", "PODS"], [vec!["node-1".into(), "3".into()], vec!["n".into(), "12".into()]]);
        assert_eq!(text, "NAME     PODS\nnode-1   3\nn        12\n");
    }
}
