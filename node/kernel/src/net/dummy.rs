//! Interfaces that lead nowhere and only hold addresses.

use std::net::IpAddr;

use futures::TryStreamExt;
use netlink_packet_route::address::AddressMessage;
use rtnetlink::LinkDummy;

use super::{Link, Netlink};
use crate::KernelError;

impl Netlink {
    /// Makes a dummy interface.
    ///
    /// # Errors
    /// The kernel has none (module `dummy`), or the request fails.
    pub async fn add_dummy(&self, name: &str) -> Result<Link, KernelError> {
        let added = self.handle.link().add(LinkDummy::new(name).up().build()).execute().await;
        added.map_err(KernelError::netlink(format!(
            "creating dummy interface {name} (module dummy must be loadable)"
        )))?;
        self.require_link(name).await
    }

    /// Takes an address from an interface. Nothing happens when it has not got it.
    ///
    /// # Errors
    /// The request fails.
    pub async fn delete_address(&self, name: &str, address: IpAddr) -> Result<(), KernelError> {
        let Some(link) = self.link(name).await? else { return Ok(()) };
        let request = self.handle.address().get().set_link_index_filter(link.index);
        let found = request.set_address_filter(address).execute().try_collect().await;
        let found: Vec<AddressMessage> =
            found.map_err(KernelError::netlink(format!("looking up address {address} of {name}")))?;
        for message in found {
            let deleted = self.handle.address().del(message).execute().await;
            deleted.map_err(KernelError::netlink(format!("deleting address {address} of {name}")))?;
        }
        Ok(())
    }
}
