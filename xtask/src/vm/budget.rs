//! How many instructions the verifier walked for each program on each kernel, against a file in the repository.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use anyhow::{Context, Result, bail};
use console::style;

use crate::paths;

/// Growth that needs no new budget, in percent.
const TOLERANCE: u32 = 10;

/// Counts by program and kernel. A kernel before 5.16 does not tell them: 0 says that the program loads.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Counts(BTreeMap<String, BTreeMap<String, u32>>);

impl Counts {
    /// The file `ebpf/budget.json`.
    pub(crate) fn budget() -> Result<Self> {
        let file = file();
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        Ok(Self(serde_json::from_str(&text).with_context(|| format!("{} is no budget", file.display()))?))
    }

    pub(crate) fn merge(&mut self, other: Self) {
        for (program, counts) in other.0 {
            self.0.entry(program).or_default().extend(counts);
        }
    }

    pub(crate) fn add(&mut self, program: &str, kernel: &str, verified: u32) {
        self.0.entry(program.to_owned()).or_default().insert(kernel.to_owned(), verified);
    }

    /// Writes these as the budget; kernels that were not run keep theirs.
    pub(crate) fn bless(&self) -> Result<()> {
        let before = Self::budget().unwrap_or_default();
        let ran = self.kernels();
        let mut merged = self.0.clone();
        for (program, counts) in &mut merged {
            for (kernel, count) in before.0.get(program).into_iter().flatten() {
                if !ran.contains(kernel) {
                    counts.insert(kernel.clone(), *count);
                }
            }
        }
        let file = file();
        let text = serde_json::to_string_pretty(&merged)? + "\n";
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        println!("wrote {}", file.display());
        Ok(())
    }

    /// Prints the counts, and fails when one is over its budget or has none.
    pub(crate) fn compare(&self, budget: &Self) -> Result<()> {
        let kernels = self.kernels();
        print!("\n{:<18}", "verified");
        kernels.iter().for_each(|kernel| print!("{kernel:>16}"));
        println!();
        for (program, counts) in &self.0 {
            print!("{program:<18}");
            for kernel in &kernels {
                let cell = counts.get(kernel).map(|count| cell(*count, budget.get(program, kernel)));
                print!("{:>16}", cell.unwrap_or_else(|| "refused".to_owned()));
            }
            println!();
        }
        let over = self.over(budget);
        if over.is_empty() {
            return Ok(());
        }
        for line in &over {
            println!("{} {line}", style("✗").red());
        }
        bail!("programs grew; if that is meant, `cargo xtask test vm --bless` writes the new budget")
    }

    /// What is over its budget, in sentences. A kernel that the budget does not know is not compared: it is the one of
    /// somebody's machine.
    fn over(&self, budget: &Self) -> Vec<String> {
        let known = budget.kernels();
        let mut over = Vec::new();
        for (program, counts) in &self.0 {
            for (kernel, count) in counts.iter().filter(|(kernel, _)| known.contains(*kernel)) {
                match budget.get(program, kernel) {
                    None => over.push(format!("{program} on {kernel}: {count} instructions and no budget")),
                    Some(limit) if *count > limit + limit * TOLERANCE / 100 => {
                        over.push(format!("{program} on {kernel}: {count} instructions, budget {limit}"));
                    }
                    Some(_) => {}
                }
            }
        }
        over
    }

    fn get(&self, program: &str, kernel: &str) -> Option<u32> {
        self.0.get(program)?.get(kernel).copied()
    }

    fn kernels(&self) -> BTreeSet<String> {
        self.0.values().flat_map(|counts| counts.keys().cloned()).collect()
    }
}

fn cell(count: u32, budget: Option<u32>) -> String {
    match (count, budget) {
        (0, _) => "loads".to_owned(),
        (_, Some(budget)) if budget != count => {
            format!("{count} ({:+.1} %)", (f64::from(count) / f64::from(budget) - 1.0) * 100.0)
        }
        _ => count.to_string(),
    }
}

fn file() -> PathBuf {
    paths::root().join("ebpf").join("budget.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(rows: &[(&str, &str, u32)]) -> Counts {
        let mut counts = Counts::default();
        rows.iter().for_each(|(program, kernel, count)| counts.add(program, kernel, *count));
        counts
    }

    #[test]
    fn growth_past_the_tolerance_and_programs_without_budget_are_named() {
        let budget = counts(&[("connect4", "6.1", 1_000), ("to_pod", "6.1", 100)]);
        let rows: &[(&str, &str, u32, usize)] = &[
            ("connect4", "6.1", 1_000, 0),
            ("connect4", "6.1", 1_100, 0),
            ("connect4", "6.1", 1_101, 1),
            ("connect4", "6.1", 1, 0),
            ("new", "6.1", 5, 1),
            ("connect4", "6.18", 9_999, 0),
        ];
        for (program, kernel, count, over) in rows {
            assert_eq!(
                counts(&[(program, kernel, *count)]).over(&budget).len(),
                *over,
                "{program} {kernel} {count}"
            );
        }
    }
}
