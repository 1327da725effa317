//! A root file system in memory: a cpio archive in the `newc` format (`Documentation/driver-api/early-userspace/
//! buffer-format.rst` of Linux).

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
/// Ends the archive.
const TRAILER: &str = "TRAILER!!!";

/// The archive while it is made.
#[derive(Debug, Default)]
pub(crate) struct Initramfs {
    archive: Vec<u8>,
    present: BTreeSet<PathBuf>,
}

impl Initramfs {
    /// Puts bytes at an absolute path, with the folders above it. A path that is there already is left alone.
    pub(crate) fn bytes(&mut self, path: &Path, bytes: &[u8]) {
        if self.present.contains(path) {
            return;
        }
        let folders: Vec<&Path> = path.ancestors().skip(1).collect();
        for folder in folders.into_iter().rev().filter(|folder| folder.parent().is_some()) {
            if self.present.insert(folder.to_owned()) {
                self.entry(folder, DIRECTORY, &[]);
            }
        }
        self.present.insert(path.to_owned());
        self.entry(path, PROGRAM, bytes);
    }

    /// Puts a file of this machine at a path.
    pub(crate) fn file(&mut self, path: &Path, from: &Path) -> Result<()> {
        let bytes = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.bytes(path, &bytes);
        Ok(())
    }

    /// Puts a program at a path, without its debug information, and the libraries that it is linked with where it looks
    /// for them.
    pub(crate) fn program(&mut self, path: &Path, from: &Path) -> Result<()> {
        // Two machines may be made at once.
        let thread = format!("stripped-{:?}", std::thread::current().id());
        let stripped = crate::paths::target().join("xtask").join(thread);
        let status = Command::new("strip").arg("-g").arg("-o").arg(&stripped).arg(from).status();
        if !status.context("cannot start strip")?.success() {
            bail!("cannot strip {}", from.display());
        }
        self.file(path, &stripped)?;
        fs::remove_file(&stripped).with_context(|| format!("cannot remove {}", stripped.display()))?;
        for library in libraries(from)? {
            self.file(&library, &library)?;
        }
        Ok(())
    }

    /// Puts a program of this machine's path where it is here.
    pub(crate) fn tool(&mut self, name: &str) -> Result<()> {
        let folders = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(Path::new);
        let Some(found) = folders.iter().map(|folder| folder.join(name)).find(|path| path.exists()) else {
            bail!("{name} is not installed: run `cargo xtask setup`");
        };
        self.program(&found, &found)
    }

    /// The whole archive.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry(Path::new(TRAILER), 0, &[]);
        self.archive
    }

    fn entry(&mut self, path: &Path, mode: u32, bytes: &[u8]) {
        let name = path.strip_prefix("/").unwrap_or(path).to_string_lossy();
        let links = if mode == DIRECTORY { 2 } else { 1 };
        let inode = self.present.len();
        // ino, mode, uid, gid, nlink, mtime, filesize, device of the file, device it is, namesize, check.
        let fields = [inode, mode as usize, 0, 0, links, 0, bytes.len(), 0, 0, 0, 0, name.len() + 1, 0];
        self.archive.extend(b"070701");
        fields.iter().for_each(|field| self.archive.extend(format!("{field:08x}").as_bytes()));
        self.archive.extend(name.as_bytes());
        self.archive.push(0);
        self.pad();
        self.archive.extend(bytes);
        self.pad();
    }

    /// Names and contents end at a multiple of four bytes.
    fn pad(&mut self) {
        self.archive.resize(self.archive.len().next_multiple_of(4), 0);
    }
}

/// Files that the dynamic linker loads for a program, itself included; none for a static one.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("cannot start ldd")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let paths = text.split_whitespace().filter(|word| word.starts_with('/'));
    Ok(paths.map(PathBuf::from).filter(|path| path.exists()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_has_the_folders_once_and_ends_at_the_trailer() {
        let mut initramfs = Initramfs::default();
        initramfs.bytes(Path::new("/etc/one"), b"1");
        initramfs.bytes(Path::new("/etc/two"), b"22222");
        let archive = initramfs.finish();
        assert_eq!(archive.len() % 4, 0);
        let text = String::from_utf8_lossy(&archive);
        assert_eq!(text.matches("070701").count(), 4, "a folder, two files, the trailer");
        // 110 bytes of header, `etc` and its end, padded to 116.
        assert!(text.starts_with("07070100000001000041ed"));
        assert_eq!(&archive[110..116], b"etc\0\0\0");
        assert!(text.contains("etc/two\0") && text.contains("22222") && text.contains(TRAILER));
    }
}
