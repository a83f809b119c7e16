//! The file of tokens.
//!
//! ```yaml
//! shop:                         # its name: in logs, and as the user of memcached
//!   sha256: 9f86d081884c7d65…   # of the token
//!   scopes: [read, write]
//!   prefixes: [cart/, user/]    # the keys it is for; all without
//!   rate: 5000                  # requests a second at one process; any without
//! ```
//! The token itself stands nowhere, so the file gives nobody access. A token has so much chance in it
//! that it needs no slow hash.

use std::{collections::HashMap, io, path::Path, sync::Arc, time::Duration};

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::rate::Rate;

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Read values, and list keys.
    Read,
    /// Write and delete values.
    Write,
    /// See how the process and the cluster are: `/cluster`, `/metrics`, `/events`, `stats`.
    Monitor,
    /// All of that with every key, and `flush_all`.
    Admin,
}

impl Scope {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Monitor => "monitor",
            Self::Admin => "admin",
        }
    }
}

/// Why the tokens cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokensError {
    /// The file cannot be read.
    #[error("cannot read the tokens in {path}: {source}")]
    File {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// It holds something else.
    #[error("{path}: {reason}")]
    Content {
        /// Which.
        path: String,
        /// What is wrong.
        reason: String,
    },
}

/// A token as the file has it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    sha256: String,
    scopes: Vec<Scope>,
    prefixes: Option<Vec<String>>,
    rate: Option<u32>,
}

/// One token.
#[derive(Debug)]
pub(super) struct Token {
    pub(super) name: String,
    pub(super) digest: [u8; 32],
    scopes: Vec<Scope>,
    /// All keys without.
    prefixes: Option<Vec<Vec<u8>>>,
    rate: Option<Rate>,
}

/// SHA-256 of a token.
#[must_use]
pub fn digest_of(secret: &[u8]) -> [u8; 32] {
    Sha256::digest(secret).into()
}

impl Token {
    pub(super) fn has(&self, scope: Scope) -> bool {
        self.scopes.iter().any(|had| *had == scope || *had == Scope::Admin)
    }

    pub(super) fn covers(&self, key: &[u8]) -> bool {
        let prefixes = self.prefixes.as_ref();
        prefixes.is_none_or(|all| all.iter().any(|prefix| key.starts_with(prefix)))
    }

    pub(super) fn count(&self, now_micros: u64) -> Result<(), Duration> {
        self.rate.as_ref().map_or(Ok(()), |rate| rate.take(now_micros))
    }
}

/// All tokens of a file.
#[derive(Debug)]
pub(super) struct Tokens(HashMap<[u8; 32], Arc<Token>>);

impl Tokens {
    pub(super) fn read(path: &Path) -> Result<Self, TokensError> {
        let shown = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => {
                Self::parse(&text).map_err(|reason| TokensError::Content { path: shown, reason })
            }
            Err(source) => Err(TokensError::File { path: shown, source }),
        }
    }

    /// # Errors
    /// In words, with the token's name.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        // Unlike a map of Rust's, it refuses a name that is there twice.
        let all: serde_yaml::Mapping = serde_yaml::from_str(text).map_err(|error| {
            format!("{error}; a token is written as NAME: {{sha256: …, scopes: [read, write]}}")
        })?;
        let mut tokens = HashMap::new();
        for (name, written) in all {
            let name: String = serde_yaml::from_value(name)
                .map_err(|error| format!("the name of a token: {error}"))?;
            let written: Written =
                serde_yaml::from_value(written).map_err(|error| format!("{name}: {error}"))?;
            let token = written.checked(&name).map_err(|reason| format!("{name}: {reason}"))?;
            if let Some(twin) = tokens.insert(token.digest, Arc::new(token)) {
                return Err(format!("{name} and {} are the same token", twin.name));
            }
        }
        match tokens.is_empty() {
            true => Err("there is no token in it, so nobody could enter".to_owned()),
            false => Ok(Self(tokens)),
        }
    }

    pub(super) fn by_digest(&self, digest: &[u8; 32]) -> Option<Arc<Token>> {
        self.0.get(digest).cloned()
    }

    /// These, with what `old` has counted for the same tokens: a reload is no new burst.
    pub(super) fn with_rates_of(self, old: &Self) -> Self {
        let continued = |(digest, token): ([u8; 32], Arc<Token>)| {
            let before = old.0.get(&digest).and_then(|old| old.rate.as_ref());
            // Made just now, nobody else has it.
            let token = match (Arc::try_unwrap(token), before) {
                (Ok(mut token), Some(before)) => {
                    token.rate = token.rate.map(|rate| rate.continued(before));
                    Arc::new(token)
                }
                (Ok(token), None) => Arc::new(token),
                (Err(shared), _) => shared,
            };
            (digest, token)
        };
        Self(self.0.into_iter().map(continued).collect())
    }
}

impl Written {
    fn checked(self, name: &str) -> Result<Token, String> {
        let digest = hexadecimal(&self.sha256).ok_or_else(|| {
            format!(
                "sha256 is no SHA-256 in 64 hexadecimal digits but {} characters; `tako token` \
                 makes one",
                self.sha256.chars().count()
            )
        })?;
        if name.is_empty() || !name.chars().all(|it| it.is_ascii_graphic() && it != ':') {
            return Err("a name is of printable letters, without spaces and colons".to_owned());
        }
        if self.scopes.is_empty() {
            return Err("scopes: name what it may do: read, write, monitor, admin".to_owned());
        }
        if self.scopes.contains(&Scope::Admin) && self.prefixes.is_some() {
            return Err("prefixes: an admin is for every key; give read and write".to_owned());
        }
        if self.prefixes.as_ref().is_some_and(Vec::is_empty) {
            return Err("prefixes: leave it out where the token is for all keys".to_owned());
        }
        if self.rate == Some(0) {
            return Err("rate: at least 1 request a second; leave it out for any".to_owned());
        }
        Ok(Token {
            name: name.to_owned(),
            digest,
            scopes: self.scopes,
            prefixes: self.prefixes.map(|all| all.into_iter().map(String::into_bytes).collect()),
            rate: self.rate.map(Rate::new),
        })
    }
}

fn hexadecimal(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> = text
        .bytes()
        .map(|byte| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()?;
    let bytes: Vec<u8> =
        digits.chunks(2).map(|pair| pair.iter().fold(0, |all, d| all << 4 | d)).collect();
    (digits.len() == 64).then(|| bytes.try_into().ok()).flatten()
}
