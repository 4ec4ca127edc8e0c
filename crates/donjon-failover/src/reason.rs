//! Why a target did not serve.

use donjon_core::{ErrorKind, LlmError};

use crate::state::{Look, TargetState, Why};

/// Why a target that looks like this was not asked; `None` if it could have been.
pub(crate) fn reason(look: Look, now: u64) -> Option<LlmError> {
    let unsent = |why| LlmError::new(ErrorKind::Unsent, why);
    Some(match look {
        Look::Ready { .. } | Look::Held => return None,
        Look::Out { until } => {
            let after = std::time::Duration::from_nanos(until.saturating_sub(now));
            unsent("the target is out").with_retry_after(after)
        }
        Look::Not(Why::Disabled) => unsent("the target is disabled"),
        Look::Not(Why::Draining) => unsent("the target is draining"),
        Look::Not(Why::Removed) => unsent("the target was removed"),
        Look::Not(Why::Full) => LlmError::new(
            ErrorKind::QueueFull,
            "the target has as many calls as it may have",
        ),
        Look::Not(Why::Lacks(capability)) => LlmError::new(
            ErrorKind::Unsupported,
            format!("the target has no {capability}"),
        ),
        Look::Not(Why::TooLong) => LlmError::new(
            ErrorKind::ContextLength,
            "the prompt is longer than the target's context window",
        ),
    })
}

/// Says which target an error came from, if it does not say so.
pub(crate) fn with_target(error: LlmError, target: &TargetState) -> LlmError {
    if error.target().is_some() {
        return error;
    }
    error.with_target(target.name)
}
