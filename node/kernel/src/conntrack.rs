//! UDP flows in conntrack: listing where they lead and ending those that lead nowhere.

use std::{collections::BTreeSet, net::SocketAddr};

use fairlead_plan::classic::{
    Family,
    conntrack::{Way, parse},
};

use crate::{KernelError, tool};

/// The ways of all UDP flows of a family.
///
/// # Errors
/// `conntrack` is missing or fails.
pub async fn udp_ways(family: Family) -> Result<BTreeSet<Way>, KernelError> {
    let family = match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    };
    let mut ways = BTreeSet::new();
    // There may be a million flows, of few ways.
    let arguments = ["-L", "-p", "udp", "-f", family];
    let output = tool::run_by_lines("conntrack", &arguments, None, |line| ways.extend(parse(line))).await?;
    if output.is_success() { Ok(ways) } else { Err(output.failure(None)) }
}

/// Deletes all flows of these ways; where there are none any more, that is fine.
///
/// # Errors
/// `conntrack` is missing or fails.
pub async fn end(ways: &[Way]) -> Result<(), KernelError> {
    for way in ways {
        let text = |socket: SocketAddr| (socket.ip().to_string(), socket.port().to_string());
        let ((to, to_port), (from, from_port)) = (text(way.to), text(way.answered_by));
        let arguments = [
            "-D",
            "-p",
            "udp",
            "--orig-dst",
            &to,
            "--orig-port-dst",
            &to_port,
            "--reply-src",
            &from,
            "--reply-port-src",
            &from_port,
        ];
        let output = tool::run("conntrack", &arguments, None).await?;
        if !output.is_success() && !output.stderr.contains("0 flow entries") {
            return Err(output.failure(None));
        }
    }
    Ok(())
}
