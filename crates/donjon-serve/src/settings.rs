//! What a service is configured with.

use std::{fmt, sync::Arc, time::Duration};

use donjon_core::{Identity, LlmError, Snapshot, WallClock};
use http::request::Parts;

use crate::models::Models;

pub(crate) type Identify = dyn Fn(&Parts) -> Arc<Identity> + Send + Sync;
pub(crate) type ShouldRetry = dyn Fn(&LlmError) -> Option<bool> + Send + Sync;

/// What a service is configured with, shared by its clones.
pub(crate) struct Settings {
    pub(crate) prefix: Box<str>,
    pub(crate) body_limit: usize,
    pub(crate) body_patience: Option<Duration>,
    pub(crate) open_early: Option<Duration>,
    pub(crate) keep_alive: Option<Duration>,
    pub(crate) identify: Option<Box<Identify>>,
    pub(crate) should_retry: Box<ShouldRetry>,
    pub(crate) final_status: Option<u16>,
    pub(crate) models: Models,
    pub(crate) snapshots: Vec<Arc<dyn Snapshot>>,
    pub(crate) clock: WallClock,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            prefix: "".into(),
            body_limit: 10 * 1024 * 1024,
            body_patience: Some(Duration::from_secs(30)),
            open_early: None,
            keep_alive: None,
            identify: None,
            // Whoever stands below has retried already.
            should_retry: Box::new(|_| Some(false)),
            final_status: None,
            models: Models::default(),
            snapshots: Vec::new(),
            clock: WallClock::system(),
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("prefix", &self.prefix)
            .field("body_limit", &self.body_limit)
            .field("body_patience", &self.body_patience)
            .field("open_early", &self.open_early)
            .field("keep_alive", &self.keep_alive)
            .field("models", &self.models.len())
            .finish_non_exhaustive()
    }
}
