//! Who may do what: tokens with scopes, key prefixes and rates, for HTTP and memcached alike.
//!
//! ```text
//! tokens.rs   the file of tokens, read and checked
//! rate.rs     how many requests a token may make
//! ```
//! Invariants: a token is compared by its SHA-256 and kept nowhere else; what no scope names is
//! refused. Not here: how a client says its token (`http/access.rs`, `memcached/access.rs`).

mod rate;
#[cfg(test)]
mod tests;
mod tokens;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::RwLock;
pub use tokens::{Scope, TokensError, digest_of};

use self::tokens::{Token, Tokens};

/// The tokens in force.
pub struct Access {
    path: PathBuf,
    tokens: RwLock<Arc<Tokens>>,
    /// Grows with each reload: who was let in before is looked up again.
    generation: AtomicU64,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Somebody who showed a token; for as long as the connection, or the request.
#[derive(Clone)]
pub(crate) struct Grant {
    access: Arc<Access>,
    token: Arc<Token>,
    generation: u64,
}

/// Why a request is not made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The token is not known, or no longer.
    Unknown,
    /// It may not do this.
    Scope(Scope),
    /// It may not touch this key.
    Key,
    /// It makes too many requests; again after so long.
    Rate(Duration),
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unknown => f.write_str("the token is not known here"),
            Self::Scope(scope) => write!(f, "the token lacks the scope `{}`", scope.as_str()),
            Self::Key => f.write_str("the token is for other keys"),
            Self::Rate(_) => f.write_str("the token makes more requests than it may"),
        }
    }
}

impl Access {
    /// Reads a file of tokens.
    ///
    /// # Errors
    /// [`TokensError`], with the token and what is wrong with it.
    pub fn open(path: &Path) -> Result<Arc<Self>, TokensError> {
        let tokens = RwLock::new(Arc::new(Tokens::read(path)?));
        Ok(Arc::new(Self { path: path.to_owned(), tokens, generation: AtomicU64::new(0) }))
    }

    /// Whether that text could be a file of tokens.
    ///
    /// # Errors
    /// In words why not.
    pub fn check(text: &str) -> Result<(), String> {
        Tokens::parse(text).map(drop)
    }

    /// Reads the file again; connections that are open are judged by it from their next request on.
    ///
    /// # Errors
    /// As [`Access::open`]; the tokens that were in force stay so.
    pub fn reload(&self) -> Result<(), TokensError> {
        let tokens = Tokens::read(&self.path)?;
        let mut current = self.tokens.write();
        let tokens = tokens.with_rates_of(&current);
        *current = Arc::new(tokens);
        self.generation.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// The file that is read.
    pub fn file(&self) -> &Path {
        &self.path
    }

    /// Lets whoever knows `secret` in; where a `name` is said, it must be the token's.
    pub(crate) fn enter(self: &Arc<Self>, name: Option<&str>, secret: &[u8]) -> Option<Grant> {
        let generation = self.generation.load(Ordering::Acquire);
        let token = self.tokens.read().by_digest(&digest_of(secret))?;
        let fits = name.is_none_or(|name| name == token.name);
        fits.then(|| Grant { access: self.clone(), token, generation })
    }
}

impl Grant {
    /// Whether the token is still in force, and within its rate; counts the request.
    pub(crate) fn request(&mut self, now_micros: u64) -> Result<(), Refusal> {
        let generation = self.access.generation.load(Ordering::Acquire);
        if generation != self.generation {
            let known = self.access.tokens.read().by_digest(&self.token.digest);
            self.token = known.ok_or(Refusal::Unknown)?;
            self.generation = generation;
        }
        self.token.count(now_micros).map_err(Refusal::Rate)
    }

    /// Whether it may do what needs `scope`.
    pub(crate) fn may(&self, scope: Scope) -> Result<(), Refusal> {
        match self.token.has(scope) {
            true => Ok(()),
            false => Err(Refusal::Scope(scope)),
        }
    }

    /// Whether it may do that to this key.
    pub(crate) fn may_touch(&self, scope: Scope, key: &[u8]) -> Result<(), Refusal> {
        self.may(scope)?;
        match self.token.covers(key) {
            true => Ok(()),
            false => Err(Refusal::Key),
        }
    }

    /// Whether it may see all keys that begin so.
    pub(crate) fn may_list(&self, prefix: &[u8]) -> Result<(), Refusal> {
        self.may_touch(Scope::Read, prefix)
    }
}
