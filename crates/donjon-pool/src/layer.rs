//! The layer and its builder.

use std::{fmt, sync::Arc, time::Duration};

use donjon_core::{Classify, Key, KeyBy};
use tower_layer::Layer;

use crate::{
    error::ConfigError,
    handle::PoolHandle,
    limit::{Aimd, Gradient, Limit},
    profile::{Profile, Size},
    rooms::{Rooms, SizeFor},
    rules::{Common, HoldUntil, Overflow, Rules},
    service::{Admitter, Pool},
};

/// Lets only so many calls be in progress at a time; see the [crate](crate).
///
/// All services that one layer and its clones make share its slots, its queues and its figures.
#[derive(Clone)]
pub struct PoolLayer {
    rooms: Arc<Rooms>,
}

impl PoolLayer {
    /// Builds a layer that differs from the default.
    pub fn builder() -> PoolBuilder {
        PoolBuilder {
            size: Size::Fixed(32),
            key_by: KeyBy::Global,
            max_keys: 10_000,
            size_for: None,
            profiles: Vec::new(),
            rules: Rules::default(),
        }
    }

    /// A pool of `size` slots for all calls.
    ///
    /// # Errors
    ///
    /// A size of zero.
    pub fn new(size: u32) -> Result<Self, ConfigError> {
        Self::builder().size(size).build()
    }

    /// What admits calls, to be put into a [`Gate`](donjon_core::shape::Gate) by hand: for a stack in which
    /// a pool is optional. It shares all that the layer's services share.
    pub fn admitter(&self) -> Admitter {
        Admitter::new(self.rooms.clone())
    }

    /// Reads and controls what this layer and its services share.
    pub fn handle(&self) -> PoolHandle {
        PoolHandle::new(self.rooms.clone())
    }
}

/// 32 slots for all calls together; at most 1,000 wait.
impl Default for PoolLayer {
    fn default() -> Self {
        match Self::builder().build() {
            Ok(layer) => layer,
            Err(_) => unreachable!("the defaults make sense"),
        }
    }
}

impl<S> Layer<S> for PoolLayer {
    type Service = Pool<S>;

    fn layer(&self, inner: S) -> Pool<S> {
        Pool::new(inner, self.admitter())
    }
}

impl fmt::Debug for PoolLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolLayer")
            .field("rooms", &self.rooms)
            .finish()
    }
}

/// Builds a [`PoolLayer`].
#[derive(Clone)]
#[must_use]
pub struct PoolBuilder {
    size: Size,
    key_by: KeyBy,
    max_keys: usize,
    size_for: Option<SizeFor>,
    profiles: Vec<Profile>,
    rules: Rules,
}

/// How many slots there are.
impl PoolBuilder {
    /// Sets a fixed size; default 32.
    pub fn size(mut self, slots: u32) -> Self {
        self.size = Size::Fixed(slots);
        self
    }

    /// Lets the size follow overload errors, and first tokens that come too late where that is set.
    pub fn aimd(mut self, limit: Aimd) -> Self {
        self.size = Size::Aimd(limit);
        self
    }

    /// Lets the size follow the time to first token.
    pub fn gradient(mut self, limit: Gradient) -> Self {
        self.size = Size::Gradient(limit);
        self
    }

    /// Lets the size follow a limit of one's own, which is made for each pool.
    pub fn limit<L: Limit + 'static>(
        mut self,
        make: impl Fn() -> L + Send + Sync + 'static,
    ) -> Self {
        self.size = Size::Custom(Arc::new(move || Box::new(make())));
        self
    }

    /// Sets what has a pool of its own; default [`KeyBy::Global`], one pool for all. What has no such
    /// key shares the pool of [`Key::Global`].
    pub fn key_by(mut self, key_by: KeyBy) -> Self {
        self.key_by = key_by;
        self
    }

    /// Sets the fixed size of the pools of some keys; default the layer's size for all. It is asked
    /// when the pool is made; zero is taken for one.
    pub fn size_for(
        mut self,
        size_for: impl Fn(&Key) -> Option<u32> + Send + Sync + 'static,
    ) -> Self {
        self.size_for = Some(Arc::new(size_for));
        self
    }

    /// Sets how many keys are kept apart, without those of profiles; default 10,000. When there are
    /// as many in use, calls of another one are refused.
    pub fn max_keys(mut self, keys: usize) -> Self {
        self.max_keys = keys;
        self
    }

    /// Adds a named pool: calls whose key is its name fall under it.
    pub fn profile(mut self, profile: Profile) -> Self {
        self.profiles.push(profile);
        self
    }
}

/// What becomes of those who find none free.
impl PoolBuilder {
    /// Sets what becomes of a call that finds every slot in use; default [`Overflow::Queue`].
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.rules.overflow = overflow;
        self
    }

    /// Sets how many calls may wait for each pool; default 1,000. 0 lets none wait.
    pub fn max_queued(mut self, calls: usize) -> Self {
        self.rules.max_queued = calls;
        self
    }

    /// Sets for how long a call may wait; default as long as its deadline and its patience allow.
    pub fn max_wait(mut self, wait: impl Into<Option<Duration>>) -> Self {
        self.rules.max_wait = wait.into();
        self
    }

    /// Sets whether, when the queue is full, the newest call of the lowest priority gives way to one of
    /// a higher priority; default no.
    pub fn evict_lower(mut self, evict: bool) -> Self {
        self.rules.evict = evict;
        self
    }

    /// Sets after how long without a slot a priority of which some wait is given the next one,
    /// whoever waits above it; default 10 s. [`Duration::MAX`] lets lower priorities starve.
    pub fn ageing(mut self, after: Duration) -> Self {
        self.rules.ageing = after;
        self
    }

    /// Sets the share of a tenant among those that wait with the same priority, from 1 to 1,000;
    /// default 1.
    pub fn weight(mut self, tenant: impl Into<Arc<str>>, weight: u32) -> Self {
        self.rules.weights.insert(tenant.into(), weight);
        self
    }

    /// Sets how long a call holds its slot; default [`HoldUntil::ResponseEnds`].
    pub fn hold_until(mut self, hold: HoldUntil) -> Self {
        self.rules.hold = hold;
        self
    }

    /// Sets which errors an adaptive limit takes for overload; default the table in
    /// [`Disposition`](donjon_core::Disposition).
    pub fn classify(mut self, classify: impl Classify + 'static) -> Self {
        self.rules.classify = Arc::new(classify);
        self
    }

    /// Builds it.
    ///
    /// # Errors
    ///
    /// A size, a time or a number of keys that is zero; bounds or factors of a limit that make no
    /// sense; profiles of the same name, or without a key to choose them by.
    pub fn build(self) -> Result<PoolLayer, ConfigError> {
        let Self {
            size,
            key_by,
            max_keys,
            size_for,
            profiles,
            rules,
        } = self;
        rules.check()?;
        let common = Arc::new(Common::new(rules));
        let rooms = Rooms::new(key_by, max_keys, size, size_for, profiles, common)?;
        Ok(PoolLayer {
            rooms: Arc::new(rooms),
        })
    }
}

impl fmt::Debug for PoolBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolBuilder")
            .field("size", &self.size)
            .field("key_by", &self.key_by)
            .field("profiles", &self.profiles)
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}
