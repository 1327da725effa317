//! What the node needs beside its maps, looked at from time to time: others remove links, interfaces and settings, too.

use std::ops::RangeInclusive;

use crate::{
    Forwarding, KernelError, ServiceOptions,
    bpf::programs::SharedPrograms,
    net::{Netlink, overlay::OVERLAY, sysctl},
    stack::Masquerade,
};

/// How it is to be.
#[derive(Clone, Debug)]
pub(crate) struct Upkeep {
    uplink: String,
    pods_are_ours: bool,
    reserved_ports: [RangeInclusive<u16>; 2],
    overlay: Option<Overlay>,
    masquerade: Option<Masquerade>,
}

/// The overlay as the programs know it.
#[derive(Clone, Copy, Debug)]
struct Overlay {
    port: u16,
    uplink_mtu: u32,
    index: u32,
}

impl Upkeep {
    /// Of a node with this uplink and, if it has one, the overlay of this index; `masquerade` is what its stack does.
    pub(crate) fn new(
        (uplink, uplink_mtu): (&str, u32),
        options: &ServiceOptions,
        overlay: Option<u32>,
        masquerade: Option<Masquerade>,
    ) -> Self {
        Self {
            uplink: uplink.to_owned(),
            pods_are_ours: options.forwarding != Forwarding::Stack,
            reserved_ports: [options.node_ports.clone(), options.masquerade_ports.clone()],
            overlay: overlay.map(|index| Overlay { port: options.overlay_port, uplink_mtu, index }),
            masquerade,
        }
    }

    /// Makes everything as it is to be; of the network namespace of the calling thread. Returns what was not.
    pub(crate) async fn repair(
        &mut self,
        netlink: &Netlink,
        programs: &SharedPrograms,
    ) -> Result<Vec<String>, KernelError> {
        let mut repaired = Vec::new();
        // Before the links: one of them is on it.
        if let Some(overlay) = &self.overlay {
            let found = netlink.link(OVERLAY).await?;
            if !found.is_some_and(|link| link.index == overlay.index && link.vxlan_port == Some(overlay.port))
            {
                netlink.put_overlay(overlay.port, overlay.uplink_mtu, Some(overlay.index)).await?;
                repaired.push(format!("the interface {OVERLAY}"));
            }
        }
        let mut settings = self.set_parameters()?;
        if self.overlay.is_some() {
            settings.extend(sysctl::make_overlay(OVERLAY)?);
        }
        repaired.extend(settings.into_iter().map(|name| format!("the kernel parameter net/{name}")));
        repaired.extend(programs.lock().repair());
        if let Some(masquerade) = &mut self.masquerade
            && masquerade.repair().await?
        {
            repaired.push("the nftables rule that masquerades".to_owned());
        }
        Ok(repaired)
    }

    /// Sets the kernel parameters; returns those that did not hold.
    fn set_parameters(&self) -> Result<Vec<String>, KernelError> {
        let mut changed = sysctl::make_router(&self.uplink, self.pods_are_ours)?;
        let [node_ports, masquerade_ports] = &self.reserved_ports;
        if sysctl::reserve_ports(&[node_ports, masquerade_ports])? {
            changed.push(sysctl::RESERVED_PORTS.to_owned());
        }
        Ok(changed)
    }
}
