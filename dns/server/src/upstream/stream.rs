//! TCP and TLS towards one server: one connection that carries many questions at a time (RFC 7766 §6.2.1.1, RFC 7858).

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpSocket, TcpStream},
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use super::{Asked, Inquiry, Reuse, UpstreamConfig, UpstreamError, UpstreamTransport};
use crate::{codec::u16_at, relay::Reply};

/// Questions on their way to the connection: all that a worker may have waiting, while it is being made.
const QUEUE_MAX: usize = 4096;
/// Questions that may wait on one connection.
const WAITING_MAX: usize = 1024;
/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The connection of one thread.
pub(super) struct Streams {
    config: Arc<UpstreamConfig>,
    open: Mutex<Option<mpsc::Sender<Order>>>,
}

/// A question on its way to the connection.
struct Order {
    inquiry: Inquiry,
    asked: Asked,
}

enum Connection {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Streams {
    pub(super) fn new(config: Arc<UpstreamConfig>) -> Self {
        Self { config, open: Mutex::default() }
    }

    /// Asks and waits for the answer. A server may close a connection that it thinks idle at any time: then the question
    /// is asked once more, on a new one.
    pub(super) async fn exchange(&self, inquiry: &Inquiry, reuse: &Reuse) -> Result<Reply, UpstreamError> {
        let (connection, reused) = self.connection(reuse);
        match self.ask(&connection, inquiry).await {
            Err(UpstreamError::Closed) if reused => {
                let (connection, _) = self.connection(reuse);
                self.ask(&connection, inquiry).await
            }
            answer => answer,
        }
    }

    async fn ask(&self, connection: &mpsc::Sender<Order>, inquiry: &Inquiry) -> Result<Reply, UpstreamError> {
        let (asked, answer) = Asked::new(inquiry.question_for(&self.config), &self.config);
        connection.try_send(Order { inquiry: inquiry.clone(), asked }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => UpstreamError::Full,
            mpsc::error::TrySendError::Closed(_) => UpstreamError::Closed,
        })?;
        answer.await.unwrap_or(Err(UpstreamError::Closed))
    }

    /// The connection, and whether it was there before.
    fn connection(&self, reuse: &Reuse) -> (mpsc::Sender<Order>, bool) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let found = open.as_ref().filter(|connection| !connection.is_closed());
        reuse.count(found.is_some());
        if let Some(connection) = found {
            return (connection.clone(), true);
        }
        let (sender, orders) = mpsc::channel(QUEUE_MAX);
        // Ends when the connection does, or when nobody can ask on it any more.
        tokio::spawn(serve(Arc::clone(&self.config), orders));
        *open = Some(sender.clone());
        (sender, false)
    }
}

/// Makes a connection and serves it until it ends.
async fn serve(config: Arc<UpstreamConfig>, mut orders: mpsc::Receiver<Order>) {
    let connected = timeout(CONNECT_TIMEOUT, connect(&config)).await;
    let ended = match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(Connection::Plain(stream)) => converse(&config, stream, &mut orders).await,
        Ok(Connection::Tls(stream)) => converse(&config, *stream, &mut orders).await,
        Err(error) => Err(error),
    };
    // What was asked meanwhile learns why; of a connection that has merely ended it can be asked again.
    orders.close();
    while let Ok(order) = orders.try_recv() {
        let why = match &ended {
            Ok(()) => UpstreamError::Closed,
            Err(error) => UpstreamError::Io(io::Error::new(error.kind(), error.to_string())),
        };
        let _ = order.asked.answer.send(Err(why));
    }
}

async fn connect(config: &UpstreamConfig) -> io::Result<Connection> {
    let socket = if config.address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if let Some(source) = config.source {
        socket.bind((source, 0).into())?;
    }
    let stream = socket.connect(config.address).await?;
    stream.set_nodelay(true)?;
    Ok(match &config.transport {
        UpstreamTransport::Plain => Connection::Plain(stream),
        UpstreamTransport::Tls { server_name, config } => {
            let connector = TlsConnector::from(Arc::clone(config));
            Connection::Tls(Box::new(connector.connect(server_name.clone(), stream).await?))
        }
    })
}

/// Sends questions and hands out answers. Whoever still waits at the end finds the connection closed.
async fn converse(
    config: &UpstreamConfig,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    orders: &mut mpsc::Receiver<Order>,
) -> io::Result<()> {
    let codec = LengthDelimitedCodec::builder().length_field_length(2).new_codec();
    let mut frames = Framed::new(stream, codec);
    let mut waiting: HashMap<u16, Asked> = HashMap::new();
    let mut idle_at = Instant::now() + config.expire;
    loop {
        tokio::select! {
            order = orders.recv(), if waiting.len() < WAITING_MAX => {
                let Some(order) = order else { return Ok(()) };
                let mut next = Some(order);
                while let Some(order) = next {
                    let id = free_id(&waiting);
                    let bytes = order.inquiry.to_bytes(id, &order.asked.question);
                    waiting.insert(id, order.asked);
                    frames.feed(Bytes::from(bytes)).await?;
                    next = if waiting.len() < WAITING_MAX { orders.try_recv().ok() } else { None };
                }
                SinkExt::<Bytes>::flush(&mut frames).await?;
            }
            frame = frames.next() => {
                // The end of the stream, or half a frame: nothing more comes.
                let Some(Ok(frame)) = frame else { return Ok(()) };
                hand_out(&mut waiting, &frame);
            }
            () = sleep_until(idle_at) => {
                waiting.retain(|_, asked| !asked.answer.is_closed());
                if waiting.is_empty() {
                    return Ok(());
                }
            }
        }
        idle_at = Instant::now() + config.expire;
    }
}

fn hand_out(waiting: &mut HashMap<u16, Asked>, message: &[u8]) {
    let Some(id) = u16_at(message, 0) else { return };
    let Some(reply) = waiting.get(&id).and_then(|asked| asked.read(message, id)) else { return };
    if let Some(asked) = waiting.remove(&id) {
        let _ = asked.answer.send(reply);
    }
}

fn free_id(waiting: &HashMap<u16, Asked>) -> u16 {
    loop {
        let id = rand::random();
        if !waiting.contains_key(&id) {
            return id;
        }
    }
}
