//! The uplink as it is now. It is known by its name: when a driver is loaded anew or a card is plugged in, another
//! interface has it, with another index.

use tokio::sync::watch;

use crate::{Driver, KernelError, ServiceOptions, bpf::programs::SharedPrograms, net::Link};

/// The interface that leads to other nodes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Uplink {
    /// Name.
    pub name: String,
    /// Index; that of the last one while no interface has the name.
    pub index: u32,
    /// Largest network packet that it takes, in bytes.
    pub mtu: u32,
    /// Whether its driver runs a program.
    pub driver: Driver,
}

/// Follows the interface that has the uplink's name.
///
/// Returns what it did when another one has it: the programs are on that one, and know it. A driver that does not take
/// the program there is no reason to do without the others, however it was asked for.
///
/// # Errors
/// The kernel refuses a program on links; the uplink is as it was.
pub(crate) fn follow(
    uplink: &watch::Sender<Uplink>,
    link: &Link,
    programs: &SharedPrograms,
    options: &ServiceOptions,
) -> Result<Option<String>, KernelError> {
    let Uplink { name, index, .. } = uplink.borrow().clone();
    if link.index == index {
        uplink.send_if_modified(|uplink| std::mem::replace(&mut uplink.mtu, link.mtu) != link.mtu);
        return Ok(None);
    }
    let mut programs = programs.lock();
    programs.attach_uplink(&name, link.index)?;
    programs.set_uplink(link.index)?;
    let driver = Driver::open(&mut programs, options, &name, link).unwrap_or_else(|error| {
        tracing::error!(%error, "the driver of {name} runs no program");
        Driver::off(error.to_string())
    });
    let what = format!("the uplink {name}, which was interface {index} and is {} now", link.index);
    uplink.send_replace(Uplink { name, index: link.index, mtu: link.mtu, driver });
    Ok(Some(what))
}
