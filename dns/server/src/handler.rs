//! The life of a question: read, answered by the zone, by the cache or by an upstream server, written.
//!
//! [`Handler::start`] never waits; what only an upstream server can answer comes back as [`Pending`] and is finished
//! by the caller at its own pace.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use fairlead_zone::{Class, Name, Question, Rcode, RecordData, RecordType, Stamp, Zone};
use futures::future::{BoxFuture, FutureExt};
use rand::seq::SliceRandom;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    chain::Message,
    codec::{Incoming, Request, TCP_MAX, decode, encode, encode_status},
    forward::Forwarder,
    metrics::{Area, Client, Metrics, Transport},
    relay::Reply,
    upstream::Inquiry,
};

/// Questions that may wait for upstream servers at a time; CoreDNS's usual `max_concurrent`.
const WAITING_MAX: usize = 1000;

/// Answers questions.
pub(crate) struct Handler {
    zone: Arc<ArcSwap<Zone>>,
    forwarder: Arc<Forwarder>,
    metrics: Arc<Metrics>,
    waiting: Arc<Semaphore>,
}

/// What to do about a packet.
pub(crate) enum Step {
    /// Nothing.
    Ignore,
    /// Send what was written; it may be sent again.
    Reply(Option<Lasting>),
    /// Finish it later: messages, or none.
    Wait(BoxFuture<'static, Vec<Vec<u8>>>),
}

/// Until when the bytes of an answer may be sent again.
pub(crate) struct Lasting {
    pub(crate) stamp: Stamp,
    /// Its addresses are to be shuffled each time.
    pub(crate) rotate: bool,
    pub(crate) tally: Arc<Tally>,
}

/// What is counted each time an answer is sent again.
pub(crate) struct Tally {
    metrics: Arc<Metrics>,
    area: Area,
    rtype: RecordType,
    rcode: Rcode,
}

impl Tally {
    pub(crate) fn count(&self, client: Client, request_len: usize, response_len: usize, took: Duration) {
        self.metrics.request(self.area, client, Some(self.rtype), request_len);
        self.metrics.response(self.area, client, self.rcode, response_len, took);
    }
}

/// A question that waits for an upstream server.
pub(crate) struct Pending {
    request: Request,
    inquiry: Inquiry,
    client: Client,
    began: Instant,
    /// The zone's answer, when it ended in an alias that leads outside.
    alias: Option<Message>,
    /// Held until the answer is written.
    _permit: OwnedSemaphorePermit,
}

impl Handler {
    pub(crate) fn new(zone: Arc<ArcSwap<Zone>>, forwarder: Arc<Forwarder>, metrics: Arc<Metrics>) -> Self {
        Self { zone, forwarder, metrics, waiting: Arc::new(Semaphore::new(WAITING_MAX)) }
    }

    /// A number that changes with the routes.
    pub(crate) fn routes_id(&self) -> usize {
        0
    }

    /// Counts questions that had to give way to others.
    pub(crate) fn shed(&self) {
        self.metrics.dropped.add();
    }

    /// Counts packets that get no answer.
    pub(crate) fn drop_packet(&self) {
        self.metrics.dropped.add();
    }

    /// Reads a packet and answers it at once when that is possible.
    pub(crate) fn start(self: &Arc<Self>, packet: &[u8], client: Client, out: &mut Vec<u8>) -> Step {
        let began = Instant::now();
        let request = match decode(packet) {
            Incoming::Request(request) => request,
            Incoming::Reject { id, opcode, recursion_desired, rcode } => {
                self.metrics.request(Area::Outside, client, None, packet.len());
                encode_status(out, id, opcode, recursion_desired, rcode);
                self.metrics.response(Area::Outside, client, rcode, out.len(), began.elapsed());
                return Step::Reply(None);
            }
            Incoming::Ignore => {
                self.drop_packet();
                return Step::Ignore;
            }
        };
        let stamp = self.zone.load().stamp(&request.question);
        let answer = self.zone.load().answer(&request.question);
        let area = answer.as_ref().map_or(Area::Outside, |answer| answer.origin.into());
        let chase = answer.as_ref().and_then(|answer| answer.chase.clone());
        let answer = answer.map(Message::from);
        self.metrics.request(area, client, Some(request.question.rtype), packet.len());
        if request.edns.as_ref().is_some_and(|edns| edns.version > 0) {
            return self.reply(out, &request, client, (area, Message::new(Rcode::BAD_VERS)), began);
        }
        match answer {
            Some(answer) if chase.is_none() || !self.forwarder.has_upstreams() => {
                let rcode = answer.rcode;
                self.reply(out, &request, client, (area, answer), began);
                let tally =
                    Tally { metrics: Arc::clone(&self.metrics), area, rtype: request.question.rtype, rcode };
                let whole = out[2] & 0x02 == 0;
                let lasting = Lasting { stamp, rotate: true, tally: Arc::new(tally) };
                Step::Reply(whole.then_some(lasting))
            }
            alias => self.outside(out, request, client, alias.zip(chase), began),
        }
    }

