//! Loads every program of the object by itself and says what the verifier made of it.
//!
//! `cargo xtask test vm` runs it on each kernel and compares the numbers with `ebpf/budget.json`. It prints one line for
//! each program: `program NAME verified COUNT`, or `program NAME refused WHY`.

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
};

use aya::{Ebpf, EbpfLoader, programs::Program, programs::ProgramError};
use fairlead_abi::names;
use fairlead_kernel::{
    bpf::load,
    features::{Helpers, raise_memory_limit},
};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Most characters of a refusal that are shown: the end of the verifier's log has the reason.
const WHY_LEN_MAX: usize = 400;

#[test]
fn every_program_passes_the_verifier() {
    let bpffs = std::env::temp_dir().join(format!("fairlead-programs-{}", std::process::id()));
    fs::create_dir(&bpffs).expect("the temporary directory is writable");
    mount(Some("bpf"), &bpffs, Some("bpf"), MsFlags::empty(), None::<&str>)
        .expect("mounting a bpf file system needs root");
    let mut ebpf = read_object(&bpffs);
    let mut refused = Vec::new();
    for (name, program) in ebpf.programs_mut() {
        match load(program) {
            Ok(verified) => println!("program {name} verified {verified}"),
            Err(error) => {
                println!("program {name} refused {}", tail(&error));
                refused.push(name.to_owned());
            }
        }
    }
    drop(ebpf);
    umount2(&bpffs, MntFlags::MNT_DETACH).expect("it was mounted above");
    fs::remove_dir(&bpffs).expect("it is empty again");
    assert!(refused.is_empty(), "the verifier refuses {}", refused.join(", "));
}

fn read_object(bpffs: &Path) -> Ebpf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/bpf/fairlead.bpf.o");
    let path = std::env::var_os("FAIRLEAD_BPF_OBJECT").map_or_else(default, PathBuf::from);
    let object = fs::read(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; run `cargo xtask build`", path.display()));
    raise_memory_limit();
    let helpers = Helpers::of_this_kernel().expect("the kernel answers what it has");
    let mut loader = EbpfLoader::new();
    helpers.switch(&mut loader);
    for map in names::MAPS {
        loader.map_pin_path(map.name, bpffs.join(map.name));
    }
    loader.load(&object).expect("the maps can be made; it needs root")
}

/// Loads one program and returns how many instructions the verifier walked.
fn load(program: &mut Program) -> Result<u32, ProgramError> {
    load::load(program)?;
    Ok(program.info()?.verified_instruction_count().unwrap_or_default())
}

/// The end of an error with all its causes, on one line.
fn tail(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let skipped = text.chars().count().saturating_sub(WHY_LEN_MAX);
    text.chars().skip(skipped).collect()
}
