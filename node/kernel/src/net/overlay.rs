//! The overlay: a VXLAN interface on which each packet names its own destination (`external`, RFC 7348).
//!
//! The programs hand packets from outside to another node's pods over it, and with them the client's address.

use rtnetlink::{LinkMessageBuilder, LinkVxlan};

use super::{Link, Netlink, sysctl};
use crate::KernelError;

/// Name of the interface.
pub const OVERLAY: &str = "fairlead-vx";

/// Bytes of outer IPv4, UDP and VXLAN headers and the inner Ethernet header.
const OVERHEAD: u32 = 20 + 8 + 8 + 14;

/// What fits into the uplink's packets.
pub(crate) const fn overlay_mtu(uplink_mtu: u32) -> u32 {
    uplink_mtu.saturating_sub(OVERHEAD)
}

impl Netlink {
    /// Makes the overlay, or makes what is there right; with this index, if one is given, by which the programs that are loaded
    /// know it.
    ///
    /// # Errors
    /// The request fails; another interface that uses the same UDP port in the same way is the usual reason.
    pub async fn put_overlay(
        &self,
        port: u16,
        uplink_mtu: u32,
        index: Option<u32>,
    ) -> Result<Link, KernelError> {
        let mtu = overlay_mtu(uplink_mtu);
        if let Some(link) = self.link(OVERLAY).await? {
            let is_it = index.is_none_or(|index| link.index == index);
            if is_it && link.vxlan_port == Some(port) {
                if link.mtu != mtu {
                    self.set_mtu(link.index, mtu).await?;
                }
                sysctl::make_overlay(OVERLAY)?;
                self.set_up(link.index).await?;
                return Ok(link);
            }
            self.delete_link(OVERLAY).await?;
        }
        let mut message = LinkMessageBuilder::<LinkVxlan>::new(OVERLAY)
            .collect_metadata(true)
            .learning(false)
            // What the driver's program of another node sends has none.
            .udp_zero_csum6_rx(true)
            .port(port)
            .mtu(mtu)
            .build();
        message.header.index = index.unwrap_or_default();
        self.add_link(message, format!("creating VXLAN interface {OVERLAY} on UDP port {port}")).await?;
        sysctl::make_overlay(OVERLAY)?;
        let link = self.require_link(OVERLAY).await?;
        self.set_up(link.index).await?;
        Ok(link)
    }

    /// Removes the overlay. Nothing happens when there is none.
    ///
    /// # Errors
    /// The request fails.
    pub async fn delete_overlay(&self) -> Result<(), KernelError> {
        self.delete_link(OVERLAY).await
    }
}
