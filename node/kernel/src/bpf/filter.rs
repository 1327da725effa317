//! Programs on interfaces of kernels without TCX (before Linux 6.6): direct-action filters of the `clsact` queueing
//! discipline.
//!
//! A filter has no object that could be pinned: it belongs to its interface and goes with it. Where it is, is noted as
//! a symbolic link in the pin directory, so that whoever removes a node finds the filters of interfaces that stay.

use std::{fs, io, os::unix::fs::symlink, path::Path};

use aya::programs::{
    ProgramError, SchedClassifier, TcAttachType,
    tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle},
};

use super::link::{Attached, TCX_EGRESS};

/// Where our filters are in the list of an interface's filters; nobody else's are at this place by chance.
const PRIORITY: u16 = 7_070;
const HANDLE: TcHandle = TcHandle::new(0, 1);
/// What the notes begin with.
const NOTE: &str = "tc";

/// Makes the interface's filter run `program`, in place of the one that it ran so far or as a new one, and notes it at
/// `note`. No packet passes without one meanwhile.
pub(crate) fn attach(
    program: &mut SchedClassifier,
    interface: &str,
    hook: u32,
    note: &Path,
) -> Result<Attached, ProgramError> {
    let side = if hook == TCX_EGRESS { TcAttachType::Egress } else { TcAttachType::Ingress };
    let (link, attached) = match program.attach_to_link(link(interface, side).map_err(TcError::IoError)?) {
        Ok(link) => (link, Attached::Updated),
        // No such filter, or no `clsact` yet.
        Err(_) => {
            // It may be there already, of us or of others; attaching says so when it could not be made.
            let _exists = tc::qdisc_add_clsact(interface);
            let options = NlOptions { priority: PRIORITY, handle: HANDLE, classid: None };
            let link = program.attach_with_options(interface, side, TcAttachOptions::Netlink(options))?;
            (link, Attached::New)
        }
    };
    // Dropped, it would remove the filter, which is to outlive this process.
    std::mem::forget(program.take_link(link)?);
    write_note(note, interface, side).map_err(TcError::IoError)?;
    Ok(attached)
}

/// Removes the filter that is noted at `note`, if it is a note; not the note itself. An interface or a filter that is
/// gone is fine.
pub(crate) fn detach_noted(note: &Path) {
    let Some((interface, side)) = read_note(note) else { return };
    if let Ok(link) = link(&interface, side) {
        // Dropping it removes the filter.
        drop(link);
    }
}

fn link(interface: &str, side: TcAttachType) -> io::Result<SchedClassifierLink> {
    SchedClassifierLink::attached(interface, side, PRIORITY, HANDLE, None)
}

fn write_note(note: &Path, interface: &str, side: TcAttachType) -> io::Result<()> {
    let side = if side == TcAttachType::Egress { "egress" } else { "ingress" };
    match symlink(format!("{NOTE} {side} {interface}"), note) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn read_note(note: &Path) -> Option<(String, TcAttachType)> {
    let text = fs::read_link(note).ok()?;
    let mut words = text.to_str()?.splitn(3, ' ');
    let (NOTE, side, interface) = (words.next()?, words.next()?, words.next()?) else { return None };
    let side = if side == "egress" { TcAttachType::Egress } else { TcAttachType::Ingress };
    Some((interface.to_owned(), side))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_says_again_what_was_noted() {
        let note = std::env::temp_dir().join(format!("fairlead-note-{}", std::process::id()));
        write_note(&note, "eth0.12", TcAttachType::Egress).expect("the temporary directory is writable");
        let read = read_note(&note);
        fs::remove_file(&note).expect("it was made above");
        assert_eq!(read, Some(("eth0.12".to_owned(), TcAttachType::Egress)));
        assert_eq!(read_note(&note), None);
    }
}
