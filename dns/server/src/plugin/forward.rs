//! `forward FROM TO… [{ … }]`: asks other servers.
//!
//! A server that fails is probed until it answers again, and asked last meanwhile; when all are down one is asked all
//! the same. Answers that do not fit into a datagram are fetched over TCP. The same question is asked once at a time.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use fairlead_zone::{Class, Name, Question, Rcode, RecordType};
use futures::FutureExt;
use tokio::{sync::Notify, time::timeout};

use super::{Plugins, Setup};
use crate::{
    cache::Key,
    chain::{Body, Next, Plugin, Query, Response, Serving, Zones, ready},
    codec::options,
    corefile::{CorefileError, Directive},
    flight::Flights,
    metrics::{Counter, Family, Histogram, Registry, Transport},
    relay::{Meaning, Reply},
    upstream::{Inquiry, Reuse, Upstream, UpstreamConfig, Via},
};

mod options;

use options::{Options, Policy};

const DURATIONS: Family = Family {
    name: "coredns_proxy_request_duration_seconds",
    help: "Histogram of the time each request took.",
};
const PROBE_FAILURES: Family = Family {
    name: "coredns_proxy_healthcheck_failures_total",
    help: "Counter of the number of failed healthchecks.",
};
const ALL_DOWN: Family = Family {
    name: "coredns_forward_healthcheck_broken_total",
    help: "Counter of the number of complete failures of the healthchecks.",
};
const REJECTS: Family = Family {
    name: "coredns_forward_max_concurrent_rejects_total",
    help: "Counter of the number of queries rejected because the concurrent queries were at maximum.",
};
const FAILURES: Family = Family {
    name: "fairlead_dns_upstream_failures_total",
    help: "Questions that an upstream server did not answer.",
};
const REUSED: Family = Family {
    name: "coredns_proxy_conn_cache_hits_total",
    help: "Counter of connection cache hits per upstream and protocol.",
};
const OPENED: Family = Family {
    name: "coredns_proxy_conn_cache_misses_total",
    help: "Counter of connection cache misses per upstream and protocol.",
};
const REPEATS: Family = Family {
    name: "fairlead_dns_upstream_repeats_total",
    help: "Questions that were asked again because their answers were late.",
};
/// How long a client's question may take in all.
const DEADLINE: Duration = Duration::from_secs(5);
/// How often each server is asked for one question.
const ROUNDS: usize = 2;
/// Codes that have a label of their own.
const RCODES: [Rcode; 5] =
    [Rcode::NO_ERROR, Rcode::NX_DOMAIN, Rcode::SERV_FAIL, Rcode::REFUSED, Rcode::FORM_ERR];

struct Forward {
    from: Zones,
    shared: Arc<Shared>,
    flights: Flights<(Key, Via), Outcome>,
    waiting: AtomicUsize,
    rejects: Arc<Counter>,
}

/// What a question in flight needs.
struct Shared {
    servers: Vec<Arc<Server>>,
    options: Options,
    /// Where the next round-robin begins.
    turn: AtomicUsize,
    all_down: Arc<Counter>,
}

/// An upstream server with its health.
struct Server {
    upstream: Upstream,
    /// Failed probes in a row.
    fails: AtomicU32,
    /// Somebody should look whether it answers.
    doubt: Notify,
    in_doubt: AtomicBool,
    durations: [Arc<Histogram>; RCODES.len() + 1],
    failures: Arc<Counter>,
    probe_failures: Arc<Counter>,
}

type Outcome = Result<Arc<Reply>, Arc<str>>;

pub(super) fn set_up(setup: &mut Setup<'_>, directives: &[Directive]) -> Result<Plugins, CorefileError> {
    directives.iter().map(|directive| plugin(setup, directive)).collect()
}

fn plugin(setup: &mut Setup<'_>, directive: &Directive) -> Result<Arc<dyn Plugin>, CorefileError> {
    let (from, options, upstreams) = options::read(setup, directive)?;
    let registry = Arc::clone(&setup.world.registry);
    let servers: Vec<Arc<Server>> =
        upstreams.into_iter().map(|config| Arc::new(Server::new(config, &registry))).collect();
    if options.max_fails > 0 {
        for server in &servers {
            setup.spawn(watch(Arc::clone(server), options.clone()).boxed());
        }
    }
    setup.block.recursion = true;
    let all_down = registry.counter(&ALL_DOWN, &[]);
    let shared = Arc::new(Shared { servers, options, turn: AtomicUsize::new(0), all_down });
    let rejects = registry.counter(&REJECTS, &[]);
    Ok(Arc::new(Forward { from, shared, flights: Flights::new(), waiting: AtomicUsize::new(0), rejects }))
}

