//! The eBPF hooks: context to datapath to verdict.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(not(target_arch = "bpf"))]
fn main() {
    eprintln!("these programs run in the kernel: build them with `cargo xtask build`");
    std::process::exit(1);
}
