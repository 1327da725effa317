//! Memory that a process has and does not need at the moment.

use std::{fs, ops::Range};

/// Gives free memory back that the allocator keeps: loading reads the kernel's type information, some tens of MiB, and a
/// snapshot of a large cluster is as large as what is made of it.
#[expect(unsafe_code, reason = "the allocator has no safe interface for this")]
pub fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no arguments that matter; it only returns free pages of the heap to the kernel.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Lets go of the machine code that nothing has run for a while: the process keeps what it runs from now on, page by page,
/// and the rest is the page cache's, from where it comes back without a read as long as there is memory enough. Most code
/// of a server runs once, when it starts.
#[expect(unsafe_code, reason = "there is no safe interface to a process's own mappings")]
pub fn let_go_of_code() {
    for Range { start, end } in code_mappings(&fs::read_to_string("/proc/self/maps").unwrap_or_default()) {
        // SAFETY: the pages of a private mapping of a file that may be executed and not written are those of the file: there
        // are no relocations in code. The kernel takes them from the file again when they are used next.
        unsafe {
            libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED);
        }
    }
}

/// The private mappings of files that can be executed and not written (`proc_pid_maps(5)`).
fn code_mappings(maps: &str) -> Vec<Range<usize>> {
    let of_line = |line: &str| {
        let mut words = line.split_whitespace();
        let (range, rights, path) = (words.next()?, words.next()?, words.nth(3)?);
        let (start, end) = range.split_once('-')?;
        let number = |text| usize::from_str_radix(text, 16).ok();
        (rights == "r-xp" && path.starts_with('/')).then_some(number(start)?..number(end)?)
    };
    maps.lines().filter_map(of_line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_of_files_is_let_go_of() {
        let maps = "\
1000-2000 r--p 00000000 fe:00 9 /usr/bin/fairlead
2000-5000 r-xp 00001000 fe:00 9 /usr/bin/fairlead
5000-6000 rw-p 00004000 fe:00 9 /usr/bin/fairlead
6000-7000 rwxp 00004000 fe:00 9 /usr/bin/fairlead
7000-8000 r-xp 00000000 00:00 0
8000-9000 r-xp 00000000 00:00 0 [vdso]
9000-a000 r-xp 00000000 fe:00 8 /usr/lib/libc.so.6
";
        assert_eq!(code_mappings(maps), [0x2000..0x5000, 0x9000..0xa000]);
    }

    #[test]
    fn code_that_was_let_go_of_runs() {
        let mapped = || {
            let text = fs::read_to_string("/proc/self/statm").unwrap();
            text.split_whitespace().nth(2).unwrap().parse::<u64>().unwrap()
        };
        let before = mapped();
        let_go_of_code();
        assert!(mapped() < before, "{before} pages of files stay");
        assert_eq!("runs".to_uppercase(), "RUNS");
    }
}
