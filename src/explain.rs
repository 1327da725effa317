//! `fairlead explain`: what would happen to a new connection on a node, and why.

use std::net::SocketAddr;

use anyhow::{Context as _, bail};
use clap::Args;
use fairlead_agent::{
    CLIENT_PORT,
    inspect::{Explanation, Names, Question, Settings, explain},
};

use crate::{
    admin, bpf,
    inspect::{NodeArgs, Place, find},
    output::{self, Format, columns},
};

const EXAMPLES: &str = "\
Examples:
  fairlead explain demo/client 10.96.3.4:80/TCP          A pod opens a connection to a service
  fairlead explain 192.0.2.7 198.51.100.10:30080/TCP     A client outside, to a node port of this node
  fairlead explain 10.244.0.5 [fd00:96::a]:53/UDP --node node-2 -o json

The programs' own code runs over the maps as they are now; nothing is sent and nothing is changed. Where backends are
chosen by chance, asking again may name another one.";

/// Arguments of `fairlead explain`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ExplainArgs {
    /// Who opens the connection: an address, or NAMESPACE/POD
    #[arg(value_name = "SOURCE")]
    source: String,
    /// What for: ADDRESS:PORT/PROTOCOL
    #[arg(value_name = "DESTINATION", value_parser = destination)]
    destination: (SocketAddr, u8),
    #[command(flatten)]
    node: NodeArgs,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Asks and prints.
pub(crate) fn run(args: &ExplainArgs) -> anyhow::Result<()> {
    let explanation = match find(&args.node)? {
        Place::Agent(socket) => {
            let pairs = [
                ("source", Some(args.source.clone())),
                ("destination", Some(args.destination.0.to_string())),
                ("protocol", Some(args.destination.1.to_string())),
            ];
            admin::runtime()?.block_on(socket.get(&admin::query("/explain", &pairs)))?
        }
        Place::Pins(bpffs) => {
            let source = args.source.parse().with_context(|| {
                format!("{} is no address, and only an agent knows the addresses of pods", args.source)
            })?;
            let (destination, protocol) = args.destination;
            let question = Question { source: SocketAddr::new(source, CLIENT_PORT), destination, protocol };
            explain(&bpffs, Settings::kept(&bpffs)?, &question, &Names::default())?
        }
    };
    output::print(args.output, &explanation, text)?;
    if explanation.works { Ok(()) } else { bail!("the connection would not be made") }
}

fn text(explanation: &Explanation) -> String {
    let Explanation { connection, service, source, steps, outcome, .. } = explanation;
    let of = service.as_ref().map_or_else(String::new, |one| format!("  (service {})", bpf::name(Some(one))));
    let rows = steps.iter().map(|step| vec![step.question.clone(), step.answer.clone()]);
    format!("{connection}{of}\n{source}\n\n{}\n{outcome}\n", columns(&["LOOK-UP", "ANSWER"], rows))
}

/// `10.96.0.1:80/TCP`; TCP when it is left out.
fn destination(text: &str) -> Result<(SocketAddr, u8), String> {
    let (address, protocol) = text.rsplit_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" => 6,
        "udp" => 17,
        "sctp" => 132,
        _ => return Err(format!("{protocol:?} is no protocol of services; use TCP, UDP or SCTP")),
    };
    let address = address
        .parse()
        .map_err(|_| format!("{address:?} is not ADDRESS:PORT; write [ADDRESS]:PORT for IPv6"))?;
    Ok((address, protocol))
}

#[cfg(test)]
mod tests {
    use super::destination;

    #[test]
    fn a_destination_is_address_port_and_protocol() {
        assert_eq!(destination("10.96.0.1:53/udp"), Ok(("10.96.0.1:53".parse().unwrap(), 17)));
        assert_eq!(destination("[fd00::1]:80"), Ok(("[fd00::1]:80".parse().unwrap(), 6)));
        assert!(destination("10.96.0.1:80/icmp").unwrap_err().contains("SCTP"));
        assert!(destination("fd00::1:80").unwrap_err().contains("[ADDRESS]:PORT"));
    }
}
