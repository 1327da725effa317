//! Opening the node's dataplane: programs loaded, attached and pinned, maps ready, the namespace a router.

use std::path::PathBuf;

use aya::programs::ProgramInfo;
use tokio::sync::watch;

use crate::{
    Carriage, Counters, Driver, Events, Forwarding, Garbage, KernelError, Pods, ProgramLogs, ServiceOptions,
    Tables, Uplink,
    bpf::{
        pins::{Made, Pins},
        programs::{Place, Programs, SharedPrograms},
    },
    cgroup,
    explain::Settings,
    features,
    net::{LocalChanges, Netlink, namespace::own_cookie, overlay::OVERLAY, sysctl},
    stack::{Masquerade, retire_masquerade},
    upkeep::Upkeep,
};

/// Where the node's dataplane lives.
#[derive(Clone, Debug)]
pub struct DataplaneConfig {
    /// Pin directory on a bpf file system, one per node.
    pub bpffs_dir: PathBuf,
    /// The node's cgroup, relative to the cgroup-v2 mount.
    pub cgroup_dir: PathBuf,
    /// Interface that leads to other nodes.
    pub uplink: String,
    /// Whether connection records are written.
    pub flow_events: bool,
    /// How services are carried.
    pub services: ServiceOptions,
}

/// The parts, each for its owner.
pub struct Dataplane {
    /// Services and routes.
    pub tables: Tables,
    /// Pods.
    pub pods: Pods,
    /// Removes what connections have left.
    pub garbage: Garbage,
    /// Tells when the node's addresses or its uplink change.
    pub local_changes: LocalChanges,
    /// Counters.
    pub counters: Counters,
    /// Event records.
    pub events: Events,
    /// Diagnostics of the programs; to be run.
    pub logs: Option<ProgramLogs>,
    /// The node's cgroup, absolute.
    pub cgroup: PathBuf,
    /// The uplink as it is.
    pub uplink: watch::Receiver<Uplink>,
}

/// What the kernel says about one program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProgramSummary {
    /// Name in the object.
    pub name: String,
    /// Identifier (`bpftool prog show id`).
    pub id: u32,
    /// Instructions that the verifier walked.
    pub verified_instructions: u32,
    /// Bytes of machine code.
    pub jited_bytes: u32,
}

impl ProgramSummary {
    pub(crate) fn new(name: &str, info: &ProgramInfo) -> Self {
        Self {
            name: name.to_owned(),
            id: info.id(),
            verified_instructions: info.verified_instruction_count().unwrap_or_default(),
            jited_bytes: info.size_jitted(),
        }
    }
}

impl Dataplane {
    /// Opens it in the network namespace of the calling thread. What a former process pinned is used again: maps keep
    /// their content, links get the programs of this build while packets keep flowing.
    ///
    /// # Errors
    /// The machine lacks something, or the kernel refuses a program.
    pub async fn open(config: &DataplaneConfig) -> Result<Self, KernelError> {
        features::require_features(&config.bpffs_dir)?;
        let netlink = Netlink::connect()?;
        let uplink = netlink.require_link(&config.uplink).await?;
        sysctl::make_router(Some(&config.uplink), config.services.forwarding != Forwarding::Stack)?;
        let cgroup = cgroup::create(&config.cgroup_dir)?;
        let directory = cgroup::open(&cgroup)?;

        let options = &config.services;
        sysctl::reserve_ports(&[&options.node_ports, &options.masquerade_ports])?;
        let (pins, host_netns) = (Pins::new(&config.bpffs_dir), own_cookie()?);
        let overlay = if options.forwarding.needs_overlay() {
            Some(netlink.put_overlay(options.overlay_port, uplink.mtu, None).await?)
        } else {
            if pins.has_made(Made::Overlay, host_netns) {
                netlink.delete_overlay().await?;
            }
            None
        };
        let place = Place {
            uplink: uplink.index,
            overlay: overlay.as_ref().map_or(0, |link| link.index),
            host_netns,
            flow_events: config.flow_events,
            options,
        };
        let mut programs = Programs::load(pins, &place)?;
        let mut masquerade = Masquerade::of(options);
        match &mut masquerade {
            Some(masquerade) => {
                masquerade.apply().await?;
                programs.pins().write_made(Made::Masquerade, host_netns)?;
            }
            // Until rules have taken over, the programs that are there go on needing it.
            None if options.carriage == Carriage::Rules => {}
            None => retire_masquerade(programs.pins().root()).await?,
        }
        if options.carriage != Carriage::Rules {
            programs.attach_cgroup(std::os::fd::AsFd::as_fd(&directory))?;
        }
        programs.attach_uplink(&config.uplink, uplink.index)?;
        let driver = Driver::open(&mut programs, options, &config.uplink, &uplink)?;
        if let Some(overlay) = &overlay {
            programs.attach_overlay(OVERLAY, overlay.index)?;
            programs.pins().write_made(Made::Overlay, host_netns)?;
        } else {
            programs.detach_interface(OVERLAY)?;
        }

        let pins = programs.pins().clone();
        pins.write_options(&Settings::from(options).to_string())?;
        let events = Events::new(&mut programs)?;
        let logs = ProgramLogs::new(&mut programs);
        let programs = SharedPrograms::new(programs);
        let uplink = Uplink { name: config.uplink.clone(), index: uplink.index, mtu: uplink.mtu, driver };
        let upkeep = Upkeep::new(uplink, options, overlay.map(|link| link.index), masquerade);
        let uplink = upkeep.uplink();
        let tables = Tables::new(programs.clone(), &pins, Netlink::connect()?, upkeep)?;
        let counters = Counters::open(&pins)?;
        let garbage = Garbage::open(&pins, &options.capacities)?;
        let local_changes = LocalChanges::listen(uplink.clone())?;
        let pods =
            Pods::new(programs, &pins, netlink, uplink.clone(), options.carriage == Carriage::Programs)?;
        Ok(Self { tables, pods, garbage, local_changes, counters, events, logs, cgroup, uplink })
    }
}