impl Server {
    fn new(config: UpstreamConfig, registry: &Registry) -> Self {
        let to = config.address.to_string();
        let labels = [("proxy_name", "forward"), ("to", &*to)];
        let durations = std::array::from_fn(|index| {
            let rcode = RCODES.get(index).and_then(|rcode| rcode.mnemonic()).unwrap_or("other");
            registry.durations(&DURATIONS, &[labels[0], ("rcode", rcode), labels[1]])
        });
        let reuse = ["udp", "tcp"].map(|proto| {
            let labels = [("proto", proto), labels[0], labels[1]];
            Reuse {
                hits: registry.counter(&REUSED, &labels),
                misses: registry.counter(&OPENED, &labels),
                repeats: registry.counter(&REPEATS, &labels[2..]),
            }
        });
        Self {
            upstream: Upstream::new(config, reuse),
            fails: AtomicU32::new(0),
            doubt: Notify::new(),
            in_doubt: AtomicBool::new(false),
            durations,
            failures: registry.counter(&FAILURES, &labels[1..]),
            probe_failures: registry.counter(&PROBE_FAILURES, &labels),
        }
    }

    fn is_down(&self, max_fails: u32) -> bool {
        max_fails > 0 && self.fails.load(Ordering::Relaxed) > max_fails
    }

    /// Asks, over TCP too where the answer does not fit into a datagram.
    async fn ask(&self, inquiry: &Inquiry, via: Via) -> Result<Reply, Arc<str>> {
        let began = Instant::now();
        let failed = |error: crate::upstream::UpstreamError| {
            self.failures.add();
            Arc::from(format!("{}: {error}", self.upstream.address()))
        };
        let mut reply = self.upstream.exchange(inquiry, via).await.map_err(failed)?;
        if reply.truncated() && via == Via::Udp {
            // Without TCP the client still gets the truncated answer and can try TCP itself.
            reply = self.upstream.exchange(inquiry, Via::Tcp).await.unwrap_or(reply);
        }
        let index = RCODES.iter().position(|known| *known == reply.rcode()).unwrap_or(RCODES.len());
        self.durations[index].observe_duration(began.elapsed());
        Ok(reply)
    }
}

/// Probes a server that is in doubt until it answers; any answer will do.
async fn watch(server: Arc<Server>, options: Options) {
    let root = Question { name: options.probe_domain.clone(), rtype: RecordType::NS, class: Class::IN };
    let probe = Inquiry {
        question: root,
        recursion_desired: options.probe_recursion,
        authentic_data: false,
        checking_disabled: false,
        dnssec_ok: false,
        options: Vec::new(),
    };
    let via = if options.force_tcp { Via::Tcp } else { Via::Udp };
    loop {
        server.doubt.notified().await;
        loop {
            let answered = timeout(options.probe_timeout, server.upstream.exchange(&probe, via)).await;
            if matches!(answered, Ok(Ok(_))) {
                server.fails.store(0, Ordering::Relaxed);
                break;
            }
            server.fails.fetch_add(1, Ordering::Relaxed);
            server.probe_failures.add();
            tokio::time::sleep(options.probe_every).await;
        }
        server.in_doubt.store(false, Ordering::Relaxed);
    }
}

impl Shared {
    /// The servers in the order they are asked.
    fn order(&self) -> Vec<&Arc<Server>> {
        let count = self.servers.len();
        let first = match self.options.policy {
            Policy::Random => {
                use rand::seq::SliceRandom;
                let mut servers: Vec<&Arc<Server>> = self.servers.iter().collect();
                servers.shuffle(&mut rand::rng());
                return servers;
            }
            Policy::RoundRobin => self.turn.fetch_add(1, Ordering::Relaxed) % count,
            Policy::Sequential => 0,
        };
        (0..count).map(|at| &self.servers[(first + at) % count]).collect()
    }

