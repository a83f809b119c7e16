//! A history: operations in any order, and their file form, one JSON object a line.

use std::io::{BufRead, BufReader, BufWriter, Read, Write};

use crate::Operation;

/// Longest line that is read, in bytes: an operation is far below it.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// What clients asked and were told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// In any order; violations name operations by their index here.
    pub operations: Vec<Operation>,
}

/// Why a history could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// The reader or writer failed.
    #[error("cannot read or write the history")]
    Io(#[from] std::io::Error),
    /// A line is no operation.
    #[error("line {line} is not an operation")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A line is longer than any operation.
    #[error("line {line} is longer than {LINE_BYTES_MAX} bytes")]
    TooLong {
        /// Counted from 1.
        line: usize,
    },
}

impl History {
    /// Adds an operation; gives its index.
    pub fn push(&mut self, operation: Operation) -> usize {
        self.operations.push(operation);
        self.operations.len() - 1
    }

    /// Reads JSON lines; empty lines are passed over.
    ///
    /// # Errors
    /// [`HistoryError`]; also on a torn last line.
    pub fn read(from: impl Read) -> Result<Self, HistoryError> {
        let mut from = BufReader::new(from);
        let mut history = Self::default();
        let mut text = Vec::new();
        for line in 1.. {
            text.clear();
            let read = from.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut text)?;
            if read == 0 {
                break;
            }
            if read as u64 == LINE_BYTES_MAX && text.last() != Some(&b'\n') {
                return Err(HistoryError::TooLong { line });
            }
            if !text.trim_ascii().is_empty() {
                let operation = serde_json::from_slice(&text)
                    .map_err(|source| HistoryError::Line { line, source })?;
                history.operations.push(operation);
            }
        }
        Ok(history)
    }

    /// Writes JSON lines.
    ///
    /// # Errors
    /// [`HistoryError::Io`].
    pub fn write(&self, to: impl Write) -> Result<(), HistoryError> {
        let mut to = BufWriter::new(to);
        for operation in &self.operations {
            serde_json::to_writer(&mut to, operation).map_err(std::io::Error::from)?;
            to.write_all(b"\n")?;
        }
        to.flush()?;
        Ok(())
    }
}
