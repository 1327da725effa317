//! Loading one program.

use aya::programs::{Program, ProgramError};

/// How often the kernel is asked to verify a program. It gives up with `EAGAIN` when a signal arrives meanwhile
/// (`kernel/bpf/verifier.c`), and on a busy machine a large program takes long enough for that.
const ATTEMPTS: u32 = 10;

/// Loads a program of one of the types that the object has.
///
/// # Errors
/// The kernel refuses it.
pub fn load(program: &mut Program) -> Result<(), ProgramError> {
    let mut attempts = 1;
    loop {
        let loaded = match program {
            Program::CgroupSockAddr(program) => program.load(),
            Program::CgroupSock(program) => program.load(),
            Program::SockOps(program) => program.load(),
            Program::SchedClassifier(program) => program.load(),
            Program::Xdp(program) => program.load(),
            _ => return Err(ProgramError::UnexpectedProgramType),
        };
        match loaded {
            Err(error) if was_interrupted(&error) && attempts < ATTEMPTS => attempts += 1,
            loaded => return loaded,
        }
    }
}

fn was_interrupted(error: &ProgramError) -> bool {
    matches!(error, ProgramError::LoadError { io_error, .. } if io_error.raw_os_error() == Some(libc::EAGAIN))
}
