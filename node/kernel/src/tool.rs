//! Running the programs that have no library: iptables, nft, ipset, conntrack.

use std::{
    env, io,
    path::PathBuf,
    pin::pin,
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::Command,
    time::timeout,
};

use crate::{KernelError, conflict};

/// How long iptables may wait for its lock, in seconds.
pub(crate) const LOCK_WAIT_SECS: &str = "5";

/// Programs and the Debian packages that have them.
const PACKAGES: &[(&str, &str)] = &[
    ("iptables-save", "iptables"),
    ("ip6tables-save", "iptables"),
    ("iptables-restore", "iptables"),
    ("ip6tables-restore", "iptables"),
    ("nft", "nftables"),
    ("ipset", "ipset"),
    ("conntrack", "conntrack"),
];

/// How long a program may take. The longest here writes the rules of 10 000 services, which takes seconds, and minutes on
/// an emulated machine.
const PATIENCE: Duration = Duration::from_mins(10);
/// After this, and then again and again, it is told that it takes long.
const LONG: Duration = Duration::from_secs(30);

/// What a program said.
pub(crate) struct Output {
    program: &'static str,
    status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Output {
    pub(crate) fn is_success(&self) -> bool {
        self.status.success()
    }

    /// The error that it is, given what the program was told on its standard input.
    pub(crate) fn failure(&self, input: Option<&str>) -> KernelError {
        match self.stderr.as_str() {
            // Killed, as a rule.
            "" => KernelError::Tool {
                program: self.program,
                message: format!("it said nothing ({})", self.status),
            },
            message => failure(self.program, message, input),
        }
    }
}

/// Runs a program to its end in the network namespace of the calling thread.
pub(crate) async fn run(
    program: &'static str,
    arguments: &[&str],
    input: Option<&str>,
) -> Result<Output, KernelError> {
    let mut stdout = String::new();
    let take = |line: &str| {
        stdout.push_str(line);
        stdout.push('\n');
    };
    let output = run_by_lines(program, arguments, input, take).await?;
    Ok(Output { stdout, ..output })
}

/// The same, where more may be printed than should be kept.
pub(crate) async fn run_by_lines(
    program: &'static str,
    arguments: &[&str],
    input: Option<&str>,
    take: impl FnMut(&str),
) -> Result<Output, KernelError> {
    patiently(program, PATIENCE, run_to_end(program, arguments, input, take)).await?
}

async fn run_to_end(
    program: &'static str,
    arguments: &[&str],
    input: Option<&str>,
    mut take: impl FnMut(&str),
) -> Result<Output, KernelError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => {
            let package = PACKAGES.iter().find(|(name, _)| *name == program).map_or(program, |row| row.1);
            KernelError::NoTool { program, package }
        }
        _ => KernelError::file("running", program)(source),
    };
    let mut child = Command::new(program)
        .args(arguments)
        .env("PATH", search_path())
        .env("LC_ALL", "C")
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let write = async {
        // A program that ends early says why on its standard error.
        if let (Some(mut stdin), Some(input)) = (stdin, input) {
            drop(stdin.write_all(input.as_bytes()).await);
        }
    };
    let read = async {
        let Some(stdout) = stdout else { return Ok(()) };
        let (mut stdout, mut line) = (BufReader::new(stdout), Vec::new());
        while stdout.read_until(b'\n', &mut line).await? > 0 {
            take(String::from_utf8_lossy(&line).trim_end_matches('\n'));
            line.clear();
        }
        Ok(())
    };
    let complaints = async {
        let mut complaints = Vec::new();
        if let Some(mut stderr) = stderr {
            stderr.read_to_end(&mut complaints).await?;
        }
        Ok(complaints)
    };
    let ((), read, complaints) = tokio::join!(write, read, complaints);
    read.map_err(failed)?;
    let stderr = String::from_utf8_lossy(&complaints.map_err(failed)?).trim().to_owned();
    let status = child.wait().await.map_err(failed)?;
    Ok(Output { program, status, stdout: String::new(), stderr })
}

