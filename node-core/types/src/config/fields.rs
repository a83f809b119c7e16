//! The pieces the grammar is made of: maps with known keys, and scalars with a meaning.
//!
//! In: values with lines. Out: plain Rust values, or a [`ConfigError`] with path, line, column and
//! what to do. Knows no key of the configuration by name; that is `read.rs`.

use std::{collections::BTreeMap, fmt::Display, ops::RangeInclusive, str::FromStr, time::Duration};

use super::{
    ConfigError, format_size,
    scalar::{parse_bool, parse_duration, parse_size},
    yaml::{Data, Entry, Value, shorten},
};
use crate::limits::NAME_BYTES_MAX;

const HOST_BYTES_MAX: usize = 253;
pub(super) const TEXT_BYTES_MAX: usize = 1_024;

/// A map from names to things.
pub(super) fn named<T>(
    path: &str,
    value: &Value,
    read: impl Fn(&str, &Entry) -> Result<T, ConfigError>,
) -> Result<BTreeMap<String, T>, ConfigError> {
    let Data::Map(entries) = &value.data else {
        return Err(
            value.error(path, format!("a map from names is wanted, not {}", value.describe()))
        );
    };
    entries
        .iter()
        .map(|entry| {
            let path = join(path, &entry.key);
            check_name(&entry.key)
                .map_err(|error| error.into_error(&path, entry.line, entry.column))?;
            Ok((entry.key.clone(), read(&path, entry)?))
        })
        .collect()
}

pub(super) struct BadName(String);

impl BadName {
    pub(super) fn into_error(self, path: &str, line: usize, column: usize) -> ConfigError {
        ConfigError::new(path, self.0)
            .at(line, column)
            .remedy("use letters, digits, `.`, `_` and `-`, beginning with a letter, digit or `_`")
    }
}

/// Names go into paths of files and of the object store, so their letters are few.
pub(super) fn check_name(name: &str) -> Result<(), BadName> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if name.is_empty() || NAME_BYTES_MAX < name.len() {
        return Err(BadName(format!("a name has 1 to {NAME_BYTES_MAX} bytes, not {}", name.len())));
    }
    if !name.bytes().all(allowed) || name.starts_with(['.', '-']) {
        return Err(BadName(format!("`{}` is not a name", shorten(name))));
    }
    Ok(())
}

pub(super) fn name(path: &str, value: &Value) -> Result<String, ConfigError> {
    let text = text(path, value)?;
    check_name(text).map_err(|error| error.into_error(path, value.line, value.column))?;
    Ok(text.to_owned())
}

pub(super) fn text<'a>(path: &str, value: &'a Value) -> Result<&'a str, ConfigError> {
    match &value.data {
        Data::Scalar { text, .. } if !value.is_null() => {
            if TEXT_BYTES_MAX < text.len() {
                return Err(value.error(path, format!("longer than {TEXT_BYTES_MAX} bytes")));
            }
            Ok(text)
        }
        _ => {
            Err(value.error(path, format!("a text or number is wanted, not {}", value.describe())))
        }
    }
}

pub(super) fn owned_text(path: &str, value: &Value) -> Result<String, ConfigError> {
    text(path, value).map(str::to_owned)
}

pub(super) fn boolean(path: &str, value: &Value) -> Result<bool, ConfigError> {
    let parsed = match &value.data {
        Data::Scalar { text, .. } => parse_bool(text),
        _ => None,
    };
    parsed.ok_or_else(|| {
        value
            .error(path, format!("{} is neither yes nor no", value.describe()))
            .remedy("write yes or no")
    })
}

pub(super) fn number<T: FromStr + PartialOrd + Display>(
    path: &str,
    value: &Value,
    range: RangeInclusive<T>,
) -> Result<T, ConfigError> {
    let number = text(path, value)?.parse::<T>().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| {
        let (low, high) = (range.start(), range.end());
        value.error(path, format!("{} is not a whole number in {low}..={high}", value.describe()))
    })
}

pub(super) fn duration(path: &str, value: &Value) -> Result<Duration, ConfigError> {
    let duration = parse_duration(text(path, value)?).map_err(|what| value.error(path, what))?;
    if duration.is_zero() {
        return Err(value.error(path, "the duration is zero").remedy("give at least 1ms"));
    }
    Ok(duration)
}

pub(super) fn size(path: &str, value: &Value, min: u64, max: u64) -> Result<u64, ConfigError> {
    let bytes = parse_size(text(path, value)?).map_err(|what| value.error(path, what))?;
    if bytes < min || max < bytes {
        return Err(value.error(
            path,
            format!("{} is not in {}..={}", value.describe(), format_size(min), format_size(max)),
        ));
    }
    Ok(bytes)
}

