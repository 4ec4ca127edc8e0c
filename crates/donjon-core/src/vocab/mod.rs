//! What is asked and what is answered.

mod call;
pub(crate) mod canonical;
mod chat;
mod chunk;
mod completion;
mod embed;
mod fold;
mod identity;
pub(crate) mod json;
mod message;
mod request;
mod response;
mod usage;
mod wire;

pub(crate) use call::saturating_add;
pub use call::{CacheDirective, Call, Estimate, Priority, Until};
pub use canonical::{CanonicalPiece, Whose};
pub use chat::{Chat, Stop};
pub use chunk::{ChoiceDelta, Chunk, Delta};
pub use completion::{ChatCompletion, Choice, Completion, FinishReason};
pub use embed::{Embed, EmbedInput, Embedding, Embeddings};
pub use fold::Fold;
pub use identity::{Identity, IdentityBuilder};
pub use json::Extra;
pub use message::{Content, Function, FunctionCall, ImageUrl, Message, Part, Role, Tool, ToolCall};
pub use request::{Delivery, LlmRequest, Operation, Prompt, Question};
pub use response::{Body, Head, LlmResponse, Origin};
pub use usage::Usage;
pub use wire::{Dialect, Wire};
