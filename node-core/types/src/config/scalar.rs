//! Texts with a meaning: booleans, durations, sizes; read and written.
//!
//! Invariant: what `format_*` writes, `parse_*` reads as the same value. Durations have whole
//! milliseconds, sizes whole bytes; nothing is rounded, what does not fit is refused. Errors are
//! plain texts; the reader adds path and line.

use std::time::Duration;

/// Longest duration: a hundred years.
const MILLIS_MAX: u64 = 36_525 * DAY_MS;
const DAY_MS: u64 = 86_400_000;
const SIZE_MAX: u64 = 1 << 60;

/// Unit names of durations, greatest first.
const TIME_UNITS: [(&[&str], u64); 5] = [
    (&["d", "day", "days"], DAY_MS),
    (&["h", "hour", "hours"], 3_600_000),
    (&["m", "min", "minute", "minutes"], 60_000),
    (&["s", "sec", "second", "seconds"], 1_000),
    (&["ms", "millisecond", "milliseconds"], 1),
];

const SIZE_UNITS: [(&str, u64); 10] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("kB", 1_000),
    ("B", 1),
];

/// Reads a boolean: `yes no on off true false` in YAML 1.1's three spellings of each.
pub(super) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "true" | "True" | "TRUE" => Some(true),
        "no" | "No" | "NO" | "off" | "Off" | "OFF" | "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

/// Reads a duration: `250ms`, `10s`, `1h 30m`, `1d 0:00:00`, `2 days, 1:00:00`, `0:05:00`, or a
/// number of seconds.
///
/// # Errors
/// What is wrong, as a text.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || {
        format!("`{}` is not a duration such as 250ms, 10s, 5m, 1h 30m or 1d 0:00:00", text.trim())
    };
    let mut rest = text.trim();
    let mut millis: u64 = 0;
    let mut below = usize::MAX; // index of the last unit used; later ones must be smaller
    let mut first = true;
    while !rest.is_empty() {
        let word = rest.split([' ', ',']).next().unwrap_or(rest);
        let part = if word.contains(':') {
            if word.len() < rest.len() {
                return Err(wrong());
            }
            rest = "";
            parse_clock(word).ok_or_else(wrong)?
        } else {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
            let (number, after) = rest.split_at(digits);
            let after = after.trim_start();
            let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
            let (unit, after) = after.split_at(letters);
            let unit_ms = if unit.is_empty() {
                // A bare number is seconds, and stands alone.
                if !first || !after.is_empty() {
                    return Err(wrong());
                }
                1_000
            } else {
                let index = TIME_UNITS
                    .iter()
                    .position(|(names, _)| names.contains(&unit))
                    .filter(|index| below == usize::MAX || below < *index)
                    .ok_or_else(wrong)?;
                below = index;
                TIME_UNITS[index].1
            };
            rest = after.trim_start();
            rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
            scale(number, unit_ms).ok_or_else(wrong)?
        };
        first = false;
        millis = millis.checked_add(part).filter(|sum| *sum <= MILLIS_MAX).ok_or_else(wrong)?;
    }
    if first { Err(wrong()) } else { Ok(Duration::from_millis(millis)) }
}

/// `H:M:S` in milliseconds.
fn parse_clock(text: &str) -> Option<u64> {
    let parts: Vec<&str> = text.split(':').collect();
    let [hours, minutes, seconds] = parts.as_slice() else { return None };
    let minutes = scale(minutes, 60_000).filter(|ms| *ms < 3_600_000)?;
    let seconds = scale(seconds, 1_000).filter(|ms| *ms < 60_000)?;
    scale(hours, 3_600_000)?.checked_add(minutes + seconds)
}

/// `number × unit` exactly, `number` being digits with at most one point among them.
fn scale(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || (number.contains('.') && !digits(fraction)) || 12 < fraction.len() {
        return None;
    }
    let ten = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let value = u128::from(whole.parse::<u64>().ok()?) * ten
        + if fraction.is_empty() { 0 } else { fraction.parse::<u128>().ok()? };
    let product = value.checked_mul(u128::from(unit))?;
    (product % ten == 0).then(|| u64::try_from(product / ten).ok()).flatten()
}

/// Writes a duration in its greatest whole unit: `1d`, `90m`, `250ms`.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    for (names, unit) in TIME_UNITS {
        if millis != 0 && millis.is_multiple_of(u128::from(unit)) {
            return format!("{}{}", millis / u128::from(unit), names[0]);
        }
    }
    "0s".into()
}

/// Reads a size: `64MiB`, `1.5 GiB`, `10MB`, or a number of bytes.
///
/// # Errors
/// What is wrong, as a text.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = match unit.trim_start() {
        "" => Some(1),
        unit => SIZE_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, bytes)| *bytes),
    };
    unit.and_then(|unit| scale(number, unit))
        .filter(|bytes| *bytes <= SIZE_MAX)
        .ok_or_else(|| format!("`{text}` is not a size such as 512KiB, 64MiB, 1GiB or 10MB"))
}

/// Writes a size in its greatest whole binary unit: `64MiB`, `1000B`.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    for (name, unit) in &SIZE_UNITS[..4] {
        if bytes != 0 && bytes.is_multiple_of(*unit) {
            return format!("{}{name}", bytes / unit);
        }
    }
    format!("{bytes}B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_of_every_spelling_are_read() {
        for (text, millis) in [
            ("250ms", 250),
            ("10s", 10_000),
            ("30", 30_000),
            ("0.5", 500),
            ("1.5s", 1_500),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            ("1d 0:00:00", DAY_MS),
            ("'1d", 0),
            ("1 day", DAY_MS),
            ("2 days, 1:02:03", 2 * DAY_MS + 3_723_000),
            ("1d", DAY_MS),
            ("24:00:00", DAY_MS),
            ("0:00:00.250", 250),
        ] {
            let read = parse_duration(text).map(|d| d.as_millis());
            if millis == 0 {
                assert!(read.is_err(), "{text}");
            } else {
                assert_eq!(read, Ok(u128::from(millis)), "{text}");
            }
        }
    }

    #[test]
    fn texts_that_are_no_duration_or_size_are_refused() {
        for text in [
            "",
            " ",
            "d",
            "1x",
            "10:00",
            "1:60:00",
            "1s 1d",
            "1d 1d",
            "1d 5",
            "0.0001s",
            "-1s",
            "1..5s",
            "99999999999999999999s",
            "40000d",
            "1d 0:00:00 1s",
            "1e3",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        for text in ["", "M", "64M", "64 mib", "-1", "1.0001KiB", "99999999999TiB", "0x10"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        for millis in [0, 1, 250, 1_000, 1_500, 60_000, 90_000, 5_400_000, DAY_MS, 7 * DAY_MS + 1] {
            let duration = Duration::from_millis(millis);
            assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }
        for bytes in [0, 1, 1_000, 1_024, 64 << 20, 3 << 30, (1 << 40) + 1] {
            assert_eq!(parse_size(&format_size(bytes)), Ok(bytes));
        }
        assert_eq!(parse_size("1.5 GiB"), Ok(3 << 29));
        assert_eq!(parse_size("10MB"), Ok(10_000_000));
        assert_eq!(parse_size("4096"), Ok(4_096));
    }
}
