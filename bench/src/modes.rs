//! How services are programmed, as benchmarks name and choose it.

use std::path::Path;

use anyhow::{Result, bail, ensure};

/// A name, and what the machine must have for it; without that it is left out, and that is said.
pub(crate) type Mode = (&'static str, Option<&'static str>);

/// The agent's modes, in the order in which they are measured.
pub(crate) const MODES: &[Mode] =
    &[("ebpf", None), ("nftables", None), ("iptables", None), ("ipvs", Some("/proc/net/ip_vs"))];

/// Those of `all` that are `wanted`, which are all if none is, and that this machine can do.
///
/// # Errors
/// A name is not among them, or nothing is left to measure.
pub(crate) fn chosen(all: &[Mode], wanted: &[String]) -> Result<Vec<&'static str>> {
    check_names(all.iter().map(|mode| mode.0), wanted)?;
    let mut chosen = Vec::new();
    for (name, needs) in
        all.iter().filter(|mode| wanted.is_empty() || wanted.iter().any(|name| name == mode.0))
    {
        match needs.filter(|needed| !Path::new(needed).exists()) {
            Some(needed) => println!("{name} is left out: this kernel has no {needed}"),
            None => chosen.push(*name),
        }
    }
    ensure!(!chosen.is_empty(), "this machine can do none of these modes: {}", wanted.join(", "));
    Ok(chosen)
}

/// Refuses a name that is not among those that are known.
pub(crate) fn check_names<'a>(known: impl Iterator<Item = &'a str>, wanted: &[String]) -> Result<()> {
    let mut known: Vec<_> = known.collect();
    known.dedup();
    match wanted.iter().find(|name| !known.contains(&name.as_str())) {
        Some(unknown) => bail!("{unknown:?} is no mode; there are {}", known.join(", ")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_nobody_knows_or_a_machine_that_can_do_nothing_is_no_success() {
        let all = [("ebpf", None), ("nftables", None), ("ipvs", Some("/nowhere"))];
        let choose = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            chosen(&all, &names).map_err(|error| error.to_string())
        };
        assert_eq!(choose(&[]), Ok(vec!["ebpf", "nftables"]));
        assert_eq!(choose(&["ipvs", "ebpf"]), Ok(vec!["ebpf"]));
        let unknown = "\"ebfp\" is no mode; there are ebpf, nftables, ipvs";
        assert_eq!(choose(&["ebpf", "ebfp"]), Err(unknown.to_owned()));
        assert_eq!(choose(&["ipvs"]), Err("this machine can do none of these modes: ipvs".to_owned()));
    }
}
