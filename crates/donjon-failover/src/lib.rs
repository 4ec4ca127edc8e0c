//! Routing and failover between language model targets as a tower service, before the first token and after.
//!
//! # What it does
//!
//! Chooses a target for each call, by a [`Route`], and when it fails another, until one serves. It fails
//! over up to the commit point: whatever a target fails with before the caller was shown anything (an
//! outage, a quota, a prompt too long for its model, silence) another can make good. Which errors are
//! worth another target is said by core's [`Disposition`](donjon_core::Disposition) table, or by a
//! [classifier](FailoverBuilder::classify) of yours; an error that concerns the caller comes back at once
//! and as it is. Each [`Target`] has a priority, a weight, what it can do and how much it may have, can be
//! asked for [a model of its own](Target::map_model), and can be added, changed, drained and
//! [removed](Failover::remove) while calls go by. With a [`HealthPolicy`] those whose calls go badly are
//! left alone for a while and come back gradually, with a [probe](Target::probe) so are those that do not
//! answer it. A stream that breaks later, where [`resume`](FailoverBuilder::resume) is switched on, is
//! continued by another target, as one answer. When all failed, the error keeps the reason of [each](donjon_core::LlmError::attempts) and
//! says when the first could work again. A [`FailoverHandle`] shows figures, a [`HealthReport`], switches,
//! and tells of events.
//!
//! # What it does not do
//!
//! It does not ask the same target twice (`donjon-retry`, around each target, does), sets no time
//! limit but on a target's readiness (`donjon-timeout` does), makes nobody wait for a place
//! (`donjon-pool` does), and notices no silence in a stream (`donjon-timeout` does). A stream in which a
//! tool was called is not continued.
//!
//! # Where it stands
//!
//! Inside the call's deadline and the caller's own limits, which are final; around the stack of each
//! target. Innermost in each of these belongs [`CommitLayer`](donjon_core::CommitLayer), without
//! which a stream that fails before its first token is taken for an answer.
//!
//! ```
//! use donjon_core::{
//!     BoxLlmService, ChatCompletion, ErrorKind, Head, LlmError, LlmRequest, LlmResponse, Message,
//! };
//! use donjon_failover::{Failover, Target};
//! use tower::{Service, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let main = service_fn(|_: LlmRequest| async {
//!     Err::<LlmResponse, _>(LlmError::new(ErrorKind::Overloaded, "come back later"))
//! });
//! let spare = service_fn(|request: LlmRequest| async move {
//!     let answer = ChatCompletion::text(request.model().clone(), "Hello!");
//!     Ok::<_, LlmError>(LlmResponse::complete(Head::new(request.model().clone()), answer))
//! });
//!
//! let mut model = Failover::builder()
//!     .target(Target::new("main", BoxLlmService::new(main)))
//!     .target(Target::new("spare", BoxLlmService::new(spare)).map_model("gpt-4o", "llama-3.3-70b"))
//!     .build()?;
//! let handle = model.handle();
//!
//! let request = LlmRequest::chat("gpt-4o", [Message::user("Hello?")]);
//! let answer = model.ready().await?.call(request).await?;
//! assert_eq!(answer.head.target.as_deref(), Some("spare"));
//! assert_eq!(&*answer.head.model, "llama-3.3-70b");
//! assert_eq!(handle.targets()[0].failed_with(ErrorKind::Overloaded), 1);
//! # Ok(()) }
//! ```

mod builder;
mod capability;
mod course;
mod error;
mod event;
mod ewma;
mod figures;
mod future;
mod handle;
mod health;
mod layer;
mod measure;
mod met;
mod probe;
mod reason;
mod report;
mod resume;
mod rivals;
mod route;
mod scan;
mod service;
mod state;
mod stats;
mod target;
mod verdict;

pub use builder::{DEFAULT_DECAY, DEFAULT_PATIENCE, FailoverBuilder};
pub use capability::Capability;
pub use error::{ConfigError, UnknownTarget};
pub use event::{DownReason, FailoverEvent};
pub use future::FailoverFuture;
pub use handle::FailoverHandle;
pub use health::HealthPolicy;
pub use layer::FailoverLayer;
pub use probe::{Probe, Probes};
pub use report::{HealthReport, TargetHealth, TargetStatus};
pub use resume::{Resume, ResumeWay};
pub use route::{
    Candidates, LeastBusy, LeastLatency, LowestCost, Ordered, Prices, RoundRobin, Route, Sticky,
    TargetView, Weighted,
};
pub use service::Failover;
pub use stats::TargetStats;
pub use target::{Target, WhenOut};