    /// Asks one server after the other.
    async fn ask(self: Arc<Self>, inquiry: Inquiry, via: Via) -> Outcome {
        let mut servers = self.order();
        let max_fails = self.options.max_fails;
        let down = servers.iter().filter(|server| server.is_down(max_fails)).count();
        if down == servers.len() {
            self.all_down.add();
            if self.options.failfast {
                return Err(Arc::from("no upstream server is healthy"));
            }
        } else {
            servers.retain(|server| !server.is_down(max_fails));
            // One that failed just now may be dead: it is asked last until it was seen alive.
            servers.sort_by_key(|server| server.in_doubt.load(Ordering::Relaxed));
        }
        let began = Instant::now();
        let mut failure: Arc<str> = Arc::from("no upstream server answered");
        let attempts = servers.len() * ROUNDS;
        let attempts =
            if self.options.attempts_max > 0 { attempts.min(self.options.attempts_max) } else { attempts };
        for (attempt, server) in servers.iter().cycle().take(attempts).enumerate() {
            let Some(left) = DEADLINE.checked_sub(began.elapsed()) else { break };
            let asked = timeout(left, server.ask(&inquiry, via)).await;
            match asked.unwrap_or_else(|_| {
                Err(Arc::from(format!("{}: no answer in time", server.upstream.address())))
            }) {
                Ok(reply) => {
                    let more = attempt + 1 < servers.len();
                    if !(more && self.options.failover.contains(&reply.rcode())) {
                        return Ok(Arc::new(reply));
                    }
                    failure = Arc::from(format!("{}: {}", server.upstream.address(), reply.rcode()));
                }
                Err(error) => {
                    failure = error;
                    if max_fails > 0 && !server.in_doubt.swap(true, Ordering::Relaxed) {
                        server.doubt.notify_one();
                    }
                }
            }
        }
        Err(failure)
    }
}

impl Forward {
    fn is_for(&self, name: &Name) -> bool {
        self.from.contains(name) && !self.shared.options.except.contains(name)
    }

    async fn ask(&self, query: &mut Query, next: Next<'_>) -> Response {
        let request = &query.request;
        let inquiry = Inquiry {
            question: request.question.clone(),
            recursion_desired: request.recursion_desired,
            authentic_data: request.authentic_data,
            checking_disabled: request.checking_disabled,
            dnssec_ok: request.dnssec_ok(),
            options: passed_on(request.edns.as_ref().map_or(&[], |edns| &edns.options)),
        };
        let options = &self.shared.options;
        let stream = query.client.transport != Transport::Udp;
        let via = if options.force_tcp || (stream && !options.prefer_udp) { Via::Tcp } else { Via::Udp };
        let outcome =
            if inquiry.options.is_empty() && inquiry.question.class == Class::IN && inquiry.recursion_desired
            {
                let key = Key {
                    name: inquiry.question.name.to_lower_wire(),
                    rtype: inquiry.question.rtype,
                    dnssec_ok: inquiry.dnssec_ok,
                    checking_disabled: inquiry.checking_disabled,
                };
                let ask = || Arc::clone(&self.shared).ask(inquiry.clone(), via);
                match self.flights.join((key, via), ask).await {
                    Some(outcome) => outcome,
                    None => ask().await,
                }
            } else {
                Arc::clone(&self.shared).ask(inquiry, via).await
            };
        match outcome {
            Ok(reply) => {
                let no_data = reply.rcode() == Rcode::NO_ERROR && reply.meaning == Meaning::Denial;
                let unwelcome = options.next.contains(&reply.rcode()) || (options.next_on_nodata && no_data);
                // Only another `forward` knows better.
                if unwelcome && next.is("forward") {
                    return next.serve(query).await;
                }
                query.answered_by = "forward";
                Body::Reply { reply, age_secs: 0 }.into()
            }
            Err(error) => {
                query.answered_by = "forward";
                query.error = Some(error.to_string());
                Response::status(Rcode::SERV_FAIL)
            }
        }
    }
}

/// The options of a client that concern an upstream server too: not those of one hop (cookies, keepalive, padding).
fn passed_on(bytes: &[u8]) -> Vec<u8> {
    const OF_ONE_HOP: [u16; 4] = [10, 11, 12, crate::chain::TRACE_OPTION];
    let kept = options(bytes).filter(|(code, _)| !OF_ONE_HOP.contains(code));
    kept.flat_map(|(code, value)| crate::codec::option(code, value)).collect()
}

/// Counts a waiting question for as long as it lives.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Plugin for Forward {
    fn serve<'a>(&'a self, query: &'a mut Query, next: Next<'a>) -> Serving<'a> {
        if !self.is_for(query.name()) {
            return next.serve(query);
        }
        let transfer = matches!(query.rtype(), RecordType::AXFR | RecordType::IXFR);
        if transfer {
            return ready(Response::status(Rcode::REFUSED));
        }
        let waiting = self.waiting.fetch_add(1, Ordering::Relaxed);
        let waiting_here = Waiting(&self.waiting);
        let max = self.shared.options.max_concurrent;
        if max > 0 && waiting >= max {
            self.rejects.add();
            query.answered_by = "forward";
            query.error = Some(format!("concurrent queries exceeded maximum {max}"));
            return ready(Response::status(Rcode::REFUSED));
        }
        async move {
            let _waiting = waiting_here;
            self.ask(query, next).await
        }
        .boxed()
    }
}

/// Where a server is, for messages.
fn shown(address: SocketAddr) -> String {
    if address.port() == 53 { address.ip().to_string() } else { address.to_string() }
}
