//! What can go wrong between us and the kernel. Each sentence says what, where and what to do.

use std::{io, path::PathBuf};

use crate::conflict::Process;

/// An operation on kernel state failed.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// eBPF and network namespaces need root.
    #[error("the node agent must run as root (effective user id is {uid}); start it with sudo")]
    NotRoot {
        /// Who runs it.
        uid: u32,
    },
    /// The kernel lacks something.
    #[error("this kernel lacks {feature}: {remedy}")]
    MissingFeature {
        /// What is missing.
        feature: &'static str,
        /// What to do.
        remedy: String,
    },
    /// The build has no eBPF object.
    #[error(
        "this binary was built without the eBPF programs; run `cargo xtask build` and use the binary it makes"
    )]
    NoObject,
    /// The pinned maps are of another version.
    #[error(
        "the maps pinned in {path} have layout {found}, this binary has layout {expected}; use the agent's own version"
    )]
    Layout {
        /// Pin directory.
        path: PathBuf,
        /// Version there.
        found: String,
        /// Version here.
        expected: u32,
    },
    /// The object could not be loaded.
    #[error("loading the eBPF object: {0}")]
    Object(#[from] Box<aya::EbpfError>),
    /// The object has no such program or map.
    #[error(
        "the eBPF object has no {kind} {name}; object and binary are of different builds, run `cargo xtask build`"
    )]
    Missing {
        /// Program or map.
        kind: &'static str,
        /// Its name.
        name: &'static str,
    },
    /// The kernel refused a program.
    #[error("loading eBPF program {name}: {source}")]
    Program {
        /// Its name.
        name: &'static str,
        /// The verifier's or the system call's answer.
        #[source]
        source: Box<aya::programs::ProgramError>,
    },
    /// A map operation failed.
    #[error("{operation} eBPF map {name}: {source}{}", full_hint(.source))]
    Map {
        /// Its name.
        name: &'static str,
        /// Reading, writing, ...
        operation: &'static str,
        /// The system call's answer.
        #[source]
        source: Box<aya::maps::MapError>,
    },
    /// A link could not be made or updated.
    #[error("{operation} eBPF link {name}: {source}")]
    Link {
        /// Name of its pin.
        name: String,
        /// Attaching, updating, ...
        operation: &'static str,
        /// The system call's answer.
        #[source]
        source: io::Error,
    },
    /// A netlink request failed.
    #[error("{operation}: {source}")]
    Netlink {
        /// What was asked, with its object.
        operation: String,
        /// The kernel's answer.
        #[source]
        source: Box<rtnetlink::Error>,
    },
    /// There is no such interface.
    #[error("there is no network interface {name} in this network namespace; check --uplink")]
    NoInterface {
        /// Its name.
        name: String,
    },
    /// A file, directory or namespace operation failed.
    #[error("{operation} {path}: {source}")]
    File {
        /// What was done.
        operation: &'static str,
        /// To what.
        path: PathBuf,
        /// The system call's answer.
        #[source]
        source: io::Error,
    },
    /// Another program does the same job.
    #[error("{process} runs on this node and writes rules of the same names; stop it first")]
    OtherProxy {
        /// It.
        process: Process,
    },
    /// A program that a proxy mode needs is not installed.
    #[error("the program {program} is missing; install the package {package}")]
    NoTool {
        /// Its name.
        program: &'static str,
        /// Debian's package that has it.
        package: &'static str,
    },
    /// A program failed.
    #[error("{program}: {message}")]
    Tool {
        /// Its name.
        program: &'static str,
        /// What it said.
        message: String,
    },
    /// A thread could not be started.
    #[error("starting a thread: {0}")]
    Thread(#[source] io::Error),
}

impl KernelError {
    pub(crate) fn map(
        name: &'static str,
        operation: &'static str,
    ) -> impl FnOnce(aya::maps::MapError) -> Self {
        move |source| Self::Map { name, operation, source: Box::new(source) }
    }

    pub(crate) fn file(operation: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { operation, path, source }
    }

    pub(crate) fn netlink(operation: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> Self {
        let operation = operation.into();
        move |source| Self::Netlink { operation, source: Box::new(source) }
    }

    /// What the kernel said to a netlink message or to an operation on a file, if that is what failed.
    pub(crate) fn errno(&self) -> Option<i32> {
        match self {
            Self::File { source, .. } => source.raw_os_error(),
            Self::Netlink { source, .. } => Some(crate::net::netlink::errno(source)),
            _ => None,
        }
    }
}

/// `E2BIG` on an insert means that the map is full, which nobody guesses; a trie says `ENOSPC`.
fn full_hint(error: &aya::maps::MapError) -> &'static str {
    match error {
        aya::maps::MapError::SyscallError(e)
            if matches!(e.io_error.raw_os_error(), Some(libc::E2BIG | libc::ENOSPC)) =>
        {
            " (the map is full)"
        }
        _ => "",
    }
}
