//! Which models go where.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use donjon::{
    BoxLlmService, ErrorKind, LlmError, LlmRequest, LlmResponse, Scope, Stack, StackFuture,
    shape::Check, token_count::TokenCounter,
};
use futures_util::FutureExt;
use tower::Service;
use wildmatch::WildMatch;

/// Where the models of a glob go.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) glob: WildMatch,
    pub(super) stack: Stack<BoxLlmService>,
    /// Counts tokens for the choice of a target, where that goes by them.
    pub(super) counter: Option<TokenCounter>,
}

/// Sends each request to the stack of the first route whose glob matches its model.
#[derive(Clone, Debug)]
pub struct Routes {
    routes: Arc<[Route]>,
}

impl Routes {
    pub(super) fn new(routes: impl IntoIterator<Item = Route>) -> Self {
        Self {
            routes: routes.into_iter().collect(),
        }
    }

    /// The stacks of all routes, with the models that they are for.
    pub fn stacks(&self) -> impl Iterator<Item = (String, &Stack<BoxLlmService>)> {
        self.routes
            .iter()
            .map(|route| (route.glob.to_string(), &route.stack))
    }
}

/// The answer of a route, or the refusal of a model that none takes.
pub type RoutesFuture = futures_util::future::Either<
    StackFuture<BoxLlmService>,
    std::future::Ready<Result<LlmResponse, LlmError>>,
>;

impl Service<LlmRequest> for Routes {
    type Response = LlmResponse;
    type Error = LlmError;
    type Future = RoutesFuture;

    /// Always ready: a stack is, and which one is asked is not known here.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), LlmError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: LlmRequest) -> RoutesFuture {
        let route = self
            .routes
            .iter()
            .find(|route| route.glob.matches(request.model()));
        match route {
            Some(route) => {
                // It refuses nothing; and what this call really uses is learnt from where the model that
                // serves is counted for.
                let counted = route.counter.as_ref().map(|c| c.check(&mut request));
                drop(counted);
                route.stack.send(request).left_future()
            }
            None => {
                let error = LlmError::new(
                    ErrorKind::ModelNotFound,
                    format!("no route takes the model `{}`", request.model()),
                );
                std::future::ready(Err(error.with_scope(Scope::Caller))).right_future()
            }
        }
    }
}
