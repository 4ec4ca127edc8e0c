//! What a client has done: plain counters beside the state, read when somebody asks.

use std::sync::atomic::{AtomicU64, Ordering};

/// The figures of a client and all its clones since it was built.
///
/// Each figure is exact; they are read one after the other, so that together they are a picture of a moment only while
/// nothing happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransportStats {
    /// Connections opened: DNS, TCP, proxy and TLS all done.
    pub connections_opened: u64,
    /// Connections closed, by either side.
    pub connections_closed: u64,
    /// Connections open now, idle ones included.
    pub connections_open: u64,
    /// Requests that were given a slot and passed on to a connection, or to opening one.
    pub requests_sent: u64,
    /// Requests answered on a connection that was open before: responses less connections opened.
    ///
    /// A connection that was opened and carried no response yet counts against it, so it is never too high.
    pub requests_reused: u64,
    /// Requests waiting for a slot at their host now.
    pub waiting: u64,
    /// Exchanges now under way, from the slot to the end of the response body.
    pub in_flight: u64,
}

/// The counters behind [`TransportStats`]. Relaxed: they order nothing.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) connections_opened: Count,
    pub(super) connections_closed: Count,
    pub(super) requests_sent: Count,
    pub(super) responses: Count,
    pub(super) waiting: Count,
    pub(super) in_flight: Count,
}

#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Counters {
    pub(super) fn snapshot(&self) -> TransportStats {
        // Closed before opened: a connection that opens and closes in between must not make the difference negative.
        let connections_closed = self.connections_closed.get();
        let connections_opened = self.connections_opened.get();
        TransportStats {
            connections_opened,
            connections_closed,
            connections_open: connections_opened.saturating_sub(connections_closed),
            requests_sent: self.requests_sent.get(),
            requests_reused: self.responses.get().saturating_sub(connections_opened),
            waiting: self.waiting.get(),
            in_flight: self.in_flight.get(),
        }
    }
}

impl Count {
    pub(super) fn up(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn down(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
