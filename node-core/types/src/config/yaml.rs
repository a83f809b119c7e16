//! Text to values: YAML (and JSON, which is a part of it) with the line of every value.
//!
//! In: the document. Out: a tree of [`Value`]. Invariant: bounded work and memory whatever the
//! text: its length, depth and number of values have limits, and an alias costs as many values as
//! it stands for, so no document can unfold into a greater one. Scalars stay text; what they mean
//! is decided where a meaning is wanted (`scalar.rs`), so `no` is a name or a boolean as needed.
//! Refused: a second document, keys that are no text, keys that occur twice, foreign tags.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Tag};

use super::ConfigError;
use crate::limits::{CONFIGURATION_BYTES_MAX, CONFIGURATION_DEPTH_MAX, CONFIGURATION_VALUES_MAX};

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Value {
    /// Line, from 1.
    pub(super) line: usize,
    /// Column, from 1.
    pub(super) column: usize,
    /// What it is.
    pub(super) data: Data,
}

/// What a value is.
#[derive(Debug, Clone)]
pub(super) enum Data {
    /// Text; `plain` when it stood without quotes.
    Scalar {
        /// The text, quotes and escapes resolved.
        text: String,
        /// Whether it stood without quotes.
        plain: bool,
    },
    /// A list.
    List(Vec<Value>),
    /// A map, in the order of the document; no key occurs twice.
    Map(Vec<Entry>),
}

/// A key, where it stands, and its value.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) value: Value,
}

impl Value {
    /// Whether it stands for nothing: empty, `~` or `null`.
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.data, Data::Scalar { text, plain: true }
            if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// What it is, for people.
    pub(super) fn describe(&self) -> String {
        match &self.data {
            Data::Scalar { .. } if self.is_null() => "nothing".into(),
            Data::Scalar { text, .. } => format!("`{}`", shorten(text)),
            Data::List(items) => format!("a list of {}", items.len()),
            Data::Map(_) => "a map".into(),
        }
    }

    /// An error about this value.
    pub(super) fn error(&self, path: &str, what: impl Into<String>) -> ConfigError {
        ConfigError::new(path, what).at(self.line, self.column)
    }

    /// How many values it holds, itself included.
    fn count(&self) -> usize {
        1 + match &self.data {
            Data::Scalar { .. } => 0,
            Data::List(items) => items.iter().map(Self::count).sum(),
            Data::Map(entries) => entries.iter().map(|entry| 1 + entry.value.count()).sum(),
        }
    }

    fn depth(&self) -> usize {
        1 + match &self.data {
            Data::Scalar { .. } => 0,
            Data::List(items) => items.iter().map(Self::depth).max().unwrap_or(0),
            Data::Map(entries) => entries.iter().map(|e| e.value.depth()).max().unwrap_or(0),
        }
    }
}

/// Text of the document as it may be shown in an error.
pub(super) fn shorten(text: &str) -> String {
    const SHOWN_CHARS: usize = 60;
    let mut shown: String = text.chars().take(SHOWN_CHARS).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN_CHARS).is_some() {
        shown.push('…');
    }
    shown
}

/// Reads one document.
///
/// # Errors
/// [`ConfigError`] with the line where the text is no YAML, or goes beyond a limit.
pub(super) fn parse(text: &str) -> Result<Value, ConfigError> {
    if CONFIGURATION_BYTES_MAX < text.len() {
        return Err(ConfigError::new(
            "",
            format!(
                "the document has {} bytes, the limit is {CONFIGURATION_BYTES_MAX}",
                text.len()
            ),
        ));
    }
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text.trim_start_matches('\u{feff}')) {
        let (event, span) = event.map_err(|error| {
            let marker = error.marker();
            ConfigError::new("", format!("not valid YAML: {}", error.info()))
                .at(marker.line(), marker.col() + 1)
        })?;
        builder.on_event(event, span.start)?;
    }
    match builder.root {
        Some(root) if !root.is_null() => Ok(root),
        _ => Err(ConfigError::new("", "the document is empty")
            .remedy("write at least active_deployment and deployments")),
    }
}

/// A list or map that is not finished.
struct Open {
    value: Value,
    key: Option<(String, Marker)>,
    anchor: usize,
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    root: Option<Value>,
    anchors: HashMap<usize, Value>,
    count: usize,
}

fn error_at(mark: Marker, what: impl Into<String>) -> ConfigError {
    ConfigError::new("", what).at(mark.line(), mark.col() + 1)
}

