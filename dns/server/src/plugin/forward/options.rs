//! Reading `forward`.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use fairlead_zone::{Name, Rcode};
use rustls::pki_types::ServerName;

use super::shown;
use crate::{
    chain::Zones,
    corefile::{CorefileError, Directive, Words, parse_zone, unknown},
    plugin::{Setup, client_config},
    upstream::{UpstreamConfig, UpstreamTransport},
};

/// CoreDNS's limits and defaults.
const UPSTREAMS_MAX: usize = 15;
const MAX_FAILS: u32 = 2;
const EXPIRE: Duration = Duration::from_secs(10);
const PROBE_EVERY: Duration = Duration::from_millis(500);
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// The order in which servers are asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Policy {
    Random,
    RoundRobin,
    Sequential,
}

/// How to ask.
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) except: Zones,
    pub(super) policy: Policy,
    pub(super) force_tcp: bool,
    pub(super) prefer_udp: bool,
    /// 0: no server is ever down.
    pub(super) max_fails: u32,
    pub(super) probe_every: Duration,
    pub(super) probe_timeout: Duration,
    pub(super) probe_recursion: bool,
    pub(super) probe_domain: Name,
    /// 0: no limit.
    pub(super) max_concurrent: usize,
    /// Answers with which the next server is asked.
    pub(super) failover: Vec<Rcode>,
    /// Answers with which the next plugin is asked.
    pub(super) next: Vec<Rcode>,
    pub(super) next_on_nodata: bool,
    pub(super) failfast: bool,
    /// 0: no limit.
    pub(super) attempts_max: usize,
}

/// What belongs to the servers rather than to the plugin.
struct Reach {
    expire: Duration,
    read_timeout: Duration,
    source: Option<IpAddr>,
    tls_files: Vec<PathBuf>,
    tls_name: Option<String>,
}

/// A server as it is written.
struct To {
    address: SocketAddr,
    tls: bool,
    name: Option<String>,
}

/// Reads the directive: what it is for, how it asks, and whom.
pub(super) fn read(
    setup: &Setup<'_>,
    directive: &Directive,
) -> Result<(Zones, Options, Vec<UpstreamConfig>), CorefileError> {
    let mut words = directive.words();
    let from = words.need("a zone and servers")?;
    let from = parse_zone(from).map_err(|message| words.fault(message))?;
    let mut servers = Vec::new();
    while let Some(word) = words.next() {
        servers.extend(server(setup, word).map_err(|message| words.fault(message))?);
    }
    if servers.is_empty() {
        return Err(words
            .fault("needs a server to ask: an address, tls://ADDRESS%NAME or a file like /etc/resolv.conf"));
    }
    if servers.len() > UPSTREAMS_MAX {
        return Err(
            words.fault(format!("has {} servers; at most {UPSTREAMS_MAX} are possible", servers.len()))
        );
    }
    let mut options = Options {
        except: Zones::default(),
        policy: Policy::Random,
        force_tcp: false,
        prefer_udp: false,
        max_fails: MAX_FAILS,
        probe_every: PROBE_EVERY,
        probe_timeout: PROBE_TIMEOUT,
        probe_recursion: true,
        probe_domain: Name::root(),
        max_concurrent: 0,
        failover: Vec::new(),
        next: Vec::new(),
        next_on_nodata: false,
        failfast: false,
        attempts_max: 0,
    };
    let mut reach = Reach {
        expire: EXPIRE,
        read_timeout: READ_TIMEOUT,
        source: None,
        tls_files: Vec::new(),
        tls_name: None,
    };
    for (option, mut words) in directive.lines() {
        if !options.read(option, &mut words)? && !reach.read(setup, option, &mut words)? {
            return Err(unknown(&words, option));
        }
        words.end()?;
    }
    if options.force_tcp && options.prefer_udp {
        return Err(directive.fault(None, "force_tcp and prefer_udp exclude each other"));
    }
    let configs = servers.iter().map(|to| reach.upstream(to)).collect::<Result<_, _>>();
    Ok((Zones(from.into()), options, configs.map_err(|message| directive.fault(None, message))?))
}

/// A server, or the servers of a file like `/etc/resolv.conf`.
fn server(setup: &Setup<'_>, word: &str) -> Result<Vec<To>, String> {
    let (tls, rest) = match word.split_once("://") {
        Some(("tls", rest)) => (true, rest),
        Some(("dns", rest)) => (false, rest),
        Some((scheme, _)) => {
            return Err(format!("{word:?}: {scheme} is not supported; use dns:// or tls://"));
        }
        None => (false, word),
    };
    let (host, name) = match rest.split_once('%').filter(|_| tls) {
        // The port comes behind the name.
        Some((host, name)) => match name.rsplit_once(':') {
            Some((name, port)) => (format!("{host}:{port}"), Some(name.to_owned())),
            None => (host.to_owned(), Some(name.to_owned())),
        },
        None => (rest.to_owned(), None),
    };
    let port = if tls { 853 } else { 53 };
    if let Some(address) = address(&host, port) {
        if address.port() == 0 {
            return Err(format!("{word:?}: 0 is not a port"));
        }
        return Ok(vec![To { address, tls, name }]);
    }
    let configured = &setup.world.config.upstreams;
    if word == "/etc/resolv.conf" && !configured.is_empty() {
        return Ok(configured
            .iter()
            .map(|address| To { address: *address, tls: false, name: None })
            .collect());
    }
    if tls || !word.contains('/') && !setup.path(word).is_file() {
        return Err(format!(
            "{word:?} is neither an IP address nor a file like /etc/resolv.conf; names of hosts are not looked up"
        ));
    }
    name_servers(&setup.path(word))
}

