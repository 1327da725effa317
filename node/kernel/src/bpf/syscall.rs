//! bpf(2) for what aya does not do.

use std::{io, os::fd::AsRawFd};

/// Issues a command; returns what the kernel returns.
///
/// `attr` must be a `repr(C)` prefix of `union bpf_attr` as the command wants it, and what its pointers point at must
/// outlive the call.
#[expect(unsafe_code, reason = "bpf(2) has no safe wrapper")]
pub(super) fn bpf<A>(command: libc::c_long, attr: &mut A) -> io::Result<i32> {
    // SAFETY: `attr` is alive and exclusively ours for the call, its size is passed, and callers (all in this folder)
    // build it as the command wants it, with pointers to buffers that they hold.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<A>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(i32::try_from(result).unwrap_or_default()) }
}

/// A descriptor as `union bpf_attr` holds it.
pub(super) fn raw(fd: &impl AsRawFd) -> u32 {
    u32::try_from(fd.as_raw_fd()).expect("an open descriptor is not negative")
}
