//! What the happy path costs.

use std::{
    future::Ready,
    pin::pin,
    task::{Context, Poll, Waker},
};

use donjon_core::{
    AttemptCause, Chat, ChatCompletion, Completion, Head, LlmError, LlmRequest, LlmResponse,
    Message, Prompt,
};
use donjon_token_count::TokenCountLayer;
use tower::{Layer, Service};

/// Answers at once, with what was made before.
#[derive(Clone)]
struct Leaf {
    head: Head,
    answer: Completion,
}

impl Service<LlmRequest> for Leaf {
    type Response = LlmResponse;
    type Error = LlmError;
    type Future = Ready<Result<LlmResponse, LlmError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), LlmError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: LlmRequest) -> Self::Future {
        let answer = LlmResponse::complete(self.head.clone(), self.answer.clone());
        std::future::ready(Ok(answer))
    }
}

/// What a call allocates, after a first one that was the same.
fn allocations(requests: impl IntoIterator<Item = LlmRequest>) -> u64 {
    let leaf = Leaf {
        head: Head::new("m"),
        answer: ChatCompletion::text("m", "hi").into(),
    };
    let mut service = TokenCountLayer::default().layer(leaf);
    let mut cx = Context::from_waker(Waker::noop());
    let mut count = 0;
    for (n, mut request) in requests.into_iter().enumerate() {
        request.call.open_attempt(AttemptCause::First);
        let call = allocation_counter::measure(|| {
            assert!(service.poll_ready(&mut cx).is_ready());
            let call = pin!(service.call(request));
            assert!(call.poll(&mut cx).is_ready());
        });
        count += if n == 0 { 0 } else { call.count_total };
    }
    count
}

fn messages() -> [Message; 2] {
    [
        Message::system("Answer briefly."),
        Message::user("Which tower of a castle is the donjon?"),
    ]
}

#[test]
fn a_prompt_that_was_counted_allocates_nothing() {
    for model in ["gpt-4o", "claude-sonnet-4", "nobody-knows"] {
        let request = LlmRequest::chat(model, messages());
        assert_eq!(allocations(std::iter::repeat_n(request, 100)), 0, "{model}");
    }
}

#[test]
fn nor_does_one_whose_messages_were() {
    // Made anew each time, so that each prompt is another.
    let prompts = (0..100).map(|_| LlmRequest::new("gpt-4o", Prompt::Chat(Chat::new(messages()))));
    let prompts: Vec<_> = prompts.collect();
    assert_eq!(allocations(prompts), 0);
}
