//! Integration tests of the token count.
#![cfg(all(not(loom), feature = "openai"))]

mod allocations;
mod bounded;
mod calls;
mod contract;
mod corpus;
mod estimates;
mod exact;
#[cfg(feature = "huggingface")]
mod huggingface;
mod known;
mod overhead;
mod trimmed;

use donjon_core::{LlmError, LlmRequest, LlmResponse, LlmService};

/// Calls and waits for the answer, not for its stream.
async fn call<S: LlmService + Clone>(
    service: &S,
    request: LlmRequest,
) -> Result<LlmResponse, LlmError> {
    let mut service = service.clone();
    let answer = async {
        std::future::poll_fn(|cx| service.poll_ready(cx)).await?;
        service.call(request).await
    };
    answer.await.map_err(Into::into)
}

/// Calls and reads the answer to its end.
async fn send<S: LlmService + Clone>(service: &S, request: LlmRequest) -> Result<String, LlmError> {
    call(service, request).await?.text().await
}
