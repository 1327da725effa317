//! UDP flows in conntrack: listing them and deleting the ones that lead nowhere.

use std::net::SocketAddr;

use fairlead_plan::classic::{
    Family,
    conntrack::{Flow, parse},
};

use crate::{KernelError, tool};

/// All UDP flows of a family.
///
/// # Errors
/// `conntrack` is missing or fails.
pub async fn udp_flows(family: Family) -> Result<Vec<Flow>, KernelError> {
    let family = match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    };
    Ok(parse(&tool::expect("conntrack", &["-L", "-p", "udp", "-f", family], None).await?))
}

/// Deletes flows; one that is gone by itself is fine.
///
/// # Errors
/// `conntrack` is missing or fails.
pub async fn delete(flows: &[Flow]) -> Result<(), KernelError> {
    for flow in flows {
        let text = |socket: SocketAddr| (socket.ip().to_string(), socket.port().to_string());
        let ((from, from_port), (to, to_port)) = (text(flow.from), text(flow.to));
        let arguments = [
            "-D",
            "-p",
            "udp",
            "--orig-src",
            &from,
            "--sport",
            &from_port,
            "--orig-dst",
            &to,
            "--dport",
            &to_port,
        ];
        let output = tool::run("conntrack", &arguments, None).await?;
        if !output.success && !output.stderr.contains("0 flow entries") {
            return Err(tool::failure("conntrack", &output.stderr, None));
        }
    }
    Ok(())
}
