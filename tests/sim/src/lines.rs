//! What happens in a world, line by line, for those who look on.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Takes one line.
type Line = Box<dyn Fn(&str) + Send>;

/// Who hears of it; clones tell the same listener.
#[derive(Clone)]
pub struct Lines {
    began: Instant,
    line: Arc<Mutex<Option<Line>>>,
}

impl Lines {
    /// Nobody listens yet.
    #[must_use]
    pub fn new(began: Instant) -> Self {
        Self { began, line: Arc::default() }
    }

    /// From now on lines go there.
    pub fn listen(&self, line: impl Fn(&str) + Send + 'static) {
        *self.line.lock() = Some(Box::new(line));
    }

    /// Tells one, with its time; costs nothing where nobody listens.
    pub fn say(&self, what: impl FnOnce() -> String) {
        if let Some(line) = &*self.line.lock() {
            line(&format!("{:>10.3} {}", self.began.elapsed().as_secs_f64(), what()));
        }
    }
}
