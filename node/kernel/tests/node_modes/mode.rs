//! A mode at work on the node `a` of the lab.

use std::{collections::BTreeSet, net::IpAddr, path::PathBuf};

use fairlead_kernel::{conntrack, iptables as kernel_iptables, nft};
use fairlead_model::{Prefix, View};
use fairlead_plan::{
    Scope,
    classic::{Config, Family, conntrack::stale},
    iptables, nftables,
};
use fairlead_testkit::netns::run_in;
use tokio::runtime::{Builder, Runtime};

use crate::lab::Lab;

/// A proxy mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    Iptables,
    Nftables,
}

impl Mode {
    pub(crate) const ALL: [Self; 2] = [Self::Iptables, Self::Nftables];
}

/// Planners of a mode, for both families, and what applies their plans.
pub(crate) struct Programmed {
    mode: Mode,
    netns: PathBuf,
    config: Config,
    runtime: Runtime,
    iptables: Vec<iptables::Planner>,
    nftables: Vec<nftables::Planner>,
}

impl Programmed {
    pub(crate) fn new(mode: Mode, lab: &Lab) -> Self {
        let netns = lab.node().netns.path();
        let prefix = |address: &str, length| Prefix { address: address.parse().expect("address"), length };
        let config = Config {
            node: "a".into(),
            pod_networks: vec![prefix("10.244.1.0", 24), prefix("fd00:244:0:1::", 64)],
            node_addresses: lab.node().addresses.clone(),
            service_networks: vec![prefix("10.96.0.0", 16), prefix("fd00:96::", 112)],
            ..Config::default()
        };
        let runtime =
            run_in(&netns, || Builder::new_current_thread().enable_all().build().expect("a runtime"));
        let mut programmed =
            Self { mode, netns, config, runtime, iptables: Vec::new(), nftables: Vec::new() };
        programmed.adopt();
        programmed
    }

    /// Starts from what the kernel has.
    fn adopt(&mut self) {
        let Self { mode, netns, config, runtime, iptables, nftables } = self;
        iptables.clear();
        nftables.clear();
        let (mode, config) = (*mode, config.clone());
        run_in(netns, || {
            runtime.block_on(async {
                for family in Family::ALL {
                    match mode {
                        Mode::Iptables => {
                            let saved = kernel_iptables::observe(family).await.expect("observes");
                            iptables.push(iptables::Planner::adopt(config.clone(), family, saved));
                        }
                        Mode::Nftables => {
                            let observed = nft::observe(family).await.expect("observes");
                            nftables.push(nftables::Planner::adopt(config.clone(), family, observed));
                        }
                    }
                }
            });
        });
    }

    pub(crate) fn sync(&mut self, view: &View) {
        let Self { netns, config, runtime, iptables, nftables, .. } = self;
        run_in(netns, || {
            runtime.block_on(async {
                for (planner, family) in iptables.iter_mut().zip(Family::ALL) {
                    if let Some(restore) = planner.plan(view, Scope::All) {
                        kernel_iptables::apply(family, &restore).await.unwrap_or_else(|e| panic!("{e}"));
                    }
                }
                for planner in nftables.iter_mut() {
                    let scripts = planner.plan(view, Scope::All, 0);
                    nft::apply(&scripts).await.unwrap_or_else(|e| panic!("{e}"));
                }
                for family in Family::ALL {
                    let flows = conntrack::udp_flows(family).await.expect("lists");
                    conntrack::delete(&stale(view, config, family, &flows)).await.expect("deletes");
                }
            });
        });
    }

    /// Observes and plans everything anew.
    pub(crate) fn repair(&mut self, view: &View) {
        self.adopt();
        self.sync(view);
    }

    pub(crate) fn is_intact(&self) -> bool {
        run_in(&self.netns, || {
            self.runtime.block_on(async {
                let mut intact = true;
                for (planner, family) in self.iptables.iter().zip(Family::ALL) {
                    intact &= planner.is_intact(&kernel_iptables::observe(family).await.expect("observes"));
                }
                for (planner, family) in self.nftables.iter().zip(Family::ALL) {
                    intact &= planner.is_intact(&nft::observe(family).await.expect("observes"));
                }
                intact
            })
        })
    }

    /// Takes rules away behind the planners' back.
    pub(crate) fn vandalise(&self) {
        let (program, arguments): (&str, &[&str]) = match self.mode {
            Mode::Iptables => ("iptables", &["-t", "nat", "-F", "KUBE-SERVICES"]),
            Mode::Nftables => ("nft", &["flush", "map", "ip", "kube-proxy", "service-ips"]),
        };
        self.exec(program, arguments);
    }

    pub(crate) fn remove(&self) {
        run_in(&self.netns, || {
            self.runtime.block_on(async {
                for family in Family::ALL {
                    match self.mode {
                        Mode::Iptables => {
                            kernel_iptables::remove(family, iptables::saved::is_ours, &[])
                                .await
                                .expect("removes");
                        }
                        Mode::Nftables => nft::remove(family).await.expect("removes"),
                    }
                }
            });
        });
    }

    /// Chains, rules and tables that anybody has, but for the tables that iptables makes when it is asked.
    pub(crate) fn traces(&self) -> BTreeSet<String> {
        Mode::ALL.into_iter().flat_map(|mode| self.traces_of(mode)).collect()
    }

    pub(crate) fn traces_of(&self, mode: Mode) -> BTreeSet<String> {
        match mode {
            Mode::Iptables => ["iptables-save", "ip6tables-save"]
                .into_iter()
                .flat_map(|program| {
                    let saved = self.exec(program, &[]);
                    let ours = |line: &&str| line.starts_with("-A") || line.ends_with("- [0:0]");
                    saved.lines().filter(ours).map(|line| format!("{program} {line}")).collect::<Vec<_>>()
                })
                .collect(),
            Mode::Nftables => {
                let tables = self.exec("nft", &["list", "tables"]);
                let iptables = |line: &&str| {
                    ["filter", "nat", "mangle"].contains(&line.rsplit(' ').next().unwrap_or_default())
                };
                tables.lines().filter(|line| !iptables(line)).map(str::to_owned).collect()
            }
        }
    }

    fn exec(&self, program: &str, arguments: &[&str]) -> String {
        run_in(&self.netns, || fairlead_testkit::netns::command(program, arguments))
    }
}

/// Whether an address belongs to a family.
pub(crate) fn is_of(address: &IpAddr, v4: bool) -> bool {
    address.is_ipv4() == v4
}
