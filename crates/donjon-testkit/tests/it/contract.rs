//! The contract lets sound layers pass and catches each of the ways to break it.

mod broken;
mod caught;
mod sound;

use std::pin::Pin;

use donjon_core::{LlmError, LlmResponse};

/// What a call comes to, boxed.
type Answer = Pin<Box<dyn Future<Output = Result<LlmResponse, LlmError>> + Send>>;
