use super::*;

fn row(mode: &str, path: &str, services: u32, op: &str, value: f64) -> Row {
    Row {
        bench: "cost".into(),
        mode: mode.into(),
        family: "ipv4".into(),
        path: path.into(),
        services,
        op: op.into(),
        value,
        unit: "kinsn".into(),
    }
}

fn report() -> Report {
    let rows = vec![
        row("loopback", "", 0, "connect", 125.8),
        row("ebpf", "socket", 1, "connect", 150.0),
        row("ebpf", "socket", 1_000, "connect", 150.5),
        row("iptables", "", 1, "connect", 200.0),
        row("iptables", "", 1_000, "connect", 1_250.0),
        row("ebpf", "socket hook connect4", 1, "connect", 1.3),
    ];
    Report { rows, machine: vec![("kernel", "6.<1>".into())] }
}

#[test]
fn the_page_needs_nothing_but_itself_and_holds_every_number() {
    let html = report().html().expect("a page");
    for forbidden in ["src=", "href=", "@import", "url("] {
        assert!(!html.contains(forbidden), "{forbidden}");
    }
    let (_, rest) = html.split_once("id=\"rows\">").expect("the numbers");
    let (json, _) = rest.split_once("</script>").expect("their end");
    let rows: Vec<Row> = serde_json::from_str(json).expect("JSON");
    assert_eq!(rows, report().rows);
    assert!(html.contains("6.&lt;1&gt;"), "text is escaped");
}

#[test]
fn a_curve_is_a_line_for_each_mode_and_leaves_parts_out() {
    let html = report().html().expect("a page");
    let (_, curve) = html.split_once("A new connection").expect("the chart");
    let (curve, _) = curve.split_once("</svg>").expect("its end");
    assert_eq!(curve.matches("<polyline").count(), 2);
    assert!(!curve.contains("connect4"));
}

#[test]
fn tables_have_a_line_for_each_place_and_a_column_for_each_operation() {
    let markdown = report().markdown();
    assert!(
        markdown.starts_with("### cost, IPv4, thousand instructions\n\n| mode | services | connect |"),
        "{markdown}"
    );
    assert!(markdown.contains("| iptables | 1\u{202f}000 | 1\u{202f}250 |"), "{markdown}");
    let csv = report().csv();
    assert_eq!(csv.lines().count(), 7);
    assert!(csv.contains("cost,ebpf,ipv4,socket,1,connect,150,kinsn"), "{csv}");
}

#[test]
fn a_file_that_holds_something_else_is_named() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), "{\"rows\": 1}").expect("writes");
    let error = Report::read(&[file.path().to_owned()]).err().expect("no results").to_string();
    assert!(error.contains(&file.path().display().to_string()) && error.contains("--json"), "{error}");
}
