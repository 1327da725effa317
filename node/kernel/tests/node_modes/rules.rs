//! A mode with rules at work on the node `a` of the lab.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use fairlead_kernel::{conntrack, iptables as kernel_iptables, ipvs as kernel_ipvs, nft};
use fairlead_model::{Prefix, View};
use fairlead_plan::{
    Scope,
    classic::{Config, Family, conntrack::stale},
    iptables, ipvs, nftables,
};
use fairlead_testkit::netns::run_in;
use tokio::runtime::Runtime;

use crate::{
    lab::Lab,
    mode::{Mode, runtime_in},
};

/// Planners of a mode, one a family, and what applies their plans.
pub(crate) struct Programmed {
    mode: Mode,
    netns: PathBuf,
    config: Config,
    runtime: Runtime,
    planners: Vec<(Family, Planner)>,
    /// In that mode only.
    ipvs: Option<kernel_ipvs::Ipvs>,
    /// What the kernel has not taken of it.
    pub(crate) refused: Vec<String>,
}

enum Planner {
    Iptables(iptables::Planner),
    Nftables(nftables::Planner),
    Ipvs(ipvs::Planner),
}

impl Programmed {
    pub(crate) fn new(mode: Mode, lab: &Lab) -> Self {
        let netns = lab.node().netns.path();
        let prefix = |address: &str, length| Prefix { address: address.parse().expect("address"), length };
        let config = Config {
            node: "a".into(),
            pod_networks: vec![prefix("10.244.1.0", 24), prefix("fd00:244:0:1::", 64)],
            node_addresses: lab.node().addresses.clone(),
            local_addresses: lab.node().addresses.clone(),
            service_networks: vec![prefix("10.96.0.0", 16), prefix("fd00:96::", 112)],
            ..Config::default()
        };
        let runtime = runtime_in(&netns);
        let open = || runtime.block_on(async { kernel_ipvs::Ipvs::open().expect("the kernel has it") });
        let ipvs = (mode == Mode::Ipvs).then(|| run_in(&netns, open));
        let mut programmed =
            Self { mode, netns, config, runtime, planners: Vec::new(), ipvs, refused: Vec::new() };
        programmed.adopt();
        programmed
    }

    /// Starts from what the kernel has.
    fn adopt(&mut self) {
        self.planners.clear();
        for family in Family::ALL {
            let config = self.config.clone();
            let planner = self.run(async || match self.mode {
                Mode::Nftables => {
                    let observed = nft::observe(family).await.expect("observes");
                    Planner::Nftables(nftables::Planner::adopt(config, family, observed))
                }
                Mode::Ipvs => {
                    let observed = self.ipvs().observe(family).await.expect("observes");
                    Planner::Ipvs(ipvs::Planner::adopt(config, family, observed, BTreeSet::new()))
                }
                Mode::Iptables | Mode::Ebpf | Mode::EbpfLinks | Mode::EbpfMasquerade => {
                    let saved = kernel_iptables::observe(family).await.expect("observes");
                    Planner::Iptables(iptables::Planner::adopt(config, family, saved))
                }
            });
            self.planners.push((family, planner));
        }
    }

