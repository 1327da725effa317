//! The eBPF object that was embedded at build time.

use crate::KernelError;

/// ELF wants alignment that `include_bytes!` alone does not give.
#[repr(C, align(32))]
struct Aligned<T: ?Sized>(T);

static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/fairlead.bpf.o")));

/// The object's bytes.
///
/// # Errors
/// The build had none.
pub fn embedded() -> Result<&'static [u8], KernelError> {
    if OBJECT.0.is_empty() { Err(KernelError::NoObject) } else { Ok(&OBJECT.0) }
}
