//! What the machine shall do, as a file that whoever boots it wrote.

use anyhow::Context;
use serde::Deserialize;

const PLAN: &str = "/plan.json";

/// Everything, in its order.
#[derive(Debug, Deserialize)]
pub(crate) struct Plan {
    /// Files of kernel modules, each after those that it needs.
    pub(crate) modules: Vec<String>,
    /// Programs to run.
    pub(crate) steps: Vec<Step>,
}

/// One program.
#[derive(Debug, Deserialize)]
pub(crate) struct Step {
    /// Its name in the report.
    pub(crate) name: String,
    /// Program and arguments.
    pub(crate) command: Vec<String>,
    /// Environment in addition to `PATH`.
    pub(crate) env: Vec<(String, String)>,
}

pub(crate) fn read() -> anyhow::Result<Plan> {
    let text = std::fs::read_to_string(PLAN).with_context(|| format!("cannot read {PLAN}"))?;
    serde_json::from_str(&text).with_context(|| format!("{PLAN} is no plan"))
}
