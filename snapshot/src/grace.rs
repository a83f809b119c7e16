//! Which replaced state readers may still be on when garbage is collected.
//!
//! Invariant: a state's files stay for at least half a lease after the step that replaced it, so
//! that every replica that hears of the step can move on. Leases alone say this only while steps
//! come quickly: after a quiet time the lease of the newest state is over, and the step that
//! replaces it may be the one that collects. Pure; times are microseconds since the Unix epoch.
//! Not here: who sends the requests (`maintain.rs`).

use std::time::Duration;

/// What one writer knows of the states that its steps replaced.
#[derive(Debug)]
pub(crate) struct Grace {
    half_lease_micros: u64,
    first_step_at: Option<u64>,
    /// The newest state's checkpoint, and when it was made.
    newest: Option<(u128, u64)>,
    /// The last state replaced with less than half of its lease left, and when. There is only one
    /// at a time: the next one comes half a lease later.
    replaced: Option<(u128, u64)>,
}

impl Grace {
    pub(crate) fn new(lease: Duration) -> Self {
        let half_lease_micros = u64::try_from((lease / 2).as_micros()).unwrap_or(u64::MAX);
        Self { half_lease_micros, first_step_at: None, newest: None, replaced: None }
    }

    /// A step was committed, shown by `checkpoint`.
    pub(crate) fn on_step(&mut self, checkpoint: u128, now: u64) {
        self.first_step_at.get_or_insert(now);
        if let Some((replaced, made_at)) = self.newest.replace((checkpoint, now))
            && now.saturating_sub(made_at) >= self.half_lease_micros
        {
            self.replaced = Some((replaced, now));
        }
    }

    /// Whether garbage may be collected: what a new writer's first step replaced is not known to
    /// it, so it waits until nobody is on that any more.
    pub(crate) fn is_over(&self, now: u64) -> bool {
        self.first_step_at.is_some_and(|first| now.saturating_sub(first) >= self.half_lease_micros)
    }

    /// The checkpoint that needs a lease once more before a collection.
    pub(crate) fn to_lease_again(&self, now: u64) -> Option<u128> {
        let (replaced, at) = self.replaced?;
        (now.saturating_sub(at) < self.half_lease_micros).then_some(replaced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_micros(1_000);

    #[test]
    fn a_state_that_a_quick_step_replaced_needs_no_further_lease() {
        let mut grace = Grace::new(LEASE);
        for n in 0..20 {
            grace.on_step(u128::from(n), 100 * n);
            assert_eq!(grace.to_lease_again(100 * n), None);
        }
    }

    #[test]
    fn a_state_replaced_after_a_quiet_time_is_leased_again_for_half_a_lease() {
        let mut grace = Grace::new(LEASE);
        grace.on_step(1, 100);
        grace.on_step(2, 600);
        assert_eq!(grace.to_lease_again(600), Some(1));
        // Later steps do not hide it.
        grace.on_step(3, 700);
        assert_eq!(grace.to_lease_again(1_099), Some(1));
        assert_eq!(grace.to_lease_again(1_100), None);
        grace.on_step(4, 5_000);
        assert_eq!(grace.to_lease_again(5_000), Some(3));
    }

    #[test]
    fn a_new_writer_waits_half_a_lease_from_its_first_step() {
        let mut grace = Grace::new(LEASE);
        assert!(!grace.is_over(9_000), "it knows of no step at all");
        grace.on_step(1, 9_000);
        assert!(!grace.is_over(9_499));
        grace.on_step(2, 9_500);
        assert!(grace.is_over(9_500));
        assert!(!grace.is_over(100), "a clock that went back");
    }
}
