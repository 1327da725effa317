//! `fairlead bpf`: what is in the kernel's maps, decoded.

use std::net::{IpAddr, SocketAddr};

use clap::{Args, ValueEnum};
use fairlead_agent::inspect::{Backend, Connection, Dump, Frontend, MapRow, ServiceRef, Session};

use crate::{
    admin,
    inspect::{self, NodeArgs},
    output::{self, Format, bytes, columns, count},
};

const EXAMPLES: &str = "\
Examples:
  fairlead bpf maps                        How full maps are and what they take
  fairlead bpf services --node node-1      Frontends and the backends they choose from
  fairlead bpf nat -o json                 Connections whose client's address was replaced
  fairlead bpf backends --bpffs /sys/fs/bpf/fairlead/worker-7

With a running agent the rows have names of services; without one the pinned maps are read all the same.";

/// Arguments of `fairlead bpf`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct BpfArgs {
    /// Which map
    #[arg(value_enum)]
    what: What,
    #[command(flatten)]
    node: NodeArgs,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// What can be shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum What {
    /// Frontends, each with the backends that it chooses from
    Services,
    /// Endpoints
    Backends,
    /// Connections that the link programs translate, both directions of each
    Conntrack,
    /// Clients that stay with a backend
    Affinity,
    /// Connections whose client's address was replaced
    Nat,
    /// Every map: entries, capacity, memory
    Maps,
}

impl What {
    fn kind(self) -> fairlead_agent::inspect::Kind {
        use fairlead_agent::inspect::Kind;
        match self {
            Self::Services => Kind::Services,
            Self::Backends => Kind::Backends,
            Self::Conntrack => Kind::Conntrack,
            Self::Affinity => Kind::Affinity,
            Self::Nat => Kind::Nat,
            Self::Maps => Kind::Maps,
        }
    }
}

/// Reads and prints.
pub(crate) fn run(args: &BpfArgs) -> anyhow::Result<()> {
    let dump = admin::runtime()?.block_on(inspect::read(&args.node, args.what.kind()))?;
    output::print(args.output, &dump, table)
}

fn table(dump: &Dump) -> String {
    match dump {
        Dump::Services(rows) => show(rows, SERVICES),
        Dump::Backends(rows) => show(rows, BACKENDS),
        Dump::Conntrack(rows) | Dump::Nat(rows) => show(rows, CONNECTIONS),
        Dump::Affinity(rows) => show(rows, SESSIONS),
        Dump::Maps(rows) => {
            let memory: u64 = rows.iter().map(|row| row.memory_bytes).sum();
            format!("{}\n{} in all\n", show(rows, MAPS), bytes(memory))
        }
    }
}

