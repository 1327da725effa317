//! A client for people: one question, its answer as text, and what each plugin did.

use std::{io, net::SocketAddr, time::Duration};

use fairlead_zone::{Class, Name, RecordType};
use hickory_proto::op::{Message, ResponseCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use crate::{
    chain::TRACE_OPTION,
    codec::{UDP_MAX_EDNS, option},
};

/// How long an answer may take, and how often it is asked for.
const PATIENCE: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 3;

/// What to ask.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The name.
    pub name: &'a str,
    /// The type.
    pub rtype: &'a str,
    /// Over TCP from the start.
    pub tcp: bool,
    /// With what each plugin did.
    pub trace: bool,
}

/// The answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// The response code.
    pub status: String,
    /// It is neither an answer nor a denial.
    pub failed: bool,
    /// The answer section; the authority section when that is empty.
    pub records: Vec<String>,
    /// What each plugin did, line by line.
    pub trace: Option<String>,
    /// It came over TCP.
    pub tcp: bool,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The name is none.
    #[error("{0:?} is not a name: {1}")]
    Name(String, fairlead_zone::NameError),
    /// The type is unknown.
    #[error("{0:?} is not a record type; use one like A, SRV or TYPE65")]
    Type(String),
    /// Nothing came back.
    #[error("{0} does not answer; is a DNS server running there?")]
    Silent(SocketAddr),
    /// The network failed.
    #[error("cannot ask {0}: {1}")]
    Io(SocketAddr, #[source] io::Error),
    /// What came back is no answer.
    #[error("{0} answers with something that is no DNS message")]
    Malformed(SocketAddr),
}

/// Asks a server.
pub async fn ask(server: SocketAddr, question: &Question<'_>) -> Result<Report, ClientError> {
    let query = encode(question)?;
    let failed = |error| ClientError::Io(server, error);
    if !question.tcp {
        for _ in 0..ATTEMPTS {
            let Ok(answer) = timeout(PATIENCE, over_udp(server, &query)).await else { continue };
            let answer = read(server, &answer.map_err(failed)?, false)?;
            if let Some(report) = answer {
                return Ok(report);
            }
            // It did not fit.
            break;
        }
    }
    let answer = timeout(PATIENCE * 2, over_tcp(server, &query)).await;
    let answer = answer.map_err(|_| ClientError::Silent(server))?.map_err(failed)?;
    read(server, &answer, true)?.ok_or(ClientError::Malformed(server))
}

fn encode(question: &Question<'_>) -> Result<Vec<u8>, ClientError> {
    let name = Name::parse(question.name).map_err(|e| ClientError::Name(question.name.into(), e))?;
    let rtype = RecordType::parse(question.rtype).ok_or_else(|| ClientError::Type(question.rtype.into()))?;
    let question_of = fairlead_zone::Question { name, rtype, class: Class::IN };
    let mut query = crate::codec::plain_query(rand::random(), &question_of);
    let options = if question.trace { option(TRACE_OPTION, &[]) } else { Vec::new() };
    query[11] = 1;
    query.extend_from_slice(&[0, 0, 41]);
    query.extend_from_slice(&UDP_MAX_EDNS.to_be_bytes());
    query.extend_from_slice(&[0, 0, 0, 0]);
    query.extend_from_slice(&u16::try_from(options.len()).unwrap_or(0).to_be_bytes());
    query.extend_from_slice(&options);
    Ok(query)
}

async fn over_udp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let size = socket.recv(&mut buffer).await?;
        if buffer[..size].get(..2) == query.get(..2) {
            buffer.truncate(size);
            return Ok(buffer);
        }
    }
}

async fn over_tcp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(query.len()).unwrap_or(0);
    stream.write_all(&[&length.to_be_bytes()[..], query].concat()).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

/// Reads an answer; nothing when it was cut off.
fn read(server: SocketAddr, bytes: &[u8], tcp: bool) -> Result<Option<Report>, ClientError> {
    let message = Message::from_vec(bytes).map_err(|_| ClientError::Malformed(server))?;
    if message.metadata.truncation && !tcp {
        return Ok(None);
    }
    let code = message.metadata.response_code;
    let section = if message.answers.is_empty() { &message.authorities } else { &message.answers };
    let trace = message.edns.as_ref().and_then(|edns| {
        let option = edns.option(hickory_proto::rr::rdata::opt::EdnsCode::Unknown(TRACE_OPTION))?;
        match option {
            hickory_proto::rr::rdata::opt::EdnsOption::Unknown(_, text) => {
                Some(String::from_utf8_lossy(text).into_owned())
            }
            _ => None,
        }
    });
    let status = fairlead_zone::Rcode(u16::from(code)).to_string();
    Ok(Some(Report {
        status,
        failed: !matches!(code, ResponseCode::NoError | ResponseCode::NXDomain),
        records: section.iter().map(ToString::to_string).collect(),
        trace,
        tcp,
    }))
}
