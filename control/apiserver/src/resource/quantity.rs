//! Quantities such as `100m`, `1.5Gi` and `2e3`.

use serde_json::Value;

const NANO: i128 = 1_000_000_000;

/// The quantity in units of 10⁻⁹, rounded up; `None` if it cannot be read.
pub(crate) fn parse(value: &Value) -> Option<i128> {
    match value {
        Value::String(text) => parse_text(text),
        Value::Number(number) => parse_text(&number.to_string()),
        _ => None,
    }
}

/// Whether amounts of this resource are counted in powers of two.
pub(crate) fn is_binary(name: &str) -> bool {
    ["memory", "storage", "hugepages"].iter().any(|part| name.contains(part))
        && !name.ends_with("persistentvolumeclaims")
}

/// A quantity in units of 10⁻⁹ as text, with the suffix that leaves the fewest digits.
pub(crate) fn text(amount: i128, binary: bool) -> String {
    if amount % NANO != 0 {
        let rows = [("m", 1_000_000), ("u", 1_000), ("n", 1)];
        let exact = rows.iter().find(|(_, unit)| amount % unit == 0).unwrap_or(&("n", 1));
        return format!("{}{}", amount / exact.1, exact.0);
    }
    let whole = amount / NANO;
    let (base, suffixes): (i128, &[&str]) = if binary {
        (1024, &["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"])
    } else {
        (1000, &["", "k", "M", "G", "T", "P", "E"])
    };
    let (mut number, mut power) = (whole, 0);
    while number != 0 && number % base == 0 && power + 1 < suffixes.len() {
        number /= base;
        power += 1;
    }
    format!("{number}{}", suffixes[power])
}

fn parse_text(text: &str) -> Option<i128> {
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let digits = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(digits);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || fraction.len() > 18 {
        return None;
    }
    let (multiplier, divisor) = scale(suffix)?;
    let mantissa: i128 = format!("{whole}{fraction}").parse().ok()?;
    let fraction_digits = u32::try_from(fraction.len()).ok()?;
    let numerator = mantissa.checked_mul(multiplier)?.checked_mul(NANO)?;
    let denominator = 10i128.checked_pow(fraction_digits)?.checked_mul(divisor)?;
    let amount = numerator.div_euclid(denominator) + i128::from(numerator.rem_euclid(denominator) != 0);
    Some(if negative { -amount } else { amount })
}

/// What a suffix multiplies and divides by.
fn scale(suffix: &str) -> Option<(i128, i128)> {
    let decimal = |exponent: u32| Some((10i128.checked_pow(exponent)?, 1));
    match suffix {
        "" => Some((1, 1)),
        "n" => Some((1, NANO)),
        "u" => Some((1, 1_000_000)),
        "m" => Some((1, 1_000)),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => Some((1 << 10, 1)),
        "Mi" => Some((1 << 20, 1)),
        "Gi" => Some((1 << 30, 1)),
        "Ti" => Some((1 << 40, 1)),
        "Pi" => Some((1 << 50, 1)),
        "Ei" => Some((1 << 60, 1)),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10i128.checked_pow(exponent.unsigned_abs())?;
            Some(if exponent < 0 { (1, power) } else { (power, 1) })
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_quantity_is_written_as_short_as_it_can_be() {
        let rows = [
            (json!("0"), false, "0"),
            (json!("1000"), false, "1k"),
            (json!("1500"), false, "1500"),
            (json!("0.5"), false, "500m"),
            (json!("1073741824"), true, "1Gi"),
            (json!("1000"), true, "1000"),
            (json!("-2Ki"), true, "-2Ki"),
            (json!("1n"), false, "1n"),
        ];
        for (value, binary, expected) in rows {
            let amount = parse(&value).unwrap();
            assert_eq!(text(amount, binary), expected);
            assert_eq!(parse(&json!(expected)), Some(amount));
        }
    }

    #[test]
    fn a_quantity_is_read_exactly_and_rounded_up() {
        let rows = [
            (json!("100m"), Some(100_000_000)),
            (json!("1"), Some(NANO)),
            (json!(2), Some(2 * NANO)),
            (json!("1.5Gi"), Some(1_610_612_736 * NANO)),
            (json!("2e3"), Some(2_000 * NANO)),
            (json!("1E"), Some(1_000_000_000_000_000_000 * NANO)),
            (json!("5E-1"), Some(NANO / 2)),
            (json!(".5"), Some(NANO / 2)),
            (json!("0.0000000001"), Some(1)),
            (json!("-1"), Some(-NANO)),
            (json!("1 Gi"), None),
            (json!("1GB"), None),
            (json!("1.2.3"), None),
            (json!(""), None),
            (json!("lots"), None),
        ];
        for (value, expected) in rows {
            assert_eq!(parse(&value), expected, "{value}");
        }
    }
}
