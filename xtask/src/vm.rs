//! Virtual machines: other kernels, in software emulation that counts instructions.
//!
//! The machine's clock is the number of instructions that it has executed (`-icount`), so timeouts inside it do not
//! depend on how busy the host is, and idle time costs nothing. A kernel comes from its Debian package, its root file
//! system is made here with what it shall run and the libraries of that, and its results come back over a serial line.

pub(crate) mod budget;
pub(crate) mod classic;
pub(crate) mod initramfs;
pub(crate) mod kernel;
pub(crate) mod machine;
pub(crate) mod test;

pub(crate) use initramfs::Initramfs;
pub(crate) use kernel::Kernel;
pub(crate) use machine::{Event, Machine, Step};
