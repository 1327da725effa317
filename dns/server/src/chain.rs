//! The chain of plugins: what a question is to them, what they answer, and who asks whom.
//!
//! A server block is a list of plugins in a fixed order. Each may answer, alter the question and ask the next one, or
//! alter what comes back. Most answer without waiting: whoever polls the answer once usually has it.
//! An answer that is [`Lasting`] depends on nothing but its question and the cluster, or the time: whoever wrote it down
//! may give it again, without asking the chain, for as long as it lasts.

use std::{collections::HashMap, net::IpAddr, panic::AssertUnwindSafe, sync::Arc, time::Instant};

use fairlead_zone::{Answer, Name, Question, Rcode, Record, RecordType, Stamp};
use futures::future::{BoxFuture, FutureExt};

use crate::{
    codec::{Request, UDP_MAX_EDNS},
    metrics::{Client, Counter, SiteMetrics, Transport},
    relay::Reply,
};

/// Longest chain of questions that plugins ask the server itself in the course of one: aliases, search paths.
const DEPTH_MAX: u8 = 8;

/// The EDNS option by which a client on this host asks what each plugin did (a code for local use, RFC 6891 §9).
pub(crate) const TRACE_OPTION: u16 = 65_313;

/// An answer to come.
pub(crate) type Serving<'a> = BoxFuture<'a, Response>;

/// One plugin as a server block configured it.
pub(crate) trait Plugin: Send + Sync {
    /// Answers, or asks `next`, or both.
    fn serve<'a>(&'a self, query: &'a mut Query, next: Next<'a>) -> Serving<'a>;

    /// Whether it can do its work yet.
    fn is_ready(&self) -> bool {
        true
    }

    /// All records of a zone that it has, the SOA first, for a zone transfer.
    fn records(&self, _zone: &Name) -> Option<Vec<Record>> {
        None
    }

    /// The domains that a client's resolver would try for a short name, when it knows the client.
    fn search_path(&self, _client: IpAddr) -> Option<Vec<Name>> {
        None
    }
}

/// A list of zones that a plugin is for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Zones(pub(crate) Box<[Name]>);

/// A question on its way through a chain.
#[derive(Clone)]
pub(crate) struct Query {
    /// What was asked; plugins may rewrite it.
    pub(crate) request: Request,
    /// Who asked.
    pub(crate) client: Client,
    /// All server blocks of the listener, for questions that plugins have themselves.
    pub(crate) routes: Arc<Routes>,
    /// Largest answer over UDP that may be sent, whatever the client takes.
    pub(crate) udp_cap: u16,
    /// The plugin that answered: a label of the metrics.
    pub(crate) answered_by: &'static str,
    /// What plugins did, when somebody wants to know.
    pub(crate) trace: Option<Vec<String>>,
    /// How many questions of plugins are above this one.
    pub(crate) depth: u8,
    /// When it came.
    pub(crate) received: Instant,
    /// Its size in bytes.
    pub(crate) size: usize,
    /// What went wrong on the way, for `errors` to say.
    pub(crate) error: Option<String>,
}

/// What goes back to the client.
pub(crate) struct Response {
    pub(crate) body: Body,
    /// Addresses and mail exchanges are to be shuffled each time it is sent.
    pub(crate) rotate: bool,
    /// Until when the same question has the same answer, whoever asks. A plugin whose work depends on the client, on
    /// time or on chance, or that must see every question, takes it away.
    pub(crate) stable: Option<Lasting>,
}

/// How long an answer is good for whoever asks the same.
#[derive(Clone)]
pub(crate) enum Lasting {
    /// Until what it says of the cluster changes.
    Cluster(Stamp),
    /// Until it expires; its TTLs run down meanwhile.
    Kept(Aging),
}

/// An answer of another server that the cache keeps.
#[derive(Clone)]
pub(crate) struct Aging {
    /// When the TTLs were as they are written.
    pub(crate) since: Instant,
    pub(crate) expires: Instant,
    /// The TTLs stay.
    pub(crate) keep_ttl: bool,
    /// What the cache counts each time it is given.
    pub(crate) counters: [Arc<Counter>; 2],
}

