//! What a change writes: the record as it is, or what is there, edited with it.
//!
//! Pure; what `/store` does to siblings: `siblings.rs`. What an edit keeps of the value there is: flags and content type, and its time of expiry
//! unless that is what is edited.

use bytes::{Bytes, BytesMut};
use tako_flatbuf::{ChangeOutcome, Edit, Misfit, Record, RecordHead, Siblings, StoreOrder};
use tako_types::{Kind, Version};

use super::{Change, siblings};

/// Why nothing is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The condition does not hold where this is there.
    Differs(Option<Version>),
    Misfit(Misfit),
}

impl From<Refusal> for ChangeOutcome {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Differs(version) => Self::Fails { version },
            Refusal::Misfit(misfit) => Self::Cannot(misfit),
        }
    }
}

/// Digits of the greatest number.
const DIGITS_MAX: usize = 20;

impl Change {
    /// What to write, of this version, where there is `live` or no value; else why nothing is written.
    pub(super) fn record(
        &self,
        live: Option<&Record>,
        version: Version,
        value_bytes_max: usize,
    ) -> Result<Record, Refusal> {
        let there = live.map(Record::version);
        if !self.condition.holds(there) {
            return Err(Refusal::Differs(there));
        }
        if self.edit == Edit::Store {
            return self.stored(live, version, value_bytes_max).map_err(Refusal::Misfit);
        }
        let Some((live, value)) = live.and_then(|live| Some((live, self.value(live)?))) else {
            let head = RecordHead { version, ..*self.template.head() };
            return Ok(self.encode(&self.template, head, &self.template.value()));
        };
        let value = value.map_err(Refusal::Misfit)?;
        if value_bytes_max < value.len() {
            return Err(Refusal::Misfit(Misfit::TooLong));
        }
        let expires_at_micros = match self.edit {
            Edit::Touch => self.template.head().expires_at_micros,
            _ => live.head().expires_at_micros,
        };
        Ok(self.encode(live, RecordHead { version, expires_at_micros, ..*live.head() }, &value))
    }

    /// The siblings there, changed as the template's value says.
    fn stored(
        &self,
        live: Option<&Record>,
        version: Version,
        value_bytes_max: usize,
    ) -> Result<Record, Misfit> {
        let order = StoreOrder::decode(&self.template.value()).map_err(|_| Misfit::NoNumber)?;
        let there = match live.map(|live| Siblings::decode(&live.value())) {
            None => Siblings::default(),
            Some(there) => there.map_err(|_| Misfit::NoNumber)?,
        };
        let value = siblings::changed(there, order, version, value_bytes_max)?;
        let kind = if value.is_some() { Kind::Value } else { Kind::Tombstone };
        let head = RecordHead { version, kind, expires_at_micros: 0, flags: 0 };
        Ok(self.encode(&self.template, head, &value.unwrap_or_default()))
    }

    fn encode(&self, like: &Record, head: RecordHead, value: &[u8]) -> Record {
        Record::encode(&self.template.key(), head, like.content_type(), value)
    }

    /// What becomes of the value that is there; `None` where it is written over.
    fn value(&self, live: &Record) -> Option<Result<Bytes, Misfit>> {
        let (there, ours) = (live.value(), self.template.value());
        Some(match self.edit {
            Edit::Write => return None,
            Edit::Append => Ok(joined(&there, &ours)),
            Edit::Prepend => Ok(joined(&ours, &there)),
            Edit::Add(amount) => number(&there).map(|it| text(it.wrapping_add(amount))),
            Edit::Subtract(amount) => number(&there).map(|it| text(it.saturating_sub(amount))),
            Edit::Touch => Ok(there),
            Edit::Store => return None,
        })
    }
}

fn joined(first: &[u8], second: &[u8]) -> Bytes {
    let mut all = BytesMut::with_capacity(first.len() + second.len());
    all.extend_from_slice(first);
    all.extend_from_slice(second);
    all.freeze()
}

/// Digits, and spaces behind them: memcached itself leaves some where a number got shorter.
fn number(value: &[u8]) -> Result<u64, Misfit> {
    let digits = value.trim_ascii_end();
    let is_number =
        (1..=DIGITS_MAX).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(digits).ok().filter(|_| is_number);
    text.and_then(|text| text.parse().ok()).ok_or(Misfit::NoNumber)
}

