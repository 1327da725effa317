//! What the node needs beside its maps, looked at from time to time: others remove links, interfaces and settings, too.

use tokio::sync::watch;

use crate::{
    Forwarding, KernelError, ServiceOptions, Uplink,
    bpf::programs::SharedPrograms,
    net::{
        Netlink,
        overlay::{OVERLAY, overlay_mtu},
        sysctl,
    },
    stack::Masquerade,
    uplink,
};

/// How it is to be.
#[derive(Debug)]
pub(crate) struct Upkeep {
    uplink: watch::Sender<Uplink>,
    options: ServiceOptions,
    /// The index by which the programs know the overlay.
    overlay: Option<u32>,
    masquerade: Option<Masquerade>,
}

impl Upkeep {
    /// Of a node with this uplink and, if it has one, the overlay of this index; `masquerade` is what its stack does.
    pub(crate) fn new(
        uplink: Uplink,
        options: &ServiceOptions,
        overlay: Option<u32>,
        masquerade: Option<Masquerade>,
    ) -> Self {
        Self { uplink: watch::Sender::new(uplink), options: options.clone(), overlay, masquerade }
    }

    /// The uplink as it is.
    pub(crate) fn uplink(&self) -> watch::Receiver<Uplink> {
        self.uplink.subscribe()
    }

    /// Makes everything as it is to be; of the network namespace of the calling thread. Returns what was not.
    pub(crate) async fn repair(
        &mut self,
        netlink: &Netlink,
        programs: &SharedPrograms,
    ) -> Result<Vec<String>, KernelError> {
        let mut repaired = Vec::new();
        let Uplink { name, mtu, .. } = self.uplink.borrow().clone();
        // While there is none, everything else is looked after.
        let link = netlink.link(&name).await?;
        if let Some(link) = &link {
            repaired.extend(uplink::follow(&self.uplink, link, programs, &self.options)?);
        }
        // Before the links: one of them is on it.
        if let Some(overlay) = self.overlay {
            let (port, mtu) = (self.options.overlay_port, link.as_ref().map_or(mtu, |link| link.mtu));
            let found = netlink.link(OVERLAY).await?;
            if !found.is_some_and(|found| {
                (found.index, found.vxlan_port, found.mtu) == (overlay, Some(port), overlay_mtu(mtu))
            }) {
                netlink.put_overlay(port, mtu, Some(overlay)).await?;
                repaired.push(format!("the interface {OVERLAY}"));
            }
        }
        let mut settings = self.set_parameters(link.map(|_| name.as_str()))?;
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
    fn set_parameters(&self, uplink: Option<&str>) -> Result<Vec<String>, KernelError> {
        let options = &self.options;
        let mut changed = sysctl::make_router(uplink, options.forwarding != Forwarding::Stack)?;
        if sysctl::reserve_ports(&[&options.node_ports, &options.masquerade_ports])? {
            changed.push(sysctl::RESERVED_PORTS.to_owned());
        }
        Ok(changed)
    }
}
