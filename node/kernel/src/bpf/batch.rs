//! Reading a whole array map with a few system calls.

use std::{io, os::fd::BorrowedFd};

use zerocopy::{FromBytes, IntoBytes};

use super::syscall::{bpf, raw};

const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;

/// Entries per system call.
const CHUNK: usize = 8_192;

/// All values of an array map of this capacity, in order (Linux 5.6).
pub(crate) fn read_array<V>(map: BorrowedFd<'_>, capacity: u32) -> io::Result<Vec<V>>
where
    V: FromBytes + IntoBytes + Copy,
{
    #[repr(C)]
    #[derive(Default)]
    struct Attr {
        in_batch: u64,
        out_batch: u64,
        keys: u64,
        values: u64,
        count: u32,
        map_fd: u32,
        elem_flags: u64,
        flags: u64,
    }
    let mut values = Vec::with_capacity(capacity as usize);
    let mut keys = vec![0u32; CHUNK];
    let mut chunk = vec![V::new_zeroed(); CHUNK];
    let mut position = 0u32;
    let mut next = 0u32;
    while values.len() < capacity as usize {
        let mut attr = Attr {
            in_batch: if values.is_empty() { 0 } else { (&raw mut position) as u64 },
            out_batch: (&raw mut next) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: chunk.as_mut_ptr() as u64,
            count: u32::try_from(CHUNK).expect("a small constant"),
            map_fd: raw(&map),
            ..Attr::default()
        };
        match bpf(BPF_MAP_LOOKUP_BATCH, &mut attr) {
            Ok(_) => {}
            // The end of the map was reached; `count` entries were read.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                values.extend_from_slice(&chunk[..attr.count as usize]);
                break;
            }
            Err(error) => return Err(error),
        }
        values.extend_from_slice(&chunk[..attr.count as usize]);
        position = next;
    }
    Ok(values)
}
