//! The layer and its builder.

use std::{fmt, sync::Arc, time::Duration};

use donjon_core::WallClock;
use tower_layer::Layer;

use crate::{
    error::ConfigError,
    flight::Flights,
    handle::CacheHandle,
    key::Scope,
    replay::Replay,
    service::CacheService,
    state::{Config, State},
    store::Store,
    strategy::{Rule, Strategy},
};

/// Answers what was answered before; see the [crate](crate).
///
/// All services that one layer and its clones make share what is kept.
#[derive(Clone)]
pub struct CacheLayer {
    state: Arc<State>,
}

impl CacheLayer {
    /// Builds a layer that differs from the default.
    pub fn builder() -> CacheBuilder {
        CacheBuilder {
            config: Config {
                rule: Rule::default(),
                scope: Scope::Tenant,
                negative_ttl: None,
                max_bytes: 256 * 1024 * 1024,
                max_entry_bytes: 0,
                compress_above: None,
                replay: Replay::AtOnce,
                refresh_timeout: Duration::from_secs(120),
                store: None,
                store_timeout: Duration::from_millis(50),
                clock: WallClock::system(),
                flights: Some(Flights::default()),
            },
            max_entry_bytes: None,
        }
    }

    /// What it shares, for another tier that keeps its answers in it.
    pub(crate) fn into_state(self) -> Arc<State> {
        self.state
    }

    /// Reads and controls what this layer and its services share.
    pub fn handle(&self) -> CacheHandle {
        CacheHandle::new(self.state.clone())
    }
}

/// Deterministic requests only, for a day, apart for each tenant, in 256 MiB.
impl Default for CacheLayer {
    fn default() -> Self {
        match Self::builder().build() {
            Ok(layer) => layer,
            Err(_) => unreachable!("the defaults make sense"),
        }
    }
}

impl<S> Layer<S> for CacheLayer {
    type Service = CacheService<S>;

    fn layer(&self, inner: S) -> CacheService<S> {
        CacheService::new(inner, self.state.clone())
    }
}

impl fmt::Debug for CacheLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheLayer")
            .field("state", &self.state)
            .finish()
    }
}

/// Builds a [`CacheLayer`].
#[derive(Clone)]
#[must_use]
pub struct CacheBuilder {
    config: Config,
    max_entry_bytes: Option<u64>,
}

impl CacheBuilder {
    /// Sets which answers are kept; default [`Strategy::Selective`].
    pub fn strategy(mut self, strategy: Strategy) -> Self {
        self.config.rule.strategy = strategy;
        self
    }

    /// Sets how long an answer is fresh, in the place of what the strategy says. A
    /// [custom](Strategy::Custom) one says so itself.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.config.rule.ttl = Some(ttl);
        self
    }

    /// Sets how long after its freshness an answer may still be given, while one call upstream renews
    /// it in the background; default not at all. It needs a tokio runtime, without one the caller
    /// waits. A [custom](Strategy::Custom) strategy says so itself.
    pub fn stale_while_revalidate(mut self, window: Duration) -> Self {
        self.config.rule.stale_while_revalidate = window;
        self
    }

    /// Sets how long after its freshness an answer may be given where the call upstream fails, and
    /// the failure is not the caller's own; default not at all. A [custom](Strategy::Custom)
    /// strategy says so itself.
    pub fn stale_if_error(mut self, window: Duration) -> Self {
        self.config.rule.stale_if_error = window;
        self
    }

    /// Names the tools that do nothing but tell something: a request that offers these alone can be
    /// kept under [`Strategy::Selective`]. Default none.
    pub fn harmless_tools<T: Into<Box<str>>>(mut self, names: impl IntoIterator<Item = T>) -> Self {
        self.config.rule.harmless = names.into_iter().map(Into::into).collect();
        self
    }

    /// Sets whose answers a caller may be given; default those of the same tenant.
    pub fn scope(mut self, scope: Scope) -> Self {
        self.config.scope = scope;
        self
    }

    /// Keeps errors that are the caller's own (a bad request, a prompt that is too long or against the
    /// content policy) for so long, so that a program that repeats its mistake does not repeat it
    /// upstream; default not at all. They are kept in memory alone.
    pub fn negative_ttl(mut self, ttl: Duration) -> Self {
        self.config.negative_ttl = Some(ttl);
        self
    }

    /// Sets how many bytes the memory holds; default 256 MiB.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.config.max_bytes = bytes;
        self
    }

    /// Sets how many bytes an answer may take to be kept; default 8 MiB, and at most an eighth of
    /// [`max_bytes`](Self::max_bytes).
    pub fn max_entry_bytes(mut self, bytes: u64) -> Self {
        self.max_entry_bytes = Some(bytes);
        self
    }

    /// Compresses what takes more bytes than this; default nothing. An answer that is compressed is
    /// read anew each time it is given: some microseconds for each KiB. Needs the feature `zstd`.
    pub fn compress_above(mut self, bytes: u64) -> Self {
        self.config.compress_above = Some(bytes);
        self
    }

    /// Sets how fast streams are given again; default as fast as they are read.
    pub fn replay(mut self, replay: Replay) -> Self {
        self.config.replay = replay;
        self
    }

    /// Sets how long a call in the background may take that renews an entry; default 2 minutes.
    pub fn refresh_timeout(mut self, timeout: Duration) -> Self {
        self.config.refresh_timeout = timeout;
        self
    }

    /// Puts a store behind the memory; default none.
    pub fn store(mut self, store: impl Store) -> Self {
        self.config.store = Some(Arc::new(store));
        self
    }

    /// Sets how long the store may take, after which it has nothing; default 50 ms.
    pub fn store_timeout(mut self, timeout: Duration) -> Self {
        self.config.store_timeout = timeout;
        self
    }

    /// Sets how calls that ask the same at the same time become one; default [`Flights::default`],
    /// `None` for each its own.
    pub fn single_flight(mut self, flights: impl Into<Option<Flights>>) -> Self {
        self.config.flights = flights.into();
        self
    }

    /// Sets the wall clock, by which entries of a store are dated; default the system's.
    pub fn clock(mut self, clock: WallClock) -> Self {
        self.config.clock = clock;
        self
    }

    /// Builds it.
    ///
    /// # Errors
    ///
    /// A time or a size that is zero, or out of its bounds; compression without the feature.
    pub fn build(self) -> Result<CacheLayer, ConfigError> {
        let mut config = self.config;
        let most = config.max_bytes / 8;
        config.max_entry_bytes = self.max_entry_bytes.unwrap_or(most.min(8 * 1024 * 1024));
        check(&config)?;
        config.rule.settle();
        Ok(CacheLayer {
            state: Arc::new(State::new(config)),
        })
    }
}

