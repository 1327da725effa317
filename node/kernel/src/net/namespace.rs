//! Named network namespaces: bind mounts of `nsfs` files, as `ip netns` makes them.

use std::{
    fs::{self, File},
    io,
    os::{fd::AsRawFd, unix::net::UnixDatagram},
    path::{Path, PathBuf},
    thread,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
    sys::statfs::{FsType, statfs},
};

use crate::KernelError;

/// `NSFS_MAGIC` (`include/uapi/linux/magic.h`).
const NSFS_MAGIC: FsType = FsType(0x6e73_6673);

/// A network namespace with a name in the file system.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Namespace {
    path: PathBuf,
}

impl Namespace {
    /// The namespace at `path`, whether or not it exists.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a namespace is mounted there.
    pub fn exists(&self) -> bool {
        statfs(&self.path).is_ok_and(|fs| fs.filesystem_type() == NSFS_MAGIC)
    }

    /// Makes the namespace unless it exists. True when it is new.
    ///
    /// # Errors
    /// The file, the namespace or the mount cannot be made; then nothing is left.
    pub fn create(&self) -> Result<bool, KernelError> {
        if self.exists() {
            return Ok(false);
        }
        if let Some(directory) = self.path.parent() {
            fs::create_dir_all(directory).map_err(KernelError::file("creating", directory))?;
        }
        File::create(&self.path).map_err(KernelError::file("creating", &self.path))?;
        let path = self.path.clone();
        // A namespace belongs to a thread, so a thread of its own makes it and ends.
        let made = on_thread(move || -> io::Result<()> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            let own = Path::new("/proc/thread-self/ns/net");
            Ok(mount(Some(own), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?)
        })?;
        if let Err(error) = made {
            let _ = fs::remove_file(&self.path);
            return Err(KernelError::file("creating network namespace", &self.path)(error));
        }
        Ok(true)
    }

    /// Unmounts the namespace and removes its name; nothing happens when there is none. It goes away when the last
    /// process has left it.
    ///
    /// # Errors
    /// It cannot be unmounted or the file cannot be removed.
    pub fn remove(&self) -> Result<(), KernelError> {
        while self.exists() {
            umount2(&self.path, MntFlags::MNT_DETACH)
                .map_err(|errno| KernelError::file("unmounting", &self.path)(errno.into()))?;
        }
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(KernelError::file("removing", &self.path)(error))
            }
            _ => Ok(()),
        }
    }

    /// Opens the namespace, for moving an interface there.
    ///
    /// # Errors
    /// It does not exist.
    pub fn open(&self) -> Result<File, KernelError> {
        File::open(&self.path).map_err(KernelError::file("opening network namespace", &self.path))
    }

    /// What the kernel calls the namespace: `bpf_get_netns_cookie` returns it for every socket in there.
    ///
    /// `None` where the kernel does not tell it (before Linux 5.14).
    ///
    /// # Errors
    /// The namespace cannot be entered or asked.
    pub fn cookie(&self) -> Result<Option<u64>, KernelError> {
        match self.enter(|| netns_cookie(&UnixDatagram::unbound()?))? {
            Ok(cookie) => Ok(Some(cookie)),
            Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(None),
            Err(error) => {
                Err(KernelError::file("reading the cookie of network namespace", &self.path)(error))
            }
        }
    }

    /// Runs `act` on a thread inside the namespace and waits for it.
    ///
    /// # Errors
    /// The namespace cannot be entered.
    pub fn enter<T: Send>(&self, act: impl FnOnce() -> T + Send) -> Result<T, KernelError> {
        let file = self.open()?;
        on_thread(move || setns(&file, CloneFlags::CLONE_NEWNET).map(|()| act()))?
            .map_err(|errno| KernelError::file("entering network namespace", &self.path)(errno.into()))
    }

    /// Like [`Self::enter`] for a future, which gets a runtime of its own.
    ///
    /// # Errors
    /// The namespace cannot be entered.
    pub fn enter_async<T, F>(&self, act: impl FnOnce() -> F + Send) -> Result<T, KernelError>
    where
        T: Send,
        F: Future<Output = T>,
    {
        self.enter(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            Ok(runtime.map_err(KernelError::Thread)?.block_on(act()))
        })?
    }
}

/// What the kernel calls the namespace of the calling thread; 0 where it does not tell (before Linux 5.14).
///
/// # Errors
/// The kernel cannot be asked.
pub fn own_cookie() -> Result<u64, KernelError> {
    match UnixDatagram::unbound().and_then(|socket| netns_cookie(&socket)) {
        // A kernel that does not tell it: no namespace has cookie 0.
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(0),
        read => read.map_err(KernelError::file(
            "reading the cookie of network namespace",
            "/proc/thread-self/ns/net",
        )),
    }
}

/// `SO_NETNS_COOKIE` of a socket (Linux 5.14).
#[expect(unsafe_code, reason = "getsockopt has no safe wrapper for this option")]
fn netns_cookie(socket: &impl AsRawFd) -> io::Result<u64> {
    let mut cookie = 0u64;
    let mut length = libc::socklen_t::try_from(size_of::<u64>()).expect("8");
    // SAFETY: the kernel writes at most `length` bytes, and `cookie` is that large.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(cookie) }
}

fn on_thread<T: Send>(act: impl FnOnce() -> T + Send) -> Result<T, KernelError> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, act);
        match thread.map_err(KernelError::Thread)?.join() {
            Ok(value) => Ok(value),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
