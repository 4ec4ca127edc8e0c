//! One request, from its body to the head of its answer.

use std::{
    convert::Infallible,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{self, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use donjon_core::{
    Body as LlmBody, BoxLlmFuture, CacheDirective, Completion, Delivery, ErrorKind, Head, Identity,
    Ledger, LlmError, LlmRequest, LlmResponse, LlmService, Operation, Prompt, WallClock,
    shape::ReadyCall,
};
use donjon_providers::openai::embeddings_to_json;
use http::{HeaderValue, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::Sleep;
use tower_service::Service;

use crate::{
    body::ServeBody, dialect::Context, gather::Gather, reply, route::Api, settings::Settings,
    streamed,
};

pin_project! {
    /// The future of a [`Serve`](crate::Serve): resolves with the head of the answer, at the commit
    /// point of the call or, where that is configured, after a given wait.
    ///
    /// Dropping it drops the call.
    pub struct ServeFuture<S, B>
    where
        S: Service<LlmRequest>,
    {
        #[pin]
        state: State<S, B>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, B>
    where
        S: Service<LlmRequest>,
    {
        Answered { response: Option<Response<ServeBody>> },
        Reading {
            #[pin]
            body: Gather<B>,
            begin: Option<Begin<S>>,
        },
        Calling {
            #[pin]
            call: ReadyCall<S>,
            exchange: Exchange,
        },
        // The call has its box from the start: it may have to move into the body.
        MayOpenEarly {
            call: Option<BoxLlmFuture>,
            after: Duration,
            #[pin]
            timer: Option<Sleep>,
            exchange: Exchange,
        },
        Folding { fold: Folding, exchange: Exchange },
    }
}

type Folding = Pin<Box<dyn Future<Output = Result<(Head, Completion), LlmError>> + Send>>;

/// What a call needs once its request is read.
pub(crate) struct Begin<S> {
    pub(crate) service: S,
    pub(crate) api: Api,
    pub(crate) cache: CacheDirective,
    pub(crate) operation: Operation,
    pub(crate) identity: Option<Arc<Identity>>,
    pub(crate) request_id: Option<HeaderValue>,
    pub(crate) settings: Arc<Settings>,
}

/// What is known of a call while the service has it.
#[derive(Clone, Debug)]
pub(crate) struct Exchange {
    pub(crate) api: Api,
    pub(crate) asks: Asks,
    /// Whether the caller asked for a stream.
    pub(crate) streamed: bool,
    /// Whether the caller asked to be told the usage of a stream.
    pub(crate) usage: bool,
    pub(crate) request_id: Option<HeaderValue>,
    /// The request goes to the service; the ledger says how many attempts were made of it.
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) settings: Arc<Settings>,
}

/// What the caller asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asks {
    Chat,
    /// Vectors, as numbers or in base64.
    Embeddings {
        base64: bool,
    },
}

impl Asks {
    fn of(request: &LlmRequest) -> Self {
        match request.prompt() {
            Prompt::Embed(embed) => Self::Embeddings {
                base64: embed.encoding_format.as_deref() == Some("base64"),
            },
            _ => Self::Chat,
        }
    }
}

impl Exchange {
    pub(crate) fn keep_alive(&self) -> Option<Duration> {
        self.settings.keep_alive
    }

    pub(crate) fn clock(&self) -> &WallClock {
        &self.settings.clock
    }
}

impl<S: Service<LlmRequest>, B: Body> ServeFuture<S, B> {
    pub(crate) fn answered(response: Response<ServeBody>) -> Self {
        Self {
            state: State::Answered {
                response: Some(response),
            },
        }
    }

    pub(crate) fn reading(body: B, begin: Begin<S>) -> Self {
        let body = Gather::new(
            body,
            begin.settings.body_limit,
            begin.settings.body_patience,
        );
        Self {
            state: State::Reading {
                body,
                begin: Some(begin),
            },
        }
    }
}

impl<S, B> Future for ServeFuture<S, B>
where
    S: LlmService + Send + 'static,
    S::Future: Send,
    B: Body,
{
    type Output = Result<Response<ServeBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                StateProj::Answered { response } => match response.take() {
                    Some(response) => return Poll::Ready(Ok(response)),
                    None => return Poll::Pending,
                },
                StateProj::Reading { body, begin } => {
                    let read = ready!(body.poll(cx));
                    let Some(begin) = begin.take() else {
                        return Poll::Pending;
                    };
                    match read {
                        Ok(json) => begin.call(json),
                        Err(unread) => answered(reply::with_request_id(
                            reply::unread(begin.api, unread),
                            begin.request_id,
                        )),
                    }
                }
                StateProj::Calling { call, exchange } => {
                    let result = ready!(call.poll(cx));
                    resolved(result, exchange)
                }
                StateProj::MayOpenEarly {
                    call,
                    after,
                    mut timer,
                    exchange,
                } => {
                    let Some(running) = call else {
                        return Poll::Pending;
                    };
                    match running.as_mut().poll(cx) {
                        Poll::Ready(result) => resolved(result, exchange),
                        Poll::Pending => {
                            if timer.is_none() {
                                timer.set(Some(tokio::time::sleep(*after)));
                            }
                            if let Some(timer) = timer.as_pin_mut() {
                                ready!(timer.poll(cx));
                            }
                            let Some(call) = call.take() else {
                                return Poll::Pending;
                            };
                            answered(reply::early(call, exchange))
                        }
                    }
                }
                StateProj::Folding { fold, exchange } => match ready!(fold.as_mut().poll(cx)) {
                    Ok((head, completion)) => answered(whole(head, &completion, exchange)),
                    Err(error) => answered(reply::failed(&error, exchange)),
                },
            };
            this.state.set(next);
        }
    }
}

