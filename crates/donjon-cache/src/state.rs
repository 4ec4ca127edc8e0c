//! What all services of one layer share.

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

use donjon_core::{Counts, Delivery, Events, LlmError, LlmRequest, LlmResponse, WallClock};
use tokio::{runtime, time::Instant};

use crate::{
    codec,
    entry::{Entry, Moment, State as Age, after},
    flight::Flights,
    handle::{CacheEvent, Count, Refused},
    key::{CacheKey, Scope},
    memory::Memory,
    record::Asked,
    replay::Replay,
    store::{Invalidate, Store, Stored},
    strategy::Rule,
};

/// What a builder decided.
#[derive(Clone)]
pub(crate) struct Config {
    pub(crate) rule: Rule,
    pub(crate) scope: Scope,
    pub(crate) negative_ttl: Option<Duration>,
    pub(crate) max_bytes: u64,
    pub(crate) max_entry_bytes: u64,
    pub(crate) compress_above: Option<u64>,
    pub(crate) replay: Replay,
    pub(crate) refresh_timeout: Duration,
    pub(crate) store: Option<Arc<dyn Store>>,
    pub(crate) store_timeout: Duration,
    pub(crate) clock: WallClock,
    pub(crate) flights: Option<Flights>,
}

/// Invalidations that a call under way may have to be told of.
const REMEMBERED: usize = 64;

pub(crate) struct State {
    pub(crate) config: Config,
    pub(crate) memory: Memory,
    pub(crate) counts: Counts<{ Count::ALL }>,
    pub(crate) events: Events<CacheEvent>,
    pub(crate) enabled: AtomicBool,
    epoch: Instant,
    invalidations: AtomicU64,
    invalidated: Mutex<VecDeque<Invalidate>>,
}

/// What was found for a question.
pub(crate) enum Found {
    /// It is no question for a cache.
    Bypass,
    /// Its answer.
    Answer(Given),
    /// Its answer, which is to be renewed.
    Renew(Given, Renewal),
    /// Nothing; what may be given where the call fails.
    Nothing(Asked, Option<Arc<Entry>>),
    /// Nothing, and what comes is nobody's but the asker's.
    Alone(Option<Arc<Entry>>),
}

/// An answer that is there.
pub(crate) enum Given {
    /// To be made of an entry, where it is handed to whoever asked: an answer is large, and is not
    /// moved from one place to the next.
    Entry(Arc<Entry>, Delivery, u32, Replay),
    /// Made already: an error, or what was read anew.
    Made(Box<Result<LlmResponse, LlmError>>),
}

impl Given {
    #[inline]
    pub(crate) fn make(self) -> Result<LlmResponse, LlmError> {
        match self {
            Self::Entry(entry, delivery, age, replay) => entry.answer(delivery, age, replay),
            Self::Made(made) => *made,
        }
    }

    /// Makes the answer of a future, once.
    #[inline]
    pub(crate) fn take(given: &mut Option<Self>) -> Result<LlmResponse, LlmError> {
        given.take().expect("polled after completion").make()
    }
}

/// An answer that is given while it is renewed.
pub(crate) struct Renewal {
    pub(crate) asked: Asked,
    pub(crate) entry: Arc<Entry>,
}

