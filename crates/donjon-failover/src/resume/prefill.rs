//! Asking for the rest of an answer that was begun.

use std::sync::Arc;

use donjon_core::{Content, LlmRequest, Message, Part, Role};

use super::{align::Continuation, bill::tokens, shown::Shown};
use crate::capability::{Capability, Needs};

/// A request for the rest of an answer.
#[derive(Debug)]
pub(crate) struct Prefill {
    pub(crate) request: LlmRequest,
    /// What comes again in the answer to it.
    pub(crate) continuation: Continuation,
}

impl Prefill {
    /// `request`, ended by what was shown of its answer; `used` tokens of answer are known to be spent.
    ///
    /// `None` where there is nothing to go on with: no text (reasoning alone is no answer begun), or a
    /// prescribed form, which a server would begin anew.
    pub(crate) fn of(request: &LlmRequest, shown: &Shown, used: u64) -> Option<Self> {
        let form = Capability::StructuredOutput.bit();
        if Needs::of(request).abilities & form != 0 {
            return None;
        }
        // Anthropic rejects a message of the assistant that ends in a blank.
        let begun = shown.text.trim_end();
        if begun.trim_start().is_empty() {
            return None;
        }
        let blanks = &shown.text[begun.len()..];
        let spent = tokens(shown.bytes() as u64).max(used);

        let mut request = request.clone();
        let chat = request.edit_chat()?;
        let mut messages = chat.messages.to_vec();
        let last = messages.last_mut().filter(|m| m.role == Role::Assistant);
        let sent = match last {
            Some(last) => {
                let last = Arc::make_mut(last);
                extend(last, begun);
                last.text().into_owned()
            }
            None => {
                messages.push(Arc::new(Message::assistant(begun)));
                begun.to_owned()
            }
        };
        chat.messages = messages.into();
        for limit in [&mut chat.max_tokens, &mut chat.max_completion_tokens] {
            *limit = limit.map(|most| most.saturating_sub(spent).max(1));
        }
        if let Some(estimate) = &mut request.call.estimate {
            estimate.input = estimate.input.saturating_add(spent);
            estimate.output = estimate.output.saturating_sub(spent).max(1);
        }
        Some(Self {
            request,
            continuation: Continuation::new(sent, blanks),
        })
    }
}

fn extend(message: &mut Message, text: &str) {
    match &mut message.content {
        Some(Content::Parts(parts)) => parts.push(Part::text(text)),
        Some(Content::Text(begun)) => *begun = format!("{begun}{text}").into(),
        none => *none = Some(text.into()),
    }
}

#[cfg(test)]
mod tests {
    use donjon_core::{Chunk, Estimate};

    use super::*;

    fn shown(text: &str) -> Shown {
        let mut shown = Shown::default();
        shown.note(&Chunk::text(text));
        shown
    }

    fn user() -> Message {
        Message::user("What is a keep?")
    }

    fn last(prefill: &Prefill) -> (Role, String) {
        let chat = prefill.request.as_chat().expect("a chat");
        let last = chat.messages.last().expect("a message");
        (last.role.clone(), last.text().into_owned())
    }

    #[test]
    fn what_was_shown_ends_the_request_without_its_last_blanks() {
        let request = LlmRequest::chat("m", [user()]);
        let mut prefill = Prefill::of(&request, &shown("A tower \n"), 0).expect("a text");
        assert_eq!(last(&prefill), (Role::Assistant, "A tower".into()));
        assert_eq!(prefill.continuation.take(" \nof stone"), "of stone");
        assert_eq!(request.as_chat().expect("a chat").messages.len(), 1);
        assert!(Prefill::of(&request, &shown(" \n"), 0).is_none());
        assert!(Prefill::of(&request, &Shown::default(), 0).is_none());
    }

    #[test]
    fn an_answer_that_the_request_began_itself_is_extended() {
        let begun = LlmRequest::chat("m", [user(), Message::assistant("It is")]);
        let prefill = Prefill::of(&begun, &shown(" a tower"), 0).expect("a text");
        assert_eq!(last(&prefill), (Role::Assistant, "It is a tower".into()));
        let parts = Message::assistant(vec![Part::text("It"), Part::text(" is")]);
        let begun = LlmRequest::chat("m", [user(), parts]);
        let prefill = Prefill::of(&begun, &shown(" a tower"), 0).expect("a text");
        assert_eq!(last(&prefill), (Role::Assistant, "It is a tower".into()));
    }

    #[test]
    fn what_was_spent_is_taken_off_its_limits() {
        let mut request = LlmRequest::chat("m", [user()]);
        let chat = request.edit_chat().expect("a chat");
        (chat.max_tokens, chat.max_completion_tokens) = (Some(100), Some(5));
        request.call.estimate = Some(Estimate::new(10, 100));
        // Forty bytes are about ten tokens.
        let text = "x".repeat(40);
        let limits = |used| {
            let prefill = Prefill::of(&request, &shown(&text), used).expect("a text");
            let chat = prefill.request.as_chat().expect("a chat").clone();
            let estimate = prefill.request.call.estimate.expect("an estimate");
            (
                chat.max_tokens,
                chat.max_completion_tokens,
                estimate.input,
                estimate.output,
            )
        };
        assert_eq!(limits(0), (Some(90), Some(1), 20, 90));
        assert_eq!(limits(30), (Some(70), Some(1), 40, 70));
    }

    #[test]
    fn a_prescribed_form_is_not_gone_on_with() {
        let body = r#"{"model":"m","messages":[{"role":"user","content":"hi"}],
            "response_format":{"type":"json_object"}}"#;
        let request = LlmRequest::from_openai_chat(body).expect("a good request");
        assert!(Prefill::of(&request, &shown("{\"a\""), 0).is_none());
    }
}