    pub(crate) fn sync(&mut self, view: &View) {
        let Self { netns, config, runtime, planners, ipvs, refused, .. } = self;
        run_in(netns, || {
            runtime.block_on(async {
                for (family, planner) in planners {
                    let applied = match planner {
                        Planner::Iptables(planner) => match planner.plan(view, Scope::All) {
                            Some(restore) => kernel_iptables::apply(*family, &restore).await,
                            None => Ok(()),
                        },
                        Planner::Nftables(planner) => {
                            nft::apply(&planner.plan(view, Scope::All, 0)).await.map(drop)
                        }
                        Planner::Ipvs(planner) => {
                            let plan = planner.plan(view, Scope::All, 0);
                            let ipvs = ipvs.as_ref().expect("it is open");
                            ipvs.apply(*family, &plan).await.map(|ops| {
                                for (op, error) in ops {
                                    planner.refused(&op);
                                    refused.push(format!("{op}: {error}"));
                                }
                            })
                        }
                    };
                    applied.unwrap_or_else(|error| panic!("{error}"));
                    let ways = conntrack::udp_ways(*family).await.expect("lists");
                    conntrack::end(&stale(view, config, *family, &ways)).await.expect("ends");
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
        self.run(async || {
            let mut intact = true;
            for (family, planner) in &self.planners {
                intact &= match planner {
                    Planner::Iptables(planner) => {
                        planner.is_intact(&kernel_iptables::observe(*family).await.expect("observes"))
                    }
                    Planner::Nftables(planner) => {
                        planner.is_intact(&nft::observe(*family).await.expect("observes"))
                    }
                    Planner::Ipvs(planner) => {
                        planner.is_intact(&self.ipvs().observe(*family).await.expect("observes"))
                    }
                };
            }
            intact
        })
    }

    /// Takes rules away behind the planners' back.
    pub(crate) fn vandalise(&self) {
        let (program, arguments): (&str, &[&str]) = match self.mode {
            Mode::Nftables => ("nft", &["flush", "map", "ip", "kube-proxy", "service-ips"]),
            Mode::Ipvs => ("ip", &["link", "delete", ipvs::INTERFACE]),
            Mode::Iptables | Mode::Ebpf | Mode::EbpfLinks | Mode::EbpfMasquerade => {
                ("iptables", &["-t", "nat", "-F", "KUBE-SERVICES"])
            }
        };
        self.exec(program, arguments);
    }

    pub(crate) fn remove(&self) {
        let made = self.planners.iter().flat_map(|(_, planner)| match planner {
            Planner::Ipvs(planner) => planner.made(),
            Planner::Iptables(_) | Planner::Nftables(_) => BTreeSet::new(),
        });
        let made = made.collect();
        self.run(async || {
            if self.mode == Mode::Ipvs {
                kernel_ipvs::remove(&made).await.expect("removes");
            }
            for family in Family::ALL {
                let removed = match self.mode {
                    Mode::Nftables => nft::remove(family).await,
                    Mode::Ipvs => {
                        kernel_ipvs::remove_rules(family, ipvs::rules::is_ours, ipvs::rules::JUMPS).await
                    }
                    Mode::Iptables | Mode::Ebpf | Mode::EbpfLinks | Mode::EbpfMasquerade => {
                        kernel_iptables::remove(family, iptables::saved::is_ours, &[]).await
                    }
                };
                removed.unwrap_or_else(|error| panic!("{error}"));
            }
        });
    }

    /// Chains, rules and tables, sets and servers that anybody has, but for the tables that iptables makes when it is asked.
    pub(crate) fn traces(&self) -> BTreeSet<String> {
        TRACES.iter().flat_map(|list| list(&self.netns)).chain(self.servers()).collect()
    }

    /// Those of a mode that nothing else here uses.
    pub(crate) fn traces_of(&self, mode: Mode) -> BTreeSet<String> {
        let list = if mode == Mode::Nftables { nftables_traces } else { iptables_traces };
        list(&self.netns).into_iter().collect()
    }

    /// What IPVS alone leaves.
    fn servers(&self) -> Vec<String> {
        if self.mode != Mode::Ipvs {
            return Vec::new();
        }
        let mut servers = Vec::new();
        self.run(async || {
            for family in Family::ALL {
                let observed = self.ipvs().observe(family).await.expect("observes");
                servers.extend(observed.servers.keys().map(|server| format!("{server:?}")));
                servers.extend(observed.sets.keys().map(|set| format!("set {set}")));
                servers.extend(observed.bound.iter().map(|address| format!("bound {address}")));
            }
        });
        servers
    }

    fn ipvs(&self) -> &kernel_ipvs::Ipvs {
        self.ipvs.as_ref().expect("it is open in that mode")
    }

    fn run<T: Send>(&self, act: impl AsyncFnOnce() -> T + Send) -> T {
        run_in(&self.netns, || self.runtime.block_on(act()))
    }

    fn exec(&self, program: &str, arguments: &[&str]) -> String {
        exec(&self.netns, program, arguments)
    }
}

const TRACES: [fn(&Path) -> Vec<String>; 2] = [iptables_traces, nftables_traces];

fn iptables_traces(netns: &Path) -> Vec<String> {
    let of_program = |program: &str| {
        let saved = exec(netns, program, &[]);
        let told = |line: &&str| line.starts_with("-A") || line.ends_with("- [0:0]");
        saved.lines().filter(told).map(|line| format!("{program} {line}")).collect::<Vec<_>>()
    };
    ["iptables-save", "ip6tables-save"].into_iter().flat_map(of_program).collect()
}

fn nftables_traces(netns: &Path) -> Vec<String> {
    let tables = exec(netns, "nft", &["list", "tables"]);
    let of_iptables =
        |line: &&str| ["filter", "nat", "mangle"].contains(&line.rsplit(' ').next().unwrap_or_default());
    tables.lines().filter(|line| !of_iptables(line)).map(str::to_owned).collect()
}

fn exec(netns: &Path, program: &str, arguments: &[&str]) -> String {
    run_in(netns, || fairlead_testkit::netns::command(program, arguments))
}
