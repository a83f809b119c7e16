//! The shared error kinds: what the caller of anything in Tako must do next.
//!
//! Every crate's error answers `kind()`; the kind crosses the wire as a number, and HTTP and
//! memcached map it in one table each. Source: docs/architecture.md, "Errors".

/// What a caller does about an error.
///
/// Guarantee: numbers are stable on the wire; an unknown number reads as [`ErrorKind::Internal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ErrorKind {
    /// Fix the request; repeating it cannot help.
    Invalid = 1,
    /// A named object (not a key) is missing.
    NotFound = 2,
    /// Somebody else won; read again, then retry.
    Conflict = 3,
    /// The caller or the callee has an old configuration; fetch it, then retry.
    StaleEpoch = 4,
    /// Too much work at once; back off, then retry.
    Busy = 5,
    /// Not enough replicas, or the store cannot be reached; retry later.
    Unavailable = 6,
    /// This copy is damaged; use another and repair this one.
    Corrupt = 7,
    /// Shutting down or closed.
    Closed = 8,
    /// The deadline passed; for writes the outcome is unknown.
    Deadline = 9,
    /// A bug.
    Internal = 10,
}

impl ErrorKind {
    /// Reads a kind from its wire number; unknown numbers are [`ErrorKind::Internal`].
    #[must_use]
    pub fn from_wire(number: u8) -> Self {
        match number {
            1 => Self::Invalid,
            2 => Self::NotFound,
            3 => Self::Conflict,
            4 => Self::StaleEpoch,
            5 => Self::Busy,
            6 => Self::Unavailable,
            7 => Self::Corrupt,
            8 => Self::Closed,
            9 => Self::Deadline,
            _ => Self::Internal,
        }
    }

    /// The kind's wire number.
    #[must_use]
    pub fn to_wire(self) -> u8 {
        self as u8
    }

    /// True where the same request may succeed later without being changed.
    #[must_use]
    pub fn retry(self) -> bool {
        matches!(
            self,
            Self::Conflict | Self::StaleEpoch | Self::Busy | Self::Unavailable | Self::Deadline
        )
    }
}

#[cfg(test)]
mod tests {
    use super::ErrorKind;

    #[test]
    fn every_wire_number_reads_back_and_unknown_ones_are_internal() {
        for number in 0..=255u8 {
            let kind = ErrorKind::from_wire(number);
            if (1..=10).contains(&number) {
                assert_eq!(kind.to_wire(), number);
            } else {
                assert_eq!(kind, ErrorKind::Internal);
            }
        }
    }
}
