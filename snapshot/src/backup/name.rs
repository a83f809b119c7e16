//! Names of backups: they become parts of object paths and of checkpoint names.

use std::fmt;

use super::BackupError;

const BYTES_MAX: usize = 64;
/// What names of backups' checkpoints begin with.
pub(crate) const CHECKPOINT: &str = "backup-";

/// 1 to 64 bytes of `a-z 0-9 . _ -`, beginning with a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackupName(String);

impl BackupName {
    /// Takes a name of that form.
    ///
    /// # Errors
    /// [`BackupError::Invalid`] for any other text.
    pub fn new(text: impl Into<String>) -> Result<Self, BackupError> {
        let text = text.into();
        let allowed =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
        let begins = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        if begins && text.len() <= BYTES_MAX && text.bytes().all(allowed) {
            return Ok(Self(text));
        }
        let shown: String = text.chars().take(BYTES_MAX).collect();
        Err(BackupError::Invalid(format!(
            "`{shown}` is no name of a backup: it takes 1 to {BYTES_MAX} of a-z, 0-9, `.`, `_` and \
             `-`, beginning with a letter or digit"
        )))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What its checkpoints are called.
    pub(super) fn checkpoint(&self) -> String {
        format!("{CHECKPOINT}{}", self.0)
    }

    /// Whether a checkpoint is called so for a backup.
    pub(super) fn is_of_checkpoint(name: &str) -> bool {
        name.starts_with(CHECKPOINT)
    }
}

impl fmt::Display for BackupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_short_and_of_few_letters() {
        for good in ["a", "before-upgrade", "1h-20261121t170000z", "0.1_x", &"x".repeat(64)] {
            let name = BackupName::new(good).expect(good);
            assert_eq!((name.as_str(), format!("{name:<70}").len()), (good, 70));
        }
        for bad in ["", ".", "..", "-x", "A", "a/b", "a b", "ü", &"x".repeat(65)] {
            let error = BackupName::new(bad).expect_err(bad);
            assert_eq!(error.kind(), tako_types::ErrorKind::Invalid, "{bad}");
        }
    }
}
