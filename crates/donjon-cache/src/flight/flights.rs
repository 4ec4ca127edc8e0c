//! The calls that are in the air, by what they ask.

use std::{
    array,
    collections::{HashMap, hash_map::Entry},
    convert::Infallible,
    fmt,
    hash::BuildHasherDefault,
    sync::Arc,
    time::Duration,
};

use donjon_core::{Counts, Delivery, Events, Figure, LlmError, LlmRequest, LlmResponse, Snapshot};
use tower_service::Service;

use super::{
    FlightConfigError, FlightEvent, FlightFuture, Rules,
    future::{Again, Calls, Flying, Plain},
    member::{Flight, Member},
    slot::Closed,
    sync::{Mutex, lock},
};
use crate::key::{ByPrefix, CacheKey};

/// The calls in the air that others who ask the same can join: the state of a
/// [`SingleFlightLayer`](super::SingleFlightLayer), and the handle on it.
///
/// Clones share it. [`call`](Self::call) is for a layer that finds the key itself, as the cache does.
#[derive(Clone)]
pub struct Flights {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) rules: Rules,
    shards: [Mutex<Shard>; 16],
    counts: Counts<FIGURES>,
    events: Events<FlightEvent>,
}

/// By their keys.
type Shard = HashMap<CacheKey, Alike, BuildHasherDefault<ByPrefix>>;

/// Those that bring the same answer; at least one.
#[derive(Default)]
struct Alike {
    whole: Option<Arc<Flight>>,
    stream: Option<Arc<Flight>>,
}

impl Alike {
    /// The one that serves a member.
    fn for_member(&self, streamed: bool) -> Option<&Arc<Flight>> {
        // Whoever asks for a whole answer is served by a stream as well.
        match &self.stream {
            Some(stream) => Some(stream),
            None if streamed => None,
            None => self.whole.as_ref(),
        }
    }

    fn of_kind(&mut self, streamed: bool) -> &mut Option<Arc<Flight>> {
        match streamed {
            true => &mut self.stream,
            false => &mut self.whole,
        }
    }
}

const FIGURES: usize = 9;
const CALLS: usize = 0;
const LED: usize = 1;
const JOINED: usize = 2;
const MISMATCHED: usize = 3;
const OUTGROWN: usize = 4;
const ABANDONED: usize = 5;
const PANICKED: usize = 6;
const LET_GO: usize = 7;
const ASKED_AGAIN: usize = 8;

impl Flights {
    /// Builds what differs from the default.
    pub fn builder() -> FlightsBuilder {
        FlightsBuilder {
            rules: Rules {
                max_bytes: 4 * 1024 * 1024,
                max_stall: Duration::from_secs(10),
            },
        }
    }

    /// Calls `service` with `request`, or joins a call that asks the same: one under the same `key`
    /// that brings the same answer, whole or, for whoever asks for a stream, chunk by chunk.
    ///
    /// It is joined at once; a call is made when the future is polled. `service` need not be readied;
    /// it is readied where it is called.
    pub fn call<S>(&self, key: CacheKey, request: LlmRequest, service: S) -> FlightFuture<S>
    where
        S: Service<LlmRequest, Response = LlmResponse> + Send + 'static,
        S::Error: Into<LlmError>,
        S::Future: Send,
    {
        self.call_with(key, request, || service)
    }

    /// The same with a service that most of those who join have no use for.
    pub(crate) fn call_with<S>(
        &self,
        key: CacheKey,
        request: LlmRequest,
        service: impl FnOnce() -> S,
    ) -> FlightFuture<S>
    where
        S: Service<LlmRequest, Response = LlmResponse> + Send + 'static,
        S::Error: Into<LlmError>,
        S::Future: Send,
    {
        let calls = || Plain { service: service() };
        let entered = self.enter(key, request, calls, |_| None::<Infallible>);
        match entered {
            Ok(flying) => FlightFuture { flying },
            Err(never) => match never {},
        }
    }

    /// Joins the call that asks the same, or makes one as `calls` does; unless there is something in
    /// the `late` place, where the answer to a call that has just ended is kept.
    #[inline]
    pub(crate) fn enter<C: Calls, T>(
        &self,
        key: CacheKey,
        mut request: LlmRequest,
        calls: impl FnOnce() -> C,
        late: impl FnOnce(&LlmRequest) -> Option<T>,
    ) -> Result<Flying<C>, T> {
        request.call.start_clock();
        self.shared.counts.add(CALLS, 1);
        self.shared.enter(key, request, calls, late)
    }

