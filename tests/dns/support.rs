//! The binary with a Corefile and a file of objects, and questions to it as tables.

use std::{
    fmt::Write as _,
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Output, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// The objects that most tests ask about.
pub(crate) const CLUSTER: &str = include_str!("cluster.yaml");

/// A running server; killed with the test.
pub(crate) struct Server {
    child: Child,
    /// On IPv4 and IPv6.
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) dir: TempDir,
    log: mpsc::Receiver<String>,
}

/// How a question travels: whether over TCP, and which address.
const WAYS: [(&str, bool, bool); 4] = [
    ("UDP/IPv4", false, true),
    ("TCP/IPv4", true, true),
    ("UDP/IPv6", false, false),
    ("TCP/IPv6", true, false),
];

impl Server {
    /// A server that answers.
    pub(crate) fn start(corefile: &str, objects: &str) -> Self {
        Self::start_in(TempDir::with_prefix("fairlead-dns-").unwrap(), corefile, objects)
    }

    /// The same with a directory that holds files of the Corefile.
    pub(crate) fn start_in(dir: TempDir, corefile: &str, objects: &str) -> Self {
        let (mut server, stderr) = Self::start_unread(dir, corefile, objects);
        let (sender, log) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        server.log = log;
        server
    }

    /// The same with its log from where it answers on, for whoever wants to read it.
    pub(crate) fn start_unread(
        dir: TempDir,
        corefile: &str,
        objects: &str,
    ) -> (Self, BufReader<ChildStderr>) {
        let mut command = command(&dir, corefile, objects);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let addresses = read_addresses(&mut stderr);
        let (_, log) = mpsc::channel();
        (Self { child, addresses, dir, log }, stderr)
    }

    /// The first line of the log from now on with a text in it.
    pub(crate) fn wait_for_log(&self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = String::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.log.recv_timeout(left) {
                Ok(line) if line.contains(text) => return line,
                Ok(line) => writeln!(seen, "{line}").unwrap(),
                Err(error) => panic!("no {text:?} in the log ({error}):\n{seen}"),
            }
        }
    }

    /// The log to its end.
    pub(crate) fn rest_of_log(&self) -> String {
        self.log.iter().fold(String::new(), |log, line| log + &line + "\n")
    }

    /// Asks every row over every way, all rows of a way by one `dig`.
    pub(crate) fn check(&self, rows: &[(&str, &str, &str)]) {
        let mut wrong = String::new();
        for (way, tcp, v4) in WAYS {
            let Some(address) = self.addresses.iter().find(|address| address.is_ipv4() == v4) else {
                continue;
            };
            let questions: Vec<&str> = rows.iter().map(|row| row.1).collect();
            let answers = dig(*address, tcp, &questions);
            assert_eq!(answers.len(), rows.len(), "{way}: every question has an answer:\n{answers:#?}");
            for ((title, question, expected), answer) in rows.iter().zip(&answers) {
                if answer != expected {
                    writeln!(wrong, "{title}\n  {question} over {way}\n  want {expected}\n  got  {answer}")
                        .unwrap();
                }
            }
        }
        assert!(wrong.is_empty(), "\n{wrong}");
    }

    /// One question over UDP and IPv4, with `dig` options.
    pub(crate) fn ask(&self, question: &str) -> String {
        dig(self.addresses[0], false, &[question]).pop().unwrap_or_else(|| "no answer".into())
    }

    /// What `dig` prints about one question over UDP and IPv4.
    pub(crate) fn dig_text(&self, question: &str) -> String {
        let (ip, port) = (self.addresses[0].ip(), self.addresses[0].port());
        let mut command = Command::new("dig");
        command.arg(format!("@{ip}")).args(["-p", &port.to_string(), "+tries=1", "+time=10"]);
        let output = command.args(question.split(' ')).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The values of an answer's records, in their order.
    pub(crate) fn short(&self, question: &str) -> Vec<String> {
        self.dig_text(&format!("+short {question}")).lines().map(str::to_owned).collect()
    }

    /// The TTL of the first record of an answer.
    pub(crate) fn ttl(&self, question: &str) -> u32 {
        let text = self.dig_text(&format!("+noall +answer {question}"));
        let ttl = text.split_whitespace().nth(1).and_then(|ttl| ttl.parse().ok());
        ttl.unwrap_or_else(|| panic!("{question}: no TTL in {text:?}"))
    }

    /// Asks until the answer is as wanted.
    pub(crate) fn eventually(&self, question: &str, wanted: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.ask(question);
            if answer == wanted {
                return;
            }
            assert!(Instant::now() < deadline, "{question}\n  want {wanted}\n  got  {answer}");
        }
    }

    /// Writes a file of its directory, all at once.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let new = self.dir.path().join(format!("{name}.new"));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.dir.path().join(name)).unwrap();
    }

    /// Tells it to end.
    pub(crate) fn terminate(&self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().try_into().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    }

    /// Waits for its end; says whether it was a success.
    pub(crate) fn ends(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.success();
            }
            assert!(Instant::now() < deadline, "it goes on");
            std::thread::yield_now();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(dir: &TempDir, corefile: &str, objects: &str) -> Command {
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("Corefile"), corefile).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_fairlead"));
    command.arg("dns").arg("--corefile").arg(path("Corefile"));
    command.args(["--listen", "127.0.0.1:0", "--listen", "[::1]:0", "--log-level", "info"]);
    command.env("NO_COLOR", "1");
    if !objects.is_empty() {
        std::fs::write(path("objects.yaml"), objects).unwrap();
        command.arg("--objects").arg(path("objects.yaml"));
    }
    command
}

