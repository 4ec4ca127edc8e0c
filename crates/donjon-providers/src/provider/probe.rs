//! Whether a provider is there.

use bytes::Bytes;
use donjon_core::{BoxError, ErrorKind, LlmError};
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use tower_service::Service;

use super::{
    Provider,
    collect::Collect,
    failure::{Phase, of_transport},
    future::sign,
};
use crate::{codec::Codec, hints};

/// Why it failed is in the first bytes.
const MAX_REFUSAL: usize = 64 << 10;

impl<C, T> Provider<C, T> {
    /// Looks whether the provider is there and takes the key, at no price: asks for the list of its
    /// models, and reads no more than whether there is one. It is no call: nothing is counted.
    ///
    /// It goes through the transport like a call, and so waits for a place where that limits exchanges; a
    /// transport of its own keeps a busy provider from being taken for one that is down.
    ///
    /// # Errors
    ///
    /// What a call would have failed with; [`ErrorKind::Unsupported`] where the codec cannot list models.
    pub fn probe<B>(&self) -> impl Future<Output = Result<(), LlmError>> + Send + use<C, T, B>
    where
        C: Codec + Send + Sync,
        T: Service<Request<Full<Bytes>>, Response = Response<B>> + Clone + Send,
        T::Error: Into<BoxError>,
        T::Future: Send,
        B: Body + Send,
        B::Error: Into<BoxError>,
    {
        let mut transport = self.transport.clone();
        let (shared, settings) = (self.shared.clone(), self.settings.clone());
        async move {
            let codec = &shared.codec;
            let signed = |error| sign(error, codec.provider(), settings.target);
            let broken = |error: T::Error| signed(of_transport(error.into(), Phase::Head).error);
            let Some(request) = codec.list_models() else {
                let none = "there is no list of models";
                return Err(signed(LlmError::new(ErrorKind::Unsupported, none)));
            };
            std::future::poll_fn(|cx| transport.poll_ready(cx))
                .await
                .map_err(broken)?;
            let response = transport.call(request).await.map_err(broken)?;
            let (head, body) = response.into_parts();
            if head.status.is_success() {
                return Ok(());
            }
            let body = Box::pin(Collect::new(body, MAX_REFUSAL)).await;
            let body = body.unwrap_or_default();
            let error = codec.decode_error(head.status, &head.headers, &body);
            let error = signed(error).with_status(head.status.as_u16());
            Err(
                match hints::retry_after(&head.headers, settings.clock.now()) {
                    Some(after) => error.with_retry_after(after),
                    None => error,
                },
            )
        }
    }
}
