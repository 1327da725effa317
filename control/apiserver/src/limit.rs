//! How much is taken on at a time, altogether and from one user. Administrators are never refused, as upstream's are
//! not: who has to repair a cluster must get in.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::authn::Identity;
use crate::error::ApiError;
use crate::request::RequestInfo;

/// The limits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// How many reads are answered at a time (kube-apiserver's `--max-requests-inflight`).
    pub reads_in_flight: usize,
    /// How many writes are made at a time (`--max-mutating-requests-inflight`).
    pub writes_in_flight: usize,
    /// How many requests a user may make in a second, over time.
    pub user_requests_per_sec: f64,
    /// How many requests a user may make at once after a pause.
    pub user_burst: f64,
    /// How long the body of a request may be.
    pub body_bytes: u64,
    /// How long the bodies of all requests under way may be together. This holds for administrators, too.
    pub bodies_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            reads_in_flight: 400,
            writes_in_flight: 200,
            user_requests_per_sec: 500.0,
            user_burst: 1_000.0,
            // Upstream's (apiserver `pkg/server/config.go`, `MaxRequestBodyBytes`).
            body_bytes: 3 << 20,
            bodies_bytes: 64 << 20,
        }
    }
}

/// How many users are remembered. One that is forgotten begins anew with its burst.
const USERS_MAX: usize = 4_096;

/// What is under way.
#[derive(Debug)]
pub(crate) struct Limiter {
    limits: Limits,
    reads: Arc<Semaphore>,
    writes: Arc<Semaphore>,
    /// A permit for each KiB of a body.
    bodies: Arc<Semaphore>,
    users: Mutex<HashMap<String, Bucket>>,
}

/// What a user has left.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Limiter {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            reads: Arc::new(Semaphore::new(limits.reads_in_flight)),
            writes: Arc::new(Semaphore::new(limits.writes_in_flight)),
            bodies: Arc::new(Semaphore::new(
                usize::try_from(kib(limits.bodies_bytes)).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS),
            )),
            users: Mutex::default(),
        }
    }

    /// Lets a request in, or says when to come back. It is under way until the permit is dropped.
    pub(crate) fn admit(
        &self,
        identity: Option<&Identity>,
        info: &RequestInfo,
        now: Instant,
    ) -> Result<Option<OwnedSemaphorePermit>, ApiError> {
        let user = match identity {
            Some(identity) if identity.is_exempt() => return Ok(None),
            Some(identity) => identity.user.as_str(),
            None => "",
        };
        if let Some(wait) = self.take(user, now) {
            return Err(too_many(wait));
        }
        let streams = info.verb == "watch"
            || info.target.as_ref().is_some_and(|target| target.subresource.as_deref() == Some("log"));
        if streams {
            return Ok(None);
        }
        let reads = matches!(info.verb, "get" | "list");
        let pool = if reads { &self.reads } else { &self.writes };
        let permit = pool.clone().try_acquire_owned();
        permit.map(Some).map_err(|_| too_many(Duration::from_secs(1)))
    }

    /// Makes room for so many bytes of a body, besides what it has already.
    pub(crate) fn room_for(
        &self,
        bytes: u64,
        room: Option<OwnedSemaphorePermit>,
    ) -> Result<Option<OwnedSemaphorePermit>, ApiError> {
        if bytes > self.limits.body_bytes {
            return Err(ApiError::TooLarge { limit_bytes: self.limits.body_bytes });
        }
        let has = room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = u32::try_from(kib(bytes))
            .unwrap_or(u32::MAX)
            .saturating_sub(u32::try_from(has).unwrap_or(u32::MAX));
        if more == 0 {
            return Ok(room);
        }
        let more = self.bodies.clone().try_acquire_many_owned(more);
        let mut more = more.map_err(|_| too_many(Duration::from_secs(1)))?;
        if let Some(room) = room {
            more.merge(room);
        }
        Ok(Some(more))
    }

    /// Takes a request from what the user has left; if there is nothing, how long until there is.
    fn take(&self, user: &str, now: Instant) -> Option<Duration> {
        let Limits { user_requests_per_sec: rate, user_burst: burst, .. } = self.limits;
        // The map is whole after any panic of its user.
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        let filled = |bucket: &Bucket| {
            let passed = now.saturating_duration_since(bucket.at).as_secs_f64();
            (bucket.tokens + passed * rate).min(burst)
        };
        if users.len() >= USERS_MAX && !users.contains_key(user) {
            users.retain(|_, bucket| filled(bucket) < burst);
            if users.len() >= USERS_MAX {
                users.clear();
            }
        }
        if !users.contains_key(user) {
            users.insert(user.to_owned(), Bucket { tokens: burst, at: now });
        }
        let bucket = users.get_mut(user)?;
        let tokens = filled(bucket);
        let left = tokens - 1.0;
        *bucket = Bucket { tokens: if left < 0.0 { tokens } else { left }, at: now };
        (left < 0.0).then(|| Duration::from_secs_f64(-left / rate))
    }
}