/// What a response consists of.
pub(crate) enum Body {
    /// Records.
    Message(Box<Message>),
    /// The bytes of another server, kept for some seconds.
    Reply {
        /// The bytes.
        reply: Arc<Reply>,
        /// By how much its TTLs are too high.
        age_secs: u32,
    },
    /// A zone transfer: one message after another, over TCP only.
    Transfer(Vec<Message>),
    /// Nothing at all.
    Silence,
}

/// A question that went through a chain.
pub(crate) struct Answered {
    /// The question as it was asked, with what plugins noted about it.
    pub(crate) query: Query,
    pub(crate) response: Response,
    /// The RA bit.
    pub(crate) recursion: bool,
    /// Where it is to be counted, when `prometheus` says so.
    pub(crate) metrics: Option<Arc<SiteMetrics>>,
}

/// An answer as records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) rcode: Rcode,
    /// AA.
    pub(crate) authoritative: bool,
    /// AD.
    pub(crate) authentic: bool,
    /// TC.
    pub(crate) truncated: bool,
    pub(crate) answers: Vec<Record>,
    pub(crate) authority: Vec<Record>,
    pub(crate) additional: Vec<Record>,
    /// Follows the cluster at once: keeping it would only make it stale.
    pub(crate) live: bool,
    /// EDNS options in wire form, sent when the client speaks EDNS.
    pub(crate) options: Vec<u8>,
}

/// The plugins behind one, to be asked.
#[derive(Clone, Copy)]
pub(crate) struct Next<'a> {
    block: &'a Arc<ServerBlock>,
    at: usize,
}

/// A plugin with the name of its directive.
pub(crate) struct Slot {
    pub(crate) name: &'static str,
    pub(crate) plugin: Arc<dyn Plugin>,
}

/// The chain of one server block.
pub(crate) struct ServerBlock {
    /// In the order they are asked.
    pub(crate) plugins: Box<[Slot]>,
    /// Whether it answers for names that are not its own: the RA bit.
    pub(crate) recursion: bool,
    /// Counts plugins that failed in a way they should not; their questions get SERVFAIL. Unset with `debug`.
    pub(crate) panics: Option<Arc<Counter>>,
}

/// A zone of a server block.
pub(crate) struct Site {
    pub(crate) zone: Name,
    pub(crate) block: Arc<ServerBlock>,
    /// Set with `prometheus`.
    pub(crate) metrics: Option<Arc<SiteMetrics>>,
}

/// The server blocks of one listener by zone.
#[derive(Default)]
pub(crate) struct Routes {
    /// By the zone's wire form in lower case.
    sites: HashMap<Box<[u8]>, Site>,
}

impl Routes {
    /// From sites whose zones differ.
    pub(crate) fn new(sites: impl IntoIterator<Item = Site>) -> Self {
        Self { sites: sites.into_iter().map(|site| (site.zone.to_lower_wire(), site)).collect() }
    }

    /// The block with the longest zone that a name is in. A question for DS belongs to the parent's side of a zone
    /// cut (RFC 4035 §3.1.4.1), so its own zone is only the second choice.
    pub(crate) fn find(&self, name: &Name, rtype: RecordType) -> Option<&Site> {
        let lower = name.to_lower_wire();
        let mut own = None;
        let mut at = 0;
        loop {
            if let Some(site) = self.sites.get(&lower[at..]) {
                if rtype != RecordType::DS || at > 0 || lower.len() == 1 {
                    return Some(site);
                }
                own = Some(site);
            }
            match lower[at] {
                0 => return own,
                length => at += 1 + usize::from(length),
            }
        }
    }

    /// Takes a question through the chain of its server block; names in none of their zones are refused.
    pub(crate) fn serve(mut query: Query) -> BoxFuture<'static, Answered> {
        async move {
            let routes = Arc::clone(&query.routes);
            let Some(site) = routes.find(query.name(), query.rtype()) else {
                let response = Response::status(Rcode::REFUSED);
                return Answered { query, response, recursion: false, metrics: None };
            };
            let asked = query.request.clone();
            query.trace = query.wants_trace().then(Vec::new);
            let serving = site.block.serve(&mut query);
            let response = match &site.block.panics {
                None => serving.await,
                Some(panics) => AssertUnwindSafe(serving).catch_unwind().await.unwrap_or_else(|_| {
                    panics.add();
                    Response::status(Rcode::SERV_FAIL)
                }),
            };
            query.request = asked;
            let metrics = site.metrics.clone();
            Answered { query, response, recursion: site.block.recursion, metrics }
        }
        .boxed()
    }

    /// All sites.
    pub(crate) fn sites(&self) -> impl Iterator<Item = &Site> {
        self.sites.values()
    }
}

