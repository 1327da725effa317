//! Charts as SVG, without a library and without scripts.

use std::fmt::Write as _;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 340.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 190.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 44.0;
/// Height of a bar and of what is between two.
const BAR: f64 = 18.0;
const BAR_STEP: f64 = 26.0;
/// Right of bars with a spread, for what they say.
const TOLD: f64 = 160.0;
/// Between groups of bars.
const GROUP_STEP: f64 = 10.0;
/// Left of the bars, for their names.
const NAMES: f64 = 270.0;

/// Colours that people who do not see all colours tell apart (Okabe and Ito).
const COLOURS: &[&str] =
    &["#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#7f7f7f", "#000000"];

/// A line with a name.
pub(super) struct Line {
    pub(super) name: String,
    /// Numbers of services, and values.
    pub(super) points: Vec<(f64, f64)>,
}

/// Lines over a logarithmic axis of services.
pub(super) fn lines(lines: &[Line], unit: &str) -> String {
    let all = || lines.iter().flat_map(|line| &line.points);
    let top = nice(all().map(|point| point.1).fold(0.0, f64::max));
    let end = all().map(|point| point.0).fold(1.0, f64::max).log10().ceil().max(1.0);
    let x = |services: f64| LEFT + services.max(1.0).log10() / end * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM);
    let mut svg = open(WIDTH, HEIGHT);
    for step in 0..=4 {
        let value = top * f64::from(step) / 4.0;
        let (at, right) = (y(value), WIDTH - RIGHT);
        let _ = write!(svg, r#"<line class="grid" x1="{LEFT}" x2="{right}" y1="{at:.1}" y2="{at:.1}"/>"#);
        text(&mut svg, (LEFT - 8.0, at + 4.0), "end", &number(value));
    }
    let mut power = 0;
    while f64::from(power) <= end {
        let services = 10f64.powi(power);
        text(&mut svg, (x(services), HEIGHT - BOTTOM + 18.0), "middle", &number(services));
        power += 1;
    }
    text(
        &mut svg,
        (LEFT + (WIDTH - LEFT - RIGHT) / 2.0, HEIGHT - 6.0),
        "middle",
        &format!("services; {unit}"),
    );
    for (index, (line, colour)) in lines.iter().zip(COLOURS.iter().cycle()).enumerate() {
        let points: Vec<String> = line
            .points
            .iter()
            .map(|(services, value)| format!("{:.1},{:.1}", x(*services), y(*value)))
            .collect();
        let _ = write!(
            svg,
            r#"<polyline fill="none" stroke="{colour}" stroke-width="2" points="{}"/>"#,
            points.join(" ")
        );
        for (services, value) in &line.points {
            let (cx, cy, title) = (x(*services), y(*value), number(*value));
            let _ = write!(
                svg,
                r#"<circle cx="{cx:.1}" cy="{cy:.1}" r="3.5" fill="{colour}"><title>{}, {}: {title}</title></circle>"#,
                escaped(&line.name),
                number(*services)
            );
        }
        let (at, left) = (TOP + 12.0 + index as f64 * 20.0, WIDTH - RIGHT + 16.0);
        let _ =
            write!(svg, r#"<rect x="{left}" y="{:.1}" width="14" height="4" fill="{colour}"/>"#, at - 5.0);
        text(&mut svg, (left + 20.0, at), "start", &line.name);
    }
    svg + "</svg>"
}

/// A bar.
pub(super) struct Bar {
    pub(super) name: String,
    /// Those of a kind have the same colour.
    pub(super) kind: String,
    pub(super) value: f64,
}

/// Bars with names and values.
pub(super) fn bars(bars: &[Bar]) -> String {
    let largest = bars.iter().map(|bar| bar.value).fold(0.0, f64::max);
    let height = bars.len() as f64 * BAR_STEP + 8.0;
    let (mut svg, mut colours) = (open(WIDTH, height), Colours::default());
    for (index, Bar { name, kind, value }) in bars.iter().enumerate() {
        let at = 4.0 + index as f64 * BAR_STEP;
        let width = if largest > 0.0 { value.max(0.0) / largest * (WIDTH - NAMES - 110.0) } else { 0.0 };
        let colour = colours.of(kind);
        text(&mut svg, (NAMES - 8.0, at + 13.0), "end", name);
        let _ = write!(
            svg,
            r#"<rect x="{NAMES}" y="{at:.1}" width="{width:.1}" height="{BAR}" fill="{colour}"/>"#
        );
        text(&mut svg, (NAMES + width + 6.0, at + 13.0), "start", &number(*value));
    }
    svg + "</svg>"
}

/// A colour for each name, in the order in which they come.
#[derive(Default)]
struct Colours<'a> {
    known: Vec<&'a str>,
}

