//! The page: sections of charts, tables, and the numbers themselves.

use anyhow::{Context, Result};

use super::{
    Report, Row,
    chart::{Bar, Line, bars, escaped, lines, number},
    ratio,
    table::tables,
};

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:1080px;margin:2rem auto;padding:0 1rem;color:#222}\
h1{font-size:1.6rem}h2{margin-top:2.5rem;font-size:1.2rem}svg{max-width:100%;height:auto}text{font-size:12px;fill:#333;paint-order:stroke;stroke:#fff;stroke-width:3px}\
.grid{stroke:#ddd}.one{stroke:#222;stroke-dasharray:4 3}.spread{stroke:#222;stroke-width:1.5}table{border-collapse:collapse;font-size:13px;margin:1rem 0;display:block;overflow-x:auto}\
td,th{padding:.2rem .7rem;border-bottom:1px solid #ddd;text-align:right;white-space:nowrap}td:first-child,th:first-child{text-align:left}\
.machine td{text-align:left}p{max-width:44rem}";

/// The floor of `bench cost`.
const FLOOR: &str = "loopback";
/// In paths of rows that are about one program.
const HOOK: &str = "hook";
const RANDOM: &str = "random-target";

/// A chart over the number of services.
struct Curve {
    bench: &'static str,
    op: &'static str,
    title: &'static str,
    /// How to read it.
    note: &'static str,
}

const CURVES: &[Curve] = &[
    Curve {
        bench: "cost",
        op: "connect",
        title: "A new connection, a byte each way",
        note: "Instructions of client, server and kernel, from a pod to the last of so many services, whose server \
            is a pod of the same node.",
    },
    Curve {
        bench: "cost",
        op: "roundtrip",
        title: "A byte each way on an open connection",
        note: "The same, when the connection is there already.",
    },
    Curve {
        bench: "programming",
        op: "cold",
        title: "All services into the kernel of a node that starts",
        note: "From the arrival of the cluster at the agent until its services are in the kernel, \
            with 10 endpoints each (50 where there are 20 000 of them).",
    },
    Curve {
        bench: "programming",
        op: "change-p50",
        title: "One endpoint changes",
        note: "From the arrival of the change until it is in the kernel; half of the changes take less.",
    },
    Curve {
        bench: "programming",
        op: "change-cpu",
        title: "Processor time of that change",
        note: "Of the agent and of the programs that it runs.",
    },
];
/// A chart with a bar for each way.
struct Comparison {
    op: &'static str,
    title: &'static str,
    /// Whether what loopback costs is left out.
    over_floor: bool,
    /// How to read it.
    note: &'static str,
}

const COMPARISONS: &[Comparison] = &[
    Comparison { op: "connect", title: "a new connection", over_floor: true, note: OVERHEAD },
    Comparison { op: "roundtrip", title: "a round trip", over_floor: true, note: OVERHEAD },
    Comparison {
        op: "nodeport-local",
        title: "A new connection from outside to a node port, with the server there",
        over_floor: false,
        note: "All of it: the client's machine, the switch, the node.",
    },
    Comparison {
        op: "nodeport-remote",
        title: "The same with the server on another node",
        over_floor: false,
        note: "Modes with rules, and “masquerade”, send it on in the name of the first node. By default the server sees the client, \
            and answers by the first node; with “direct” it answers the client itself.",
    },
];
/// What is said with the bars.
const OVERHEAD: &str = "What a way adds to the same between two sockets of one network namespace. “none” is the kernel's own routing \
    between two namespaces, “pod” two pods without a service; a number is one of services.";
const PROGRAMS: &str =
    "Instructions within each program, for one operation; what the kernel counts of its runs.";
const RATIOS: &str = "By the clock: the median of rounds in which the modes took turns, and a line from the least to the largest. \
    At the dashed line it is as fast as plain routing without a service.";

const MADE: &str = "The numbers were measured before, perhaps by other builds and on other machines, as is told beside them. \
    Those in instructions are always of an emulated machine with a kernel of its own.";

pub(super) fn html(report: &Report) -> Result<String> {
    let rows = &report.rows;
    let json = serde_json::to_string(rows).context("cannot write the rows")?;
    let sections = [curves(rows), comparisons(rows), hooks(rows), ratios(rows), all(rows)].concat();
    let made: String = report
        .made
        .iter()
        .map(|(name, value)| format!("<tr><td>{name}</td><td>{}</td></tr>", escaped(value)))
        .collect();
    // What is in a script element ends at `</`, whatever JSON says.
    let json = json.replace("</", "<\\/");
    Ok(format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>Fairlead, measured</title><style>{STYLE}</style>\n\
         <h1>Fairlead, measured</h1>\n{sections}<h2>Where this page was made</h2><p>{MADE}</p><table class=\"machine\">{made}</table>\n\
         <script type=\"application/json\" id=\"rows\">{json}</script></html>\n"
    ))
}

fn section(title: &str, note: &str, body: &str) -> String {
    let note = if note.is_empty() { String::new() } else { format!("<p>{}</p>", escaped(note)) };
    format!("<section><h2>{}</h2>{note}{body}</section>\n", escaped(title))
}

/// Whether a row is of a path from end to end, and not of a part or a variant of one.
fn is_whole(row: &Row) -> bool {
    !is_hook(row) && !row.path.ends_with(RANDOM)
}

/// Whether a row is about one program.
fn is_hook(row: &Row) -> bool {
    row.path.split(' ').any(|word| word == HOOK)
}

fn curves(rows: &[Row]) -> String {
    let mut out = String::new();
    for Curve { bench, op, title, note } in CURVES {
        for family in ["ipv4", "ipv6"] {
            let of_curve = |row: &&Row| row.bench == *bench && row.op == *op && row.family == family;
            let mut drawn: Vec<Line> = Vec::new();
            let mut unit = String::new();
            for row in rows.iter().filter(of_curve).filter(|row| is_whole(row) && row.services > 0) {
                unit.clone_from(&row.unit);
                let (name, point) = (row.name(), (f64::from(row.services), row.value));
                match drawn.iter_mut().find(|line| line.name == name) {
                    Some(line) => line.points.push(point),
                    None => drawn.push(Line { name, points: vec![point] }),
                }
            }
            if drawn.iter().any(|line| line.points.len() > 1) {
                let unit = if unit == "kinsn" { "thousand instructions" } else { &unit };
                out += &section(&format!("{title}, {family}"), note, &lines(&drawn, unit));
            }
        }
    }
    out
}

/// What each way costs: a bar for each.
fn comparisons(rows: &[Row]) -> String {
    let mut out = String::new();
    for Comparison { op, title, over_floor, note } in COMPARISONS {
        let of_op =
            |row: &&Row| row.bench == "cost" && row.op == *op && row.family == "ipv4" && is_whole(row);
        let floor = rows.iter().filter(of_op).find(|row| row.mode == FLOOR);
        let less = match floor.filter(|_| *over_floor) {
            Some(floor) => floor.value,
            None if *over_floor => continue,
            None => 0.0,
        };
        let of_ways: Vec<_> = rows
            .iter()
            .filter(of_op)
            .filter(|row| row.mode != FLOOR)
            .map(|row| {
                let services = if row.services > 0 {
                    format!(", {}", number(f64::from(row.services)))
                } else {
                    String::new()
                };
                let name = format!("{}{services}", row.name());
                Bar { name, kind: row.mode.clone(), value: row.value - less }
            })
            .collect();
        if of_ways.is_empty() {
            continue;
        }
        let over = if *over_floor { format!("Over loopback ({}): ", number(less)) } else { String::new() };
        let title = format!("{over}{title}, ipv4, thousand instructions");
        out += &section(&title, note, &bars(&of_ways));
    }
    out
}

/// What each program takes of it.
fn hooks(rows: &[Row]) -> String {
    let parts: Vec<_> = rows
        .iter()
        .filter(|row| is_hook(row))
        .map(|row| {
            let name = row.name();
            let kind = name.split(HOOK).next().unwrap_or_default().to_owned();
            Bar { name: format!("{name} {}", row.op), kind, value: row.value }
        })
        .collect();
    if parts.is_empty() {
        String::new()
    } else {
        section("Which program takes what, thousand instructions", PROGRAMS, &bars(&parts))
    }
}

/// Throughput against no load balancing.
fn ratios(rows: &[Row]) -> String {
    ratio::charts(rows).iter().map(|(title, chart)| section(title, RATIOS, chart)).collect()
}

fn all(rows: &[Row]) -> String {
    let mut out = String::new();
    for (title, ops, lines) in tables(rows) {
        let heads: String = ops.iter().map(|op| format!("<th>{}</th>", escaped(op))).collect();
        let mut table = format!("<table><tr><th>mode</th><th>services</th>{heads}</tr>");
        for (name, services, cells) in lines {
            table += &format!("<tr><td>{}</td><td>{}</td>", escaped(&name), number(f64::from(services)));
            for op in &ops {
                table += &format!("<td>{}</td>", cells.get(op).copied().map(number).unwrap_or_default());
            }
            table += "</tr>";
        }
        out += &section(&title, "", &(table + "</table>"));
    }
    out
}