impl ServerBlock {
    /// Asks the whole chain.
    pub(crate) fn serve<'a>(self: &'a Arc<Self>, query: &'a mut Query) -> Serving<'a> {
        Next { block: self, at: 0 }.serve(query)
    }
}

impl<'a> Next<'a> {
    /// Asks the next plugin; behind the last one every name is refused.
    pub(crate) fn serve<'b>(self, query: &'b mut Query) -> Serving<'b>
    where
        'a: 'b,
    {
        let Some(slot) = self.block.plugins.get(self.at) else {
            return ready(Response::status(Rcode::REFUSED));
        };
        let next = Self { at: self.at + 1, ..self };
        if query.trace.is_some() { traced(slot, query, next).boxed() } else { slot.plugin.serve(query, next) }
    }

    /// Whether a plugin of this name is asked next.
    pub(crate) fn is(&self, name: &str) -> bool {
        self.block.plugins.get(self.at).is_some_and(|slot| slot.name == name)
    }

    /// The plugins that are still to be asked.
    pub(crate) fn behind(self) -> impl Iterator<Item = &'a dyn Plugin> {
        self.block.plugins[self.at.min(self.block.plugins.len())..].iter().map(|slot| &*slot.plugin)
    }

    /// The block and the place in it, for work that outlives the question: see [`Next::resume`].
    pub(crate) fn detach(self) -> (Arc<ServerBlock>, usize) {
        (Arc::clone(self.block), self.at)
    }

    /// What was detached.
    pub(crate) fn resume(block: &'a Arc<ServerBlock>, at: usize) -> Self {
        Self { block, at }
    }
}

/// Asks a plugin and writes down what it did.
async fn traced(slot: &Slot, query: &mut Query, next: Next<'_>) -> Response {
    let depth = usize::from(query.depth);
    let asked =
        format!("{:indent$}{} ← {}", "", slot.name, describe(&query.request.question), indent = 2 * depth);
    let place = query.trace.as_mut().map_or(0, |trace| {
        trace.push(asked);
        trace.len() - 1
    });
    let response = slot.plugin.serve(query, next).await;
    let answered_here = query.trace.as_ref().is_some_and(|trace| trace.len() == place + 1);
    let verb = if answered_here { "answers" } else { "passes on" };
    let line = format!("{:indent$}{} → {verb} {}", "", slot.name, response.describe(), indent = 2 * depth);
    query.trace.get_or_insert_default().push(line);
    response
}

fn describe(question: &Question) -> String {
    format!("{} {}", question.name, question.rtype)
}

impl Query {
    /// A question on its way, of some bytes.
    pub(crate) fn new(request: Request, client: Client, routes: Arc<Routes>, size: usize) -> Self {
        Self {
            request,
            client,
            routes,
            udp_cap: UDP_MAX_EDNS,
            answered_by: "",
            trace: None,
            depth: 0,
            received: Instant::now(),
            size,
            error: None,
        }
    }

    /// Whether the client may know what each plugin did, and wants to.
    fn wants_trace(&self) -> bool {
        let (peer, local) = (self.client.peer.ip().to_canonical(), self.client.local.ip().to_canonical());
        let options = self.request.edns.as_ref().map_or(&[][..], |edns| &edns.options);
        !options.is_empty()
            && (peer.is_loopback() || peer == local)
            && crate::codec::options(options).any(|(code, _)| code == TRACE_OPTION)
    }

    /// The name asked for.
    pub(crate) fn name(&self) -> &Name {
        &self.request.question.name
    }

    /// The type asked for.
    pub(crate) fn rtype(&self) -> RecordType {
        self.request.question.rtype
    }

    /// Largest answer the client gets.
    pub(crate) fn size_max(&self) -> usize {
        if self.client.transport != Transport::Udp {
            return crate::codec::TCP_MAX;
        }
        if self.rtype() == RecordType::ANY {
            // Every type at once is asked for over TCP, where the client is who it says it is.
            return 0;
        }
        self.request.udp_max(self.udp_cap)
    }

