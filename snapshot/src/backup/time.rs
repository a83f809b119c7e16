//! Times in names of backups: `20261121t170000z`, UTC.

use chrono::{DateTime, NaiveDateTime};

const FORM: &str = "%Y%m%dt%H%M%Sz";
const MICROS: i64 = 1_000_000;

/// A time for a name, from microseconds since the Unix epoch.
#[must_use]
pub fn utc(micros: u64) -> String {
    let seconds = i64::try_from(micros).unwrap_or(i64::MAX) / MICROS;
    DateTime::from_timestamp(seconds, 0).unwrap_or_default().format(FORM).to_string()
}

/// Reads what [`utc`] wrote, and nothing else.
#[must_use]
pub fn from_utc(text: &str) -> Option<u64> {
    let time = NaiveDateTime::parse_from_str(text, FORM).ok()?;
    let micros = u64::try_from(time.and_utc().timestamp().checked_mul(MICROS)?).ok()?;
    (utc(micros) == text).then_some(micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_reads_back_to_the_second_and_sorts_as_text() {
        assert_eq!(utc(1_795_280_400_000_000), "20261121t170000z");
        assert_eq!(from_utc("20261121t170000z"), Some(1_795_280_400_000_000));
        assert_eq!(from_utc(&utc(1_795_280_400_999_999)), Some(1_795_280_400_000_000));
        assert!(utc(0) < utc(1_795_280_400_000_000));
        for bad in ["", "20261121", "20261121T170000Z", "20261321t170000z", "20261121t170000z "] {
            assert_eq!(from_utc(bad), None, "{bad}");
        }
    }
}
