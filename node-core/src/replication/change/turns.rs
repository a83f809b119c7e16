//! Whose turn it is to change a key: first come, first served, within this process.
//!
//! Invariant: a key has a queue only while somebody waits in it or has the turn.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tako_types::StoredKey;
use tokio::sync::{Mutex as Queue, OwnedMutexGuard};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<HashMap<StoredKey, Arc<Queue<()>>>>);

/// The turn of a key; it ends when dropped.
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    key: StoredKey,
    place: Place,
}

/// A place in a queue: waiting, or with the turn.
struct Place {
    queue: Arc<Queue<()>>,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Turns {
    /// Waits for the key's turn. Cancel-safe: who gives up leaves the queue.
    pub(super) async fn of(&self, key: &StoredKey) -> Turn<'_> {
        let queue = self.0.lock().entry(key.clone()).or_default().clone();
        let mut turn = Turn { turns: self, key: key.clone(), place: Place { queue, guard: None } };
        turn.place.guard = Some(turn.place.queue.clone().lock_owned().await);
        turn
    }

    #[cfg(test)]
    fn queues(&self) -> usize {
        self.0.lock().len()
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut queues = self.turns.0.lock();
        self.place.guard = None;
        // Nobody else can take it from the map meanwhile: two are the map's and this one.
        if Arc::strong_count(&self.place.queue) == 2 {
            queues.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::FutureExt;
    use tako_types::Key;

    use super::*;

    #[test]
    fn changes_of_a_key_wait_for_each_other_in_their_order_and_leave_nothing() {
        let turns = Turns::default();
        let key = |text: &'static [u8]| {
            Key::new(0, Bytes::from_static(text)).expect("a short key").stored()
        };
        let (a, b) = (key(b"a"), key(b"b"));
        let first = turns.of(&a).now_or_never().expect("nobody else");
        let _other = turns.of(&b).now_or_never().expect("another key");
        let (mut second, mut third) = (Box::pin(turns.of(&a)), Box::pin(turns.of(&a)));
        assert!(
            second.as_mut().now_or_never().is_none() && third.as_mut().now_or_never().is_none()
        );
        drop(first);
        assert!(third.as_mut().now_or_never().is_none(), "it came after the second");
        drop(second);
        let third = third.now_or_never().expect("the second gave up");
        assert_eq!(turns.queues(), 2);
        drop(third);
        assert_eq!(turns.queues(), 1, "nobody waits for a");
    }
}
