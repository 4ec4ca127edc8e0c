//! From a script and a request to the steps that are played.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use donjon_core::{
    ChoiceDelta, Chunk, Delta, FinishReason, Hints, LlmError, LlmRequest, Role, ToolCall, Usage,
};

use super::{
    reply::{Answer, Finish, Interrupt, Reply, Token, Told},
    script::Script,
};

/// One step of a call that is played.
#[derive(Debug)]
pub(super) enum Step {
    Wait(Duration),
    /// Is pending once, woken at once.
    Yield,
    Silence,
    Chunk(Box<Chunk>),
    Fail(LlmError),
    /// The end, whole or not.
    Cut,
    Panic(String),
}

/// What is played for one call.
#[derive(Debug)]
pub(super) struct Plan {
    /// Until the head of the answer.
    pub(super) head: VecDeque<Step>,
    /// The answer itself.
    pub(super) body: VecDeque<Step>,
    pub(super) choices: u32,
    pub(super) model: Arc<str>,
    pub(super) id: Arc<str>,
    pub(super) hints: Option<Arc<Hints>>,
    /// Whether the call never leaves: the script refuses it as a layer of ours would.
    pub(super) unsent: bool,
}

impl Plan {
    /// What `script` means for `request`, the call of this `number`.
    pub(super) fn new(script: Script, request: &LlmRequest, number: usize) -> Self {
        let Script {
            reply,
            head_after,
            limits,
            yields,
        } = script;
        let mut plan = Self {
            head: VecDeque::from([Step::Wait(head_after)]),
            body: VecDeque::new(),
            choices: request.choices(),
            model: request.model().clone(),
            id: format!("scripted-{number}").into(),
            hints: (!limits.is_empty()).then(|| Arc::new(Hints::new(limits))),
            unsent: false,
        };
        pause(&mut plan.head, yields);
        match reply {
            Reply::Answer(answer) => plan.answer(*answer, yields),
            Reply::Fail(error) => {
                plan.unsent = error.kind().is_unsent();
                let error = match &plan.hints {
                    Some(hints) => error.with_hints(hints.clone()),
                    None => error,
                };
                plan.head.push_back(Step::Fail(error));
            }
            Reply::Hang => plan.head.push_back(Step::Silence),
            Reply::Panic(message) => plan.head.push_back(Step::Panic(message)),
        }
        plan
    }

    fn answer(&mut self, answer: Answer, yields: u32) {
        let Answer {
            tokens,
            choices,
            model,
            role,
            finish,
            usage,
            first_after,
            gap,
            interrupts,
        } = answer;
        self.choices = choices.unwrap_or(self.choices).max(1);
        self.model = model.unwrap_or_else(|| self.model.clone());
        let said = tokens.len() as u64 * u64::from(self.choices);
        let calls_tools = tokens.iter().any(|t| matches!(t, Token::ToolName { .. }));
        let mut out = Vec::new();
        if role {
            let open = (0..self.choices).map(|at| ChoiceDelta::role(at, Role::Assistant));
            out.extend(open.map(|choice| self.chunk(choice)));
        }
        out.push(Step::Wait(first_after));
        let last = tokens.len();
        let at = |n: usize| {
            let here = interrupts
                .iter()
                .filter(move |(at, _)| (*at).min(last) == n);
            here.flat_map(|(_, interrupt)| interrupt.steps())
        };
        for (n, token) in tokens.iter().enumerate() {
            if n > 0 {
                out.push(Step::Wait(gap));
            }
            out.extend(at(n));
            out.extend((0..self.choices).map(|choice| self.chunk(token.delta(choice))));
        }
        out.extend(at(last));
        let reason = match finish {
            Finish::Because(reason) => Some(reason),
            Finish::Natural if calls_tools => Some(FinishReason::ToolCalls),
            Finish::Natural => Some(FinishReason::Stop),
            Finish::Never => None,
        };
        if let Some(reason) = reason {
            let end = (0..self.choices).map(|at| ChoiceDelta::finish(at, reason.clone()));
            out.extend(end.map(|choice| self.chunk(choice)));
        }
        let usage = match usage {
            Told::Natural => Some(Usage::new(12, said)),
            Told::This(usage) => Some(usage),
            Told::Never => None,
        };
        if let Some(usage) = usage {
            let mut delta = self.delta();
            delta.usage = Some(usage);
            out.push(Step::Chunk(Box::new(delta.into())));
        }
        for step in out {
            if matches!(step, Step::Chunk(_)) {
                pause(&mut self.body, yields);
            }
            self.body.push_back(step);
        }
    }

    fn chunk(&self, choice: ChoiceDelta) -> Step {
        let mut delta = self.delta();
        delta.choices.push(choice);
        Step::Chunk(Box::new(delta.into()))
    }

    fn delta(&self) -> Delta {
        let mut delta = Delta::default();
        delta.id = Some(self.id.clone());
        delta.model = Some(self.model.clone());
        delta
    }
}

fn pause(steps: &mut VecDeque<Step>, yields: u32) {
    steps.extend((0..yields).map(|_| Step::Yield));
}

impl Interrupt {
    fn steps(&self) -> Vec<Step> {
        match self {
            Self::Stall(Some(wait)) => vec![Step::Wait(*wait)],
            Self::Stall(None) => vec![Step::Silence],
            Self::Cut => vec![Step::Cut],
            Self::Fail(error) => vec![Step::Fail(error.clone())],
            Self::Panic => vec![Step::Panic("scripted panic".into())],
            Self::Chunk {
                chunk,
                count,
                every,
            } => (0..*count)
                .flat_map(|_| [Step::Wait(*every), Step::Chunk(chunk.clone())])
                .collect(),
        }
    }
}

impl Token {
    fn delta(&self, choice: u32) -> ChoiceDelta {
        let mut delta = ChoiceDelta::default();
        delta.index = choice;
        match self {
            Self::Text(text) => delta.content = Some(text.clone()),
            Self::Reasoning(text) => delta.reasoning = Some(text.clone()),
            Self::Refusal(text) => delta.refusal = Some(text.clone()),
            Self::ToolName { index, name } => {
                let id = format!("call_{choice}_{index}");
                let mut call = ToolCall::function(id, name.clone(), String::new());
                call.index = Some(*index);
                delta.tool_calls.push(call);
            }
            Self::ToolPiece { index, arguments } => {
                delta
                    .tool_calls
                    .push(ToolCall::piece(*index, arguments.clone()));
            }
        }
        delta
    }
}
