//! Intended times: when a request is due, and waiting for that moment closely.
//!
//! One schedule is shared by all connections: a free connection takes the next place. A place that
//! is due while every connection is stuck keeps its intended time, and its wait shows as latency.
//! Waiting uses a timerfd on Linux, because the timers of tokio tick once a millisecond.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use super::phase::{Phase, Ramp};

/// The places of an open loop, phase after phase.
#[derive(Debug)]
pub(crate) struct Schedule {
    start: Instant,
    parts: Vec<Part>,
    next: AtomicU64,
}

#[derive(Debug)]
struct Part {
    /// Places of the parts before it.
    first: f64,
    from: Duration,
    /// Infinite, where a number of requests ends it.
    seconds: f64,
    ramp: Ramp,
}

impl Schedule {
    /// None for a closed loop.
    pub(crate) fn new(start: Instant, phases: &[Phase]) -> Option<Self> {
        let mut first = 0.0;
        let mut parts = Vec::new();
        for phase in phases {
            let (ramp, from) = (phase.rate?, phase.from);
            let seconds = phase.until.map_or(f64::INFINITY, |end| (end - from).as_secs_f64());
            parts.push(Part { first, from, seconds, ramp });
            first += ramp.places(seconds);
        }
        Some(Self { start, parts, next: AtomicU64::new(0) })
    }

    /// Takes the next place: its intended time; that of the end or later, when all were taken.
    #[expect(clippy::cast_precision_loss, reason = "a run of days stays below 2^53 places")]
    pub(crate) fn take(&self) -> Instant {
        let place = self.next.fetch_add(1, Ordering::Relaxed) as f64;
        let part = self.parts.iter().rfind(|part| part.first <= place);
        let Some(Part { first, from, seconds, ramp }) = part else { return self.start };
        let own = place - first;
        let due = match own < ramp.places(*seconds) {
            true => ramp.due(own, *seconds),
            false => *seconds,
        };
        self.start + *from + Duration::from_secs_f64(due)
    }
}

/// Waits for a moment; one per connection.
#[derive(Debug)]
pub(crate) struct Waiter {
    #[cfg(target_os = "linux")]
    timer: tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>,
}

#[cfg(target_os = "linux")]
impl Waiter {
    /// Needs a tokio runtime. Errors: no file descriptor left.
    #[expect(deprecated, reason = "its replacement is unsafe; an owned descriptor is sound here")]
    pub(crate) fn new() -> io::Result<Self> {
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self { timer: tokio::io::unix::AsyncFd::new(timer)? })
    }

    /// Returns at `moment`, some 0.1 ms late at most on an idle machine; at once if it has passed.
    pub(crate) async fn until(&mut self, moment: Instant) -> io::Result<()> {
        use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};
        let wait = moment.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            return Ok(());
        }
        let value = Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(wait.subsec_nanos()),
        };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        loop {
            let mut ready = self.timer.readable().await?;
            let mut expirations = [0u8; 8];
            if let Ok(result) =
                ready.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut expirations)?))
            {
                return result.map(|_| ());
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
impl Waiter {
    /// Needs a tokio runtime.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {})
    }

    /// Returns at `moment`, up to a millisecond late; at once if it has passed.
    pub(crate) async fn until(&mut self, moment: Instant) -> io::Result<()> {
        tokio::time::sleep_until(moment.into()).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{args::Distribution, phase::Kind, pick::Picker},
        *,
    };

    /// Phases of this many seconds (none: without an end) and these rates.
    fn phases(of: &[(Option<u64>, Option<Ramp>)]) -> Vec<Phase> {
        let Kind { mix, picks, .. } = Kind::plain(1.0, Distribution::Uniform);
        let mut from = Duration::ZERO;
        let mut phases = Vec::new();
        for (seconds, rate) in of {
            let until = seconds.map(|seconds| from + Duration::from_secs(seconds));
            let (name, load, value_bytes) = (String::new(), String::new(), 32);
            let (rate, picker) = (*rate, Picker::new(picks, 1));
            phases.push(Phase { name, load, from, until, rate, mix, picker, value_bytes });
            from = until.unwrap_or(from);
        }
        phases
    }

    #[test]
    fn places_are_spaced_by_the_rate_however_late_they_are_taken() {
        let start = Instant::now();
        let flat = phases(&[(None, Some(Ramp::flat(4000.0)))]);
        let schedule = Schedule::new(start, &flat).expect("an open loop");
        let places: Vec<Duration> = (0..5).map(|_| schedule.take() - start).collect();
        assert_eq!(places, (0..5).map(|n| Duration::from_micros(250 * n)).collect::<Vec<_>>());
    }

    #[test]
    fn each_phase_has_its_places_and_after_the_last_none_is_within_the_time() {
        let start = Instant::now();
        let ramp = Ramp { from: 0.0, to: 40.0 };
        let all = [(Some(2), Some(Ramp::flat(10.0))), (Some(1), Some(ramp))];
        let schedule = Schedule::new(start, &phases(&all)).expect("an open loop");
        let places: Vec<f64> = (0..42).map(|_| (schedule.take() - start).as_secs_f64()).collect();
        assert!(places.is_sorted());
        let within =
            |from: f64, until: f64| places.iter().filter(|at| from <= **at && **at < until).count();
        assert_eq!((within(0.0, 2.0), within(2.0, 2.5), within(2.5, 3.0)), (20, 5, 15));
        assert_eq!(within(3.0, f64::INFINITY), 2);
        assert!(Schedule::new(start, &phases(&[(Some(1), None)])).is_none());
    }

    #[tokio::test]
    async fn a_waiter_returns_after_the_moment_and_at_once_for_the_past() {
        let mut waiter = Waiter::new().expect("a timer");
        for micros in [0u64, 300, 5_000] {
            let moment = Instant::now() + Duration::from_micros(micros);
            waiter.until(moment).await.expect("waits");
            assert!(Instant::now() >= moment);
        }
        waiter.until(Instant::now() - Duration::from_secs(1)).await.expect("waits");
    }
}
