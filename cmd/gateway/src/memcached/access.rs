//! Who a memcached client is: SASL PLAIN in binary, a first `set` of `NAME TOKEN` in text, as memcached
//! itself has them. Without tokens at the gateway everybody is let in.

use std::sync::Arc;

use tako_types::Version;

use super::request::{Operation, Outcome, Reply};
use crate::access::{Access, Grant, Refusal, Scope};

/// The only mechanism of SASL there is here.
pub(super) const MECHANISM: &str = "PLAIN";

/// Longest name and token.
const LOGIN_BYTES_MAX: usize = 1 << 10;

/// What stands between one connection and the values.
pub(super) struct Door {
    access: Option<Arc<Access>>,
    grant: Option<Grant>,
}

impl Door {
    pub(super) fn new(access: Option<Arc<Access>>) -> Self {
        Self { access, grant: None }
    }

    /// Whether there is anything to log in for.
    pub(super) fn is_guarded(&self) -> bool {
        self.access.is_some()
    }

    /// Longest value that is received: until a client is known, no more than it needs to say who it is.
    pub(super) fn value_bytes_max(&self, usual: usize) -> usize {
        match self.is_guarded() && self.grant.is_none() {
            true => usual.min(LOGIN_BYTES_MAX),
            false => usual,
        }
    }

    /// Lets the client in by SASL PLAIN: whom it acts for, its name and its token, with zeros between.
    pub(super) fn log_in(&mut self, message: &[u8]) -> Outcome {
        let mut parts = message.splitn(3, |byte| *byte == 0).skip(1);
        let (name, secret) = (parts.next(), parts.next());
        self.enter(name.unwrap_or_default(), secret.unwrap_or_default())
    }

    /// What a request comes to without being made; `None` where it is to be made.
    pub(super) fn instead_of(
        &mut self,
        operations: &[Operation],
        reply: &Reply,
        now_micros: u64,
    ) -> Option<Outcome> {
        self.access.as_ref()?;
        match (self.grant.is_some(), reply, operations) {
            // A client's first words in text.
            (false, Reply::Text(_), [Operation::Put(write)]) => {
                let said = write.value.clone();
                let mut words = said.splitn(2, |byte| *byte == b' ');
                let (name, secret) = (words.next(), words.next());
                Some(self.enter(name.unwrap_or_default(), secret.unwrap_or_default()))
            }
            _ => self.refusal(now_micros, |grant| {
                operations.iter().try_for_each(|operation| may(grant, operation))
            }),
        }
    }

    /// The same for what concerns no key.
    pub(super) fn instead_of_all(&mut self, scope: Scope, now_micros: u64) -> Option<Outcome> {
        self.access.as_ref()?;
        self.refusal(now_micros, |grant| grant.may(scope))
    }

    fn enter(&mut self, name: &[u8], secret: &[u8]) -> Outcome {
        let name = std::str::from_utf8(name).ok();
        let access = self.access.as_ref();
        self.grant = name.and_then(|name| access?.enter(Some(name), secret));
        match self.grant.is_some() {
            true => Outcome::Written { version: Version::ZERO, record: None },
            false => Outcome::Denied("authentication failure".to_owned()),
        }
    }

    fn refusal(
        &mut self,
        now_micros: u64,
        check: impl Fn(&Grant) -> Result<(), Refusal>,
    ) -> Option<Outcome> {
        let Some(grant) = &mut self.grant else {
            return Some(Outcome::Denied("unauthenticated".to_owned()));
        };
        let refusal = grant.request(now_micros).and_then(|()| check(grant)).err()?;
        if refusal == Refusal::Unknown {
            self.grant = None;
        }
        Some(match refusal {
            Refusal::Rate(_) => Outcome::Failed(format!("busy: {refusal}")),
            _ => Outcome::Denied(refusal.to_string()),
        })
    }
}

fn may(grant: &Grant, operation: &Operation) -> Result<(), Refusal> {
    let stored = operation.key();
    let key = stored.key();
    let writes = !operation.is_read();
    let reads = match operation {
        Operation::Get(_) => true,
        Operation::Put(_) => false,
        Operation::Change(change) => change.edit().tells(),
    };
    if writes {
        grant.may_touch(Scope::Write, key.bytes())?;
    }
    if reads {
        grant.may_touch(Scope::Read, key.bytes())?;
    }
    Ok(())
}
