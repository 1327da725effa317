//! Rows as tables of text.

use std::collections::BTreeMap;

use super::{Row, chart::number, ratio::is_spread};

/// A table with a line for each mode, path and number of services, and a column for each operation; for each benchmark and
/// family.
pub(super) fn markdown(rows: &[Row]) -> String {
    let mut out = String::new();
    for (title, ops, lines) in tables(rows) {
        out += &format!("\n### {title}\n\n| mode | services |");
        ops.iter().for_each(|op| out += &format!(" {op} |"));
        out += "\n|---|---:|";
        ops.iter().for_each(|_| out += "---:|");
        out.push('\n');
        for (name, services, cells) in lines {
            out += &format!("| {name} | {} |", number(f64::from(services)));
            for op in &ops {
                out += &format!(" {} |", cells.get(op).copied().map(number).unwrap_or_default());
            }
            out.push('\n');
        }
    }
    out.trim_start().to_owned()
}

/// A line for each row.
pub(super) fn csv(rows: &[Row]) -> String {
    let mut out = "bench,mode,family,path,services,op,value,unit\n".to_owned();
    for Row { bench, mode, family, path, services, op, value, unit } in rows {
        out += &format!("{bench},{mode},{family},{path},{services},{op},{value},{unit}\n");
    }
    out
}

/// Name, number of services, value of each operation.
type Line = (String, u32, BTreeMap<String, f64>);

/// Title, operations in their order, lines. The unit is in the title, or with the operations if there are several.
pub(super) fn tables(rows: &[Row]) -> Vec<(String, Vec<String>, Vec<Line>)> {
    let mut tables: Vec<(String, Vec<String>, Vec<Line>)> = Vec::new();
    // How far rounds were apart is in the charts and in the CSV.
    for row in rows.iter().filter(|row| !is_spread(row)) {
        let mut title = format!("{}, {}", row.bench, family(&row.family));
        let mut op = row.op.clone();
        match &units(rows, &row.bench)[..] {
            _ if row.unit == "ratio" => title += ", relative to none",
            [unit] => title += &format!(", {unit}"),
            _ => op += &format!(", {}", spelled(&row.unit)),
        }
        let at = tables.iter().position(|table| table.0 == title).unwrap_or_else(|| {
            tables.push((title, Vec::new(), Vec::new()));
            tables.len() - 1
        });
        let (_, ops, lines) = &mut tables[at];
        if !ops.contains(&op) {
            ops.push(op.clone());
        }
        let name = row.name();
        let at =
            lines.iter().position(|line| line.0 == name && line.1 == row.services).unwrap_or_else(|| {
                lines.push((name, row.services, BTreeMap::new()));
                lines.len() - 1
            });
        lines[at].2.insert(op, row.value);
    }
    tables
}

fn family(name: &str) -> &str {
    match name {
        "ipv4" => "IPv4",
        "ipv6" => "IPv6",
        other => other,
    }
}

/// What the numbers of a benchmark are in.
fn units<'a>(rows: &'a [Row], bench: &str) -> Vec<&'a str> {
    let mut units: Vec<&str> = rows
        .iter()
        .filter(|row| row.bench == bench && row.unit != "ratio")
        .map(|row| spelled(&row.unit))
        .collect();
    units.sort_unstable();
    units.dedup();
    units
}

fn spelled(unit: &str) -> &str {
    if unit == "kinsn" { "thousand instructions" } else { unit }
}
