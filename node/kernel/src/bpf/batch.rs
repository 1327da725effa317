//! Reading and writing many entries of a map with few system calls.

use std::{io, os::fd::BorrowedFd};

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::syscall::{bpf, raw};

const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
const BPF_MAP_UPDATE_BATCH: libc::c_long = 26;

/// The kernel's own `ENOTSUPP`, which a map without batches answers.
const ENOTSUPP: i32 = 524;

/// Entries per system call.
const CHUNK: usize = 8_192;

#[repr(C)]
#[derive(Default)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// All entries of a hash or array map (Linux 5.6).
pub(crate) fn read_all<K, V>(map: BorrowedFd<'_>) -> io::Result<Vec<(K, V)>>
where
    K: FromBytes + IntoBytes + Immutable + Copy,
    V: FromBytes + IntoBytes + Immutable + Copy,
{
    let mut entries = Vec::new();
    let mut size = CHUNK;
    // A position is a bucket's number or an array's key; both have four bytes.
    let (mut position, mut next) = (0u32, 0u32);
    let mut first = true;
    loop {
        let mut keys = vec![K::new_zeroed(); size];
        let mut values = vec![V::new_zeroed(); size];
        let mut attr = Batch {
            in_batch: if first { 0 } else { (&raw mut position) as u64 },
            out_batch: (&raw mut next) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: u32::try_from(size).unwrap_or(u32::MAX),
            map_fd: raw(&map),
            ..Batch::default()
        };
        let result = bpf(BPF_MAP_LOOKUP_BATCH, &mut attr);
        let ended = match result {
            Ok(_) => false,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            // A bucket has more entries than there is room for.
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) && attr.count == 0 => {
                size *= 2;
                continue;
            }
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => false,
            Err(error) => return Err(error),
        };
        let read = attr.count as usize;
        entries.extend(keys.into_iter().zip(values).take(read));
        if ended {
            return Ok(entries);
        }
        position = next;
        first = false;
    }
}

/// Writes entries, which are visible one by one. A map without batches gets them one by one, too.
pub(crate) fn write_all<K, V>(map: BorrowedFd<'_>, keys: &[K], values: &[V]) -> io::Result<()>
where
    K: IntoBytes + Immutable,
    V: IntoBytes + Immutable,
{
    for (keys, values) in keys.chunks(CHUNK).zip(values.chunks(CHUNK)) {
        let mut attr = Batch {
            keys: keys.as_ptr() as u64,
            values: values.as_ptr() as u64,
            count: u32::try_from(keys.len()).unwrap_or(u32::MAX),
            map_fd: raw(&map),
            ..Batch::default()
        };
        match bpf(BPF_MAP_UPDATE_BATCH, &mut attr) {
            Ok(_) => {}
            Err(error) if matches!(error.raw_os_error(), Some(ENOTSUPP | libc::EINVAL)) => {
                keys.iter().zip(values).try_for_each(|(key, value)| write_one(map, key, value))?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn write_one<K, V>(map: BorrowedFd<'_>, key: &K, value: &V) -> io::Result<()> {
    #[repr(C)]
    #[derive(Default)]
    struct Element {
        map_fd: u32,
        pad: u32,
        key: u64,
        value: u64,
        flags: u64,
    }
    let (key, value) = (std::ptr::from_ref(key) as u64, std::ptr::from_ref(value) as u64);
    let mut attr = Element { map_fd: raw(&map), key, value, ..Element::default() };
    bpf(BPF_MAP_UPDATE_ELEM, &mut attr).map(drop)
}