/// A column: its header and its cell of a row.
type Column<T> = (&'static str, fn(&T) -> String);

const SERVICES: &[Column<Frontend>] = &[
    ("SERVICE", |row| name(row.service.as_ref())),
    ("FRONTEND", frontend),
    ("ID", |row| row.id.to_string()),
    ("CLUSTER", |row| indexes(&row.cluster)),
    ("LOCAL", |row| indexes(&row.local)),
    ("CHOICE", choice),
    ("FLAGS", |row| row.flags.join(",")),
];

const BACKENDS: &[Column<Backend>] = &[
    ("INDEX", |row| row.index.to_string()),
    ("BACKEND", |row| format!("{}/{}", SocketAddr::new(row.address, row.port), row.protocol)),
    ("SERVICE", |row| name(row.service.as_ref())),
    ("ID", |row| row.id.map_or_else(dash, |id| id.to_string())),
    ("GENERATION", |row| row.generation.to_string()),
    ("FLAGS", |row| row.flags.join(",")),
];

const CONNECTIONS: &[Column<Connection>] = &[
    ("PROTOCOL", |row| row.protocol.clone()),
    ("FROM", |row| endpoint(row.from)),
    ("TO", |row| endpoint(row.to)),
    ("BECOMES FROM", |row| endpoint(row.becomes_from)),
    ("BECOMES TO", |row| endpoint(row.becomes_to)),
    ("VIA", |row| row.node.map_or_else(dash, |node| node.to_string())),
    ("IDLE", |row| format!("{} s", row.idle_secs)),
    ("FLAGS", |row| row.flags.join(",")),
];

const SESSIONS: &[Column<Session>] = &[
    ("CLIENT", client),
    ("SERVICE", |row| name(row.service.as_ref())),
    ("ID", |row| row.id.to_string()),
    ("BACKEND", |row| row.backend.to_string()),
    ("VALID", |row| if row.valid { "yes" } else { "no" }.to_owned()),
    ("IDLE", |row| format!("{} s", row.idle_secs)),
];

const MAPS: &[Column<MapRow>] = &[
    ("MAP", |row| row.name.clone()),
    ("TYPE", |row| row.kind.clone()),
    ("USED", |row| row.used.map_or_else(dash, |used| count(used.into()))),
    ("CAPACITY", |row| count(row.capacity.into())),
    ("FILL", |row| row.used.map_or_else(dash, |used| percent(used, row.capacity))),
    ("MEMORY", |row| bytes(row.memory_bytes)),
];

fn show<T>(rows: &[T], table: &[Column<T>]) -> String {
    let header: Vec<_> = table.iter().map(|(header, _)| *header).collect();
    columns(&header, rows.iter().map(|row| table.iter().map(|(_, cell)| cell(row)).collect()))
}

/// `demo/web:http`.
pub(crate) fn name(service: Option<&ServiceRef>) -> String {
    let Some(ServiceRef { namespace, name, port }) = service else { return dash() };
    let port = if port.is_empty() { String::new() } else { format!(":{port}") };
    format!("{namespace}/{name}{port}")
}

/// `10.96.0.1:80/TCP`, or `*:30080/TCP (IPv4)` for a node port.
pub(crate) fn frontend(row: &Frontend) -> String {
    match (row.scope.as_str(), row.address) {
        ("node-port", IpAddr::V4(_)) => format!("*:{}/{} (IPv4)", row.port, row.protocol),
        ("node-port", IpAddr::V6(_)) => format!("*:{}/{} (IPv6)", row.port, row.protocol),
        _ => format!("{}/{}", SocketAddr::new(row.address, row.port), row.protocol),
    }
}

/// How a backend is chosen.
pub(crate) fn choice(row: &Frontend) -> String {
    let choice = match row.maglev_table {
        0 => "random".to_owned(),
        length => format!("maglev({length})"),
    };
    match row.affinity_secs {
        0 => choice,
        secs => format!("{choice}, client stays {secs} s"),
    }
}

/// `3,4,7`, runs as `3-7`.
fn indexes(list: &[u32]) -> String {
    if list.is_empty() {
        return dash();
    }
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for index in list {
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(*index) => *last = *index,
            _ => runs.push((*index, *index)),
        }
    }
    let run = |(first, last): (u32, u32)| match last - first {
        0 => first.to_string(),
        _ => format!("{first}-{last}"),
    };
    runs.into_iter().map(run).collect::<Vec<_>>().join(",")
}

fn endpoint((address, port): (IpAddr, u16)) -> String {
    SocketAddr::new(address, port).to_string()
}

fn client(row: &Session) -> String {
    match (row.client, row.netns) {
        (Some(address), _) => address.to_string(),
        (None, Some(cookie)) => format!("netns {cookie}"),
        (None, None) => dash(),
    }
}

fn percent(used: u32, capacity: u32) -> String {
    format!("{:.1} %", 100.0 * f64::from(used) / f64::from(capacity.max(1)))
}

fn dash() -> String {
    "-".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_backends_are_short() {
        for (list, text) in
            [(&[][..], "-"), (&[5], "5"), (&[1, 2, 3, 7, 9, 10], "1-3,7,9-10"), (&[4, 3], "4,3")]
        {
            assert_eq!(indexes(list), text);
        }
    }

    #[test]
    fn a_map_is_shown_with_its_fill_and_the_sum_of_all() {
        let row = |name: &str, used, memory_bytes| MapRow {
            name: name.into(),
            kind: "hash".into(),
            used,
            capacity: 1000,
            memory_bytes,
        };
        let text = table(&Dump::Maps(vec![row("SERVICES", Some(250), 1 << 20), row("SLOTS", None, 1 << 20)]));
        assert!(text.contains("SERVICES   hash   250    1.0 k      25.0 %   1.0 MiB"), "{text}");
        assert!(text.ends_with("\n2.0 MiB in all\n"), "{text}");
    }
}