    /// Asks the upstream servers and writes what they say.
    async fn finish(&self, pending: Pending, out: &mut Vec<u8>) {
        let Pending { request, inquiry, client, began, alias, _permit } = pending;
        // A plain question comes here only when it is not in the cache; the end of an alias has not been looked up.
        let (reply, age_secs) = match alias.as_ref().and_then(|_| self.forwarder.cached(&inquiry)) {
            Some((reply, age_secs)) => (Ok(reply), age_secs),
            None => (self.forwarder.resolve(inquiry).await, 0),
        };
        match (reply, alias) {
            (Ok(reply), None) => self.relay(out, &request, client, (&reply, age_secs), began),
            (Ok(reply), Some(answer)) => {
                let answer = extend(answer, &reply, age_secs);
                self.reply(out, &request, client, (Area::Cluster, answer), began);
            }
            (Err(_), alias) => {
                let area = if alias.is_some() { Area::Cluster } else { Area::Outside };
                self.reply(out, &request, client, (area, Message::new(Rcode::SERV_FAIL)), began);
            }
        }
    }

    /// A name that is not ours, or an alias that leads to one.
    fn outside(
        self: &Arc<Self>,
        out: &mut Vec<u8>,
        request: Request,
        client: Client,
        alias: Option<(Message, Name)>,
        began: Instant,
    ) -> Step {
        let question = &request.question;
        let transfer = matches!(question.rtype, RecordType::AXFR | RecordType::IXFR);
        let area = if alias.is_some() { Area::Cluster } else { Area::Outside };
        if question.class != Class::IN || transfer || !self.forwarder.has_upstreams() {
            return self.reply(out, &request, client, (area, Message::new(Rcode::REFUSED)), began);
        }
        let name = alias.as_ref().map_or(&question.name, |(_, target)| target).clone();
        let inquiry = Inquiry {
            question: Question { name, ..question.clone() },
            recursion_desired: true,
            authentic_data: false,
            dnssec_ok: request.dnssec_ok(),
            checking_disabled: request.checking_disabled,
            options: Vec::new(),
        };
        if alias.is_none()
            && let Some((reply, age_secs)) = self.forwarder.cached(&inquiry)
        {
            self.relay(out, &request, client, (&reply, age_secs), began);
            return Step::Reply(None);
        }
        let Ok(permit) = Arc::clone(&self.waiting).try_acquire_owned() else {
            self.metrics.forward_rejects.add();
            return self.reply(out, &request, client, (area, Message::new(Rcode::REFUSED)), began);
        };
        let pending = Pending {
            request,
            inquiry,
            client,
            began,
            alias: alias.map(|(answer, _)| answer),
            _permit: permit,
        };
        let handler = Arc::clone(self);
        let finish = async move {
            let mut out = Vec::new();
            handler.finish(pending, &mut out).await;
            vec![out]
        };
        Step::Wait(finish.boxed())
    }

    fn reply(
        &self,
        out: &mut Vec<u8>,
        request: &Request,
        client: Client,
        (area, mut answer): (Area, Message),
        began: Instant,
    ) -> Step {
        shuffle(&mut answer);
        encode(out, request, &answer, self.forwarder.has_upstreams(), size_max(request, client));
        self.metrics.response(area, client, answer.rcode, out.len(), began.elapsed());
        Step::Reply(None)
    }

    fn relay(
        &self,
        out: &mut Vec<u8>,
        request: &Request,
        client: Client,
        (reply, age_secs): (&Reply, u32),
        began: Instant,
    ) {
        reply.write(out, request, age_secs, size_max(request, client));
        self.metrics.response(Area::Outside, client, reply.rcode(), out.len(), began.elapsed());
    }
}

fn size_max(request: &Request, client: Client) -> usize {
    match client.transport {
        Transport::Udp => request.udp_max(),
        Transport::Tcp | Transport::Tls | Transport::Https | Transport::Quic => TCP_MAX,
    }
}

/// Appends what an upstream server knows about the end of an alias; its rcode is that of the whole (RFC 6604).
fn extend(mut answer: Message, reply: &Reply, age_secs: u32) -> Message {
    let Some(end) = reply.to_message(age_secs) else {
        return Message::new(Rcode::SERV_FAIL);
    };
    answer.rcode = reply.rcode();
    answer.answers.extend(end.answers);
    answer
}

/// Addresses in random order, so that clients that take the first one spread; aliases stay in front.
fn shuffle(answer: &mut Message) {
    let is_address = |data: &RecordData| matches!(data, RecordData::A(_) | RecordData::Aaaa(_));
    let start = answer.answers.iter().take_while(|record| !is_address(&record.data)).count();
    let addresses = &mut answer.answers[start..];
    if addresses.len() > 1 && addresses.iter().all(|record| is_address(&record.data)) {
        addresses.shuffle(&mut rand::rng());
    }
}
