//! The calls that are in the air, by what they ask.

use std::{
    array,
    collections::{HashMap, hash_map::Entry},
    fmt,
    sync::Arc,
    time::Duration,
};

use donjon_core::{
    BoxLlmFuture, Counts, Events, Figure, LlmError, LlmRequest, LlmResponse, Snapshot,
};
use tower_service::Service;

use super::{
    FlightConfigError, FlightEvent, FlightFuture, Rules,
    member::{Flight, Member},
    slot::Closed,
    sync::{Mutex, lock},
};
use crate::key::CacheKey;

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

/// By their keys, and whether they bring a stream.
type Shard = HashMap<(CacheKey, bool), Arc<Flight>, foldhash::fast::RandomState>;

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

/// What a call found.
pub(crate) enum Joined {
    /// Its own call, or another's that asks the same.
    Member(Member),
    /// Another question under the same key.
    Mismatch,
}

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
    /// Nothing happens before the future is polled. `service` need not be readied; it is readied
    /// where it is called.
    pub fn call<S>(&self, key: CacheKey, mut request: LlmRequest, service: S) -> FlightFuture<S>
    where
        S: Service<LlmRequest, Response = LlmResponse> + Send + 'static,
        S::Error: Into<LlmError>,
        S::Future: Send,
    {
        request.call.begin();
        self.shared.counts.add(CALLS, 1);
        FlightFuture::new(self.shared.clone(), Some(key), request, service)
    }

    /// Calls `service` with `request` and shares nothing.
    pub(crate) fn call_alone<S>(&self, mut request: LlmRequest, service: S) -> FlightFuture<S> {
        request.call.begin();
        FlightFuture::new(self.shared.clone(), None, request, service)
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
        shards.map(|shard| lock(shard).len()).sum()
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
    /// Joins the call that asks the same, or makes it by `call`.
    pub(crate) fn join(
        self: &Arc<Self>,
        key: CacheKey,
        request: &mut Option<LlmRequest>,
        call: impl FnOnce(LlmRequest) -> BoxLlmFuture,
    ) -> Option<Joined> {
        loop {
            let asked = request.as_ref()?;
            let streamed = asked.is_stream();
            let mut shard = lock(self.shard(&key));
            // Whoever asks for a whole answer is served by a stream as well.
            let found = match shard.get(&(key, true)) {
                Some(flight) => Some(flight),
                None if streamed => None,
                None => shard.get(&(key, false)),
            };
            let Some(flight) = found.cloned() else {
                let deadline = asked.call.deadline();
                let flight = Arc::new(Flight::new(key, request.take()?, call));
                let member = Member::first(self, &flight, deadline);
                shard.insert((key, streamed), flight);
                drop(shard);
                self.counts.add(LED, 1);
                return Some(Joined::Member(member));
            };
            drop(shard);
            if !flight.asks(asked) {
                self.counts.add(MISMATCHED, 1);
                self.events.tell(|| FlightEvent::Mismatched { key });
                return Some(Joined::Mismatch);
            }
            if let Some(member) = Member::join(self, &flight, asked) {
                self.counts.add(JOINED, 1);
                return Some(Joined::Member(member));
            }
            // It has just ended, and whoever ended it is about to take it out.
            self.remove(&flight);
        }
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
        let mut removed = None;
        if let Entry::Occupied(entry) = shard.entry((flight.key, flight.streamed))
            && Arc::ptr_eq(entry.get(), flight)
        {
            removed = Some(entry.remove());
        }
        drop(shard);
        drop(removed);
    }

    fn shard(&self, key: &CacheKey) -> &Mutex<Shard> {
        &self.shards[usize::from(key.as_bytes()[0]) % self.shards.len()]
    }
}