fn check(config: &Config) -> Result<(), ConfigError> {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);
    let rule = &config.rule;
    if rule.ttl.is_some_and(|ttl| ttl.is_zero()) {
        return Err(ConfigError::ZeroTtl);
    }
    if config.negative_ttl.is_some_and(|ttl| ttl.is_zero()) {
        return Err(ConfigError::ZeroNegativeTtl);
    }
    if config.max_bytes == 0 {
        return Err(ConfigError::ZeroMaxBytes);
    }
    if config.max_entry_bytes == 0 {
        return Err(ConfigError::ZeroMaxEntryBytes);
    }
    if config.max_entry_bytes > config.max_bytes / 8 {
        return Err(ConfigError::MaxEntryBytes {
            entry: config.max_entry_bytes,
            all: config.max_bytes,
        });
    }
    if config.store_timeout.is_zero() {
        return Err(ConfigError::ZeroStoreTimeout);
    }
    if config.refresh_timeout.is_zero() {
        return Err(ConfigError::ZeroRefreshTimeout);
    }
    let times = [
        ("ttl", rule.ttl),
        ("negative_ttl", config.negative_ttl),
        ("stale_while_revalidate", Some(rule.stale_while_revalidate)),
        ("stale_if_error", Some(rule.stale_if_error)),
        ("refresh_timeout", Some(config.refresh_timeout)),
        ("store_timeout", Some(config.store_timeout)),
    ];
    for (field, time) in times {
        if let Some(time) = time.filter(|time| *time > CENTURY) {
            return Err(ConfigError::TooLong(field, time));
        }
    }
    if let Replay::Paced { speed } = config.replay
        && !(speed.is_finite() && speed >= 1e-3)
    {
        return Err(ConfigError::ReplaySpeed(speed.to_string()));
    }
    if config.compress_above.is_some() && !cfg!(feature = "zstd") {
        return Err(ConfigError::NoZstd);
    }
    Ok(())
}

impl fmt::Debug for CacheBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Config {
            rule,
            scope,
            negative_ttl,
            max_bytes,
            max_entry_bytes: _,
            compress_above,
            replay,
            refresh_timeout,
            store,
            store_timeout,
            clock: _,
            flights,
        } = &self.config;
        f.debug_struct("CacheBuilder")
            .field("rule", rule)
            .field("scope", scope)
            .field("negative_ttl", negative_ttl)
            .field("max_bytes", max_bytes)
            .field("max_entry_bytes", &self.max_entry_bytes)
            .field("compress_above", compress_above)
            .field("replay", replay)
            .field("refresh_timeout", refresh_timeout)
            .field("store", &store.is_some())
            .field("store_timeout", store_timeout)
            .field("single_flight", &flights.is_some())
            .finish()
    }
}
