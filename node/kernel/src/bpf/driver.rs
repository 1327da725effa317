//! Whether the uplink's driver runs a program, and why not.

use std::fmt;

use super::programs::Programs;
use crate::{Carriage, KernelError, ServiceOptions, Xdp, net::Link};

/// `XDP_FLAGS_SKB_MODE` of `linux/if_link.h`.
const GENERIC: u32 = 1 << 1;
/// `XDP_FLAGS_DRV_MODE`.
const NATIVE: u32 = 1 << 2;

/// Where the program runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DriverMode {
    /// In the driver.
    Native,
    /// At the beginning of the kernel's stack.
    Generic,
    /// Nowhere: the programs on links do its work.
    Off,
}

impl fmt::Display for DriverMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Off => "off",
        })
    }
}

/// Where the program runs, and why there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Driver {
    /// Where.
    pub mode: DriverMode,
    /// Why, in a few words.
    pub reason: String,
}

impl Driver {
    pub(crate) fn off(reason: impl Into<String>) -> Self {
        Self { mode: DriverMode::Off, reason: reason.into() }
    }

    /// Attaches the program where the options want it, and detaches it elsewhere.
    ///
    /// # Errors
    /// It cannot run where it was asked for by name.
    pub(crate) fn open(
        programs: &mut Programs,
        options: &ServiceOptions,
        name: &str,
        uplink: &Link,
    ) -> Result<Self, KernelError> {
        let driver = Self::choose(programs, options, name, uplink)?;
        for (mode, flags) in [(DriverMode::Native, NATIVE), (DriverMode::Generic, GENERIC)] {
            if driver.mode != mode {
                programs.detach_driver(name, flags)?;
            }
        }
        tracing::info!(xdp = %driver.mode, reason = driver.reason, "driver of {name}");
        Ok(driver)
    }

    fn choose(
        programs: &mut Programs,
        options: &ServiceOptions,
        name: &str,
        uplink: &Link,
    ) -> Result<Self, KernelError> {
        let (mode, flags) = match options.xdp {
            _ if options.carriage == Carriage::Rules => return Ok(Self::off("rules carry services")),
            Xdp::Off => return Ok(Self::off("as asked")),
            Xdp::Auto => match virtual_kind(uplink) {
                Some(kind) => {
                    return Ok(Self::off(format!(
                        "{name} is a {kind}, whose packets may lack the checksum that a wire has"
                    )));
                }
                None => (DriverMode::Native, NATIVE),
            },
            Xdp::Native => (DriverMode::Native, NATIVE),
            Xdp::Generic => (DriverMode::Generic, GENERIC),
        };
        // A program that runs in the other mode is in the way.
        programs.detach_driver(name, (NATIVE | GENERIC) ^ flags)?;
        match programs.attach_driver(name, uplink.index, flags) {
            Ok(true) if options.xdp == Xdp::Auto => {
                Ok(Self { mode, reason: format!("the driver of {name} takes it") })
            }
            Ok(true) => Ok(Self { mode, reason: "as asked".to_owned() }),
            Ok(false) => Ok(Self::off("the maps' layout changes; the agent's next start switches it on")),
            Err(error) if options.xdp == Xdp::Auto => Ok(Self::off(why_not(error, name).to_string())),
            Err(error) => Err(why_not(error, name)),
        }
    }
}

/// Says what the usual numbers mean here.
fn why_not(error: KernelError, name: &str) -> KernelError {
    let (operation, errno) = match &error {
        KernelError::Link { operation, source, .. } => (*operation, source.raw_os_error()),
        _ => return error,
    };
    let means = match errno {
        Some(libc::EBUSY | libc::EEXIST) => {
            "another XDP program runs there (`ip link` shows it); remove it, or use --xdp=off"
        }
        Some(libc::EOPNOTSUPP) => "its driver takes no XDP program; use --xdp=auto or --xdp=generic",
        Some(libc::EINVAL | libc::ERANGE) => {
            "its driver takes no XDP program with these settings; a smaller MTU may help, or use --xdp=generic"
        }
        _ => return error,
    };
    KernelError::Link {
        name: format!("from_wire of {name}"),
        operation,
        source: std::io::Error::other(means),
    }
}

/// What an interface without a wire of its own is. A bond has those of its parts.
fn virtual_kind(link: &Link) -> Option<&str> {
    link.kind.as_deref().filter(|kind| *kind != "bond")
}
