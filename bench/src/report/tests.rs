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
        row("iptables", "hook from_pod", 1, "connect", 5.7),
        row("ebpf", "direct", 1, "nodeport-remote", 250.0),
    ];
    Report { rows, made: vec![("kernel", "6.<1>".into())] }
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
fn clients_outside_have_bars_of_their_own() {
    let html = report().html().expect("a page");
    let (_, bars) = html.split_once("with the server on another node").expect("the chart");
    let (bars, _) = bars.split_once("</svg>").expect("its end");
    assert!(bars.contains("ebpf direct, 1") && bars.contains("250"), "{bars}");
    assert!(!html.contains("with the server there"), "nothing was measured of it");
}

#[test]
fn a_program_s_part_is_no_bar_among_whole_ways() {
    let html = report().html().expect("a page");
    let (_, bars) = html.split_once("Over loopback").expect("the chart");
    let (bars, rest) = bars.split_once("</svg>").expect("its end");
    assert!(!bars.contains("hook") && rest.contains("iptables hook from_pod connect"));
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
    assert_eq!(csv.lines().count(), 9);
    assert!(csv.contains("cost,ebpf,ipv4,socket,1,connect,150,kinsn"), "{csv}");
}

#[test]
fn columns_of_several_units_say_which_is_theirs() {
    let of = |op: &str, unit: &str| Row {
        bench: "programming".into(),
        unit: unit.into(),
        ..row("ebpf", "", 100, op, 1.5)
    };
    let markdown = table::markdown(&[of("cold", "ms"), of("rss", "MiB")]);
    let expected = "### programming, IPv4\n\n| mode | services | cold, ms | rss, MiB |\n|---|---:|---:|---:|\n\
        | ebpf | 100 | 1.50 | 1.50 |\n";
    assert_eq!(markdown, expected);
}

#[test]
fn two_numbers_of_the_same_are_refused_and_their_files_named() {
    let write = |rows: &[Row]| {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), serde_json::to_string(rows).expect("JSON")).expect("writes");
        file
    };
    let first =
        write(&[row("ebpf", "socket", 1, "connect", 150.0), row("ebpf", "link", 1, "connect", 151.0)]);
    let second =
        write(&[row("ebpf", "socket", 10, "connect", 150.0), row("ebpf", "link", 1, "connect", 152.0)]);
    let files = [&first, &second].map(|file| file.path().to_owned());
    assert!(Report::read(&files[..1]).is_ok());
    let error = Report::read(&files).err().expect("two numbers").to_string();
    let [first, second] = files.each_ref().map(|file| file.display().to_string());
    let expected =
        format!("cost ebpf link 1 ipv4 connect is in {first} and again in {second}: leave one out");
    assert_eq!(error, expected);
}

#[test]
fn a_file_that_holds_something_else_is_named() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), "{\"rows\": 1}").expect("writes");
    let error = Report::read(&[file.path().to_owned()]).err().expect("no results").to_string();
    assert!(error.contains(&file.path().display().to_string()) && error.contains("--json"), "{error}");
}

/// What `bench throughput` writes of one operation.
fn throughput() -> Report {
    let mut rows = Vec::new();
    for (mode, values) in [
        ("none", &[40_000.0][..]),
        ("ebpf", &[44_000.0, 1.1, 1.05, 1.31]),
        ("iptables", &[32_000.0, 0.8, 0.75, 0.9]),
    ] {
        let ops = ["tcp-rr", "tcp-rr-ratio", "tcp-rr-ratio-low", "tcp-rr-ratio-high"];
        rows.extend(ops.iter().zip(values).map(|(op, value)| Row {
            bench: "throughput".into(),
            unit: if *op == "tcp-rr" { "1/s" } else { "ratio" }.into(),
            ..row(mode, "same-node", 1_000, op, *value)
        }));
    }
    Report { rows, made: Vec::new() }
}

#[test]
fn throughput_is_drawn_against_no_load_balancing_with_its_spread() {
    let html = throughput().html().expect("a page");
    let (_, chart) = html.split_once("relative to no load balancing: same-node, ipv4").expect("the chart");
    let (chart, _) = chart.split_once("</svg>").expect("its end");
    assert_eq!((chart.matches("class=\"spread\"").count(), chart.matches("class=\"one\"").count()), (2, 1));
    assert!(chart.contains("1.10 (1.05 – 1.31)") && chart.contains("0.80 (0.75 – 0.90)"), "{chart}");
    // The line at one is left of the end of the bar of 1.1 and right of that of 0.8.
    let number = |from: &str, until: &str| -> Vec<f64> {
        chart.split(from).skip(1).filter_map(|rest| rest.split(until).next()?.parse().ok()).collect()
    };
    let (widths, one) = (number("width=\"", "\" height=\"18"), number("class=\"one\" x1=\"", "\"")[0]);
    let ends: Vec<f64> = widths.iter().map(|width| 270.0 + width).collect();
    assert!(ends[0] > one && ends[1] < one, "{ends:?} {one}");
}

#[test]
fn ratios_have_a_table_of_their_own_without_their_spread() {
    let markdown = throughput().markdown();
    assert!(
        markdown.starts_with("### throughput, IPv4, 1/s\n\n| mode | services | tcp-rr |\n"),
        "{markdown}"
    );
    assert!(
        markdown.contains("### throughput, IPv4, relative to none\n\n| mode | services | tcp-rr-ratio |\n"),
        "{markdown}"
    );
    assert!(!markdown.contains("low"), "{markdown}");
    assert!(throughput().csv().contains("throughput,ebpf,ipv4,same-node,1000,tcp-rr-ratio-high,1.31,ratio"));
}