pub(super) fn word<T: Copy>(
    path: &str,
    value: &Value,
    words: &[T],
    spell: impl Fn(T) -> &'static str,
) -> Result<T, ConfigError> {
    let given = match &value.data {
        Data::Scalar { text, .. } => text.as_str(),
        _ => "",
    };
    words.iter().copied().find(|word| spell(*word) == given).ok_or_else(|| {
        let known: Vec<_> = words.iter().map(|word| spell(*word)).collect();
        value
            .error(path, format!("{} is not known here", value.describe()))
            .remedy(format!("write one of {}", known.join(", ")))
    })
}

pub(super) fn join(path: &str, key: &str) -> String {
    let key = shorten(key);
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

pub(super) fn with_hint(error: ConfigError, near: Option<&str>) -> ConfigError {
    match near {
        Some(near) => error.remedy(format!("did you mean `{near}`?")),
        None => error,
    }
}

/// The known word nearest to `given`, if any is near enough to be meant.
pub(super) fn nearest<'a>(given: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let given: Vec<u8> = given.bytes().take(2 * NAME_BYTES_MAX).collect();
    known
        .map(|word| (distance(&given, word.as_bytes()), word))
        .filter(|(distance, word)| *distance <= word.len().div_ceil(3))
        .min()
        .map(|(_, word)| word)
}

/// Levenshtein's distance.
pub(super) fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// A map with known keys.
pub(super) struct Fields<'a> {
    path: &'a str,
    value: &'a Value,
    entries: &'a [Entry],
}

impl<'a> Fields<'a> {
    pub(super) fn new(
        path: &'a str,
        value: &'a Value,
        known: &[&str],
    ) -> Result<Self, ConfigError> {
        let Data::Map(entries) = &value.data else {
            return Err(value
                .error(path, format!("a map is wanted, not {}", value.describe()))
                .remedy(format!("its keys are {}", known.join(", "))));
        };
        if let Some(entry) = entries.iter().find(|entry| !known.contains(&entry.key.as_str())) {
            let error = ConfigError::new(join(path, &entry.key), "there is no such key")
                .at(entry.line, entry.column);
            let near = nearest(&entry.key, known.iter().copied());
            return Err(match near {
                None => error.remedy(format!("the keys here are {}", known.join(", "))),
                near => with_hint(error, near),
            });
        }
        Ok(Self { path, value, entries })
    }

    pub(super) fn entry(&self, key: &str) -> Option<&'a Entry> {
        self.entries.iter().find(|entry| entry.key == key && !entry.value.is_null())
    }

    pub(super) fn optional<T>(
        &self,
        key: &str,
        read: impl FnOnce(&str, &Value) -> Result<T, ConfigError>,
    ) -> Result<Option<T>, ConfigError> {
        self.entry(key).map(|entry| read(&join(self.path, key), &entry.value)).transpose()
    }

    pub(super) fn required<T>(
        &self,
        key: &str,
        read: impl FnOnce(&str, &Value) -> Result<T, ConfigError>,
    ) -> Result<T, ConfigError> {
        self.optional(key, read)?.ok_or_else(|| {
            self.value
                .error(&join(self.path, key), "is missing")
                .remedy(format!("add the key `{key}`"))
        })
    }

    /// Two spellings of one key: only one may be there.
    pub(super) fn exclusive(&self, key: &str, older: &str) -> Result<(), ConfigError> {
        match (self.entry(key), self.entry(older)) {
            (Some(_), Some(second)) => Err(ConfigError::new(
                join(self.path, older),
                format!("it is the older spelling of `{key}`, which is here as well"),
            )
            .at(second.line, second.column)
            .remedy("keep one of them")),
            _ => Ok(()),
        }
    }
}

pub(super) fn host(path: &str, value: &Value) -> Result<String, ConfigError> {
    let given = text(path, value)?;
    let host = given.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(given);
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
    if host.is_empty() || HOST_BYTES_MAX < host.len() || !host.chars().all(allowed) {
        return Err(value
            .error(path, format!("{} is not a host", value.describe()))
            .remedy("write a name such as node-1.domain or an address such as 10.0.0.1"));
    }
    if host.contains(':')
        && host.split('%').next().is_none_or(|ip| ip.parse::<std::net::Ipv6Addr>().is_err())
    {
        return Err(value
            .error(path, format!("{} is not a host", value.describe()))
            .remedy("give the port as a value of its own"));
    }
    Ok(host.to_owned())
}

pub(super) fn port(path: &str, value: &Value) -> Result<u16, ConfigError> {
    let given = text(path, value)?;
    given.parse::<u16>().ok().filter(|port| *port != 0).ok_or_else(|| {
        let what = if given.parse::<i128>().is_ok() {
            format!("port {given} is not in 1..=65535")
        } else {
            format!("port {} is not a number in 1..=65535", value.describe())
        };
        value.error(path, what)
    })
}