fn text(number: u64) -> Bytes {
    Bytes::from(number.to_string())
}

#[cfg(test)]
mod tests {
    use tako_flatbuf::Condition;
    use tako_types::Key;

    use super::*;

    const LIVE: RecordHead = RecordHead {
        version: Version { micros: 5, origin: 1 },
        kind: Kind::Value,
        expires_at_micros: 77,
        flags: 3,
    };
    const NEXT: Version = Version { micros: 9, origin: 2 };
    const LIMIT: usize = 8;

    fn record(head: RecordHead, content_type: Option<&str>, value: &[u8]) -> Record {
        let key = Key::new(0, Bytes::from_static(b"k")).expect("short").stored();
        Record::encode(&key, head, content_type, value)
    }

    fn edited(there: Option<&[u8]>, edit: Edit, with: &[u8]) -> Result<Record, Refusal> {
        let template =
            RecordHead { version: Version::ZERO, expires_at_micros: 99, flags: 4, ..LIVE };
        let any = Condition::NoneOf(Vec::new());
        let change = Change::new(any, record(template, None, with)).edited(edit);
        let live = there.map(|value| record(LIVE, Some("a/b"), value));
        change.record(live.as_ref(), NEXT, LIMIT)
    }

    fn value(there: &[u8], edit: Edit, with: &[u8]) -> Result<Bytes, Refusal> {
        edited(Some(there), edit, with).map(|record| record.value())
    }

    #[test]
    fn an_edit_keeps_what_it_does_not_edit() {
        let (append, touch) = (Edit::Append, Edit::Touch);
        for (edit, value, expires) in [(append, "oldnew", 77), (touch, "old", 99)] {
            let made = edited(Some(b"old"), edit, b"new").expect("short enough");
            assert_eq!(made.value(), value.as_bytes());
            let head = RecordHead { version: NEXT, expires_at_micros: expires, ..LIVE };
            assert_eq!((*made.head(), made.content_type()), (head, Some("a/b")));
        }
        for edit in [Edit::Write, append, Edit::Add(1), touch] {
            let there = (edit == Edit::Write).then_some(b"old".as_slice());
            let made = edited(there, edit, b"new").expect("short enough");
            assert_eq!((made.value().as_ref(), made.version()), (b"new".as_slice(), NEXT));
            assert_eq!((made.head().flags, made.head().expires_at_micros), (4, 99));
        }
    }

    #[test]
    fn values_are_joined_up_to_the_limit() {
        assert_eq!(value(b"abc", Edit::Append, b"12345"), Ok(Bytes::from_static(b"abc12345")));
        assert_eq!(value(b"abc", Edit::Prepend, b"12345"), Ok(Bytes::from_static(b"12345abc")));
        for edit in [Edit::Append, Edit::Prepend] {
            let long = Refusal::Misfit(Misfit::TooLong);
            assert_eq!(value(b"abcd", edit, b"12345"), Err(long));
        }
    }

    #[test]
    fn numbers_wrap_upwards_and_stop_at_zero() {
        let go = |there: &[u8], edit| value(there, edit, b"").map(|it| it.to_vec());
        assert_eq!(go(b"9", Edit::Add(1)), Ok(b"10".to_vec()));
        assert_eq!(go(b"10 ", Edit::Subtract(1)), Ok(b"9".to_vec()));
        assert_eq!(go(b"3", Edit::Subtract(4)), Ok(b"0".to_vec()));
        let change = |there: &str, edit| {
            let change = Change::new(Condition::Present, record(LIVE, None, b"")).edited(edit);
            let live = record(LIVE, None, there.as_bytes());
            change.record(Some(&live), NEXT, 1 << 20).map(|it| it.value().to_vec())
        };
        assert_eq!(change("18446744073709551615", Edit::Add(2)), Ok(b"1".to_vec()));
        for there in ["", " ", "-1", "+1", "1.5", "1a", " 1", "18446744073709551616", "\u{661}"] {
            let no = Err(Refusal::Misfit(Misfit::NoNumber));
            assert_eq!(change(there, Edit::Add(1)), no, "{there:?}");
        }
    }
}