    /// Calls `service` with `request` and shares nothing.
    pub(crate) fn call_alone<S>(&self, mut request: LlmRequest, service: S) -> FlightFuture<S>
    where
        S: Service<LlmRequest, Response = LlmResponse> + Send + 'static,
        S::Error: Into<LlmError>,
        S::Future: Send,
    {
        request.call.start_clock();
        FlightFuture {
            flying: Flying::alone(request, Plain { service }),
        }
    }

    /// What happens from now on; a listener that falls more than 256 events behind misses some.
    pub fn events(&self) -> &Events<FlightEvent> {
        &self.shared.events
    }

    /// How many calls were made here.
    pub fn calls(&self) -> u64 {
        self.shared.counts.get(CALLS)
    }

    /// How many calls were made below for them.
    pub fn led(&self) -> u64 {
        self.shared.counts.get(LED)
    }

    /// How often a call of another was joined.
    pub fn joined(&self) -> u64 {
        self.shared.counts.get(JOINED)
    }

    /// How many calls had the key of another one that asked something else, and were made apart.
    pub fn mismatched(&self) -> u64 {
        self.shared.counts.get(MISMATCHED)
    }

    /// How many streams grew too large for others to join.
    pub fn outgrown(&self) -> u64 {
        self.shared.counts.get(OUTGROWN)
    }

    /// How many calls were left by all of their members, and dropped.
    pub fn abandoned(&self) -> u64 {
        self.shared.counts.get(ABANDONED)
    }

    /// How many calls panicked.
    pub fn panicked(&self) -> u64 {
        self.shared.counts.get(PANICKED)
    }

    /// How many members read so slowly that they were let go of.
    pub fn let_go(&self) -> u64 {
        self.shared.counts.get(LET_GO)
    }

    /// How often a member asked again, because a call failed for a reason of the one who made it.
    pub fn asked_again(&self) -> u64 {
        self.shared.counts.get(ASKED_AGAIN)
    }

    /// How many calls can be joined now.
    pub fn in_the_air(&self) -> usize {
        let shards = self.shared.shards.iter();
        let flights = |alike: &Alike| {
            usize::from(alike.whole.is_some()) + usize::from(alike.stream.is_some())
        };
        shards
            .map(|shard| lock(shard).values().map(flights).sum::<usize>())
            .sum()
    }
}

impl Default for Flights {
    fn default() -> Self {
        match Self::builder().build() {
            Ok(flights) => flights,
            Err(_) => unreachable!("the defaults make sense"),
        }
    }
}

impl Snapshot for Flights {
    fn layer(&self) -> &'static str {
        "single_flight"
    }

    fn figures(&self) -> Vec<Figure> {
        #[expect(clippy::cast_precision_loss, reason = "as exporters have it")]
        let in_the_air = self.in_the_air() as f64;
        vec![
            Figure::counter("calls", self.calls()),
            Figure::counter("led", self.led()),
            Figure::counter("joined", self.joined()),
            Figure::counter("mismatched", self.mismatched()),
            Figure::counter("outgrown", self.outgrown()),
            Figure::counter("abandoned", self.abandoned()),
            Figure::counter("panicked", self.panicked()),
            Figure::counter("let_go", self.let_go()),
            Figure::counter("asked_again", self.asked_again()),
            Figure::gauge("in_the_air", in_the_air),
        ]
    }
}

impl fmt::Debug for Flights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flights")
            .field("in_the_air", &self.in_the_air())
            .field("led", &self.led())
            .field("joined", &self.joined())
            .finish_non_exhaustive()
    }
}

/// Builds [`Flights`].
#[derive(Clone, Debug)]
#[must_use]
pub struct FlightsBuilder {
    rules: Rules,
}

impl FlightsBuilder {
    /// Sets how many bytes of a stream are kept for those who join late and those who read slowly;
    /// default 4 MiB. A stream that grows larger is joined no more.
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.rules.max_bytes = bytes;
        self
    }

    /// Sets how long the members of a stream wait for one who is so many bytes behind, before that
    /// one is let go of; default 10 s.
    pub fn max_stall(mut self, wait: Duration) -> Self {
        self.rules.max_stall = wait;
        self
    }

    /// Builds them.
    ///
    /// # Errors
    ///
    /// `max_bytes` is zero.
    pub fn build(self) -> Result<Flights, FlightConfigError> {
        if self.rules.max_bytes == 0 {
            return Err(FlightConfigError::ZeroMaxBytes);
        }
        let shared = Shared {
            rules: self.rules,
            shards: array::from_fn(|_| Mutex::new(Shard::default())),
            counts: Counts::new(),
            events: Events::new(256),
        };
        Ok(Flights {
            shared: Arc::new(shared),
        })
    }
}

