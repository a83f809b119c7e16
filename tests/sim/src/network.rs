//! A simulated network: late, lost, doubled and reordered frames, cuts, resets, crashed hosts.
//!
//! ```text
//! HostNetwork (one life of one host) ─► end ─► way: frames on their way ─► end
//!                                               ▲ fates from the seed, cuts, crashes
//! ```
//! A message is one RPC frame: the network reads the length before each and nothing else. Streams
//! whose lengths make no sense (HTTP) are as TCP makes them: late or reset, and after bytes that
//! vanished in a cut nothing more arrives. Invariants: all that happens comes from the
//! seed and from what the world switches, time is tokio's alone, and a life that was ended by a
//! crash has no effect any more. Make it inside a runtime whose time is paused from the start.
//!
//! Calls: tako-flatbuf's traits. Does not know what frames mean or which faults a run should have.

mod end;
mod faults;
mod state;
#[cfg(test)]
mod tests;
mod trace;
mod traffic;
mod way;

use std::{io, pin::pin, sync::Arc, time::Duration};

use async_trait::async_trait;
use parking_lot::Mutex;
use tako_flatbuf::{BoxStream, Listener, Network};
use tokio::{
    sync::{Notify, mpsc},
    time::{sleep, timeout},
};

use crate::{chance::Chance, counts::FaultCounts};
use end::End;
use state::{Life, Listening, State};

pub use faults::{CutKind, LinkFaults};
pub use trace::TraceLine;

/// Streams that wait to be accepted at one address.
const BACKLOG: usize = 128;

/// First pause before a lost opening packet is sent again; doubles, as in TCP.
const OPEN_AGAIN: Duration = Duration::from_secs(1);

/// A stream to be accepted, and the host it comes from.
type Accepted = (BoxStream, String);

struct Shared {
    state: Mutex<State>,
    /// Woken when who waits to connect should look again.
    changed: Notify,
}

/// The network as the world sees it: where faults are switched. Clones are the same network.
#[derive(Clone)]
pub struct SimNetwork(Arc<Shared>);

impl std::fmt::Debug for SimNetwork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimNetwork").finish_non_exhaustive()
    }
}

impl SimNetwork {
    /// A network without faults yet; faults are drawn from `chance` and counted in `counts`.
    #[must_use]
    pub fn new(chance: &Chance, counts: &FaultCounts) -> Self {
        let state = State::new(chance.part("network"), counts.clone());
        Self(Arc::new(Shared { state: Mutex::new(state), changed: Notify::new() }))
    }

    /// The network as one life of `host` sees it; without effect once that life has crashed.
    #[must_use]
    pub fn as_host(&self, host: &str, incarnation: u64) -> HostNetwork {
        let life = Life { host: Arc::from(host), incarnation };
        self.0.state.lock().see(&life);
        HostNetwork { shared: Arc::clone(&self.0), life }
    }

    /// Sets what happens to frames between any two hosts that have no faults of their own.
    pub fn set_faults(&self, faults: LinkFaults) {
        self.0.state.lock().usual = faults;
    }

    /// Sets, or with `None` takes back, what happens to frames from `from` to `to`.
    pub fn set_link_faults(&self, from: &str, to: &str, faults: Option<LinkFaults>) {
        let pair = (Arc::from(from), Arc::from(to));
        let mut state = self.0.state.lock();
        match faults {
            Some(faults) => state.links.insert(pair, faults),
            None => state.links.remove(&pair),
        };
    }

    /// After how long connecting fails with `TimedOut`; with `None`, as at first, it may hang until
    /// a cut is healed.
    pub fn set_connect_max(&self, connect_max: Option<Duration>) {
        self.0.state.lock().connect_max = connect_max;
    }

    /// Cuts one direction.
    pub fn cut(&self, from: &str, to: &str, kind: CutKind) {
        self.set_cuts(vec![(from.into(), to.into())], Some(kind));
    }

    /// Cuts both directions.
    pub fn cut_both(&self, a: &str, b: &str, kind: CutKind) {
        self.cut(a, b, kind);
        self.cut(b, a, kind);
    }

    /// Ends a cut of one direction; frames that stalled go on.
    pub fn heal(&self, from: &str, to: &str) {
        self.set_cuts(vec![(from.into(), to.into())], None);
    }

    /// Ends cuts of both directions.
    pub fn heal_both(&self, a: &str, b: &str) {
        self.heal(a, b);
        self.heal(b, a);
    }

    /// Ends every cut and every refusal; rates stay.
    pub fn heal_all(&self) {
        let cuts = self.0.state.lock().cuts();
        self.set_cuts(cuts, None);
        self.0.state.lock().refusing.clear();
    }

    fn set_cuts(&self, pairs: Vec<state::Pair>, kind: Option<CutKind>) {
        self.0.change(|state, wakers| {
            for pair in pairs {
                state.set_cut(pair, kind, wakers);
            }
        });
        self.0.changed.notify_waiters();
    }

    /// While `refuse` is true, new streams to `host` are refused.
    pub fn set_refusing(&self, host: &str, refuse: bool) {
        let mut state = self.0.state.lock();
        if refuse {
            state.refusing.insert(Arc::from(host));
        } else {
            state.refusing.remove(host);
        }
    }

    /// Resets every open connection between two hosts.
    pub fn reset_between(&self, a: &str, b: &str) {
        self.0.change(|state, wakers| {
            state.reset_where(wakers, |[from, to]| {
                (**from == *a && **to == *b) || (**from == *b && **to == *a)
            });
        });
    }