/// Starts a server that is expected not to; gives what it says.
pub(crate) fn refuses(corefile: &str) -> String {
    refuses_with(corefile, "")
}

/// The same with objects.
pub(crate) fn refuses_with(corefile: &str, objects: &str) -> String {
    let dir = TempDir::with_prefix("fairlead-dns-").unwrap();
    let output = command(&dir, corefile, objects).output().unwrap();
    assert!(!output.status.success(), "it started with\n{corefile}");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    text.replace(&format!("{}/", dir.path().display()), "").trim().to_owned()
}

/// The binary with some arguments, to its end.
pub(crate) fn fairlead(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fairlead")).args(arguments).output().unwrap()
}

/// Reads a log up to the line that says where the server answers.
fn read_addresses(log: &mut impl std::io::BufRead) -> Vec<SocketAddr> {
    let mut seen = String::new();
    loop {
        let mut line = String::new();
        assert!(log.read_line(&mut line).unwrap() > 0, "it ended:\n{seen}");
        if line.contains("answering") {
            let list = line.split_once('[').and_then(|(_, rest)| rest.rsplit_once(']')).unwrap().0;
            // Colours of the log, if any, are outside the list.
            let found = addresses(list.rsplit_once("addresses").map_or(list, |(_, list)| list));
            assert!(!found.is_empty(), "{line}");
            return found;
        }
        seen.push_str(&line);
    }
}

fn addresses(list: &str) -> Vec<SocketAddr> {
    let list = list.trim_matches(|c| c == '[' || c == ']' || c == '=' || c == ' ');
    let whole = list.split(", ").filter_map(|text| text.parse().or_else(|_| format!("[{text}").parse()).ok());
    whole.collect()
}

/// The answers to questions, in order, each as one line; see [`shown`].
pub(crate) fn dig(server: SocketAddr, tcp: bool, questions: &[&str]) -> Vec<String> {
    let mut batch = tempfile::NamedTempFile::new().unwrap();
    for question in questions {
        writeln!(batch, "{question} +noall +comments +answer +authority +additional").unwrap();
    }
    let mut command = Command::new("dig");
    command.arg(format!("@{}", server.ip())).args(["-p", &server.port().to_string()]);
    command.args([if tcp { "+tcp" } else { "+notcp" }, "+tries=1", "+time=10", "+nocookie", "+noignore"]);
    let output = command.arg("-f").arg(batch.path()).output();
    let output = output.expect("dig is there; install the package bind9-dnsutils");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut answers = Vec::new();
    for part in text.split(";; Got answer:").skip(1) {
        answers.push(shown(part));
    }
    answers
}

/// `RCODE [aa] [tc]: OWNER TYPE DATA; … | authority | additional`, each section sorted, TTLs left out.
fn shown(text: &str) -> String {
    let between = |start: &str, end: &str| {
        let rest = text.split_once(start).map_or("", |(_, rest)| rest);
        rest.split_once(end).map_or(rest, |(part, _)| part).trim().to_owned()
    };
    let flags = between("flags:", ";");
    let mut line = between("status:", ",");
    for flag in ["aa", "tc"] {
        if flags.split_whitespace().any(|known| known == flag) {
            write!(line, " {flag}").unwrap();
        }
    }
    line.push(':');
    let mut sections = vec![String::new(); 3];
    for (section, name) in sections.iter_mut().zip(["ANSWER", "AUTHORITY", "ADDITIONAL"]) {
        let body = between(&format!(";; {name} SECTION:"), "\n\n");
        let mut records: Vec<String> = body
            .lines()
            .filter(|record| !record.starts_with(';') && !record.is_empty())
            .map(record)
            .collect();
        records.sort();
        *section = records.join("; ");
    }
    while sections.last().is_some_and(String::is_empty) {
        sections.pop();
    }
    line.extend((!sections.is_empty()).then(|| format!(" {}", sections.join(" | "))));
    line
}

/// A record without TTL and class IN; of an SOA the owner only.
fn record(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        [owner, _, _, "SOA", ..] => format!("{owner} SOA"),
        [owner, _, _, rest @ ..] => format!("{owner} {}", rest.join(" ")),
        _ => line.to_owned(),
    }
}

/// A port of the loopback address, for UDP and TCP.
pub(crate) fn loaned_address() -> (TcpListener, UdpSocket, SocketAddr) {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        // The port may be somebody's for UDP.
        if let Ok(udp) = UdpSocket::bind(address) {
            return (tcp, udp, address);
        }
    }
}

/// A file beside the Corefile.
pub(crate) fn file_in(dir: &TempDir, name: &str, text: &str) -> PathBuf {
    let path: &Path = dir.path();
    std::fs::write(path.join(name), text).unwrap();
    path.join(name)
}