impl Shared {
    /// As [`Flights::enter`].
    pub(super) fn enter<C: Calls, T>(
        self: &Arc<Self>,
        key: CacheKey,
        request: LlmRequest,
        calls: impl FnOnce() -> C,
        late: impl FnOnce(&LlmRequest) -> Option<T>,
    ) -> Result<Flying<C>, T> {
        let (streamed, deadline) = (request.is_stream(), request.call.deadline());
        loop {
            let mut shard = lock(self.shard(&key));
            let alike = match shard.entry(key) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => {
                    // What has ended was kept before it was taken out here.
                    if let Some(late) = late(&request) {
                        return Err(late);
                    }
                    let flight = self.begin(key, request, calls());
                    let mut alike = Alike::default();
                    *alike.of_kind(streamed) = Some(flight.clone());
                    entry.insert(alike);
                    drop(shard);
                    self.counts.add(LED, 1);
                    let member = Member::new(flight, 0, deadline);
                    return Ok(Flying::member(member, streamed, None));
                }
            };
            let Some(flight) = alike.for_member(streamed).cloned() else {
                let flight = self.begin(key, request, calls());
                *alike.of_kind(streamed) = Some(flight.clone());
                drop(shard);
                self.counts.add(LED, 1);
                let member = Member::new(flight, 0, deadline);
                return Ok(Flying::member(member, streamed, None));
            };
            drop(shard);
            if !flight.asks(&request) {
                self.counts.add(MISMATCHED, 1);
                self.events.tell(|| FlightEvent::Mismatched { key });
                return Ok(Flying::alone(request, calls()));
            }
            match flight.join(&request, deadline) {
                Some((seat, alike)) => {
                    self.counts.add(JOINED, 1);
                    let again = || {
                        let calls = calls();
                        Box::new(Again { request, calls })
                    };
                    let member = Member::new(flight, seat, deadline);
                    return Ok(Flying::member(member, streamed, (!alike).then(again)));
                }
                // It has just ended, and whoever ended it is about to take it out.
                None => self.remove(&flight),
            }
        }
    }

    /// The call that is made for all.
    fn begin<C: Calls>(
        self: &Arc<Self>,
        key: CacheKey,
        mut request: LlmRequest,
        calls: C,
    ) -> Arc<Flight> {
        // Whoever joins may want to be told the usage.
        if let Delivery::Stream { usage } = &mut request.delivery {
            *usage = true;
        }
        Flight::begin(self, key, request, |request| calls.call(request))
    }

    /// Nobody may join `flight` any more.
    pub(crate) fn closed(&self, flight: &Arc<Flight>, why: Closed) {
        self.remove(flight);
        if why == Closed::Outgrown {
            let key = flight.key;
            self.counts.add(OUTGROWN, 1);
            self.events.tell(|| FlightEvent::Outgrown { key });
        }
    }

    pub(crate) fn panicked(&self, flight: &Flight) {
        let key = flight.key;
        self.counts.add(PANICKED, 1);
        self.events.tell(|| FlightEvent::Panicked { key });
    }

    pub(crate) fn let_go(&self, flight: &Flight, members: u64) {
        let key = flight.key;
        self.counts.add(LET_GO, members);
        self.events.tell(|| FlightEvent::LetGo { key, members });
    }

    pub(crate) fn left_by_all(&self) {
        self.counts.add(ABANDONED, 1);
    }

    pub(crate) fn asks_again(&self) {
        self.counts.add(ASKED_AGAIN, 1);
    }

    fn remove(&self, flight: &Arc<Flight>) {
        let mut shard = lock(self.shard(&flight.key));
        // Most often there is no other under the same key.
        let mut alike = shard.remove(&flight.key);
        let mut removed = None;
        if let Some(alike) = &mut alike {
            let place = alike.of_kind(flight.is_streamed());
            if place.as_ref().is_some_and(|one| Arc::ptr_eq(one, flight)) {
                removed = place.take();
            }
        }
        if let Some(rest) = alike
            && rest.for_member(false).is_some()
        {
            shard.insert(flight.key, rest);
        }
        drop(shard);
        drop(removed);
    }

    fn shard(&self, key: &CacheKey) -> &Mutex<Shard> {
        // Not by what places it within a shard.
        &self.shards[usize::from(key.as_bytes()[31]) % self.shards.len()]
    }
}
