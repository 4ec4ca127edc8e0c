//! The wall clock.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

/// The wall clock: for HTTP dates, reset times and calendar budgets, and only for these; elapsed
/// time is [`tokio::time`]. Tests set their own.
#[derive(Clone, Default)]
pub struct WallClock {
    source: Source,
}

#[derive(Clone, Default)]
enum Source {
    #[default]
    System,
    Custom(Arc<dyn Fn() -> SystemTime + Send + Sync>),
}

impl WallClock {
    /// The clock of the system.
    pub const fn system() -> Self {
        Self {
            source: Source::System,
        }
    }

    /// A clock of your own.
    pub fn from_fn(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self {
            source: Source::Custom(Arc::new(now)),
        }
    }

    /// A clock that stands at `at`.
    pub fn fixed(at: SystemTime) -> Self {
        Self::from_fn(move || at)
    }

    /// What time it is.
    pub fn now(&self) -> SystemTime {
        match &self.source {
            #[expect(clippy::disallowed_methods, reason = "this is the wall clock")]
            Source::System => SystemTime::now(),
            Source::Custom(now) => now(),
        }
    }

    /// How long it is until `at`; zero when that is past.
    pub fn until(&self, at: SystemTime) -> Duration {
        at.duration_since(self.now()).unwrap_or_default()
    }
}

impl fmt::Debug for WallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.source {
            Source::System => "WallClock::system",
            Source::Custom(_) => "WallClock::custom",
        })
    }
}
