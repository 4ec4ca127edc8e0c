//! Configuration.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use donjon_core::{Identity, LlmError, Snapshot, WallClock};
use http::request::Parts;

use crate::{models::Models, reply::is_repeated, service::Serve, settings::Settings};

/// Builds a [`Serve`].
#[derive(Debug)]
pub struct ServeBuilder<S> {
    service: S,
    settings: Settings,
    models: Vec<Arc<str>>,
}

impl<S> ServeBuilder<S> {
    pub(crate) fn new(service: S) -> Self {
        Self {
            service,
            settings: Settings::default(),
            models: Vec::new(),
        }
    }

    /// Adds models to the list that `/v1/models` shows. The list is for callers to read: a request
    /// for a model that is not on it goes to the service like any other. Default none.
    #[must_use]
    pub fn models<M: Into<Arc<str>>>(mut self, models: impl IntoIterator<Item = M>) -> Self {
        self.models.extend(models.into_iter().map(Into::into));
        self
    }

    /// The path below which every endpoint stands, `/health` too; for a server that does not take
    /// the prefix off by itself, as nesting routers do. Default none.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<Box<str>>) -> Self {
        self.settings.prefix = prefix.into();
        self
    }

    /// The longest body of a request, in bytes; a longer one is answered with 413. Default 10 MiB.
    #[must_use]
    pub fn body_limit(mut self, bytes: usize) -> Self {
        self.settings.body_limit = bytes;
        self
    }

    /// How long the next piece of a request's body may be waited for; then 408. Default 30 s.
    #[must_use]
    pub fn body_timeout(mut self, idle: impl Into<Option<Duration>>) -> Self {
        self.settings.body_patience = idle.into();
        self
    }

    /// Opens a stream after this wait even if nothing has come, for callers behind proxies that
    /// give up on an answer without a head. The status is 200 then, whatever becomes of the call; a
    /// failure is told in the stream, and the headers about target and attempts are missing.
    /// Keep-alive comments are sent from then on, every 10 s unless
    /// [`keep_alive`](Self::keep_alive) says otherwise. Default never.
    #[must_use]
    pub fn open_early_after(mut self, wait: impl Into<Option<Duration>>) -> Self {
        self.settings.open_early = wait.into();
        self
    }

    /// Sends a comment on a stream that has been silent for so long. Default never, unless streams
    /// are opened early.
    #[must_use]
    pub fn keep_alive(mut self, every: impl Into<Option<Duration>>) -> Self {
        self.settings.keep_alive = every.into();
        self
    }

    /// Says on whose behalf a request is made, by its head. Whatever it answers for the user wins
    /// over the `user` of the request's body. Default nobody.
    #[must_use]
    pub fn identity<F>(mut self, identify: F) -> Self
    where
        F: Fn(&Parts) -> Arc<Identity> + Send + Sync + 'static,
    {
        self.settings.identify = Some(Box::new(identify));
        self
    }

    /// What `x-should-retry` says beside an error of the service, `None` for nothing. Default
    /// always `false`: the stack has retried what can be retried, and a client that does it once
    /// more multiplies the attempts.
    #[must_use]
    pub fn should_retry<F>(mut self, should_retry: F) -> Self
    where
        F: Fn(&LlmError) -> Option<bool> + Send + Sync + 'static,
    {
        self.settings.should_retry = Box::new(should_retry);
        self
    }

    /// Answers with this status, 424 for one, where an error is not to be repeated
    /// ([`should_retry`](Self::should_retry) says `false`) although its own status is one that
    /// clients repeat: 408, 409, 429 and 5xx. It is for callers whose libraries go by the status
    /// alone and do not read `x-should-retry`; the error's own status stands in `x-donjon-status`,
    /// its type and code stay in the body. Default `None`: every error has its own status.
    #[must_use]
    pub fn final_status(mut self, status: impl Into<Option<u16>>) -> Self {
        self.settings.final_status = status.into();
        self
    }

    /// Adds a handle whose health `/health/ready` asks, and whose figures `/health` shows.
    #[must_use]
    pub fn snapshot(mut self, handle: Arc<dyn Snapshot>) -> Self {
        self.settings.snapshots.push(handle);
        self
    }

    /// Adds several handles; see [`snapshot`](Self::snapshot).
    #[must_use]
    pub fn snapshots(mut self, handles: impl IntoIterator<Item = Arc<dyn Snapshot>>) -> Self {
        self.settings.snapshots.extend(handles);
        self
    }

    /// The clock that dates answers whose provider did not. Default the system's.
    #[must_use]
    pub fn wall_clock(mut self, clock: WallClock) -> Self {
        self.settings.clock = clock;
        self
    }

    /// The service.
    ///
    /// # Errors
    ///
    /// A value that makes no sense.
    pub fn build(mut self) -> Result<Serve<S>, ConfigError> {
        let settings = &mut self.settings;
        let prefix = &*settings.prefix;
        if !prefix.is_empty() && (!prefix.starts_with('/') || prefix.ends_with('/')) {
            return Err(ConfigError {
                setting: "prefix",
                reason: "must begin with a slash and not end with one",
            });
        }
        if settings.body_limit == 0 {
            return Err(ConfigError {
                setting: "body_limit",
                reason: "must not be zero: no request has an empty body",
            });
        }
        for (setting, value) in [
            ("body_timeout", settings.body_patience),
            ("keep_alive", settings.keep_alive),
        ] {
            if value == Some(Duration::ZERO) {
                return Err(ConfigError {
                    setting,
                    reason: "must not be zero; leave it out to switch it off",
                });
            }
        }
        if settings
            .final_status
            .is_some_and(|status| !(400..500).contains(&status) || is_repeated(status))
        {
            return Err(ConfigError {
                setting: "final_status",
                reason: "must be a 4xx that clients do not repeat: not 408, 409 or 429",
            });
        }
        if settings.open_early.is_some() {
            settings.keep_alive.get_or_insert(Duration::from_secs(10));
        }
        settings.models = Models::new(self.models);
        Ok(Serve::with_settings(self.service, self.settings))
    }
}

/// A setting whose value makes no sense.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfigError {
    /// The setting, by the name of its method.
    pub setting: &'static str,
    reason: &'static str,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.setting, self.reason)
    }
}

impl Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_make_no_sense_are_refused() {
        let builder = || ServeBuilder::new(());
        let refused = |builder: ServeBuilder<()>| builder.build().unwrap_err().setting;
        assert!(builder().prefix("/llm").build().is_ok());
        assert_eq!(refused(builder().prefix("llm")), "prefix");
        assert_eq!(refused(builder().prefix("/llm/")), "prefix");
        assert_eq!(refused(builder().body_limit(0)), "body_limit");
        assert_eq!(
            refused(builder().body_timeout(Duration::ZERO)),
            "body_timeout"
        );
        assert_eq!(refused(builder().keep_alive(Duration::ZERO)), "keep_alive");
        for status in [200, 408, 409, 429, 500, 503] {
            assert_eq!(refused(builder().final_status(status)), "final_status");
        }
        assert!(builder().final_status(424).build().is_ok());
        let error = builder().body_limit(0).build().unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("`body_limit` must not be zero")
        );
    }
}
