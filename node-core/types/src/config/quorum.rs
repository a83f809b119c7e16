//! How many answers a request needs.
//!
//! Invariant: 1 ≤ r ≤ n and 1 ≤ w ≤ n. Not here: counting answers.

use super::Consistency;
use crate::ErrorKind;

/// N, R and W of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quorum {
    /// Replicas.
    pub n: usize,
    /// Replicas that must acknowledge a write.
    pub w: usize,
    /// Replicas that must answer a read.
    pub r: usize,
}

/// A number of replicas that cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}={asked} is not in 1..={n}, the number of replicas")]
pub struct QuorumError {
    /// `r` or `w`.
    pub name: &'static str,
    /// What was asked for.
    pub asked: usize,
    /// Replicas.
    pub n: usize,
}

impl QuorumError {
    /// Always [`ErrorKind::Invalid`].
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

impl Quorum {
    /// The numbers of a consistency level for `n` replicas (at least 1).
    #[must_use]
    pub fn of(consistency: Consistency, n: usize) -> Self {
        let n = n.max(1);
        match consistency {
            Consistency::Quorum => {
                let w = n / 2 + 1;
                Self { n, w, r: n - w + 1 }
            }
            Consistency::One => Self { n, w: 1, r: 1 },
            Consistency::All => Self { n, w: n, r: 1 },
        }
    }

    /// The same with what a single request asks for; `None` keeps the level's own number.
    ///
    /// # Errors
    /// [`QuorumError`] when a number is 0 or above `n`.
    pub fn with(self, r: Option<usize>, w: Option<usize>) -> Result<Self, QuorumError> {
        let n = self.n;
        let check = |name, asked: Option<usize>, default| match asked {
            Some(asked) if asked == 0 || n < asked => Err(QuorumError { name, asked, n }),
            asked => Ok(asked.unwrap_or(default)),
        };
        Ok(Self { n, r: check("r", r, self.r)?, w: check("w", w, self.w)? })
    }

    /// Replicas that must be asked so that each acknowledged write is met at least once.
    #[must_use]
    pub fn covering(self) -> usize {
        self.n - self.w + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_levels_give_the_numbers_of_the_design() {
        let of = |consistency, n| {
            let quorum = Quorum::of(consistency, n);
            (quorum.w, quorum.r)
        };
        assert_eq!(
            (1..=5).map(|n| of(Consistency::Quorum, n)).collect::<Vec<_>>(),
            [(1, 1), (2, 1), (2, 2), (3, 2), (3, 3)]
        );
        assert_eq!(of(Consistency::One, 4), (1, 1));
        assert_eq!(of(Consistency::All, 4), (4, 1));
    }

    #[test]
    fn a_request_may_ask_for_what_there_is_and_no_more() {
        let quorum = Quorum::of(Consistency::Quorum, 3);
        assert_eq!(quorum.with(Some(3), Some(1)), Ok(Quorum { n: 3, w: 1, r: 3 }));
        assert_eq!(quorum.with(None, None), Ok(quorum));
        assert!(quorum.with(Some(0), None).is_err());
        let error = quorum.with(None, Some(4)).expect_err("too many");
        assert_eq!(error.to_string(), "w=4 is not in 1..=3, the number of replicas");
    }
}
