//! The vocabulary of Donjon: what the layers around a call to a language model share.
//!
//! # What it is
//!
//! * The request ([`LlmRequest`]): cheap to clone whatever the size of its prompt. The answer
//!   ([`LlmResponse`]): whole ([`Completion`]) or chunk by chunk ([`ResponseStream`] of [`Chunk`]).
//!   The words are those of OpenAI's chat completions; every member without a field survives.
//! * What can go wrong ([`LlmError`], [`ErrorKind`]), and the one table of what is done about it
//!   ([`Disposition`]).
//! * The *commit point* ([`commit`]) and the *end* ([`watch`](fn@watch), [`Observer`]) of a call: its
//!   future resolves when the caller is shown the first thing, and what a layer holds for it hears
//!   exactly one end.
//! * The [`Ledger`]: the attempts of a call, shared by all who make some.
//! * The [shapes](shape) of readiness that layers are made of, [reservations](Reservation),
//!   [keys](KeyBy) and their [bounded map](Keyed), [events](Events), [figures](Snapshot), the
//!   [wall clock](WallClock), [money](NanoUsd).
//!
//! # What it is not
//!
//! No policy and no IO: when to retry, whom to ask, how to talk to a provider is said in the crates
//! above, which know this one and not each other.
//!
//! # Where it stands
//!
//! Below every other crate. A layer takes any `S: Service<LlmRequest, Response = LlmResponse>` whose
//! error turns into an [`LlmError`], and yields [`LlmError`]:
//!
//! ```
//! use donjon_core::{ChatCompletion, Head, LlmRequest, LlmResponse, LlmError, Message};
//! use donjon_core::CommitLayer;
//! use tower::{Layer, Service, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), LlmError> {
//! // A model that repeats what it is told.
//! let parrot = service_fn(|request: LlmRequest| async move {
//!     let said = request.as_chat().map(|chat| chat.messages[0].text().into_owned());
//!     let answer = ChatCompletion::text(request.model().clone(), said.unwrap_or_default());
//!     Ok::<_, LlmError>(LlmResponse::complete(Head::new(request.model().clone()), answer))
//! });
//!
//! let mut model = CommitLayer::new().layer(parrot);
//! let request = LlmRequest::chat("parrot-1", [Message::user("Hello!")]);
//! assert_eq!(model.ready().await?.call(request).await?.text().await?, "Hello!");
//! # Ok(()) }
//! ```

mod clock;
pub mod commit;
mod counts;
mod error;
mod events;
mod hints;
mod key;
mod keyed;
mod ledger;
mod money;
mod name;
mod observe;
mod reservation;
mod service;
pub mod shape;
mod snapshot;
mod stream;
mod vocab;
mod watch;

pub use clock::WallClock;
pub use commit::{Commit, CommitLayer};
pub use counts::Counts;
pub use error::{
    BoxError, Classify, DefaultTable, Disposition, ErrorKind, FailedAttempt, Health, LlmError,
    Scope, TimeoutClock,
};
pub use events::{Events, Heard, Listener};
pub use hints::{Hints, LimitHint, LimitUnit};
pub use key::{Key, KeyBy};
pub use keyed::{Full, Idle, Keyed};
pub use ledger::{
    Attempt, AttemptCause, AttemptRef, Billed, DropReason, Ledger, ReservedAttempt, Stamps,
};
pub use money::NanoUsd;
pub use name::Name;
pub use observe::{End, Observer, Outcome};
pub use reservation::{Account, Reservation, Settlement};
pub use service::{BoxLlmFuture, BoxLlmService, LlmService};
pub use snapshot::{Figure, FigureKind, Labelled, Snapshot};
pub use stream::ResponseStream;
pub use vocab::{
    Body, CacheDirective, Call, CanonicalPiece, Chat, ChatCompletion, Choice, ChoiceDelta, Chunk,
    Completion, Content, Delivery, Delta, Dialect, Embed, EmbedInput, Embedding, Embeddings,
    Estimate, Extra, FinishReason, Fold, Function, FunctionCall, Head, Identity, IdentityBuilder,
    ImageUrl, LlmRequest, LlmResponse, Message, Operation, Origin, Part, Priority, Prompt,
    Question, Role, Stop, Tool, ToolCall, Until, Usage, Whose, Wire,
};
pub use watch::{Watch, watch};
