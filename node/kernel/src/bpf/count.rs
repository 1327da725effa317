//! Counting what a hash or a trie holds.

use std::{io, os::fd::BorrowedFd};

use super::syscall::{bpf, raw};

const BPF_MAP_GET_NEXT_KEY: libc::c_long = 4;

/// How many keys a hash or trie has, at most `capacity`.
pub(crate) fn count_keys(map: BorrowedFd<'_>, key_bytes: u32, capacity: u32) -> io::Result<u32> {
    #[repr(C)]
    #[derive(Default)]
    struct Attr {
        map_fd: u32,
        pad: u32,
        key: u64,
        next_key: u64,
    }
    let (mut key, mut next) = (vec![0u8; key_bytes as usize], vec![0u8; key_bytes as usize]);
    let mut count = 0;
    while count < capacity {
        let mut attr = Attr {
            map_fd: raw(&map),
            key: if count == 0 { 0 } else { key.as_mut_ptr() as u64 },
            next_key: next.as_mut_ptr() as u64,
            ..Attr::default()
        };
        match bpf(BPF_MAP_GET_NEXT_KEY, &mut attr) {
            Ok(_) => count += 1,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => break,
            Err(error) => return Err(error),
        }
        std::mem::swap(&mut key, &mut next);
    }
    Ok(count)
}