fn value_at(mark: Marker, data: Data) -> Value {
    Value { line: mark.line(), column: mark.col() + 1, data }
}

impl Builder {
    fn on_event(&mut self, event: Event<'_>, mark: Marker) -> Result<(), ConfigError> {
        match event {
            Event::DocumentStart(_) if self.root.is_some() => {
                Err(error_at(mark, "a second document begins here")
                    .remedy("give one document per file"))
            }
            Event::Scalar(text, style, anchor, tag) => {
                check_tag(tag.as_deref(), mark)?;
                self.spend(1, mark)?;
                let plain = style == ScalarStyle::Plain;
                let value = value_at(mark, Data::Scalar { text: text.into_owned(), plain });
                self.keep(anchor, &value);
                self.add(value, mark)
            }
            Event::SequenceStart(anchor, tag) => {
                self.begin(Data::List(Vec::new()), anchor, tag.as_deref(), mark)
            }
            Event::MappingStart(anchor, tag) => {
                self.begin(Data::Map(Vec::new()), anchor, tag.as_deref(), mark)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(Open { value, anchor, .. }) = self.open.pop() else { return Ok(()) };
                self.keep(anchor, &value);
                self.add(value, mark)
            }
            Event::Alias(anchor) => {
                let Some(value) = self.anchors.get(&anchor) else {
                    return Err(error_at(mark, "an alias within what it stands for")
                        .remedy("write the values out"));
                };
                let (count, depth) = (value.count(), value.depth());
                self.spend(count, mark)?;
                self.check_depth(depth, mark)?;
                self.add(self.anchors[&anchor].clone(), mark)
            }
            _ => Ok(()),
        }
    }

    fn begin(
        &mut self,
        data: Data,
        anchor: usize,
        tag: Option<&Tag>,
        mark: Marker,
    ) -> Result<(), ConfigError> {
        check_tag(tag, mark)?;
        self.spend(1, mark)?;
        self.check_depth(1, mark)?;
        self.open.push(Open { value: value_at(mark, data), key: None, anchor });
        Ok(())
    }

    fn keep(&mut self, anchor: usize, value: &Value) {
        if anchor != 0 {
            self.anchors.insert(anchor, value.clone());
        }
    }

    fn spend(&mut self, count: usize, mark: Marker) -> Result<(), ConfigError> {
        self.count = self.count.saturating_add(count);
        if CONFIGURATION_VALUES_MAX < self.count {
            let what = format!("more than {CONFIGURATION_VALUES_MAX} values, aliases unfolded");
            return Err(error_at(mark, what));
        }
        Ok(())
    }

    fn check_depth(&self, more: usize, mark: Marker) -> Result<(), ConfigError> {
        if CONFIGURATION_DEPTH_MAX < self.open.len() + more {
            let what = format!("nested deeper than {CONFIGURATION_DEPTH_MAX} levels");
            return Err(error_at(mark, what));
        }
        Ok(())
    }

    fn add(&mut self, value: Value, mark: Marker) -> Result<(), ConfigError> {
        let Some(open) = self.open.last_mut() else {
            self.root = Some(value);
            return Ok(());
        };
        match &mut open.value.data {
            Data::Scalar { .. } => {}
            Data::List(items) => items.push(value),
            Data::Map(entries) => match open.key.take() {
                Some((key, at)) => {
                    entries.push(Entry { key, line: at.line(), column: at.col() + 1, value });
                }
                None => {
                    let Data::Scalar { text, .. } = value.data else {
                        return Err(error_at(mark, "a key that is a list or a map")
                            .remedy("use texts as keys"));
                    };
                    if let Some(first) = entries.iter().find(|entry| entry.key == text) {
                        let what = format!(
                            "the key `{}` stands here and on line {}",
                            shorten(&text),
                            first.line
                        );
                        return Err(error_at(mark, what).remedy("keep one of them"));
                    }
                    open.key = Some((text, mark));
                }
            },
        }
        Ok(())
    }
}

/// Only the tags of YAML itself pass; they change nothing.
fn check_tag(tag: Option<&Tag>, mark: Marker) -> Result<(), ConfigError> {
    match tag {
        Some(tag) if !tag.is_yaml_core_schema() => {
            let what = format!("the tag `{}` is not allowed", shorten(&tag.to_string()));
            Err(error_at(mark, what).remedy("remove it"))
        }
        _ => Ok(()),
    }
}
