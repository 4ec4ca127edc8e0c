//! The future of a response head.

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper_util::client::legacy;

use super::HttpClient;
use super::body::{Exchange, TransportBody};
use super::error::TransportError;
use super::slots::{Permit, Wait};
use super::stats::Counters;

/// Resolves to the head of a response; its body is read through [`TransportBody`].
///
/// Dropping it gives up a place in the queue, a connection being opened, or the exchange under way.
#[must_use = "futures do nothing unless polled"]
pub struct TransportFuture {
    state: State,
}

#[expect(
    clippy::large_enum_variant,
    reason = "boxing the request would cost every queued request an allocation"
)]
enum State {
    /// In the queue for a slot. The last field tells the gauge of it.
    Queued {
        wait: Wait,
        request: Request<Full<Bytes>>,
        client: HttpClient,
        _gauge: Waiting,
    },
    /// With hyper. The connection hears of a drop before the slot is free.
    Sent {
        response: legacy::ResponseFuture,
        exchange: Exchange,
    },
    Done,
}

/// One on the gauge of waiting requests.
struct Waiting(Arc<Counters>);

impl TransportFuture {
    pub(super) fn queued(client: HttpClient, wait: Wait, request: Request<Full<Bytes>>) -> Self {
        let counters = Arc::clone(&client.inner.counters);
        counters.waiting.up();
        Self {
            state: State::Queued {
                wait,
                request,
                client,
                _gauge: Waiting(counters),
            },
        }
    }

    pub(super) fn sent(client: &HttpClient, permit: Permit, request: Request<Full<Bytes>>) -> Self {
        Self {
            state: State::sent(client, permit, request),
        }
    }
}

impl State {
    fn sent(client: &HttpClient, permit: Permit, request: Request<Full<Bytes>>) -> Self {
        let exchange = Exchange::begin(Arc::clone(&client.inner.counters), permit);
        State::Sent {
            response: client.inner.hyper.request(request),
            exchange,
        }
    }
}

impl Future for TransportFuture {
    type Output = Result<Response<TransportBody>, TransportError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let state = &mut self.get_mut().state;
        if let State::Queued { wait, .. } = state {
            let permit = ready!(wait.poll(cx));
            if let State::Queued {
                request, client, ..
            } = mem::replace(state, State::Done)
            {
                *state = State::sent(&client, permit, request);
            }
        }
        let State::Sent { response, .. } = state else {
            panic!("polled after completion");
        };
        let result = ready!(Pin::new(response).poll(cx));
        let State::Sent { exchange, .. } = mem::replace(state, State::Done) else {
            unreachable!("the state was Sent a line above");
        };
        Poll::Ready(match result {
            Ok(response) => {
                exchange.answered();
                Ok(response.map(|incoming| TransportBody::new(incoming, exchange)))
            }
            Err(error) => Err(TransportError::request(error)),
        })
    }
}

impl fmt::Debug for TransportFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.state {
            State::Queued { .. } => "TransportFuture(queued)",
            State::Sent { .. } => "TransportFuture(sent)",
            State::Done => "TransportFuture(done)",
        })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.down();
    }
}
