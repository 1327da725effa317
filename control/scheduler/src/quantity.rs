//! Kubernetes quantities (`100m`, `1.5Gi`, `2e3`) as whole numbers.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Suffixes and their factor in thousandths.
const SUFFIXES: &[(&str, i128)] = &[
    ("Ki", 1000 << 10),
    ("Mi", 1000 << 20),
    ("Gi", 1000 << 30),
    ("Ti", 1000 << 40),
    ("Pi", 1000 << 50),
    ("Ei", 1000 << 60),
    ("m", 1),
    ("k", 1_000_000),
    ("M", 1_000_000_000),
    ("G", 1_000_000_000_000),
    ("T", 1_000_000_000_000_000),
    ("P", 1_000_000_000_000_000_000),
    ("E", 1_000_000_000_000_000_000_000),
];

/// The quantity in thousandths, rounded up as upstream does; 0 when it does not parse (the API server validated it).
pub fn milli(quantity: &Quantity) -> i64 {
    let text = quantity.0.trim();
    let exact = parse(text).unwrap_or(0);
    i64::try_from(exact).unwrap_or(i64::MAX)
}

/// The quantity in whole units, rounded up.
pub fn units(quantity: &Quantity) -> i64 {
    let milli = parse(quantity.0.trim()).unwrap_or(0);
    i64::try_from(milli.div_euclid(1000) + i128::from(milli.rem_euclid(1000) != 0)).unwrap_or(i64::MAX)
}

fn parse(text: &str) -> Option<i128> {
    let (number, factor) = SUFFIXES
        .iter()
        .find_map(|(suffix, factor)| Some((text.strip_suffix(suffix)?, *factor)))
        .unwrap_or((text, 1000));
    let (mantissa, exponent) = match number.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (number, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if fraction.len() > 18 || exponent.abs() > 18 {
        return None;
    }
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let shift = exponent - i32::try_from(fraction.len()).ok()?;
    let value = digits.checked_mul(factor)?;
    let power = 10_i128.checked_pow(shift.unsigned_abs())?;
    if shift >= 0 {
        return value.checked_mul(power);
    }
    Some(value.div_euclid(power) + i128::from(value.rem_euclid(power) != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_parse_as_upstream_does() {
        let rows = [
            ("1", 1000),
            ("100m", 100),
            ("0.5", 500),
            ("1.5Gi", 1_610_612_736_000),
            ("2e3", 2_000_000),
            ("128Mi", 134_217_728_000),
            ("1k", 1_000_000),
            ("0.1m", 1),
            ("nonsense", 0),
        ];
        for (text, expected) in rows {
            assert_eq!(milli(&Quantity(text.into())), expected, "{text}");
        }
        assert_eq!(units(&Quantity("100m".into())), 1);
        assert_eq!(units(&Quantity("64Mi".into())), 67_108_864);
    }
}
