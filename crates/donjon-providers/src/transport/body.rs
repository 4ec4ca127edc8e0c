//! The response body, and the exchange that lasts as long as it.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::error::TransportError;
use super::slots::Permit;
use super::stats::Counters;

/// The body of a response, read from the connection as it is polled.
///
/// Dropping it before its end closes an HTTP/1 connection and resets an HTTP/2 stream. Its slot at the host is given back at its
/// end, at an error, or when it is dropped, whichever is first.
pub struct TransportBody {
    // Before the exchange: the connection hears of a drop before the next request is let in.
    incoming: Incoming,
    exchange: Option<Exchange>,
}

/// One exchange under way: counted, and holding its slot. Ends by being dropped.
#[derive(Debug)]
pub(super) struct Exchange {
    counters: Arc<Counters>,
    _permit: Permit,
}

impl TransportBody {
    pub(super) fn new(incoming: Incoming, exchange: Exchange) -> Self {
        let exchange = (!incoming.is_end_stream()).then_some(exchange);
        Self { incoming, exchange }
    }
}

impl Body for TransportBody {
    type Data = Bytes;
    type Error = TransportError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, TransportError>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.incoming).poll_frame(cx));
        match frame {
            Some(Ok(frame)) => {
                // A body of known length ends with its last byte; nobody need poll once more to learn it.
                if this.incoming.is_end_stream() {
                    this.exchange = None;
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                this.exchange = None;
                Poll::Ready(Some(Err(TransportError::body(error))))
            }
            None => {
                this.exchange = None;
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl fmt::Debug for TransportBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransportBody")
            .field("ended", &self.exchange.is_none())
            .finish_non_exhaustive()
    }
}

impl Exchange {
    pub(super) fn begin(counters: Arc<Counters>, permit: Permit) -> Self {
        counters.requests_sent.up();
        counters.in_flight.up();
        Self {
            counters,
            _permit: permit,
        }
    }

    pub(super) fn answered(&self) {
        self.counters.responses.up();
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.counters.in_flight.down();
    }
}
