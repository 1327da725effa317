//! As much HTTP/1.1 as an echo needs (RFC 9112): one head, a body with a known length.

use std::{
    io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write},
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    time::Duration,
};

/// How long connecting, and each read and write, may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Longest head and body that are read.
const LIMIT_BYTES: u64 = 64 << 10;

/// The start line and the fields that matter.
pub(crate) struct Head {
    /// First line.
    pub(crate) start: String,
    /// The other side wants the connection closed.
    pub(crate) close: bool,
    length: u64,
}

/// A response that says 200.
pub(crate) struct Answer {
    /// Its body.
    pub(crate) body: String,
    /// The server asks for another connection.
    pub(crate) close: bool,
}

/// Reads one head; `None` at a clean end of the connection.
pub(crate) fn read_head(reader: &mut impl BufRead) -> Result<Option<Head>> {
    let mut limited = reader.take(LIMIT_BYTES);
    let mut start = String::new();
    if limited.read_line(&mut start)? == 0 {
        return Ok(None);
    }
    let mut head = Head { start: start.trim_end().to_owned(), close: false, length: 0 };
    loop {
        let mut line = String::new();
        if limited.read_line(&mut line)? == 0 {
            return Err(Error::new(ErrorKind::UnexpectedEof, "the head is not complete"));
        }
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            return Ok(Some(head));
        }
        match line.split_once(':').map(|(name, value)| (name, value.trim())) {
            Some(("connection", value)) => head.close = value == "close",
            Some(("content-length", value)) => {
                head.length =
                    value.parse().map_err(|_| Error::new(ErrorKind::InvalidData, "bad content-length"))?;
            }
            _ => {}
        }
    }
}

/// Reads the body that `head` announced.
pub(crate) fn read_body(reader: &mut impl BufRead, head: &Head) -> Result<String> {
    let mut body = String::new();
    reader.take(head.length.min(LIMIT_BYTES)).read_to_string(&mut body)?;
    if body.len() as u64 != head.length {
        return Err(Error::new(ErrorKind::UnexpectedEof, "the body is not complete"));
    }
    Ok(body)
}

/// Writes a whole response.
pub(crate) fn respond(stream: &mut impl Write, status: &str, body: &str, close: bool) -> Result<()> {
    let connection = if close { "close" } else { "keep-alive" };
    let length = body.len();
    let text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: {connection}\r\n\r\n{body}"
    );
    stream.write_all(text.as_bytes())
}

/// `http://HOST[:PORT]/PATH`, taken apart.
#[derive(Clone)]
pub(crate) struct Url {
    /// Host and port.
    pub(crate) authority: String,
    path: String,
}

impl Url {
    /// Takes it apart.
    pub(crate) fn parse(text: &str) -> std::result::Result<Self, String> {
        let rest =
            text.strip_prefix("http://").ok_or_else(|| format!("{text:?} does not begin with http://"))?;
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let authority = if host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
            host.to_owned()
        } else {
            format!("{host}:80")
        };
        Ok(Self { authority, path: format!("/{path}") })
    }

    /// Addresses of the host, through the system's resolver.
    pub(crate) fn resolve(&self) -> Result<Vec<SocketAddr>> {
        Ok(self.authority.to_socket_addrs()?.collect())
    }

    /// One GET over a connection of its own; the body of a response that says 200.
    pub(crate) fn get(&self, address: SocketAddr) -> Result<String> {
        let mut stream = connect(address)?;
        stream.write_all(self.request("close").as_bytes())?;
        read_ok(&mut BufReader::new(stream)).map(|answer| answer.body)
    }

    /// The bytes of a GET.
    fn request(&self, connection: &str) -> String {
        let Self { authority, path } = self;
        format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: {connection}\r\n\r\n")
    }

    /// One GET over a connection that stays open, unless the server says that it closes it.
    pub(crate) fn get_again(&self, stream: &mut BufReader<TcpStream>) -> Result<Answer> {
        let request = self.request("keep-alive");
        stream.get_mut().write_all(request.as_bytes())?;
        read_ok(stream)
    }
}

/// Opens a connection whose reads and writes end in time.
pub(crate) fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn read_ok(reader: &mut impl BufRead) -> Result<Answer> {
    let head = read_head(reader)?
        .ok_or_else(|| Error::new(ErrorKind::UnexpectedEof, "closed without a response"))?;
    let body = read_body(reader, &head)?;
    if head.start.starts_with("HTTP/1.1 200") {
        return Ok(Answer { body, close: head.close });
    }
    Err(Error::new(ErrorKind::InvalidData, head.start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_without_a_port_means_port_80() {
        let rows = [
            ("http://echo/x", "echo:80"),
            ("http://echo:8080", "echo:8080"),
            ("http://[fd00::1]:81/", "[fd00::1]:81"),
        ];
        for (text, authority) in rows {
            assert_eq!(Url::parse(text).expect(text).authority, authority);
        }
        assert!(Url::parse("https://echo").is_err());
    }

    #[test]
    fn a_body_that_breaks_off_is_an_error() {
        let mut reader = &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc"[..];
        let head = read_head(&mut reader).expect("the head is whole").expect("there is one");
        assert!(read_body(&mut reader, &head).is_err());
    }
}