    /// Ends every life of `host` so far: its listeners are gone, other hosts see their connections
    /// to it reset (once no cut lies between), and nothing it still does has an effect.
    ///
    /// A life with a new incarnation may listen at the same addresses at once.
    pub fn crash(&self, host: &str) {
        self.0.change(|state, wakers| state.crash(&Arc::from(host), wakers));
        self.0.changed.notify_waiters();
    }

    /// A number over all that happened so far: when, from whom, to whom, how long, what fate.
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        self.0.state.lock().trace.hash()
    }

    /// Has each event told to `line`, one line each, as it happens.
    pub fn set_trace(&self, line: Option<TraceLine>) {
        self.0.state.lock().trace.set_line(line);
    }
}

/// The network as one life of one host sees it.
#[derive(Clone)]
pub struct HostNetwork {
    shared: Arc<Shared>,
    life: Life,
}

impl std::fmt::Debug for HostNetwork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostNetwork").field("life", &self.life).finish_non_exhaustive()
    }
}

/// What an attempt to open a stream meets.
enum Attempt {
    Cut,
    Lost,
    /// The time until both sides have agreed.
    Reaches(Duration),
}

impl HostNetwork {
    /// Sends one opening packet.
    fn attempt(&self, to: &Arc<str>, chance: &mut Chance) -> io::Result<Attempt> {
        let mut state = self.shared.state.lock();
        if !state.is_alive(&self.life) {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let from = &self.life.host;
        if state.is_cut_off(from, to) {
            return Ok(Attempt::Cut);
        }
        let (lost_there, there) = state.faults(from, to).opening(chance);
        let (lost_back, back) = state.faults(to, from).opening(chance);
        if lost_there || lost_back {
            state.counts.add("connect lost");
            state.trace.note(from, to, 0, "connect lost", Duration::ZERO);
            return Ok(Attempt::Lost);
        }
        Ok(Attempt::Reaches(there + back))
    }

    /// Who listens there, once the opening packet has come; `None` if a cut came in between.
    fn meet(&self, address: &str, to: &Arc<str>) -> io::Result<Option<Listening>> {
        let mut state = self.shared.state.lock();
        if !state.is_alive(&self.life) {
            return Err(io::ErrorKind::NotConnected.into());
        }
        if state.is_cut_off(&self.life.host, to) {
            return Ok(None);
        }
        let listening = state.listeners.get(address).cloned();
        match listening.filter(|it| !state.refusing.contains(&it.life.host)) {
            Some(listening) => Ok(Some(listening)),
            None => {
                state.counts.add("connect refused");
                state.trace.note(&self.life.host, to, 0, "refused", Duration::ZERO);
                Err(io::ErrorKind::ConnectionRefused.into())
            }
        }
    }

    /// Makes both ends, if both hosts are still there.
    fn open(&self, address: &str, listening: &Listening) -> io::Result<(End, End)> {
        let mut state = self.shared.state.lock();
        if !state.is_alive(&self.life) {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let there = state.listeners.get(address);
        let is_same = there.is_some_and(|there| there.queue.same_channel(&listening.queue));
        if !is_same || listening.queue.is_closed() {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let number = state.open(&self.life.host, &listening.life.host);
        drop(state);
        Ok((End::new(&self.shared, (number, 0)), End::new(&self.shared, (number, 1))))
    }

    async fn reach(&self, address: &str) -> io::Result<BoxStream> {
        let (to, mut chance) = {
            let mut state = self.shared.state.lock();
            let to = state.home(address);
            let chance = state.stream(&self.life.host, &to, "connect");
            (to, chance)
        };
        let (mut pause, mut met_cut) = (OPEN_AGAIN, false);
        loop {
            let mut changed = pin!(self.shared.changed.notified());
            changed.as_mut().enable();
            match self.attempt(&to, &mut chance)? {
                Attempt::Cut => {
                    if !std::mem::replace(&mut met_cut, true) {
                        self.shared.state.lock().note_cut(&self.life.host, &to);
                    }
                    changed.await;
                    continue;
                }
                Attempt::Lost => {
                    sleep(pause).await;
                    pause *= 2;
                    continue;
                }
                Attempt::Reaches(after) => sleep(after).await,
            }
            let Some(listening) = self.meet(address, &to)? else { continue };
            let refused = |_| io::Error::from(io::ErrorKind::ConnectionRefused);
            let place = listening.queue.reserve().await.map_err(refused)?;
            let (near, far) = self.open(address, &listening)?;
            place.send((Box::new(far), self.life.host.to_string()));
            return Ok(Box::new(near));
        }
    }
}

#[async_trait]
impl Network for HostNetwork {
    async fn connect(&self, address: &str) -> io::Result<BoxStream> {
        let connect_max = self.shared.state.lock().connect_max;
        match connect_max {
            None => self.reach(address).await,
            Some(most) => match timeout(most, self.reach(address)).await {
                Ok(result) => result,
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            },
        }
    }

    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        let (queue, streams) = mpsc::channel(BACKLOG);
        let mut state = self.shared.state.lock();
        if !state.is_alive(&self.life) {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let address = state.listen(address, Listening { life: self.life.clone(), queue })?;
        drop(state);
        Ok(Box::new(SimListener { address, streams: tokio::sync::Mutex::new(streams) }))
    }
}

struct SimListener {
    address: String,
    streams: tokio::sync::Mutex<mpsc::Receiver<Accepted>>,
}

#[async_trait]
impl Listener for SimListener {
    async fn accept(&self) -> io::Result<Accepted> {
        match self.streams.lock().await.recv().await {
            Some(accepted) => Ok(accepted),
            // The host crashed: nobody comes any more.
            None => std::future::pending().await,
        }
    }

    fn address(&self) -> String {
        self.address.clone()
    }
}
