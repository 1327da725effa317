//! The allocator of the process. An API server makes and frees hundreds of small values for each request, on one thread and
//! another. The C library's allocator took a sixth of the processor for that, and gave nothing back by itself.

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// jemalloc's options (`TUNING.md` of its sources): a thread of its own gives what has been free for so long back to the
/// kernel, also when the process rests.
#[expect(unsafe_code, reason = "jemalloc finds its options by this name, which nothing else has")]
#[unsafe(export_name = "_rjem_malloc_conf")]
static OPTIONS: &[u8; 43] = b"background_thread:true,dirty_decay_ms:1000\0";
