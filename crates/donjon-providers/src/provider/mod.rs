//! A codec over an http service: the leaf of a stack.

mod collect;
mod events;
mod failure;
mod future;
mod probe;
mod stats;
mod stream;

use std::{
    fmt,
    num::NonZeroUsize,
    sync::Arc,
    task::{self, Poll},
};

use bytes::Bytes;
use donjon_core::{BoxError, LlmError, LlmRequest, LlmResponse, Name, WallClock};
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use tower_service::Service;

pub use self::future::ProviderFuture;
use self::stats::Counters;
pub use self::stats::{ProviderHandle, ProviderStats};
use crate::codec::{Asked, Codec};

/// Calls a provider in the words of the codec `C` over the http service `T`.
///
/// * A whole answer resolves when all of it is there; a stream when its headers are. Put
///   [`donjon_core::CommitLayer`] right around it to resolve at the commit point instead.
/// * The ledger of the call is stamped: sent when the request is handed to `T`, first byte when the
///   answer's head is there.
/// * Errors say provider, target, status, code, what the server said of waiting, of retrying and of
///   its limits, and keep their cause.
/// * Dropping the future or the stream drops the exchange; what `T` does then ends it upstream.
///
/// Clones share the codec and the counters.
pub struct Provider<C, T> {
    transport: T,
    shared: Arc<Shared<C>>,
    settings: Settings,
}

struct Shared<C> {
    codec: C,
    counters: Arc<Counters>,
}

/// What may be set of a provider; cheap to clone.
#[derive(Clone, Debug)]
struct Settings {
    target: Option<Name>,
    max_answer: usize,
    max_event: usize,
    clock: WallClock,
}

impl<C: Codec, T> Provider<C, T> {
    /// Speaks in the words of `codec` over `transport`.
    pub fn new(codec: C, transport: T) -> Self {
        let counters = Arc::new(Counters::new(codec.provider()));
        Self {
            transport,
            shared: Arc::new(Shared { codec, counters }),
            settings: Settings {
                target: None,
                max_answer: 32 << 20,
                max_event: 8 << 20,
                clock: WallClock::system(),
            },
        }
    }

    /// Names the target in answers, errors and the ledger. Default: none, and a layer above may.
    #[must_use]
    pub fn with_target(mut self, target: impl Into<Name>) -> Self {
        self.settings.target = Some(target.into());
        self
    }

    /// The largest whole answer that is read, in bytes; beyond it the call fails with
    /// [`ErrorKind::InvalidResponse`](donjon_core::ErrorKind::InvalidResponse). Default 32 MiB.
    #[must_use]
    pub fn with_max_answer(mut self, bytes: NonZeroUsize) -> Self {
        self.settings.max_answer = bytes.get();
        self
    }

    /// The largest event of a stream that is read, in bytes; beyond it the stream ends with
    /// [`ErrorKind::InvalidResponse`](donjon_core::ErrorKind::InvalidResponse). Default 8 MiB.
    #[must_use]
    pub fn with_max_event(mut self, bytes: NonZeroUsize) -> Self {
        self.settings.max_event = bytes.get();
        self
    }

    /// The wall clock that dates in headers are read by. Default: the system's.
    #[must_use]
    pub fn with_clock(mut self, clock: WallClock) -> Self {
        self.settings.clock = clock;
        self
    }

    /// A handle on the figures of this provider and its clones.
    pub fn handle(&self) -> ProviderHandle {
        self.shared.counters.clone().into()
    }
}

#[cfg(feature = "hyper-client")]
impl<C: Codec> Provider<C, crate::transport::HttpClient> {
    /// Speaks in the words of `codec` over an HTTP client of its own, at its defaults.
    ///
    /// # Errors
    ///
    /// What is wrong with the proxy that the environment names.
    pub fn over_http(codec: C) -> Result<Self, crate::transport::ConfigError> {
        let client = crate::transport::HttpClient::builder().build()?;
        Ok(Self::new(codec, client))
    }
}

impl<C, T, B> Service<LlmRequest> for Provider<C, T>
where
    C: Codec,
    C::Decoder: Send + 'static,
    T: Service<Request<Full<Bytes>>, Response = Response<B>>,
    T::Error: Into<BoxError>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Response = LlmResponse;
    type Error = LlmError;
    type Future = ProviderFuture<C, T::Future, B>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), LlmError>> {
        self.transport
            .poll_ready(cx)
            .map_err(|error| failure::of_transport(error.into(), failure::Phase::Head).error)
    }

    fn call(&mut self, mut request: LlmRequest) -> Self::Future {
        let asked = Asked::of(&request);
        self.shared.counters.call();
        let attempt = request.call.dispatch().clone();
        attempt.leaf_stamps_sent();
        if let Some(target) = self.settings.target {
            attempt.set_target(target);
        }
        attempt.set_model(request.model());
        let encoded = self.shared.codec.encode(&request);
        let exchange = future::Exchange {
            shared: self.shared.clone(),
            settings: self.settings.clone(),
            asked,
            model: request.model().clone(),
            attempt,
        };
        match encoded {
            Ok(http) => {
                exchange.attempt.stamp_sent();
                ProviderFuture::sent(exchange, self.transport.call(http))
            }
            Err(error) => ProviderFuture::refused(exchange, error),
        }
    }
}

impl<C, T: Clone> Clone for Provider<C, T> {
    fn clone(&self) -> Self {
        Self {
            transport: self.transport.clone(),
            shared: self.shared.clone(),
            settings: self.settings.clone(),
        }
    }
}

impl<C: fmt::Debug, T> fmt::Debug for Provider<C, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider")
            .field("codec", &self.shared.codec)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
