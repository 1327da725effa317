//! The eBPF side: the object, its pins, its programs and links.

pub(crate) mod batch;
mod carry;
pub(crate) mod count;
pub mod driver;
pub(crate) mod entrances;
pub(crate) mod filter;
pub(crate) mod link;
pub mod load;
pub mod object;
pub(crate) mod pins;
pub(crate) mod programs;
mod renumber;
mod syscall;