/// Waits for what a program does, and says so when that is long; after `patience` it is given up, and so killed.
async fn patiently<T>(
    program: &'static str,
    patience: Duration,
    work: impl Future<Output = T>,
) -> Result<T, KernelError> {
    let begin = Instant::now();
    let mut work = pin!(work);
    loop {
        let left = patience.saturating_sub(begin.elapsed());
        match timeout(left.min(LONG), &mut work).await {
            Ok(done) => return Ok(done),
            Err(_) if begin.elapsed() < patience => {
                let seconds = begin.elapsed().as_secs();
                tracing::warn!(program, seconds, "it takes long; no service is programmed until it ends");
            }
            Err(_) => {
                let message = format!("it did not end within {} s and was killed", patience.as_secs());
                return Err(KernelError::Tool { program, message });
            }
        }
    }
}

/// Runs a program that must succeed; returns what it printed.
pub(crate) async fn expect(
    program: &'static str,
    arguments: &[&str],
    input: Option<&str>,
) -> Result<String, KernelError> {
    let output = run(program, arguments, input).await?;
    if output.is_success() { Ok(output.stdout) } else { Err(output.failure(input)) }
}

/// The error of a program that failed, with the line it complained about.
pub(crate) fn failure(program: &'static str, message: &str, input: Option<&str>) -> KernelError {
    if message.contains(LOCK_COMPLAINT) {
        let holder = conflict::lock_holder(&lock_file());
        let holder = holder.map_or_else(|| "another program".to_owned(), |holder| holder.to_string());
        let message = format!("{holder} has held the xtables lock for {LOCK_WAIT_SECS} s; it is tried again");
        return KernelError::Tool { program, message };
    }
    let number = message
        .split("line ")
        .nth(1)
        .and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next())
        .and_then(|digits| digits.parse::<usize>().ok());
    let line = number.and_then(|number| input?.lines().nth(number.checked_sub(1)?));
    let hint = line.map(|line| format!(" (the line is `{line}`)")).unwrap_or_default();
    KernelError::Tool { program, message: format!("{message}{hint}") }
}

/// What iptables says when it has waited for its lock in vain.
const LOCK_COMPLAINT: &str = "xtables lock";

/// The lock that iptables takes where it programs the kernel's own tables; the variant for nf_tables needs none.
fn lock_file() -> PathBuf {
    env::var_os("XTABLES_LOCKFILE").map_or_else(|| PathBuf::from("/run/xtables.lock"), PathBuf::from)
}

/// The programs are in `/usr/sbin`, which is not on everybody's path.
fn search_path() -> String {
    format!("{}:/usr/sbin:/sbin", env::var("PATH").unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_that_is_missing_is_named_with_its_package() {
        let error = run("fairlead-no-such-program", &[], None).await.err().expect("there is none");
        assert!(error.to_string().contains("fairlead-no-such-program"), "{error}");
    }

    #[tokio::test]
    async fn all_that_a_program_prints_is_read_while_it_reads() {
        let input: String = (0..100_000).map(|number| format!("{number}\n")).collect();
        let output = run("cat", &[], Some(&input)).await.expect("runs");
        assert!(output.is_success() && output.stdout == input);
    }

    #[tokio::test]
    async fn a_program_that_was_killed_is_said_to_be() {
        let output = run("sh", &["-c", "kill -9 $$"], None).await.expect("it begins");
        let error = output.failure(None).to_string();
        assert!(error.contains("sh: ") && error.contains("signal: 9"), "{error}");
    }

    #[tokio::test]
    async fn a_program_that_hangs_is_killed() {
        let directory = tempfile::tempdir().expect("a directory");
        let note = directory.path().join("pid");
        let script = format!("echo $$ > {}; exec sleep 600", note.display());
        let arguments = ["-c", &script];
        let hanging = run_to_end("sh", &arguments, None, |_| {});
        let error = patiently("sh", Duration::from_millis(500), hanging).await.err().expect("given up");
        assert!(error.to_string().contains("was killed"), "{error}");
        let pid = std::fs::read_to_string(note).expect("it began");
        // Whoever has ended, runs nothing any more.
        let program = PathBuf::from(format!("/proc/{}/exe", pid.trim()));
        fairlead_testkit::eventually("its end", || program.read_link().is_err().then_some(()));
    }

    #[test]
    fn the_line_that_is_wrong_is_shown() {
        let error = failure("iptables-restore", "line 2 failed: no chain", Some("*nat\n-A NONE\nCOMMIT\n"));
        assert!(error.to_string().contains("`-A NONE`"), "{error}");
    }
}
