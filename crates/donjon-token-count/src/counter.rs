//! Counting a request before it is sent.

use std::sync::Arc;

use donjon_core::{
    Chat, ErrorKind, Estimate, LlmError, LlmRequest,
    shape::{Check, CheckService},
};

use crate::{
    builder::Fit,
    count::Count,
    handle::TokenEvent,
    permit::Permit,
    registry::Model,
    shared::{Asked, Facts, Shared},
    trim,
};

/// A service whose requests are counted: see the [crate](crate).
pub type TokenCount<S> = CheckService<S, TokenCounter>;

/// Counts requests, and refuses those that do not fit their model.
#[derive(Clone, Debug)]
pub struct TokenCounter {
    shared: Arc<Shared>,
}

impl TokenCounter {
    pub(crate) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl Check for TokenCounter {
    type Permit = Permit;

    #[inline]
    fn check(&self, request: &mut LlmRequest) -> Result<Option<Permit>, LlmError> {
        let asked = self.shared.asked(request.model());
        let facts = &asked.facts;
        let mut raw = self.shared.raw(&facts.ruler, request.shared_prompt());
        let mut count = facts.ruler.calibration.correct(raw);
        let answer = Answer::of(request, &facts.model, self.shared.settings.default_output);
        if !answer.fits(&facts.model, count.tokens()) {
            (raw, count) = self.overlong(&asked, request, raw, count, &answer)?;
        }
        let input = if self.shared.settings.cautious {
            count.most()
        } else {
            count.tokens()
        };
        request.call.estimate = Some(Estimate::new(input, answer.most));
        asked.tally.passed();
        Ok(Some(Permit::new(asked, raw, count)))
    }
}

impl TokenCounter {
    /// A request that most likely does not fit: it is made shorter, refused, or passes all the same.
    #[cold]
    fn overlong(
        &self,
        asked: &Asked,
        request: &mut LlmRequest,
        raw: Count,
        count: Count,
        answer: &Answer,
    ) -> Result<(Count, Count), LlmError> {
        let settings = &self.shared.settings;
        let facts = &asked.facts;
        if settings.trim
            && let Some(left_out) = trim_to(facts, request, answer, raw)
        {
            asked.tally.trimmed();
            let raw = self.shared.raw(&facts.ruler, request.shared_prompt());
            let model = request.model();
            self.shared.events.tell(|| TokenEvent::Trimmed {
                model: model.clone(),
                messages: left_out,
            });
            return Ok((raw, facts.ruler.calibration.correct(raw)));
        }
        let fits = match settings.fit {
            Fit::Off => true,
            Fit::Likely => false,
            Fit::Certain => answer.fits(&facts.model, count.least()),
        };
        if fits {
            return Ok((raw, count));
        }
        asked.tally.refused();
        let model = request.model();
        self.shared.events.tell(|| TokenEvent::Refused {
            model: model.clone(),
            count,
        });
        Err(refusal(model, &facts.model, count, answer))
    }
}

/// The tokens that are asked for in answer.
struct Answer {
    /// What the request says.
    limit: Option<u64>,
    /// What the request asks for at most; one where it does not say: there must be room for a word.
    asked: u64,
    /// The most that there can be, all choices together.
    most: u64,
    /// What is kept free for it when messages are left out.
    reserve: u64,
}

impl Answer {
    fn of(request: &LlmRequest, model: &Model, default: u64) -> Self {
        let Some(chat) = request.as_chat() else {
            return Self {
                limit: None,
                asked: 0,
                most: 0,
                reserve: 0,
            };
        };
        let limit = chat.output_limit();
        let longest = model.max_output.unwrap_or(u64::MAX);
        let one = limit.or(model.max_output).unwrap_or(default).min(longest);
        Self {
            limit,
            asked: limit.unwrap_or(1),
            most: one.saturating_mul(chat.choices().into()),
            reserve: limit.unwrap_or_else(|| default.min(longest)),
        }
    }

    fn fits(&self, model: &Model, input: u64) -> bool {
        input <= self.room(model, self.asked)
    }

    /// The tokens that a prompt may have beside an answer of `output`.
    fn room(&self, model: &Model, output: u64) -> u64 {
        let beside = model
            .context
            .map_or(u64::MAX, |context| context.saturating_sub(output));
        beside.min(model.max_input.unwrap_or(u64::MAX))
    }
}

/// Leaves out the oldest messages so that the others fit, and says how many.
fn trim_to(facts: &Facts, request: &mut LlmRequest, answer: &Answer, raw: Count) -> Option<usize> {
    let chat = request.as_chat()?;
    let keep = kept(facts, chat, answer, raw)?;
    let left_out = keep.iter().filter(|keep| !**keep).count();
    let kept = chat.messages.iter().zip(keep).filter(|(_, keep)| *keep);
    let messages: Vec<_> = kept.map(|(message, _)| message.clone()).collect();
    request.edit_chat()?.messages = messages.into();
    Some(left_out)
}

fn kept(facts: &Facts, chat: &Chat, answer: &Answer, raw: Count) -> Option<Vec<bool>> {
    let ruler = &facts.ruler;
    // Each is rounded up, so that together they are not less than the whole.
    let corrected =
        |raw| ruler.calibration.correct(raw).tokens() + u64::from(ruler.calibration.reports() > 0);
    let (frame, tokens) = ruler.apart(chat, raw);
    let frame = corrected(frame);
    let tokens: Vec<u64> = tokens.into_iter().map(corrected).collect();
    // As much as it can be for the answer that is kept free, else for one that just fits.
    [answer.reserve, answer.asked]
        .into_iter()
        .find_map(|output| {
            let room = answer.room(&facts.model, output).checked_sub(frame)?;
            trim::keep(&chat.messages, &tokens, room)
        })
}

fn refusal(name: &str, model: &Model, count: Count, answer: &Answer) -> LlmError {
    let room = match (model.context, model.max_input) {
        (_, Some(input)) if count.tokens() > input => format!("takes {input} of prompt"),
        (Some(context), _) => format!("has room for {context}"),
        _ => String::from("has no room for it"),
    };
    let message = match answer.limit {
        Some(limit) => format!(
            "the prompt has {count}, {limit} are asked for in answer, and the model `{name}` {room}"
        ),
        None => format!("the prompt has {count}, and the model `{name}` {room}"),
    };
    LlmError::new(ErrorKind::ContextLength, message).with_field("messages")
}