fn address(text: &str, port: u16) -> Option<SocketAddr> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<IpAddr>().map(|ip| (ip, port).into()).or_else(|_| text.parse()).ok()
}

/// The `nameserver` lines of a file.
fn name_servers(file: &Path) -> Result<Vec<To>, String> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("cannot read {}: {e}", file.display()))?;
    let servers: Vec<To> = text
        .lines()
        .filter_map(|line| {
            line.trim().strip_prefix("nameserver")?.split_whitespace().next()?.parse::<IpAddr>().ok()
        })
        .map(|ip| To { address: (ip, 53).into(), tls: false, name: None })
        .collect();
    if servers.is_empty() {
        return Err(format!("{} has no nameserver with an address", file.display()));
    }
    Ok(servers)
}

impl Options {
    /// Whether the line was for it.
    fn read(&mut self, option: &str, words: &mut Words<'_>) -> Result<bool, CorefileError> {
        match option {
            "except" => {
                let mut zones = self.except.0.to_vec();
                zones.extend(words.zones()?);
                self.except = Zones(zones.into());
            }
            "policy" => {
                self.policy = match words.need("random, round_robin or sequential")? {
                    "random" => Policy::Random,
                    "round_robin" => Policy::RoundRobin,
                    "sequential" => Policy::Sequential,
                    other => return Err(words.fault(format!("unknown policy {other:?}"))),
                }
            }
            "force_tcp" => self.force_tcp = true,
            "prefer_udp" => self.prefer_udp = true,
            "max_fails" => self.max_fails = words.value("a number")?,
            "health_check" => self.health_check(words)?,
            "max_concurrent" => self.max_concurrent = words.value("a number")?,
            "failover" => self.failover.extend(rcodes(words)?),
            "next" => self.next.extend(rcodes(words)?),
            "next_on_nodata" => self.next_on_nodata = true,
            "failfast_all_unhealthy_upstreams" => self.failfast = true,
            "max_connect_attempts" => self.attempts_max = words.value("a number")?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn health_check(&mut self, words: &mut Words<'_>) -> Result<(), CorefileError> {
        self.probe_every = words.duration()?;
        self.probe_timeout = self.probe_every.max(PROBE_TIMEOUT);
        while let Some(word) = words.next() {
            match word {
                "no_rec" => self.probe_recursion = false,
                "domain" => {
                    let name = words.need("a name")?;
                    self.probe_domain =
                        Name::parse(name).map_err(|e| words.fault(format!("{name:?} is not a name: {e}")))?;
                }
                _ => return Err(words.fault(format!("{word:?} is neither no_rec nor domain"))),
            }
        }
        Ok(())
    }
}

fn rcodes(words: &mut Words<'_>) -> Result<Vec<Rcode>, CorefileError> {
    let mut rcodes = Vec::new();
    while let Some(word) = words.next() {
        rcodes
            .push(Rcode::parse(word).ok_or_else(|| words.fault(format!("{word:?} is not a response code")))?);
    }
    if rcodes.is_empty() { Err(words.fault("needs a response code like SERVFAIL")) } else { Ok(rcodes) }
}

impl Reach {
    /// Whether the line was for it.
    fn read(
        &mut self,
        setup: &Setup<'_>,
        option: &str,
        words: &mut Words<'_>,
    ) -> Result<bool, CorefileError> {
        match option {
            "expire" | "max_age" => {
                let duration = words.duration()?;
                if option == "expire" {
                    self.expire = duration;
                }
            }
            "read_timeout" => self.read_timeout = words.duration()?,
            // Connections carry many questions: one for each server is enough.
            "max_idle_conns" => {
                words.value::<usize>("a number")?;
            }
            "source_address" => self.source = Some(words.value("an address")?),
            "tls" => self.tls_files = words.all().into_iter().map(|file| setup.path(file)).collect(),
            "tls_servername" => self.tls_name = Some(words.need("a name")?.to_owned()),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn upstream(&self, to: &To) -> Result<UpstreamConfig, String> {
        let transport = if to.tls {
            let name = to
                .name
                .clone()
                .or_else(|| self.tls_name.clone())
                .unwrap_or_else(|| to.address.ip().to_string());
            let server_name = ServerName::try_from(name.clone()).map_err(|_| {
                format!("{name:?} is no name that the certificate of {} can hold", shown(to.address))
            })?;
            UpstreamTransport::Tls { server_name, config: Arc::new(client_config(&self.tls_files)?) }
        } else {
            UpstreamTransport::Plain
        };
        Ok(UpstreamConfig {
            address: to.address,
            transport,
            expire: self.expire,
            read_timeout: self.read_timeout,
            source: self.source,
            random_case: false,
        })
    }
}
