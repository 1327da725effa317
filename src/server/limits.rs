//! Flags that bound what the API server takes on at a time.

use clap::Args;
use fairlead_apiserver::Limits;

const MIB: u64 = 1 << 20;

/// The defaults are those of kube-apiserver where it has such a flag.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits of the API server")]
pub(super) struct LimitArgs {
    /// Most reads under way at a time, without watches and logs; one more gets 429. Administrators are not counted here and
    /// in the next three
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().reads_in_flight)]
    max_requests_inflight: usize,
    /// Most writes under way at a time; one more gets 429
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().writes_in_flight)]
    max_mutating_requests_inflight: usize,
    /// Most requests of one user per second, in the long run; one more gets 429
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().user_requests_per_sec)]
    max_user_requests_per_second: f64,
    /// Most requests of one user at once, after a pause
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().user_burst)]
    max_user_burst: f64,
    /// Longest body of a request, in MiB; a longer one gets 413
    #[arg(long, value_name = "MIB", default_value_t = Limits::default().body_bytes / MIB)]
    max_body_mib: u64,
    /// Most that the bodies of all requests under way take together, in MiB; one more gets 429
    #[arg(long, value_name = "MIB", default_value_t = Limits::default().bodies_bytes / MIB)]
    max_bodies_mib: u64,
}

impl LimitArgs {
    pub(super) fn limits(&self) -> Limits {
        Limits {
            reads_in_flight: self.max_requests_inflight,
            writes_in_flight: self.max_mutating_requests_inflight,
            user_requests_per_sec: self.max_user_requests_per_second,
            user_burst: self.max_user_burst,
            body_bytes: self.max_body_mib.saturating_mul(MIB),
            bodies_bytes: self.max_bodies_mib.saturating_mul(MIB),
        }
    }
}
