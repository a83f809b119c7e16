//! Open connections: reading, writing, the fates of frames, and how a connection ends.
//!
//! Invariant: what a side knows of the other came over the link: an end, a reset or a dropped side
//! is heard of after the time on the way, and not while a cut lies between.

use std::{
    io,
    sync::Arc,
    task::{Context, Waker},
    time::Duration,
};

use bytes::Bytes;
use tokio::{io::ReadBuf, time::Instant};

use super::{
    faults::{CutKind, Fate},
    state::{State, pair},
    way::{Piece, Way},
};

/// What a read or write came to.
pub(super) enum Step<T> {
    Done(io::Result<T>),
    /// Nothing yet: wait to be woken, or until then.
    Wait(Option<Instant>),
}

/// One side of a connection.
#[derive(Default)]
pub(super) struct Side {
    /// The host crashed.
    pub(super) dead: bool,
    /// When a reset arrives here.
    pub(super) reset_at: Option<Instant>,
    /// When the other side hears that this one was dropped.
    dropped_at: Option<Instant>,
}

/// `ways[i]` leads away from side `i`.
pub(super) struct Connection {
    pub(super) hosts: [Arc<str>; 2],
    pub(super) ways: [Way; 2],
    pub(super) sides: [Side; 2],
}

impl State {
    pub(super) fn read(
        &mut self,
        (number, side): (u64, usize),
        cx: &Context<'_>,
        into: &mut ReadBuf<'_>,
        wakers: &mut Vec<Waker>,
    ) -> Step<()> {
        let now = Instant::now();
        let Some(connection) = self.connections.get_mut(&number) else {
            return Step::Done(Err(io::ErrorKind::NotConnected.into()));
        };
        let (here, there) = (&connection.hosts[side], &connection.hosts[1 - side]);
        let is_cut = self.cuts.contains_key(&pair(there, here));
        let it = &connection.sides[side];
        if it.dead {
            return Step::Done(Ok(()));
        }
        if !is_cut && it.is_reset(now) {
            return Step::Done(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let way = &mut connection.ways[1 - side];
        let trace = &mut self.trace;
        let any = way.read((!is_cut).then_some(now), into, |bytes| {
            trace.note(there, here, bytes, "arrived", Duration::ZERO);
        });
        if any || into.remaining() == 0 {
            if !way.is_full() {
                way.take_writer(wakers);
            }
            return Step::Done(Ok(()));
        }
        if !is_cut && way.is_over(now) {
            return Step::Done(Ok(()));
        }
        way.keep_reader(cx);
        if is_cut {
            return Step::Wait(None);
        }
        Step::Wait(way.next_at().into_iter().chain(it.reset_at).min())
    }

    pub(super) fn write(
        &mut self,
        (number, side): (u64, usize),
        cx: &Context<'_>,
        bytes: &[u8],
        wakers: &mut Vec<Waker>,
    ) -> Step<usize> {
        let Some(mut connection) = self.connections.remove(&number) else {
            return Step::Done(Err(io::ErrorKind::NotConnected.into()));
        };
        let step = self.write_on(&mut connection, side, cx, bytes, wakers);
        self.connections.insert(number, connection);
        step
    }

    fn write_on(
        &mut self,
        connection: &mut Connection,
        side: usize,
        cx: &Context<'_>,
        bytes: &[u8],
        wakers: &mut Vec<Waker>,
    ) -> Step<usize> {
        if let Err(error) = self.check_open(connection, side) {
            return Step::Done(Err(error));
        }
        let mut left = bytes;
        while !left.is_empty() && !connection.ways[side].is_full() {
            if let Some(piece) = connection.ways[side].cutter.take(&mut left) {
                self.send(connection, side, piece, wakers);
            }
        }
        if left.len() == bytes.len() && !bytes.is_empty() {
            connection.ways[side].keep_writer(cx);
            let is_deaf =
                self.cut_of(&connection.hosts[1 - side], &connection.hosts[side]).is_some();
            // A reset does not come over a cut; the heal will wake.
            return Step::Wait(connection.sides[side].reset_at.filter(|_| !is_deaf));
        }
        Step::Done(Ok(bytes.len() - left.len()))
    }

    /// Whether a side may write, as far as it knows.
    fn check_open(&self, connection: &Connection, side: usize) -> io::Result<()> {
        let now = Instant::now();
        let (it, other) = (&connection.sides[side], &connection.sides[1 - side]);
        if it.dead || connection.ways[side].is_ended() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if self.cut_of(&connection.hosts[1 - side], &connection.hosts[side]).is_some() {
            return Ok(());
        }
        if it.is_reset(now) || other.dropped_at.is_some_and(|dropped_at| dropped_at <= now) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn connections_open(&self) -> usize {
        self.connections.len()
    }

    /// Whether a side may write, as far as it knows.
    pub(super) fn check(&self, (number, side): (u64, usize)) -> io::Result<()> {
        let connection = self.connections.get(&number);
        let connection = connection.ok_or(io::ErrorKind::NotConnected)?;
        self.check_open(connection, side)
    }

    /// Lets a piece meet its fate.
    fn send(
        &mut self,
        connection: &mut Connection,
        side: usize,
        piece: Piece,
        wakers: &mut Vec<Waker>,
    ) {
        let now = Instant::now();
        let (from, to) = (&connection.hosts[side], &connection.hosts[1 - side]);
        let (faults, cut) = (self.faults(from, to), self.cut_of(from, to));
        let way = &mut connection.ways[side];
        let fate = faults.draw(&mut way.chance);
        let (bytes, is_frame) = match piece {
            Piece::Frame(bytes) => (bytes, true),
            Piece::Plain(bytes) => (bytes, false),
        };
        let other = &connection.sides[1 - side];
        let unheard = other.dead || other.dropped_at.is_some();
        let mut note = |what, delay| self.trace.note(from, to, bytes.len(), what, delay);
        if unheard {
            return note("unheard", Duration::ZERO);
        }
        if cut == Some(CutKind::Vanish) {
            way.lost_one();
            self.counts.add("frame vanished in a cut");
            return note("vanished", Duration::ZERO);
        }
        match fate {
            Fate::Lost if is_frame => {
                self.counts.add("frame lost");
                note("lost", Duration::ZERO);
            }
            Fate::Reset { delay } => {
                self.counts.add("connection reset");
                note("reset", delay);
                connection.sides[side].reset_by(now);
                connection.sides[1 - side].reset_by(now + delay);
                connection.wake(wakers);
            }
            Fate::Arrives { delay, again } if is_frame => {
                note("sent", delay);
                let copy: Option<(Bytes, Duration)> = again.map(|again| (bytes.clone(), again));
                if way.send(bytes, now + delay, !faults.reorder) {
                    self.counts.add("frame overtook another");
                }
                if let Some((copy, again)) = copy {
                    self.counts.add("frame duplicated");
                    self.trace.note(from, to, copy.len(), "sent again", again);
                    way.send_again(copy, now + again);
                }
                way.take_reader(wakers);
            }
            Fate::Lost | Fate::Arrives { .. } => {
                // A plain stream is as TCP makes it: late, but whole and in order.
                let delay = faults.latency(&mut way.chance);
                note("sent plainly", delay);
                way.send(bytes, now + delay, true);
                way.take_reader(wakers);
            }
        }
    }

    /// A side writes no more.
    pub(super) fn shut(&mut self, (number, side): (u64, usize), wakers: &mut Vec<Waker>) {
        let Some(mut connection) = self.connections.remove(&number) else { return };
        self.shut_on(&mut connection, side, wakers);
        self.connections.insert(number, connection);
    }

    /// A side is no more.
    pub(super) fn drop_side(&mut self, (number, side): (u64, usize), wakers: &mut Vec<Waker>) {
        let Some(mut connection) = self.connections.remove(&number) else { return };
        let delay = self.shut_on(&mut connection, side, wakers);
        connection.sides[side].dropped_at = Some(Instant::now() + delay);
        connection.ways[1 - side].clear();
        connection.wake(wakers);
        if connection.sides[1 - side].dropped_at.is_none() {
            self.connections.insert(number, connection);
        }
    }

    fn shut_on(
        &mut self,
        connection: &mut Connection,
        side: usize,
        wakers: &mut Vec<Waker>,
    ) -> Duration {
        let faults = self.faults(&connection.hosts[side], &connection.hosts[1 - side]);
        let way = &mut connection.ways[side];
        let delay = faults.latency(&mut way.chance);
        if !connection.sides[side].dead {
            way.end(Instant::now(), delay);
            connection.wake(wakers);
        }
        delay
    }
}

impl Side {
    /// A reset arrives no later than `at`.
    pub(super) fn reset_by(&mut self, at: Instant) {
        self.reset_at = Some(self.reset_at.map_or(at, |before| before.min(at)));
    }

    fn is_reset(&self, now: Instant) -> bool {
        self.reset_at.is_some_and(|reset_at| reset_at <= now)
    }
}

impl Connection {
    /// Takes the wakers of all that wait on it.
    pub(super) fn wake(&mut self, wakers: &mut Vec<Waker>) {
        for way in &mut self.ways {
            way.take_reader(wakers);
            way.take_writer(wakers);
        }
    }
}
