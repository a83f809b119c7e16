//! One call: how long it takes, whether it fails, and whether it has its effect.
//!
//! Invariant: all chances of a call are drawn when it is made, so that what happens meanwhile does
//! not change what other calls draw.

use std::{io, sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use object_store::{Error, ObjectStoreExt, Result, memory::InMemory, path::Path};
use parking_lot::Mutex;
use tako_snapshot::fault::FaultStore;
use tokio::{sync::oneshot, time::sleep};

use super::{LATENCY, Shared};
use crate::chance::Chance;

/// A connection to a store that is away and says nothing breaks after this long.
const HANGS: Duration = Duration::from_secs(30);
/// The part of failures that look worth a retry, as broken connections do.
const RETRIED: f64 = 0.8;

/// Which incarnation of which process calls.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) store: Arc<Shared>,
    pub(super) process: String,
    pub(super) life: u64,
    /// `None`: nothing ever goes wrong, and nothing takes time.
    pub(super) chance: Option<Mutex<Chance>>,
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Served,
    /// Fails without effect.
    Before,
    /// Has its effect, but the answer is lost.
    After,
}

/// A call on its way.
pub(super) struct Call {
    caller: Arc<Caller>,
    op: &'static str,
    path: String,
    way: Duration,
    back: Duration,
    fate: Fate,
    retried: bool,
    /// Whether it arrives though nobody waits for it any more.
    orphan_arrives: bool,
    hangs: bool,
}

impl Caller {
    fn is_ended(&self) -> bool {
        self.store.state.lock().ended.contains(&(self.process.clone(), self.life))
    }

    fn is_away(&self) -> bool {
        let state = self.store.state.lock();
        state.away || state.cut_off.contains(&self.process)
    }

    /// Draws what becomes of a call; `None` for the sound view.
    pub(super) fn call(self: &Arc<Self>, op: &'static str, path: &str) -> Option<Call> {
        let (most, rate) = {
            let state = self.store.state.lock();
            (state.latency_max, state.error_rate)
        };
        let mut chance = self.chance.as_ref()?.lock();
        let took = chance.time(LATENCY.0, most.max(LATENCY.0));
        let part = chance.below(1001) as u32;
        let way = took * part / 1000;
        let fails = chance.yes(rate);
        let fate = match (fails, chance.yes(0.5)) {
            (false, _) => Fate::Served,
            (true, false) => Fate::Before,
            (true, true) => Fate::After,
        };
        Some(Call {
            caller: self.clone(),
            op,
            path: path.to_owned(),
            way,
            back: took - way,
            fate,
            retried: chance.yes(RETRIED),
            orphan_arrives: chance.yes(0.5),
            hangs: chance.yes(0.5),
        })
    }
}

impl Call {
    /// Sends a call that only reads.
    pub(super) async fn read<T>(self, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.arrive(|| false).await?;
        let answer = work.await;
        self.depart(answer).await
    }

    /// Sends a call that may change something: once sent it goes its way, with the caller or not.
    pub(super) async fn write<T: Send + 'static>(
        self,
        work: BoxFuture<'static, Result<T>>,
    ) -> Result<T> {
        let (answer, answered) = oneshot::channel();
        let caller = self.caller.clone();
        tokio::spawn(async move {
            let done = match self.arrive(|| answer.is_closed()).await {
                Ok(()) => {
                    let done = work.await;
                    self.depart(done).await
                }
                Err(error) => Err(error),
            };
            // Nobody waits for it where the caller has gone.
            drop(answer.send(done));
        });
        let answered = answered.await;
        if caller.is_ended() {
            return Err(broken("the process has ended", false));
        }
        answered.unwrap_or_else(|_| Err(broken("the simulation ends", false)))
    }

    fn end(&self, fate: &'static str) {
        let caller = format!("{} {}", self.caller.process, self.caller.life);
        self.caller.store.trace(&caller, self.op, &self.path, fate);
    }

    fn fail<T>(&self, fate: &'static str) -> Result<T> {
        self.caller.store.counts.add(fate);
        self.end(fate);
        Err(broken(fate, self.retried))
    }

    /// The way to the store, up to the call's effect.
    async fn arrive(&self, gave_up: impl Fn() -> bool) -> Result<()> {
        let caller = &self.caller;
        if caller.is_ended() {
            self.end("sent after the end");
            return Err(broken("the process has ended", false));
        }
        if LATENCY.1 < self.way + self.back {
            caller.store.counts.add("store call slow");
        }
        sleep(self.way).await;
        if caller.is_away() {
            if self.hangs {
                sleep(HANGS).await;
                return self.fail("store call hung");
            }
            return self.fail("store call refused");
        }
        if self.fate == Fate::Before {
            return self.fail("store call failed before its effect");
        }
        if caller.is_ended() || gave_up() {
            if !self.orphan_arrives {
                return self.fail("store call lost with its caller");
            }
            caller.store.counts.add("store call arrived after its caller");
        }
        Ok(())
    }

    /// The way back.
    async fn depart<T>(&self, answer: Result<T>) -> Result<T> {
        if self.fate == Fate::After {
            sleep(self.back).await;
            return self.fail("store call failed after its effect");
        }
        // Traced at the effect: the order of effects is what counts.
        self.end(if answer.is_ok() { "served" } else { "declined" });
        sleep(self.back).await;
        if self.caller.is_ended() {
            return Err(broken("the process has ended", false));
        }
        answer
    }
}

/// An error as of a broken connection; the engine tries again only where it is `retried`.
pub(super) fn broken(what: &'static str, retried: bool) -> Error {
    let plain = || Error::Generic { store: "simulated", source: io::Error::other(what).into() };
    if retried {
        return plain();
    }
    // The mark that stops retries is the engine's own; the store's fault injector sets it.
    let refusing = FaultStore::new(Arc::new(InMemory::new()));
    refusing.refuse_all();
    let refused = refusing.head(&Path::from(what)).now_or_never();
    refused.and_then(Result::err).unwrap_or_else(plain)
}