fn kib(bytes: u64) -> u64 {
    bytes.div_ceil(1024)
}

fn too_many(wait: Duration) -> ApiError {
    let secs = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    ApiError::TooManyRequests {
        message: "Too many requests, please try again later.".to_owned(),
        retry_after_secs: secs.max(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(method: &str, uri: &str) -> RequestInfo {
        let request = http::Request::builder().method(method).uri(uri).body(()).expect("a request");
        RequestInfo::parse(&request.into_parts().0).expect("a path")
    }

    fn somebody(name: &str) -> Identity {
        Identity { user: name.to_owned(), groups: vec!["system:authenticated".to_owned()] }
    }

    #[test]
    fn a_user_gets_its_burst_and_then_its_rate() {
        let limits = Limits { user_requests_per_sec: 2.0, user_burst: 3.0, ..Limits::default() };
        let limiter = Limiter::new(limits);
        let start = Instant::now();
        let admits = |name: &str, after_millis: u64| {
            let now = start + Duration::from_millis(after_millis);
            limiter.admit(Some(&somebody(name)), &info("GET", "/api/v1/pods"), now).is_ok()
        };
        let rows = [
            (0, true),
            (0, true),
            (0, true),
            (0, false),
            (400, false),
            (500, true),
            (501, false),
            (9_000, true),
        ];
        for (after, expected) in rows {
            assert_eq!(admits("a", after), expected, "{after}");
        }
        assert!(admits("b", 0), "others have their own");
    }

    #[test]
    fn what_is_under_way_is_bounded_but_for_streams_and_administrators() {
        let limiter = Limiter::new(Limits { reads_in_flight: 1, writes_in_flight: 1, ..Limits::default() });
        let now = Instant::now();
        let ask = |identity: &Identity, method, uri| limiter.admit(Some(identity), &info(method, uri), now);
        let (user, admin) = (somebody("a"), Identity::in_process());
        let read = ask(&user, "GET", "/api/v1/pods").expect("the first one");
        let refused = ask(&user, "GET", "/api/v1/pods").expect_err("one is under way");
        assert_eq!(refused.code().0.as_u16(), 429);
        assert!(ask(&user, "POST", "/api/v1/namespaces/a/pods").is_ok(), "writes are counted apart");
        assert!(ask(&user, "GET", "/api/v1/pods?watch=1").is_ok());
        assert!(ask(&admin, "GET", "/api/v1/pods").is_ok());
        drop(read);
        assert!(ask(&user, "GET", "/api/v1/pods").is_ok());
    }

    #[test]
    fn any_number_of_users_takes_a_bounded_memory() {
        let limiter = Limiter::new(Limits::default());
        let now = Instant::now();
        for index in 0..3 * USERS_MAX {
            limiter.take(&format!("user-{index}"), now);
        }
        assert!(limiter.users.lock().expect("nobody panicked").len() <= USERS_MAX);
    }
}