impl State {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            memory: Memory::new(config.max_bytes, config.max_entry_bytes),
            config,
            counts: Counts::new(),
            events: Events::new(256),
            enabled: AtomicBool::new(true),
            epoch: Instant::now(),
            invalidations: AtomicU64::new(0),
            invalidated: Mutex::default(),
        }
    }

    pub(crate) fn count(&self, what: Count) {
        self.counts.add(what as usize, 1);
    }

    pub(crate) fn now(&self) -> Moment {
        self.moment(Instant::now())
    }

    fn moment(&self, at: Instant) -> Moment {
        let since = at.saturating_duration_since(self.epoch);
        u64::try_from(since.as_nanos()).map_or(u64::MAX, |since| since.saturating_add(BEFORE))
    }

    /// Looks for an answer to `request` in memory.
    #[inline]
    pub(crate) fn find(&self, request: &LlmRequest) -> Found {
        let term = match self.config.rule.term(request) {
            Some(term) if self.enabled.load(Relaxed) => term,
            _ => {
                self.count(Count::Bypassed);
                return Found::Bypass;
            }
        };
        let key = CacheKey::of(request, self.config.scope);
        let since = self.invalidations.load(SeqCst);
        let entry = if request.cache().no_cache {
            None
        } else {
            self.memory.get(&key)
        };
        // Where there is nothing, whoever hears the answer looks at the clock.
        let now = || {
            let now = self.now();
            self.sweep(now);
            now
        };
        let asked = || Asked {
            key,
            policy: term.policy(),
            since,
        };
        self.judge(request, asked, entry, now)
    }

    /// Releases some of what is good for nothing.
    #[inline]
    pub(crate) fn sweep(&self, now: Moment) {
        let swept = self.memory.sweep(now);
        if swept > 0 {
            self.counts.add(Count::Expired as usize, swept as u64);
        }
    }

    /// What `entry`, wherever it was found, is good for.
    #[inline]
    pub(crate) fn judge(
        &self,
        request: &LlmRequest,
        asked: impl FnOnce() -> Asked,
        entry: Option<Arc<Entry>>,
        now: impl FnOnce() -> Moment,
    ) -> Found {
        let directive = request.cache();
        let mut fallback = None;
        if let Some(entry) = entry {
            let now = now();
            let age = entry.times.state(now);
            let too_old = directive
                .max_age
                .is_some_and(|most| entry.times.age(now) > most);
            match age {
                Age::Fresh if !too_old && entry.kept.is_readable() => {
                    self.count(Count::Hits);
                    let age = entry.times.seconds(now);
                    let replay = self.config.replay;
                    return Found::Answer(Given::Entry(entry, request.delivery, age, replay));
                }
                Age::Fresh if !too_old => {
                    let answer = self.give(&entry, request.delivery, now);
                    if let Some(answer) = answer {
                        self.count(Count::Hits);
                        return Found::Answer(answer);
                    }
                }
                // Without a runtime to renew it in, it is renewed by the caller.
                Age::Stale if !too_old && runtime::Handle::try_current().is_ok() => {
                    let answer = self.give(&entry, request.delivery, now);
                    if let Some(answer) = answer {
                        self.count(Count::Stale);
                        if !directive.no_store && entry.claim_refresh(now) {
                            let asked = asked();
                            return Found::Renew(answer, Renewal { asked, entry });
                        }
                        return Found::Answer(answer);
                    }
                }
                // It may stand in for an error, whoever wanted it newer; but it is no error itself.
                _ if now < entry.times.on_error && !too_old => fallback = Some(entry),
                _ => {}
            }
        }
        if directive.no_store {
            self.count(Count::Misses);
            return Found::Alone(fallback);
        }
        Found::Nothing(asked(), fallback)
    }

    /// The answer to what was `asked` and not found, if it has been kept since.
    pub(crate) fn kept_since(&self, request: &LlmRequest, asked: &Asked) -> Option<Given> {
        let entry = self.memory.get(&asked.key)?;
        let now = self.now();
        let most = request.cache().max_age.unwrap_or(Duration::MAX);
        let good = entry.times.state(now) == Age::Fresh && entry.times.age(now) <= most;
        let given = good.then(|| self.give(&entry, request.delivery, now))??;
        self.count(Count::LateHits);
        Some(given)
    }

    /// The answer that `entry` is; `None` where it cannot be read.
    #[inline]
    pub(crate) fn give(
        &self,
        entry: &Arc<Entry>,
        delivery: Delivery,
        now: Moment,
    ) -> Option<Given> {
        let (age, replay) = (entry.times.seconds(now), self.config.replay);
        if entry.kept.is_readable() {
            return Some(Given::Entry(entry.clone(), delivery, age, replay));
        }
        let answer = entry.answer(delivery, age, replay);
        if let Err(error) = &answer {
            if !crate::record::is_the_callers(error.kind()) {
                return None;
            }
            self.count(Count::Negative);
        }
        Some(Given::Made(Box::new(answer)))
    }

    /// Something was not kept.
    pub(crate) fn refuse(&self, why: Refused) {
        self.counts.add(why.place(), 1);
    }

    /// Keeps an answer to what was asked when there had been `since` invalidations.
    pub(crate) fn keep(self: &Arc<Self>, key: CacheKey, entry: Arc<Entry>, since: u64) {
        if entry.weight > self.config.max_entry_bytes {
            self.refuse(Refused::TooLong);
            return;
        }
        #[cfg(feature = "zstd")]
        if let Some(above) = self.config.compress_above
            && entry.weight > above
        {
            let this = self.clone();
            let pack = move || this.put(key, crate::pack::packed(entry), since);
            // What takes its time is not done where somebody waits for the end of an answer.
            match runtime::Handle::try_current() {
                Ok(handle) => drop(handle.spawn_blocking(pack)),
                Err(_) => pack(),
            }
            return;
        }
        self.put(key, entry, since);
    }

    fn put(self: &Arc<Self>, key: CacheKey, entry: Arc<Entry>, since: u64) {
        if !self.remember(key, &entry, since) {
            return;
        }
        self.count(Count::Stored);
        let bytes = entry.weight;
        self.events.tell(|| CacheEvent::Stored { key, bytes });
        if let Some(store) = &self.config.store {
            self.write(store.clone(), key, &entry);
        }
    }

    /// Puts `entry` into memory, unless it was invalidated while it was on its way.
    pub(crate) fn remember(&self, key: CacheKey, entry: &Arc<Entry>, since: u64) -> bool {
        let evicted = self.memory.insert(key, entry);
        self.counts.add(Count::Evicted as usize, evicted as u64);
        // Looked at afterwards: whoever invalidates says so before they look for entries.
        if self.invalidations.load(SeqCst) != since && self.was_invalidated(&key, entry, since) {
            self.memory.remove_entry(&key, entry);
            self.refuse(Refused::Invalidated);
            return false;
        }
        true
    }

    fn was_invalidated(&self, key: &CacheKey, entry: &Entry, since: u64) -> bool {
        let log = self
            .invalidated
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let new = self.invalidations.load(SeqCst) - since;
        // What is not remembered any more may have named it.
        let Some(from) = (log.len() as u64).checked_sub(new) else {
            return true;
        };
        let from = usize::try_from(from).unwrap_or(0);
        log.iter().skip(from).any(|which| which.names(key, entry))
    }

    /// Forgets what `which` names, and tells how many entries of the memory that were.
    pub(crate) fn invalidate(self: &Arc<Self>, which: &Invalidate) -> usize {
        {
            let mut log = self
                .invalidated
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if log.len() == REMEMBERED {
                log.pop_front();
            }
            log.push_back(which.clone());
            self.invalidations.fetch_add(1, SeqCst);
        }
        let entries = match which {
            Invalidate::Key(key) => usize::from(self.memory.remove(key)),
            _ => self.memory.remove_all(|key, entry| which.names(key, entry)),
        };
        self.counts.add(Count::Invalidated as usize, entries as u64);
        let told = which.clone();
        self.events.tell(|| CacheEvent::Invalidated {
            which: told,
            entries,
        });
        if let (Some(store), Ok(handle)) = (&self.config.store, runtime::Handle::try_current()) {
            let (this, forget) = (self.clone(), store.invalidate(which));
            handle.spawn(async move { this.bounded(forget, Count::StoreErrors).await });
        }
        entries
    }

    /// Asks the store, for as long as it may take.
    pub(crate) async fn fetch(self: Arc<Self>, key: CacheKey) -> Option<Arc<Entry>> {
        let store = self.config.store.clone()?;
        let bytes = self.bounded(store.get(&key), Count::StoreErrors).await??;
        let read = codec::read_entry(&bytes, self.now(), self.config.clock.now());
        let Some(entry) = read else {
            // Of another version, or broken.
            self.count(Count::StoreErrors);
            return None;
        };
        if matches!(entry.times.state(self.now()), Age::Dead) {
            return None;
        }
        self.count(Count::StoreHits);
        Some(Arc::new(entry))
    }

    fn write(self: &Arc<Self>, store: Arc<dyn Store>, key: CacheKey, entry: &Arc<Entry>) {
        let Ok(handle) = runtime::Handle::try_current() else {
            self.count(Count::StoreErrors);
            return;
        };
        let (this, entry) = (self.clone(), entry.clone());
        handle.spawn(async move {
            let now = this.now();
            let Some(bytes) = codec::write_entry(&entry, now, this.config.clock.now()) else {
                return;
            };
            let keep = Duration::from_nanos(entry.times.dead().saturating_sub(now));
            let (model, identity) = (entry.asked.clone(), entry.identity.clone());
            let put = store.put(&key, Stored::new(bytes, keep, model, identity));
            this.bounded(put, Count::StoreErrors).await;
        });
    }

    /// Waits for the store as long as is allowed; it is counted and told where that fails.
    async fn bounded<T>(&self, work: crate::store::StoreFuture<T>, failed: Count) -> Option<T> {
        let within = self.config.store_timeout;
        match tokio::time::timeout(within, work).await {
            Ok(Ok(done)) => Some(done),
            Ok(Err(error)) => {
                self.count(failed);
                let error = Arc::<str>::from(error.to_string());
                self.events.tell(|| CacheEvent::StoreFailed { error });
                None
            }
            Err(_) => {
                self.count(Count::StoreTimeouts);
                self.events.tell(|| CacheEvent::StoreTimedOut { within });
                None
            }
        }
    }

    /// When an entry that could not be renewed is tried again.
    pub(crate) fn next_refresh(&self, entry: &Entry) -> Moment {
        let now = self.now();
        let fresh = entry.times.fresh.saturating_sub(entry.times.made);
        let pause = Duration::from_nanos(fresh / 10);
        after(
            now,
            pause.clamp(Duration::from_secs(1), Duration::from_secs(30)),
        )
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("strategy", &self.config.rule.strategy)
            .field("scope", &self.config.scope)
            .field("memory", &self.memory)
            .finish_non_exhaustive()
    }
}

/// Moments count from a century before the layer was built: a store has what is older.
const BEFORE: Moment = 100 * 365 * 24 * 3_600 * 1_000_000_000;
