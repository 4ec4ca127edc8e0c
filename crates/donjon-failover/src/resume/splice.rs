//! Making the chunks of another target the rest of one answer.

use donjon_core::{ChoiceDelta, Chunk, Delta};

use super::{
    align::{Align, Continuation, Differs},
    bill::Bill,
    shown::{OF_REASONING, Shown, seals},
};

/// What the chunks of a target go through whose answer is the rest of one that others began.
#[derive(Debug)]
pub(crate) struct Splice {
    stage: Stage,
    /// Text was shown before, and so what is reasoned now is not shown any more.
    hides_reasoning: bool,
    told_usage: bool,
}

#[derive(Debug)]
enum Stage {
    /// It answers anew.
    Aligning {
        text: Align,
        reasoning: Align,
        swallowed: usize,
        most: usize,
    },
    /// It goes on.
    Continuing(Continuation),
    /// All it says is new.
    New,
}

impl Splice {
    /// Of a target that answers anew, of which at most so many bytes are swallowed.
    pub(crate) fn align(shown: &Shown, most: usize) -> Self {
        Self::new(
            shown,
            Stage::Aligning {
                text: Align::default(),
                reasoning: Align::default(),
                swallowed: 0,
                most,
            },
        )
    }

    /// Of a target that goes on.
    pub(crate) fn proceed(shown: &Shown, continuation: Continuation) -> Self {
        Self::new(shown, Stage::Continuing(continuation))
    }

    fn new(shown: &Shown, stage: Stage) -> Self {
        let mut splice = Self {
            stage,
            hides_reasoning: !shown.text.is_empty(),
            told_usage: false,
        };
        splice.settle(shown);
        splice
    }

    /// Whether the usage of all was told in this stream.
    pub(crate) const fn told_usage(&self) -> bool {
        self.told_usage
    }

    /// Takes a chunk: what of it is to be shown, if anything is.
    pub(crate) fn take(
        &mut self,
        mut chunk: Chunk,
        shown: &Shown,
        bill: &Bill,
    ) -> Result<Option<Chunk>, Differs> {
        let delta = chunk.edit();
        shown.join(delta);
        self.swallow(delta)?;
        for choice in &mut delta.choices {
            self.reasoning(choice, shown)?;
            self.text(choice, shown)?;
        }
        self.settle(shown);
        match &self.stage {
            Stage::New => {}
            // What ends an answer, or shows something else, comes after all that had to come again.
            Stage::Aligning { .. } if delta.unknown || delta.choices.iter().any(ends_text) => {
                return Err(Differs);
            }
            Stage::Aligning { .. } | Stage::Continuing(_) => {
                (delta.unknown, delta.usage) = (false, None);
            }
        }
        delta.choices.retain(|choice| says_something(choice));
        if let Some(usage) = delta.usage {
            delta.usage = Some(bill.with(usage));
            self.told_usage = true;
        }
        let says = !delta.choices.is_empty() || delta.usage.is_some() || delta.unknown;
        Ok(says.then_some(chunk))
    }

    /// Refuses to swallow more than may be.
    fn swallow(&mut self, delta: &Delta) -> Result<(), Differs> {
        if let Stage::Aligning {
            swallowed, most, ..
        } = &mut self.stage
        {
            if *swallowed > *most {
                return Err(Differs);
            }
            // The last piece may be new in part, but then it is the last.
            *swallowed += delta.bytes();
        }
        Ok(())
    }

    fn reasoning(&mut self, choice: &mut ChoiceDelta, shown: &Shown) -> Result<(), Differs> {
        let aligning = matches!(self.stage, Stage::Aligning { .. });
        if self.hides_reasoning || aligning {
            // In other words it is the same once more.
            for name in OF_REASONING {
                choice.extra.remove(name);
            }
        }
        if self.hides_reasoning {
            choice.reasoning = None;
        } else if let (Stage::Aligning { reasoning, .. }, Some(piece)) =
            (&mut self.stage, &choice.reasoning)
        {
            let new = reasoning.take(&shown.reasoning, piece)?;
            if new.len() < piece.len() {
                choice.reasoning = Some(new.into());
            }
        }
        Ok(())
    }

    fn text(&mut self, choice: &mut ChoiceDelta, shown: &Shown) -> Result<(), Differs> {
        let hides = self.hides_reasoning;
        let piece = choice.content.as_deref().unwrap_or_default();
        let new = match &mut self.stage {
            Stage::New => return Ok(()),
            Stage::Aligning {
                text, reasoning, ..
            } => {
                if !piece.is_empty() && !hides && !reasoning.is_done(&shown.reasoning) {
                    return Err(Differs);
                }
                String::from(text.take(&shown.text, piece)?)
            }
            Stage::Continuing(continuation) => {
                let mut new = continuation.take(piece);
                if ends_text(choice) {
                    new.push_str(&continuation.let_go());
                    self.stage = Stage::New;
                }
                new
            }
        };
        if new != piece {
            // Those of a part of it are not known.
            choice.logprobs = None;
            choice.content = Some(new.into());
        }
        Ok(())
    }

    /// Whether from now on all is new.
    fn settle(&mut self, shown: &Shown) {
        let done = match &self.stage {
            Stage::Aligning {
                text, reasoning, ..
            } => {
                text.is_done(&shown.text)
                    && (self.hides_reasoning || reasoning.is_done(&shown.reasoning))
            }
            Stage::Continuing(continuation) => continuation.is_done(),
            Stage::New => return,
        };
        if done {
            self.stage = Stage::New;
        }
    }
}

/// Whether no text can come again after it.
fn ends_text(choice: &ChoiceDelta) -> bool {
    choice.finish_reason.is_some() || seals(choice)
}

/// Whether it says anything, or opens the answer.
fn says_something(choice: &ChoiceDelta) -> bool {
    let some = |text: &Option<Box<str>>| text.as_deref().is_some_and(|text| !text.is_empty());
    choice.role.is_some()
        || some(&choice.content)
        || some(&choice.reasoning)
        || choice.finish_reason.is_some()
        || !choice.extra.is_empty()
        || seals(choice)
}
