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

/// The places of an open loop.
#[derive(Debug)]
pub(crate) struct Schedule {
    start: Instant,
    interval_ns: f64,
    next: AtomicU64,
}

impl Schedule {
    pub(crate) fn new(start: Instant, rate: f64) -> Self {
        Self { start, interval_ns: 1e9 / rate, next: AtomicU64::new(0) }
    }

    /// Takes the next place; its intended time.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a run of days stays below 2^53 ns"
    )]
    pub(crate) fn take(&self) -> Instant {
        let place = self.next.fetch_add(1, Ordering::Relaxed);
        self.start + Duration::from_nanos((place as f64 * self.interval_ns) as u64)
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
    use super::*;

    #[test]
    fn places_are_spaced_by_the_rate_however_late_they_are_taken() {
        let start = Instant::now();
        let schedule = Schedule::new(start, 4000.0);
        let places: Vec<Duration> = (0..5).map(|_| schedule.take() - start).collect();
        assert_eq!(places, (0..5).map(|n| Duration::from_micros(250 * n)).collect::<Vec<_>>());
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
