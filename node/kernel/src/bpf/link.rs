//! Links between programs and hooks: made, pinned, found again, given another program.
//!
//! aya cannot replace the program of a cgroup link, so all four operations are made here, alike for cgroup and TCX
//! hooks, directly with bpf(2) (`include/uapi/linux/bpf.h`).

use std::{
    ffi::CString,
    io,
    os::{
        fd::{BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use fairlead_abi::names;

use super::syscall::{bpf, raw};

const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_LINK_UPDATE: libc::c_long = 29;

/// `bpf_attach_type` numbers of the cgroup programs.
const CGROUP_HOOKS: &[(&str, u32)] = &[
    (names::cgroup::SOCK_OPS, 3),
    (names::cgroup::CONNECT4, 10),
    (names::cgroup::CONNECT6, 11),
    (names::cgroup::POST_BIND4, 12),
    (names::cgroup::POST_BIND6, 13),
    (names::cgroup::SENDMSG4, 14),
    (names::cgroup::SENDMSG6, 15),
    (names::cgroup::RECVMSG4, 19),
    (names::cgroup::RECVMSG6, 20),
    (names::cgroup::GETPEERNAME4, 29),
    (names::cgroup::GETPEERNAME6, 30),
];

/// `BPF_TCX_INGRESS`.
pub(crate) const TCX_INGRESS: u32 = 46;
/// `BPF_TCX_EGRESS`.
pub(crate) const TCX_EGRESS: u32 = 47;
/// `BPF_XDP`.
pub(crate) const XDP: u32 = 37;

/// The hook of a cgroup program by the program's name.
pub(crate) fn cgroup_hook(program: &str) -> Option<u32> {
    CGROUP_HOOKS.iter().find(|(name, _)| *name == program).map(|(_, hook)| *hook)
}

/// Where a program is attached.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target<'a> {
    /// A cgroup-v2 directory.
    Cgroup(BorrowedFd<'a>),
    /// An interface of the current network namespace.
    Interface(u32),
    /// The receiving side of an interface's driver, with `XDP_FLAGS_*`.
    Driver { interface: u32, flags: u32 },
}

impl Target<'_> {
    /// As the kernel says it of links whose interface is gone, `ENOLINK` where the link is on another interface.
    fn require(self, link: &OwnedFd) -> io::Result<()> {
        let (Self::Interface(interface) | Self::Driver { interface, .. }) = self else { return Ok(()) };
        let is_there = describe(link)?.target == interface;
        if is_there { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ENOLINK)) }
    }
}

/// What attaching did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Attached {
    /// A new link.
    New,
    /// The pinned link runs the new program now; no packet passed without one.
    Updated,
}

/// Makes the pinned link at `pin` run `program`; makes and pins a new one where there is none, or where its hook is gone
/// or is that of another interface, which had the name before.
pub(crate) fn attach(
    program: BorrowedFd<'_>,
    target: Target<'_>,
    hook: u32,
    pin: &Path,
) -> io::Result<Attached> {
    match open_pin(pin) {
        Ok(link) => match target.require(&link).and_then(|()| update(&link, program)) {
            Ok(()) => return Ok(Attached::Updated),
            // The interface or the cgroup was deleted; the link is a husk (kernel/bpf/cgroup.c, tcx.c, net/core/dev.c).
            Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => std::fs::remove_file(pin)?,
            Err(error) => return Err(error),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let link = create(program, target, hook)?;
    pin_object(&link, pin)?;
    Ok(Attached::New)
}

/// Gives the link another program; both keep running packets without a gap.
pub(crate) fn update(link: &OwnedFd, program: BorrowedFd<'_>) -> io::Result<()> {
    #[repr(C)]
    #[derive(Default)]
    struct Attr {
        link_fd: u32,
        new_prog_fd: u32,
        flags: u32,
        old_prog_fd: u32,
    }
    let mut attr = Attr { link_fd: raw(link), new_prog_fd: raw(&program), ..Attr::default() };
    bpf(BPF_LINK_UPDATE, &mut attr).map(drop)
}

/// Opens a pinned link.
pub(crate) fn open_pin(pin: &Path) -> io::Result<OwnedFd> {
    let path = c_path(pin)?;
    let mut attr = ObjectAttr { pathname: path.as_ptr() as u64, ..ObjectAttr::default() };
    bpf(BPF_OBJ_GET, &mut attr).map(owned)
}

/// What a link does at present.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Present {
    /// Id of its program.
    pub(crate) program: u32,
    /// The interface's index, or some bits of the cgroup's id; 0 when somebody has detached it, or what it was attached
    /// to has gone.
    target: u32,
}

impl Present {
    /// It is on a hook.
    pub(crate) const fn is_attached(self) -> bool {
        self.target != 0
    }
}

/// Asks about a pinned link.
pub(crate) fn present(pin: &Path) -> io::Result<Present> {
    describe(&open_pin(pin)?)
}

fn describe(link: &OwnedFd) -> io::Result<Present> {
    /// `struct bpf_link_info` as far as it concerns links of cgroups, TCX and XDP.
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        kind: u32,
        id: u32,
        program: u32,
        pad: u32,
        // The cgroup's id, or the interface's index and the hook; 0 when it has gone.
        target: [u32; 2],
        rest: [u64; 6],
    }
    #[repr(C)]
    struct Attr {
        fd: u32,
        len: u32,
        info: u64,
    }
    let mut info = Info::default();
    let len = u32::try_from(size_of::<Info>()).expect("some bytes");
    let mut attr = Attr { fd: raw(link), len, info: (&raw mut info) as u64 };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(Present { program: info.program, target: info.target[0] })
}

fn create(program: BorrowedFd<'_>, target: Target<'_>, hook: u32) -> io::Result<OwnedFd> {
    #[repr(C)]
    #[derive(Default)]
    struct Attr {
        prog_fd: u32,
        target: u32,
        attach_type: u32,
        flags: u32,
        // The union for TCX: no relative program, no expected revision, so at the end.
        relative: u32,
        pad: u32,
        expected_revision: u64,
    }
    let (target, flags) = match target {
        Target::Cgroup(directory) => (raw(&directory), 0),
        Target::Interface(ifindex) => (ifindex, 0),
        Target::Driver { interface, flags } => (interface, flags),
    };
    let mut attr = Attr { prog_fd: raw(&program), target, attach_type: hook, flags, ..Attr::default() };
    bpf(BPF_LINK_CREATE, &mut attr).map(owned)
}

fn pin_object(object: &OwnedFd, pin: &Path) -> io::Result<()> {
    let path = c_path(pin)?;
    let mut attr =
        ObjectAttr { pathname: path.as_ptr() as u64, bpf_fd: raw(object), ..ObjectAttr::default() };
    bpf(BPF_OBJ_PIN, &mut attr).map(drop)
}

#[repr(C)]
#[derive(Default)]
struct ObjectAttr {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::from)
}

#[expect(unsafe_code, reason = "a descriptor from the kernel becomes owned")]
fn owned(fd: i32) -> OwnedFd {
    // SAFETY: the kernel has just returned this descriptor to us and nobody else has it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cgroup_program_has_a_hook() {
        for program in names::cgroup::ALL {
            assert!(cgroup_hook(program).is_some(), "{program}");
        }
    }
}