impl<S> Begin<S>
where
    S: LlmService + Send + 'static,
    S::Future: Send,
{
    /// Reads the request and hands it to the service.
    fn call<B>(self, json: Bytes) -> State<S, B> {
        let mut request = match self.api.read(self.operation, json) {
            Ok(request) => request,
            Err(error) => {
                let response = reply::refused(self.api, &error);
                return answered(reply::with_request_id(response, self.request_id));
            }
        };
        identify(&mut request, self.identity);
        if self.cache != CacheDirective::default() {
            request.set_cache(self.cache);
        }
        let exchange = Exchange {
            api: self.api,
            asks: Asks::of(&request),
            streamed: request.is_stream(),
            usage: matches!(request.delivery, Delivery::Stream { usage: true }),
            request_id: self.request_id,
            ledger: request.call.begin().clone(),
            settings: self.settings,
        };
        let call = ReadyCall::new(self.service, request);
        match exchange.settings.open_early {
            Some(after) if exchange.streamed => State::MayOpenEarly {
                call: Some(Box::pin(call)),
                after,
                timer: None,
                exchange,
            },
            _ => State::Calling { call, exchange },
        }
    }
}

/// Says on whose behalf `request` is made: whom the closure named, and the user that the request
/// itself names where the closure named none.
fn identify(request: &mut LlmRequest, identity: Option<Arc<Identity>>) {
    if let Some(identity) = identity {
        request.set_identity(identity);
    }
    if request.identity().user.is_none() {
        // Not borrowed: a name may hold what JSON writes with an escape.
        let extra = match request.prompt() {
            Prompt::Chat(chat) => Some(&chat.extra),
            Prompt::Embed(embed) => Some(&embed.extra),
            _ => None,
        };
        let user = extra.and_then(|extra| extra.read::<String>("user"));
        if let Some(user) = user {
            let mut identity = Identity::clone(request.identity());
            identity.user = Some(user.into());
            request.set_identity(identity);
        }
    }
}

/// What follows once the service has answered.
fn resolved<S, B>(result: Result<LlmResponse, LlmError>, exchange: &Exchange) -> State<S, B>
where
    S: Service<LlmRequest>,
{
    let response = match result {
        Ok(response) => response,
        Err(error) => return answered(reply::failed(&error, exchange)),
    };
    let head = response.head;
    match (response.body, exchange.streamed) {
        (LlmBody::Complete(completion), false) => answered(whole(head, &completion, exchange)),
        (LlmBody::Stream(stream), true) => answered(reply::stream(head, stream, exchange)),
        (LlmBody::Complete(completion), true) => {
            let stream = streamed::chunks_of(&completion);
            answered(reply::stream(head, stream, exchange))
        }
        (LlmBody::Stream(stream), false) => State::Folding {
            fold: Box::pin(LlmResponse::stream(head, stream).collect()),
            exchange: exchange.clone(),
        },
    }
}

fn whole(head: Head, completion: &Completion, exchange: &Exchange) -> Response<ServeBody> {
    let context = Context {
        head: head.clone(),
        clock: exchange.clock().clone(),
    };
    let json = match (exchange.asks, completion) {
        (Asks::Chat, Completion::Chat(chat)) => exchange.api.write(&context, chat),
        (Asks::Embeddings { base64 }, Completion::Embed(embeddings)) => {
            embeddings_to_json(embeddings, &head.model, base64)
        }
        (Asks::Chat, _) => return reply::failed(&streamed::not_a_chat(), exchange),
        (Asks::Embeddings { .. }, _) => {
            let message = "the service did not answer with embeddings";
            let error = LlmError::new(ErrorKind::Internal, message);
            return reply::failed(&error, exchange);
        }
    };
    reply::whole(&head, json, exchange)
}

fn answered<S: Service<LlmRequest>, B>(response: Response<ServeBody>) -> State<S, B> {
    State::Answered {
        response: Some(response),
    }
}

impl<S: Service<LlmRequest>, B> fmt::Debug for ServeFuture<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.state {
            State::Answered { .. } => "ServeFuture::Answered",
            State::Reading { .. } => "ServeFuture::Reading",
            State::Calling { .. } => "ServeFuture::Calling",
            State::MayOpenEarly { .. } => "ServeFuture::MayOpenEarly",
            State::Folding { .. } => "ServeFuture::Folding",
        })
    }
}
