//! Numbers as a reader wants them: shares, counts, bytes, durations, points in time.

/// What stands where a number is missing.
pub(super) const MISSING: &str = "not measured";

/// The value, if there is one and it is finite: a NaN in a report is a missing measurement.
pub(super) fn measured(value: Option<f64>) -> Option<f64> {
    value.filter(|v| v.is_finite())
}

/// A share in 0..=1 as a percentage with `decimals` decimals.
///
/// Never rounds up to "100%" or down to "0%": one wrong row in a million is not a perfect score.
pub(super) fn percent(share: f64, decimals: usize) -> String {
    let percent = share * 100.0;
    let unit = 10f64.powi(-i32::try_from(decimals).unwrap_or(0));
    if percent < 100.0 && percent > 100.0 - unit / 2.0 {
        format!(">{:.decimals$}%", 100.0 - unit)
    } else if percent > 0.0 && percent < unit / 2.0 {
        format!("<{unit:.decimals$}%")
    } else {
        format!("{percent:.decimals$}%")
    }
}

/// [`percent`], or "not measured".
pub(super) fn percent_or_missing(share: Option<f64>, decimals: usize) -> String {
    measured(share).map_or_else(|| MISSING.to_owned(), |s| percent(s, decimals))
}

/// A difference of two shares in percentage points, with its sign.
pub(super) fn points(difference: f64) -> String {
    let tenths = (difference * 1000.0).round() / 10.0;
    if tenths == 0.0 {
        "0.0".to_owned()
    } else if tenths < 0.0 {
        format!("−{:.1}", tenths.abs())
    } else {
        format!("+{tenths:.1}")
    }
}

/// A number to `places` decimals; from a million on by its power of ten, so that it does not fill a column.
pub(super) fn number(value: f64, places: usize) -> String {
    if !value.is_finite() {
        return MISSING.to_owned();
    }
    let size = value.abs();
    let size = if size < 1e6 { format!("{size:.places$}") } else { format!("{size:.2e}") };
    if value < 0.0 && !is_zero(&size) { format!("−{size}") } else { size }
}

/// A difference of two numbers as [`number`] writes it, with its sign.
pub(super) fn signed(difference: f64, places: usize) -> String {
    let text = number(difference, places);
    if difference.is_finite() && difference > 0.0 && !is_zero(&text) { format!("+{text}") } else { text }
}

/// Whether a number was so small that only zeros are left of it.
fn is_zero(text: &str) -> bool {
    text.trim_matches(['0', '.']).is_empty()
}

/// A count with a comma at each thousand.
pub(super) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// A count with its noun: "1 site", "12 sites".
pub(super) fn counted(n: usize, one: &str, many: &str) -> String {
    format!("{} {}", count(n as u64), if n == 1 { one } else { many })
}

/// Bytes in decimal units (1 kB = 1000 B).
pub(super) fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if n < 1000 {
        return format!("{n} B");
    }
    let mut value = n as f64 / 1000.0;
    let mut units = UNITS.iter();
    let mut unit = units.next().unwrap_or(&"kB");
    // 999.5 would print as "1000"; it belongs to the next unit.
    while value >= 999.5 {
        let Some(next) = units.next() else { break };
        value /= 1000.0;
        unit = next;
    }
    if value < 99.95 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

/// A duration, to the precision a person cares for.
pub(super) fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return MISSING.to_owned();
    }
    if seconds < 0.001 {
        return if seconds == 0.0 { "0 s".to_owned() } else { "<1 ms".to_owned() };
    }
    if seconds < 0.9995 {
        return format!("{:.0} ms", seconds * 1000.0);
    }
    if seconds < 59.95 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    let (hours, minutes, rest) = (whole / 3600, whole / 60 % 60, whole % 60);
    match hours {
        0 => format!("{minutes} min {rest} s"),
        1..=47 => format!("{hours} h {minutes} min"),
        _ => format!("{} d {} h", hours / 24, hours % 24),
    }
}

/// An RFC 3339 time without its fraction and its "T"; anything else comes back as it was.
pub(super) fn moment(rfc3339: &str) -> String {
    let Some((date, clock)) = rfc3339.split_once('T') else {
        return rfc3339.to_owned();
    };
    let Some((hms, rest)) = clock.split_at_checked(8) else {
        return rfc3339.to_owned();
    };
    if !hms.chars().all(|c| c.is_ascii_digit() || c == ':') {
        return rfc3339.to_owned();
    }
    let zone = match rest.strip_prefix('.') {
        Some(fraction) => fraction.trim_start_matches(|c: char| c.is_ascii_digit()),
        None => rest,
    };
    format!("{date} {hms} {}", if zone == "Z" || zone == "+00:00" { "UTC" } else { zone })
}