    /// Asks this server for another name, as a client of the same listener would: what lies behind an alias, say.
    pub(crate) async fn lookup(&mut self, question: Question) -> Response {
        if self.depth >= DEPTH_MAX {
            return Response::status(Rcode::SERV_FAIL);
        }
        let routes = Arc::clone(&self.routes);
        let Some(site) = routes.find(&question.name, question.rtype) else {
            return Response::status(Rcode::REFUSED);
        };
        let request = Request { question, ..self.request.clone() };
        let mut inner = Self { request, trace: self.trace.take(), depth: self.depth + 1, ..self.clone() };
        let response = site.block.serve(&mut inner).await;
        self.trace = inner.trace;
        response
    }
}

impl Response {
    /// An answer that is only a status.
    pub(crate) fn status(rcode: Rcode) -> Self {
        Message::new(rcode).into()
    }

    /// No answer.
    pub(crate) fn silence() -> Self {
        Body::Silence.into()
    }

    /// The response code; nothing at all counts as success.
    pub(crate) fn rcode(&self) -> Rcode {
        match &self.body {
            Body::Message(message) => message.rcode,
            Body::Reply { reply, .. } => reply.rcode(),
            Body::Transfer(_) | Body::Silence => Rcode::NO_ERROR,
        }
    }

    /// The answer as records that can be altered, when it is one message. The bytes of another server are read; where
    /// they cannot be, the answer becomes SERVFAIL.
    pub(crate) fn message_mut(&mut self) -> Option<&mut Message> {
        if let Body::Reply { reply, age_secs } = &self.body {
            let message = reply.to_message(*age_secs).unwrap_or_else(|| Message::new(Rcode::SERV_FAIL));
            self.body = Body::Message(Box::new(message));
        }
        match &mut self.body {
            Body::Message(message) => Some(message),
            Body::Reply { .. } | Body::Transfer(_) | Body::Silence => None,
        }
    }

    /// The same as a value: SERVFAIL for what is not one message.
    pub(crate) fn into_message(mut self) -> Message {
        self.message_mut().map_or_else(|| Message::new(Rcode::SERV_FAIL), std::mem::take)
    }

    fn describe(&self) -> String {
        match &self.body {
            Body::Message(message) => format!("{}, {} records", message.rcode, message.answers.len()),
            Body::Reply { reply, age_secs } => {
                format!("{}, {} bytes, {age_secs} s old", reply.rcode(), reply.size())
            }
            Body::Transfer(messages) => format!("a transfer of {} messages", messages.len()),
            Body::Silence => "nothing".into(),
        }
    }
}

/// An answer that is there already.
pub(crate) fn ready<'a>(response: impl Into<Response>) -> Serving<'a> {
    std::future::ready(response.into()).boxed()
}

impl From<Body> for Response {
    fn from(body: Body) -> Self {
        Self { body, rotate: false, stable: None }
    }
}

impl From<Message> for Response {
    fn from(message: Message) -> Self {
        Body::Message(Box::new(message)).into()
    }
}

impl Message {
    /// Without records.
    pub(crate) fn new(rcode: Rcode) -> Self {
        Self { rcode, ..Self::default() }
    }

    /// An authoritative answer with records.
    pub(crate) fn found(answers: Vec<Record>) -> Self {
        Self { authoritative: true, answers, ..Self::new(Rcode::NO_ERROR) }
    }

    /// All records but those of EDNS.
    pub(crate) fn records_mut(&mut self) -> impl Iterator<Item = &mut Record> {
        self.answers.iter_mut().chain(&mut self.authority).chain(&mut self.additional)
    }
}

impl From<Answer> for Message {
    fn from(answer: Answer) -> Self {
        Self {
            authoritative: answer.authoritative,
            answers: answer.answers,
            authority: answer.authority,
            additional: answer.additional,
            live: true,
            ..Self::new(answer.rcode)
        }
    }
}

impl Zones {
    /// The longest of the zones that a name is in.
    pub(crate) fn find(&self, name: &Name) -> Option<&Name> {
        let covering = self.0.iter().filter(|zone| name.find_suffix(zone).is_some());
        covering.max_by_key(|zone| zone.as_wire().len())
    }

    /// Whether a name is in one of them.
    pub(crate) fn contains(&self, name: &Name) -> bool {
        self.0.iter().any(|zone| name.find_suffix(zone).is_some())
    }
}
