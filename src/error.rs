//! What a user sees when a command fails: one sentence, then the causes below it.

use std::{fmt::Write as _, io::Write as _, process::ExitCode};

/// Writes the failure to standard error and gives the exit code: 1, or 0 when only our reader went away.
pub(crate) fn report(failure: &anyhow::Error) -> ExitCode {
    if is_closed_output(failure) {
        return ExitCode::SUCCESS;
    }
    // The terminal may be gone as well; there is nobody left to tell then.
    let _ = std::io::stderr().write_all(sentence(failure).as_bytes());
    ExitCode::FAILURE
}

/// `error: …` and a line for each cause that says something new.
pub(crate) fn sentence(failure: &anyhow::Error) -> String {
    let mut text = format!("error: {failure}\n");
    let mut said = failure.to_string();
    for cause in failure.chain().skip(1) {
        let cause = cause.to_string();
        if !said.contains(&cause) {
            let _ = writeln!(text, "  because: {cause}");
            said = cause;
        }
    }
    text
}

/// `fairlead flows | head` ends when `head` does.
fn is_closed_output(failure: &anyhow::Error) -> bool {
    failure
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::sentence;

    #[test]
    fn causes_follow_the_sentence_and_repetitions_are_left_out() {
        let failure = Err::<(), _>(anyhow::anyhow!("connection refused"))
            .context("cannot reach 127.0.0.1:6443: connection refused")
            .context("reading nodes; is the cluster up?")
            .unwrap_err();
        assert_eq!(
            sentence(&failure),
            "error: reading nodes; is the cluster up?\n  because: cannot reach 127.0.0.1:6443: connection refused\n"
        );
    }
}
