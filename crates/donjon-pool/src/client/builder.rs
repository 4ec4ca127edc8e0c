//! Building a pool of clients.

use std::{fmt, sync::Arc, time::Duration};

use tower_service::Service;

use super::{
    ClientPool,
    keeper::Keeper,
    state::{Config, Shared},
};
use crate::error::ConfigError;

/// Builds a [`ClientPool`].
#[must_use]
pub struct ClientPoolBuilder<M, T>
where
    M: Service<T>,
{
    maker: M,
    target: T,
    config: Config<M::Response>,
}

impl<M, T> ClientPoolBuilder<M, T>
where
    M: Service<T> + Clone,
    T: Clone,
{
    pub(super) fn new(maker: M, target: T) -> Self {
        Self {
            maker,
            target,
            config: Config {
                min_warm: 0,
                max: 32,
                idle_timeout: Some(Duration::from_secs(90)),
                max_age: None,
                check: None,
            },
        }
    }

    /// Sets how many clients are kept warm, from the start on; default none.
    pub fn min_warm(mut self, clients: usize) -> Self {
        self.config.min_warm = clients;
        self
    }

    /// Sets how many there may be; default 32.
    pub fn max(mut self, clients: usize) -> Self {
        self.config.max = clients;
        self
    }

    /// Sets for how long one may be idle; default 90 s.
    pub fn idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.config.idle_timeout = timeout.into();
        self
    }

    /// Sets how old one may become; default as old as it likes. One that is checked out is dropped
    /// when it would be checked out again.
    pub fn max_age(mut self, age: impl Into<Option<Duration>>) -> Self {
        self.config.max_age = age.into();
        self
    }

    /// Looks each client over that was idle before it is checked out; false if it is broken and
    /// another one must be made. It must not block. Default none.
    pub fn check(
        mut self,
        check: impl Fn(&mut M::Response) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.config.check = Some(Arc::new(check));
        self
    }

    /// Builds it, and starts the task that keeps clients warm and drops idle ones if it is called in a
    /// runtime.
    ///
    /// # Errors
    ///
    /// A maximum of zero, or below what is to be kept warm; a time of zero.
    pub fn build(self) -> Result<ClientPool<M, T>, ConfigError>
    where
        M: Send + 'static,
        M::Future: Send,
        M::Response: Send + 'static,
        T: Send + 'static,
    {
        let Self {
            maker,
            target,
            config,
        } = self;
        if config.max == 0 {
            return Err(ConfigError::ZeroMaxClients);
        }
        if config.min_warm > config.max {
            return Err(ConfigError::Warm {
                min: config.min_warm,
                max: config.max,
            });
        }
        for (field, age) in [
            ("idle_timeout", config.idle_timeout),
            ("max_age", config.max_age),
        ] {
            if age == Some(Duration::ZERO) {
                return Err(ConfigError::ZeroAge(field));
            }
        }
        let shared = Arc::new(Shared::new(config));
        let keeper = Keeper::start(shared.clone(), maker.clone(), target.clone());
        Ok(ClientPool {
            maker,
            target,
            shared,
            _keeper: Arc::new(keeper),
        })
    }
}

impl<M: Service<T>, T> fmt::Debug for ClientPoolBuilder<M, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientPoolBuilder")
            .field("min_warm", &self.config.min_warm)
            .field("max", &self.config.max)
            .field("idle_timeout", &self.config.idle_timeout)
            .field("max_age", &self.config.max_age)
            .finish_non_exhaustive()
    }
}
