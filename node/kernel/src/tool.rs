//! Running the programs that have no library: iptables, nft, ipset, conntrack.

use std::{env, io, path::PathBuf, process::Stdio};

use tokio::{io::AsyncWriteExt, process::Command};

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

/// What a program said.
pub(crate) struct Output {
    pub(crate) success: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a program to its end in the network namespace of the calling thread.
pub(crate) async fn run(
    program: &'static str,
    arguments: &[&str],
    input: Option<&str>,
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
    let stdin = child.stdin.take();
    let write = async {
        // A program that ends early says why on its standard error.
        if let (Some(mut stdin), Some(input)) = (stdin, input) {
            drop(stdin.write_all(input.as_bytes()).await);
        }
    };
    let (output, ()) = tokio::join!(child.wait_with_output(), write);
    let output = output.map_err(failed)?;
    Ok(Output {
        success: output.status.success(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

/// Runs a program that must succeed; returns what it printed.
pub(crate) async fn expect(
    program: &'static str,
    arguments: &[&str],
    input: Option<&str>,
) -> Result<String, KernelError> {
    let output = run(program, arguments, input).await?;
    if output.success { Ok(output.stdout) } else { Err(failure(program, &output.stderr, input)) }
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

    #[test]
    fn the_line_that_is_wrong_is_shown() {
        let error = failure("iptables-restore", "line 2 failed: no chain", Some("*nat\n-A NONE\nCOMMIT\n"));
        assert!(error.to_string().contains("`-A NONE`"), "{error}");
    }
}
