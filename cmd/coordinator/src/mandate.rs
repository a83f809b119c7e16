//! Whether the file that is there still says what is to be done, or is older than what is in force.
//!
//! Rule: a text counts from when it is first seen, as a change of the file or as an order over HTTP,
//! until another coordinator has its way: from then on what is in force goes on, until the text
//! changes. Who had his way stands in no document, but follows from the masters that they name: who
//! is master publishes the next one, and anybody else only by making himself the master, at the
//! latest in a migration (`decide.rs`). So a chain of documents that all name this coordinator is its
//! own, and another one where it tried to take over and saw no answer; what it tried is noted
//! beforehand. Kept beside the documents, so that a restart neither takes an old file nor forgets an
//! order; where that is lost, the file is a new one. Without a store there is nobody else.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tako_types::{Epoch, config::Published};

use crate::{ConfigStore, StoreError, decide::Numbering};

/// Documents between two that are looked at; whoever was away for more goes by what is in force.
const WALK_MAX: u64 = 64;
/// Tries to take over that are remembered; each needs a document in force that came in between, or
/// another order.
const TRIES_MAX: usize = 16;

/// See the module.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Mandate {
    /// SHA-256 of the file's text.
    text: [u8; 32],
    /// Documents with which it made this coordinator the master, or tried to.
    tried: Vec<Epoch>,
    /// Another coordinator has had its way since.
    is_over: bool,
    /// That of the file which an order is replacing, which may have to come back.
    former: Option<Box<Self>>,
}

impl Mandate {
    /// Of a text that was not there before.
    pub(crate) fn of(text: &str) -> Self {
        Self { text: sha256(text), tried: Vec::new(), is_over: false, former: None }
    }

    /// Of a text that was not there before; what was tried before it may be in force yet.
    pub(crate) fn renewed(&self, text: &str) -> Self {
        Self { tried: self.tried.clone(), ..Self::of(text) }
    }

    /// The same, while it is not settled yet that the order stays in the place of the file before.
    pub(crate) fn in_place_of(self, former: &Self) -> Self {
        Self { former: Some(Box::new(Self { former: None, ..former.clone() })), ..self }
    }

    /// The same once that is settled, where it was not.
    pub(crate) fn settled(&self) -> Option<Self> {
        self.former.is_some().then(|| Self { former: None, ..self.clone() })
    }

    /// How far this text counts, this one's or that of the file before.
    pub(crate) fn of_either(self, text: &str) -> Option<Self> {
        if self.is_for(text) {
            return Some(self);
        }
        self.former.map(|former| *former).filter(|former| former.is_for(text))
    }

    pub(crate) fn is_for(&self, text: &str) -> bool {
        self.text == sha256(text)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    /// The same once another coordinator has had its way.
    pub(crate) fn ended(&self) -> Self {
        Self { is_over: true, ..self.clone() }
    }

    /// The same with a try to take over.
    pub(crate) fn trying(&self, document: Epoch) -> Self {
        let mut tried = self.tried.clone();
        if !tried.contains(&document) {
            tried.push(document);
        }
        let surplus = tried.len().saturating_sub(TRIES_MAX);
        tried.drain(..surplus);
        Self { tried, ..self.clone() }
    }

    /// Whether it still counts under `newest`, where it did under `known`.
    pub(crate) async fn reaches(
        &self,
        store: &dyn ConfigStore,
        numbering: Numbering<'_>,
        (known, newest): (&Published, &Published),
    ) -> Result<bool, StoreError> {
        if newest.epoch == known.epoch {
            return Ok(!self.is_over);
        }
        let (first, last) = (known.epoch.number.saturating_add(1), newest.epoch.number);
        let is_mine = |document: &Published| numbering.other_master(&document.config).is_none();
        // Most documents are others', which needs no look at those in between.
        let is_others = self.tried.is_empty() && !(is_mine(known) && is_mine(newest));
        if self.is_over || is_others || WALK_MAX < last.saturating_sub(first) {
            return Ok(false);
        }
        let mut before = known.clone();
        for number in first..last {
            // Numbers may be left out.
            let Some(bytes) = store.document(number).await? else { continue };
            let Ok(next) = Published::decode(&bytes) else { return Ok(false) };
            if !self.is_next(numbering, &before, &next) {
                return Ok(false);
            }
            before = next;
        }
        Ok(self.is_next(numbering, &before, newest))
    }

    /// Whether a document is this coordinator's own, where the one before it counted.
    fn is_next(&self, numbering: Numbering<'_>, before: &Published, next: &Published) -> bool {
        let is_mine = |document: &Published| numbering.other_master(&document.config).is_none();
        self.tried.contains(&next.epoch) || is_mine(before) && is_mine(next)
    }

    /// As JSON.
    pub(crate) fn encode(&self) -> Vec<u8> {
        self.value().to_string().into_bytes()
    }

    fn value(&self) -> Value {
        let Self { text, tried, is_over, former } = self;
        let former = former.as_ref().map(|former| former.value());
        json!({ "text": text, "tried": tried, "is_over": is_over, "former": former })
    }

    /// What [`Self::encode`] wrote; nothing where it makes no sense.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        Self::of_value(serde_json::from_slice(bytes).ok()?)
    }

    fn of_value(mut value: Value) -> Option<Self> {
        let former = match value.get_mut("former").map(Value::take) {
            None | Some(Value::Null) => None,
            Some(former) => Some(Box::new(Self::of_value(former)?)),
        };
        let mut take = |name: &str| value.get_mut(name).map(Value::take);
        Some(Self {
            text: serde_json::from_value(take("text")?).ok()?,
            tried: serde_json::from_value(take("tried")?).ok()?,
            is_over: take("is_over")?.as_bool()?,
            former,
        })
    }
}

fn sha256(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}

#[cfg(test)]
mod tests;