impl<'a> Colours<'a> {
    fn of(&mut self, name: &'a str) -> &'static str {
        let at = self.known.iter().position(|known| *known == name).unwrap_or_else(|| {
            self.known.push(name);
            self.known.len() - 1
        });
        COLOURS[at % COLOURS.len()]
    }
}

/// A bar that is compared with one.
pub(super) struct Compared {
    /// Bars of a group are below each other, under its name.
    pub(super) group: String,
    /// Those of the same name have the same colour.
    pub(super) name: String,
    pub(super) value: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

/// Bars in groups, each with its spread, over a line at one.
pub(super) fn compared(bars: &[Compared]) -> String {
    let largest = bars.iter().map(|bar| bar.high).fold(1.0, f64::max);
    let x = |value: f64| NAMES + value.max(0.0) / largest * (WIDTH - NAMES - TOLD);
    let groups = bars.chunk_by(|a, b| a.group == b.group).count();
    let height = bars.len() as f64 * BAR_STEP + groups as f64 * GROUP_STEP + 8.0;
    let mut svg = open(WIDTH, height);
    let one = x(1.0);
    let _ = write!(svg, r#"<line class="one" x1="{one:.1}" x2="{one:.1}" y1="0" y2="{height:.1}"/>"#);
    let (mut at, mut colours) = (4.0, Colours::default());
    for group in bars.chunk_by(|a, b| a.group == b.group) {
        for (index, Compared { group, name, value, low, high }) in group.iter().enumerate() {
            let (colour, width, middle) = (colours.of(name), x(*value) - NAMES, at + BAR / 2.0);
            if index == 0 {
                text(&mut svg, (8.0, at + 13.0), "start", group);
            }
            text(&mut svg, (NAMES - 8.0, at + 13.0), "end", name);
            let _ = write!(
                svg,
                r#"<rect x="{NAMES}" y="{at:.1}" width="{width:.1}" height="{BAR}" fill="{colour}"/><line class="spread" x1="{:.1}" x2="{:.1}" y1="{middle:.1}" y2="{middle:.1}"/>"#,
                x(*low),
                x(*high)
            );
            let told = format!("{} ({} – {})", number(*value), number(*low), number(*high));
            text(&mut svg, (x(value.max(*high)) + 6.0, at + 13.0), "start", &told);
            at += BAR_STEP;
        }
        at += GROUP_STEP;
    }
    svg + "</svg>"
}

fn open(width: f64, height: f64) -> String {
    format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img">"#
    )
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, words: &str) {
    let _ = write!(svg, r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{}</text>"#, escaped(words));
}

/// The next larger number that an axis may end with.
fn nice(value: f64) -> f64 {
    let power = 10f64.powf(value.max(1e-9).log10().floor());
    let steps = [1.0, 2.0, 4.0, 5.0, 8.0, 10.0];
    steps.iter().map(|step| step * power).find(|step| *step >= value).unwrap_or(10.0 * power)
}

/// As many digits as matter, with thousands apart.
pub(super) fn number(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 || value.fract() == 0.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    let (whole, rest) =
        text.split_once('.').map_or((text.as_str(), String::new()), |(a, b)| (a, format!(".{b}")));
    let mut spaced = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) && !spaced.ends_with('-') {
            spaced.push('\u{202f}');
        }
        spaced.push(digit);
    }
    spaced + &rest
}

/// Text as XML has it.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
