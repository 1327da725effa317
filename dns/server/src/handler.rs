//! The life of a question: read, taken through the chain of its server block, written.
//!
//! [`Handler::start`] never waits; what only another server can answer comes back as [`Step::Wait`] and is finished by
//! the caller at its own pace.

use std::sync::Arc;

use arc_swap::ArcSwap;
use fairlead_zone::Rcode;
use futures::{FutureExt, future::BoxFuture};

use crate::{
    chain::{Answered, Body, Lasting, Message, Query, Routes},
    codec::{Incoming, decode, encode, encode_status, options},
    heartbeat::Pulse,
    hot,
    metrics::{Client, Counter, Family, Place, Registry, Tally},
    plugin::shuffle,
};

const DROPPED: Family = Family { name: "fairlead_dns_dropped_total", help: "Packets that got no answer." };
const REJECTED: Family = Family {
    name: "fairlead_dns_rejected_total",
    help: "Packets that are no question that can be answered.",
};

const SHED: Family = Family {
    name: "fairlead_dns_shed_total",
    help: "Questions and connections that had to give way to others.",
};

/// Answers questions of one listener.
pub(crate) struct Handler {
    /// Replaced when the Corefile is.
    routes: ArcSwap<Routes>,
    /// Of the threads that answer.
    pub(crate) pulse: Arc<Pulse>,
    dropped: Arc<Counter>,
    rejected: Arc<Counter>,
    shed: Arc<Counter>,
}

/// What to do about a packet.
pub(crate) enum Step {
    /// Nothing.
    Ignore,
    /// Send what was written; it may be sent again to who asks the same.
    Reply(Option<Again>),
    /// Finish it later: messages to be sent, over UDP the first one only.
    Wait(BoxFuture<'static, Vec<Vec<u8>>>),
}

/// What makes an answer good for more than one question.
pub(crate) struct Again {
    /// For how long.
    pub(crate) lasting: Lasting,
    /// Its addresses are to be shuffled each time.
    pub(crate) rotate: bool,
    /// How it is counted each time.
    pub(crate) tally: Tally,
}

impl Handler {
    pub(crate) fn new(routes: Arc<Routes>, registry: &Registry, pulse: Arc<Pulse>) -> Self {
        Self {
            routes: ArcSwap::new(routes),
            pulse,
            dropped: registry.counter(&DROPPED, &[]),
            rejected: registry.counter(&REJECTED, &[]),
            shed: registry.counter(&SHED, &[]),
        }
    }

    /// Answers as another Corefile says, from the next question on.
    pub(crate) fn replace(&self, routes: Arc<Routes>) {
        self.routes.store(routes);
    }

    /// A number that changes with the routes.
    pub(crate) fn routes_id(&self) -> usize {
        Arc::as_ptr(&self.routes.load()).addr()
    }

    /// Counts questions and connections that had to give way to others.
    pub(crate) fn shed(&self) {
        self.shed.add();
    }

    /// Counts packets that get no answer.
    pub(crate) fn drop_packet(&self) {
        self.dropped.add();
    }

    /// Reads a packet and answers it at once when that is possible.
    pub(crate) fn start(&self, packet: &[u8], client: Client, out: &mut Vec<u8>) -> Step {
        let request = match decode(packet) {
            Incoming::Request(request) => request,
            Incoming::Reject { id, opcode, recursion_desired, rcode } => {
                self.rejected.add();
                encode_status(out, id, opcode, recursion_desired, rcode);
                return Step::Reply(None);
            }
            Incoming::Ignore => {
                self.drop_packet();
                return Step::Ignore;
            }
        };
        if request.edns.as_ref().is_some_and(|edns| edns.version > 0) {
            encode(out, &request, &Message::new(Rcode::BAD_VERS), false, usize::from(u16::MAX));
            return Step::Reply(None);
        }
        let query = Query::new(request, client, self.routes.load_full(), packet.len());
        let mut serving = Routes::serve(query);
        match (&mut serving).now_or_never() {
            Some(answered) => finish_now(answered, out),
            None => Step::Wait(async move { finish(serving.await) }.boxed()),
        }
    }
}

/// Writes an answer that is there.
fn finish_now(answered: Answered, out: &mut Vec<u8>) -> Step {
    match answered.response.body {
        Body::Silence => Step::Ignore,
        Body::Transfer(_) => Step::Wait(std::future::ready(finish(answered)).boxed()),
        Body::Message(_) | Body::Reply { .. } => {
            let lasting = write(answered, out);
            Step::Reply(lasting)
        }
    }
}

/// Writes an answer that came later.
fn finish(mut answered: Answered) -> Vec<Vec<u8>> {
    match &mut answered.response.body {
        Body::Silence => Vec::new(),
        Body::Transfer(messages) => {
            let messages = std::mem::take(messages);
            let request = &answered.query.request;
            let encoded = messages.iter().map(|message| {
                let mut out = Vec::new();
                encode(&mut out, request, message, false, crate::codec::TCP_MAX);
                out
            });
            encoded.collect()
        }
        Body::Message(_) | Body::Reply { .. } => {
            let mut out = Vec::new();
            write(answered, &mut out);
            vec![out]
        }
    }
}

/// Writes one message and counts it.
fn write(mut answered: Answered, out: &mut Vec<u8>) -> Option<Again> {
    let size_max = answered.query.size_max();
    if let Some(trace) = answered.query.trace.take() {
        answered.response.stable = None;
        if let Some(message) = answered.response.message_mut() {
            message
                .options
                .extend(crate::codec::option(crate::chain::TRACE_OPTION, trace.join("\n").as_bytes()));
        }
    }
    let request = &answered.query.request;
    let rcode = answered.response.rcode();
    let plain = request.edns.as_ref().is_none_or(|edns| options(&edns.options).next().is_none());
    let rotate = answered.response.rotate;
    let mut whole = plain;
    match &mut answered.response.body {
        Body::Message(message) => {
            if rotate {
                shuffle(message);
            }
            encode(out, request, message, answered.recursion, size_max);
            whole &= message.options.is_empty();
        }
        Body::Reply { reply, age_secs } => {
            reply.write(out, request, *age_secs, size_max);
            if rotate {
                hot::shuffle(out);
            }
        }
        Body::Transfer(_) | Body::Silence => {}
    }
    let tally = Tally {
        place: Place::new(request.question.rtype, rcode, answered.query.answered_by, request.dnssec_ok()),
        site: answered.metrics,
        counters: match &answered.response.stable {
            Some(Lasting::Kept(aging)) => Some(aging.counters.clone()),
            Some(Lasting::Cluster(_)) | None => None,
        },
    };
    let Client { peer, transport, .. } = answered.query.client;
    tally.count((peer.ip(), transport), answered.query.size, out.len(), answered.query.received.elapsed());
    let truncated = out.get(2).is_none_or(|flags| flags & 0x02 != 0);
    let lasting = answered.response.stable.take().filter(|_| whole && !truncated)?;
    Some(Again { lasting, rotate, tally })
}
