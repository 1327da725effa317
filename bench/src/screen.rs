//! What a person sees while a scenario runs.

use std::time::{Duration, Instant};

use console::style;
use indicatif::{ProgressBar, ProgressStyle};

/// One step of a scenario, shown while it runs.
pub struct Step {
    title: String,
    started: Instant,
    bar: ProgressBar,
}

impl Step {
    /// Begins a step.
    pub fn begin(title: impl Into<String>) -> Self {
        let title = title.into();
        let bar = ProgressBar::new_spinner();
        let template = "{spinner:.cyan} {prefix} {elapsed:.dim} {msg:.dim}";
        bar.set_style(ProgressStyle::with_template(template).expect("the template is valid"));
        bar.set_prefix(title.clone());
        bar.enable_steady_tick(Duration::from_millis(120));
        Self { title, started: Instant::now(), bar }
    }

    /// Says what it is doing just now.
    pub fn note(&self, text: impl Into<String>) {
        self.bar.set_message(text.into());
    }

    /// Ends it well.
    pub fn done(self) {
        self.bar.finish_and_clear();
        println!(
            "{} {} {}",
            style("✓").green().bold(),
            style(&self.title).bold(),
            style(human(self.started.elapsed())).dim()
        );
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A line of detail below a step.
pub fn detail(text: impl AsRef<str>) {
    println!("    {}", text.as_ref());
}

/// A quieter line.
pub fn aside(text: impl AsRef<str>) {
    println!("    {}", style(text.as_ref()).dim());
}

/// A share as a bar of twenty cells.
pub fn bar(part: u64, whole: u64) -> String {
    let cells = usize::try_from((part * 20).checked_div(whole).unwrap_or(0)).unwrap_or(0);
    format!("{}{}", style("█".repeat(cells)).cyan(), style("░".repeat(20 - cells.min(20))).dim())
}

/// Whether a number to reach was reached.
pub fn mark(met: bool) -> &'static str {
    if met { "✓" } else { "✗" }
}

/// A duration as a person says it.
pub fn human(duration: Duration) -> String {
    match duration.as_micros() {
        micros @ 0..1_000 => format!("{micros} µs"),
        micros @ 1_000..1_000_000 => format!("{:.0} ms", micros as f64 / 1e3),
        micros => format!("{:.1} s", micros as f64 / 1e6),
    }
}

/// A number of bytes as a person says it.
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["B", "KiB", "MiB", "GiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}
