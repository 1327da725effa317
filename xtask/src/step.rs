//! Running commands: one line per step, its output in a log that is shown when it fails.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use console::style;
use indicatif::{ProgressBar, ProgressStyle};

use crate::paths;

/// How many lines of a failed step's output are shown.
const TAIL_LINES: usize = 40;

/// The longest name of a log. File systems allow 255 bytes with the ending.
const SLUG_CHARACTERS: usize = 100;

/// Runs `command` quietly under a spinner that shows its last line.
pub(crate) fn quiet(title: &str, command: &mut Command) -> Result<()> {
    let started = Instant::now();
    let log_path = paths::target().join("xtask").join(format!("{}.log", slug(title)));
    fs::create_dir_all(log_path.parent().expect("joined above"))?;
    let mut log = File::create(&log_path).with_context(|| format!("cannot write {}", log_path.display()))?;
    let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(writer.try_clone().context("cannot copy a pipe")?)
        .stderr(writer)
        .spawn()
        .with_context(|| format!("cannot start {}", shown(command)))?;
    // The command holds the writing ends too; the loop below ends when the child's copies are closed.
    command.stdout(Stdio::null()).stderr(Stdio::null());

    let spinner = spinner(title);
    let output = thread::spawn({
        let spinner = spinner.clone();
        move || -> std::io::Result<()> {
            for line in BufReader::new(reader).split(b'\n') {
                let line = line?;
                log.write_all(&line)?;
                log.write_all(b"\n")?;
                let text = String::from_utf8_lossy(&line);
                spinner.set_message(console::truncate_str(text.trim(), 60, "…").into_owned());
            }
            Ok(())
        }
    });
    let status = child.wait().with_context(|| format!("cannot wait for {}", shown(command)))?;
    output.join().expect("the log thread does not panic").context("cannot write a step's log")?;
    spinner.finish_and_clear();
    if status.success() {
        println!(
            "{} {title} {}",
            style("✓").green(),
            style(format!("{:.1} s", started.elapsed().as_secs_f32())).dim()
        );
        return Ok(());
    }
    let text = fs::read_to_string(&log_path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    eprintln!("{} {title}", style("✗").red());
    for line in &lines[lines.len().saturating_sub(TAIL_LINES)..] {
        eprintln!("  {line}");
    }
    bail!("{} failed ({status}); its whole output is in {}", shown(command), log_path.display())
}

/// Runs `command` with our own standard streams.
pub(crate) fn attached(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {}", shown(command)))?;
    if !status.success() {
        bail!("{} failed ({status})", shown(command));
    }
    Ok(())
}

/// Runs `command` and returns what it printed on standard output, or `None` when it cannot run or fails.
pub(crate) fn probe(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The command as a person would type it.
fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

fn spinner(title: &str) -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    let template = "{spinner:.cyan} {prefix} {elapsed:.dim} {msg:.dim}";
    bar.set_style(ProgressStyle::with_template(template).expect("the template is valid"));
    bar.set_prefix(title.to_owned());
    bar.enable_steady_tick(Duration::from_millis(120));
    if !console::user_attended_stderr() {
        println!("… {title}");
    }
    bar
}

/// A title as a file's name: `install 3 packages` is `install-3-packages`.
fn slug(title: &str) -> String {
    let keep = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let name: String = title.chars().take(SLUG_CHARACTERS).map(keep).collect();
    name.trim_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_of_any_length_gives_a_file_name() {
        assert_eq!(slug("install `etcd` from Debian"), "install--etcd--from-debian");
        assert_eq!(slug(&"package ".repeat(100)).len(), SLUG_CHARACTERS);
    }
}
