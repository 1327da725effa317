//! Memory that a process has and does not need at the moment.

use std::{fs, ops::Range};

/// Lets go of the machine code that nothing has run for a while: the process keeps what it runs from now on, page by page,
/// and the rest is the page cache's, from where it comes back without a read as long as there is memory enough. Most code
/// of a server runs once, when it starts. Code that a debugger or a uprobe has changed stays.
#[expect(unsafe_code, reason = "there is no safe interface to a process's own mappings")]
pub fn let_go_of_code() {
    for Range { start, end } in code_mappings(&fs::read_to_string("/proc/self/smaps").unwrap_or_default()) {
        // SAFETY: the pages of a private mapping of a file that may be executed and not written, and of which none is
        // anonymous, are those of the file. The kernel takes them from the file again when they are used next.
        unsafe {
            libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED);
        }
    }
}

/// The private mappings of files that can be executed and not written, and are as the files are (`proc_pid_smaps(5)`).
fn code_mappings(smaps: &str) -> Vec<Range<usize>> {
    let mut of_code = Vec::new();
    let mut mapping = None;
    for line in smaps.lines() {
        if let Some(anonymous) = line.strip_prefix("Anonymous:") {
            of_code.extend(mapping.take().filter(|_| anonymous.trim() == "0 kB"));
        } else if let Some(range) = range(line) {
            mapping = is_code_of_a_file(line).then_some(range);
        }
    }
    of_code
}

/// The addresses with which the first line of a mapping begins.
fn range(line: &str) -> Option<Range<usize>> {
    let (start, end) = line.split_whitespace().next()?.split_once('-')?;
    let number = |text| usize::from_str_radix(text, 16).ok();
    Some(number(start)?..number(end)?)
}

fn is_code_of_a_file(line: &str) -> bool {
    let mut words = line.split_whitespace().skip(1);
    words.next() == Some("r-xp") && words.nth(3).is_some_and(|path| path.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_as_it_is_in_files_is_let_go_of() {
        let smaps = "\
1000-2000 r--p 00000000 fe:00 9                          /usr/bin/fairlead
Rss:                   4 kB
Anonymous:             0 kB
2000-5000 r-xp 00001000 fe:00 9                          /usr/bin/fairlead
Rss:                  12 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
5000-6000 rw-p 00004000 fe:00 9                          /usr/bin/fairlead
Anonymous:             4 kB
6000-7000 r-xp 00004000 fe:00 9                          /usr/lib/probed.so
Anonymous:             4 kB
7000-8000 r-xp 00000000 00:00 0
Anonymous:             0 kB
8000-9000 r-xp 00000000 00:00 0                          [vdso]
Anonymous:             0 kB
9000-a000 r-xp 00000000 fe:00 8                          /usr/lib/libc.so.6
Anonymous:             0 kB
";
        assert_eq!(code_mappings(smaps), [0x2000..0x5000, 0x9000..0xa000]);
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
