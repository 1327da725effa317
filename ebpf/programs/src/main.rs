//! The eBPF hooks: context to datapath to verdict. Nothing is decided here.
//!
//! `socket` has the cgroup hooks that translate service addresses, `connection` the records of TCP connections, `link`
//! the TCX programs of pod routing and services, `driver` the XDP program, `maps` the maps and globals. Built for the host, this is a program that says how
//! to build the real one.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]
#![cfg_attr(
    target_arch = "bpf",
    expect(unsafe_code, reason = "contexts, map values and helpers are raw pointers of the kernel")
)]

#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod span;

#[cfg(target_arch = "bpf")]
mod event;

#[cfg(target_arch = "bpf")]
mod connection;
#[cfg(target_arch = "bpf")]
mod driver;
#[cfg(target_arch = "bpf")]
mod link;
#[cfg(target_arch = "bpf")]
mod skb;
#[cfg(target_arch = "bpf")]
mod socket;

/// The kernel lends `bpf_redirect_peer` and others to GPL-compatible programs only.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier rejects a program that can reach an endless loop, so one that loads cannot panic.
    loop {}
}

#[cfg(not(target_arch = "bpf"))]
fn main() {
    eprintln!("these programs run in the kernel: build them with `cargo xtask build`");
    std::process::exit(1);
}
