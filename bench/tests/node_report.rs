//! The report in a browser: what a person would see is drawn, and nothing is fetched. Needs chromium.

use std::{fs, process::Command};

use anyhow::{Context, Result, ensure};
use fairlead_bench::report::Report;

/// Without a network, and with no profile of anybody.
const FLAGS: &[&str] =
    &["--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND", "--dump-dom"];

const ROWS: &str = r#"[
    {"bench":"cost","mode":"loopback","family":"ipv4","path":"","services":0,"op":"connect","value":125.8,"unit":"kinsn"},
    {"bench":"cost","mode":"ebpf","family":"ipv4","path":"socket","services":1,"op":"connect","value":150.2,"unit":"kinsn"},
    {"bench":"cost","mode":"ebpf","family":"ipv4","path":"socket","services":100,"op":"connect","value":150.3,"unit":"kinsn"}
]"#;

/// Put into the page by the test alone: it measures what the browser has laid out and leaves the result in the title.
const PROBE: &str = "<script>const wide=[...document.querySelectorAll('svg')].filter(s=>s.getBoundingClientRect().width>300);\
document.title=`drawn ${wide.length}, lines ${document.querySelectorAll('polyline').length}, \
fetched ${performance.getEntriesByType('resource').length}`</script>";

#[test]
fn a_browser_draws_the_report_and_fetches_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let results = folder.path().join("cost.json");
    fs::write(&results, ROWS)?;
    let page = folder.path().join("report.html");
    fs::write(&page, Report::read(&[results])?.html()?.replace("</html>", &format!("{PROBE}</html>")))?;
    let output = Command::new("chromium")
        .args(FLAGS)
        .arg(format!("--user-data-dir={}", folder.path().join("profile").display()))
        .arg(format!("file://{}", page.display()))
        .output()
        .context("cannot start chromium: run `cargo xtask setup`")?;
    let dom = String::from_utf8_lossy(&output.stdout);
    ensure!(
        dom.contains("<title>drawn 2, lines 1, fetched 0</title>"),
        "the browser shows something else:\n{dom}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
