//! Reading `cache`.

use std::time::Duration;

use crate::{
    chain::Zones,
    corefile::{CorefileError, Directive, Words, parse_duration, unknown},
    plugin::Setup,
};

/// CoreDNS's limits and defaults.
const CAPACITY: usize = 9984;
const CAPACITY_MIN: usize = 1024;
const TTL_MAX: Duration = Duration::from_secs(3600);
const TTL_DENIAL_MAX: Duration = Duration::from_secs(1800);
const TTL_MIN: Duration = Duration::from_secs(5);
const FAILURE: Duration = Duration::from_secs(5);
const FAILURE_MAX: Duration = Duration::from_secs(300);
const STALE_UP_TO: Duration = Duration::from_secs(3600);
/// How long a client waits for a fresh answer before it gets a stale one (RFC 8767 §5).
const VERIFY: Duration = Duration::from_millis(1800);

/// What is kept of one kind, and how long.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    pub(super) capacity: usize,
    pub(super) ttl_max: Duration,
    pub(super) ttl_min: Duration,
    /// Zones whose answers are not kept.
    pub(super) disabled: Zones,
}

/// When an entry is refreshed before it expires.
#[derive(Clone, Debug)]
pub(super) struct Prefetch {
    pub(super) hits: u32,
    /// Without a hit for so long, counting begins anew.
    pub(super) within: Duration,
    /// How much of its time is left at most.
    pub(super) percent: u8,
}

/// Whether answers that expired are given.
#[derive(Clone, Debug)]
pub(super) struct Stale {
    pub(super) up_to: Duration,
    /// How long a fresh answer is waited for; not at all when unset.
    pub(super) verify: Option<Duration>,
    /// TTL of what is stale.
    pub(super) ttl: Duration,
}

/// How the cache works.
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) success: Limits,
    pub(super) denial: Limits,
    pub(super) failure: Duration,
    pub(super) prefetch: Option<Prefetch>,
    pub(super) stale: Option<Stale>,
    pub(super) keep_ttl: bool,
}

/// Reads the directive: for which zones, and how.
pub(super) fn read(setup: &Setup<'_>, directive: &Directive) -> Result<(Zones, Options), CorefileError> {
    let limits =
        |ttl_max| Limits { capacity: CAPACITY, ttl_max, ttl_min: TTL_MIN, disabled: Zones::default() };
    let mut options = Options {
        success: limits(TTL_MAX),
        denial: limits(TTL_DENIAL_MAX),
        failure: FAILURE,
        prefetch: None,
        stale: None,
        keep_ttl: false,
    };
    let mut words = directive.words();
    if words.peek().is_some_and(|word| word.bytes().all(|byte| byte.is_ascii_digit())) {
        let ttl = Duration::from_secs(words.number("a TTL", 1..=604_800)?);
        (options.success.ttl_max, options.denial.ttl_max) = (ttl, ttl);
    }
    let mut zones = words.zones()?;
    if zones.is_empty() {
        zones = setup.zones.to_vec();
    }
    for (option, words) in directive.lines() {
        options.read(option, words)?;
    }
    Ok((Zones(zones.into()), options))
}

impl Options {
    fn read(&mut self, option: &str, mut words: Words<'_>) -> Result<(), CorefileError> {
        match option {
            "success" => self.success.read(&mut words)?,
            "denial" => self.denial.read(&mut words)?,
            "prefetch" => self.prefetch = Some(prefetch(&mut words)?),
            "serve_stale" => self.stale = Some(stale(&mut words)?),
            // Records before denials, always.
            "serve_stale_policy" => {
                words.all();
            }
            "servfail" => {
                self.failure = words.duration()?;
                if self.failure > FAILURE_MAX {
                    return Err(words.fault("servfail must not be longer than 5m"));
                }
            }
            "keepttl" => self.keep_ttl = true,
            "disable" => {
                let limits = match words.next() {
                    Some("success") => &mut self.success,
                    Some("denial") => &mut self.denial,
                    _ => return Err(words.fault("disable needs success or denial")),
                };
                limits.disabled = words.zones_or_all()?;
            }
            _ => return Err(unknown(&words, option)),
        }
        words.end()
    }
}

impl Limits {
    /// `CAPACITY [TTL [MINTTL]]`
    fn read(&mut self, words: &mut Words<'_>) -> Result<(), CorefileError> {
        self.capacity = words.value::<usize>("a number of entries")?.max(CAPACITY_MIN);
        if words.peek().is_some() {
            self.ttl_max = Duration::from_secs(words.number("a TTL", 1..=604_800)?);
        }
        if words.peek().is_some() {
            self.ttl_min = Duration::from_secs(words.number("a TTL", 0..=604_800)?);
        }
        Ok(())
    }
}

/// `AMOUNT [DURATION [PERCENT%]]`
fn prefetch(words: &mut Words<'_>) -> Result<Prefetch, CorefileError> {
    let mut prefetch =
        Prefetch { hits: words.value("a number of hits")?, within: Duration::from_secs(60), percent: 10 };
    if words.peek().is_some() {
        prefetch.within = words.duration()?;
    }
    if let Some(word) = words.next() {
        let percent = word.strip_suffix('%').and_then(|number| number.parse().ok());
        let percent = percent.filter(|percent| (10..=90).contains(percent));
        prefetch.percent =
            percent.ok_or_else(|| words.fault(format!("{word:?} is not between 10% and 90%")))?;
    }
    Ok(prefetch)
}

/// `[DURATION] [immediate | verify [TIMEOUT [TTL [RECHECK]]]]`
fn stale(words: &mut Words<'_>) -> Result<Stale, CorefileError> {
    let mut stale = Stale { up_to: STALE_UP_TO, verify: None, ttl: Duration::ZERO };
    if words.peek().is_some_and(|word| parse_duration(word).is_some()) {
        stale.up_to = words.duration()?;
    }
    match words.next() {
        None | Some("immediate") => {}
        Some("verify") => {
            let timeout = if words.peek().is_some() { words.duration()? } else { VERIFY };
            stale.verify = Some(if timeout.is_zero() { VERIFY } else { timeout });
            if words.peek().is_some() {
                stale.ttl = words.duration()?;
            }
            if words.peek().is_some() {
                words.duration()?;
            }
        }
        Some(other) => return Err(words.fault(format!("{other:?} is neither immediate nor verify"))),
    }
    Ok(stale)
}
