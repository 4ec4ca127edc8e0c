//! The service.

use std::{
    convert::Infallible,
    fmt,
    sync::Arc,
    task::{self, Poll},
};

use donjon_core::{CacheDirective, LlmService, Operation};
use headers::{CacheControl, HeaderMapExt};
use http::{HeaderMap, Request, Response, header::CONTENT_ENCODING};
use http_body::Body;
use tower_service::Service;

use crate::{
    body::ServeBody,
    builder::ServeBuilder,
    future::{Begin, ServeFuture},
    health, reply,
    route::{Api, Route},
    settings::Settings,
};

/// A language model service as an http service; see the [crate](crate).
///
/// It is always ready and never fails: whatever goes wrong is an answer. Each request readies and
/// calls a clone of the service below.
#[derive(Clone)]
pub struct Serve<S> {
    service: S,
    settings: Arc<Settings>,
}

impl<S> Serve<S> {
    /// Serves `service` with the defaults.
    pub fn new(service: S) -> Self {
        Self::with_settings(service, Settings::default())
    }

    /// Starts to configure how `service` is served.
    pub fn builder(service: S) -> ServeBuilder<S> {
        ServeBuilder::new(service)
    }

    pub(crate) fn with_settings(service: S, settings: Settings) -> Self {
        Self {
            service,
            settings: Arc::new(settings),
        }
    }
}

impl<S, B> Service<Request<B>> for Serve<S>
where
    S: LlmService + Clone + Send + 'static,
    S::Future: Send,
    B: Body,
{
    type Response = Response<ServeBody>;
    type Error = Infallible;
    type Future = ServeFuture<S, B>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (parts, body) = request.into_parts();
        let settings = &self.settings;
        // Only Anthropic's clients send this header, and they do on every request.
        let api = match parts.headers.contains_key("anthropic-version") {
            true => Api::Anthropic,
            false => Api::OpenAi,
        };
        let request_id = parts.headers.get(&reply::REQUEST_ID).cloned();
        let answer = match Route::find(&settings.prefix, parts.uri.path()) {
            None => reply::not_found(
                api,
                "unknown_url",
                format!("there is no {} {}", parts.method, parts.uri.path()),
            ),
            Some(route) if !route.allows(&parts.method) => {
                reply::method_not_allowed(route.api().unwrap_or(api), route.allow())
            }
            Some(Route::Health) => health::report(&settings.snapshots),
            Some(Route::Live) => health::live(),
            Some(Route::Ready) => health::ready(&settings.snapshots),
            Some(Route::Models) => {
                reply::json_response(http::StatusCode::OK, settings.models.list(api))
            }
            Some(Route::Model(id)) => match settings.models.one(api, &id) {
                Some(json) => reply::json_response(http::StatusCode::OK, json),
                None => reply::not_found(
                    api,
                    "model_not_found",
                    format!("the model `{id}` is not listed here"),
                ),
            },
            Some(route @ (Route::Chat | Route::Messages | Route::Embeddings)) => {
                let operation = match route {
                    Route::Embeddings => Operation::Embed,
                    _ => Operation::Chat,
                };
                let api = route.api().unwrap_or(api);
                let encoding = parts.headers.get(CONTENT_ENCODING);
                if encoding.is_none_or(|encoding| encoding == "identity") {
                    let begin = Begin {
                        service: self.service.clone(),
                        api,
                        cache: asked_of_cache(&parts.headers),
                        operation,
                        identity: settings.identify.as_ref().map(|identify| identify(&parts)),
                        request_id,
                        settings: settings.clone(),
                    };
                    return ServeFuture::reading(body, begin);
                }
                reply::encoded(api)
            }
        };
        ServeFuture::answered(reply::with_request_id(answer, request_id))
    }
}

impl<S> fmt::Debug for Serve<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// What a caller asks of a cache (RFC 9111, section 5.2.1); what cannot be read says nothing.
fn asked_of_cache(headers: &HeaderMap) -> CacheDirective {
    let mut directive = CacheDirective::default();
    if let Some(asked) = headers.typed_get::<CacheControl>() {
        directive.no_cache = asked.no_cache();
        directive.no_store = asked.no_store();
        directive.max_age = asked.max_age();
    }
    directive
}
