//! The clock that event records carry.

/// Nanoseconds of `CLOCK_MONOTONIC`, which `bpf_ktime_get_ns` reads.
#[expect(unsafe_code, reason = "clock_gettime fills a struct through a pointer")]
pub fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid `timespec` that lives through the call; this clock always exists, so it is filled.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    u64::try_from(time.tv_sec).unwrap_or_default() * 1_000_000_000
        + u64::try_from(time.tv_nsec).unwrap_or_default()
}
