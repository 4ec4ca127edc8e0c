//! Budgets for calls to language models, as a tower layer.
//!
//! # What it does
//!
//! It reserves for each attempt the most that it may cost, refuses what might pass a hard limit, and
//! settles with what was used, at the price of the model that served.
//!
//! * Prices are data ([`PriceTable`]): tokens of prompt and answer, read from and written to the provider's cache,
//!   reasoning, audio, images, long prompts, tiers of service. A list is embedded (feature `prices`); each
//!   entry says where and when it was read. A price that nobody knows is a state of its own
//!   ([`UnknownPrice`]) and never zero.
//! * Limits ([`Limit`]) are hard or soft, for each key (model, user, project, tenant, tag, closure, pairs),
//!   over a day, a week, a month of a time zone or a rolling period. All of them are charged or none.
//!   Calls that come at once never pass a hard one together, as long as none uses more than its
//!   worst case.
//! * It settles at the end of the call, also where that is cancelled or breaks off. What was never sent,
//!   was refused or comes from a cache costs nothing.
//! * The handle reports by model, user, project, tenant and tag, forecasts, advises, sets limits and prices.
//! * What was spent can be kept ([`Store`]; `FileStore` with the feature `file-store`, which loses nothing that was settled when the
//!   process is killed).
//!
//! # What it does not do
//!
//! It counts no tokens: another layer puts an estimate on the request; else a token is taken for each byte of
//! the prompt. It knows no bill but what providers say they used. Its limits hold in this process alone.
//!
//! # Where it stands
//!
//! At each target, inside retry, so that every attempt is settled by itself; outside pool and
//! provider quota, so that nobody waits who cannot pay. One [`Budgets`] is shared by the layers of all
//! targets.
//!
//! # Example
//!
//! ```
//! use donjon_budget::{Budgets, Limit, Price, PriceTable};
//! use donjon_core::{
//!     ChatCompletion, ErrorKind, Estimate, Head, LlmError, LlmRequest, LlmResponse, Message, NanoUsd, Usage,
//! };
//! use tower::{Layer, Service, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let model = service_fn(|request: LlmRequest| async move {
//!     let mut answer = ChatCompletion::text("m", "Here you are.");
//!     answer.usage = Some(Usage::new(1_000, 200));
//!     Ok::<_, LlmError>(LlmResponse::complete(Head::new("m"), answer))
//! });
//!
//! let mut prices = PriceTable::empty();
//! prices.set("home", "m", Price::new(NanoUsd::from_dollars(1), NanoUsd::from_dollars(5)))?;
//! let budgets = Budgets::builder()
//!     .prices(prices)
//!     .limit(Limit::hard(NanoUsd::from_nanos(5_000_000)).per_day())
//!     .build()?;
//! let mut model = budgets.layer().provider("home").layer(model);
//!
//! let mut request = LlmRequest::chat("m", [Message::user("Hello!")]);
//! request.call.estimate = Some(Estimate::new(1_000, 500));
//! // It may cost $0.0035, and costs $0.002.
//! model.ready().await?.call(request.clone()).await?;
//! assert_eq!(budgets.handle().report().total().cost, NanoUsd::from_nanos(2_000_000));
//! // $0.003 are left.
//! let refused = model.ready().await?.call(request).await.unwrap_err();
//! assert_eq!(refused.kind(), ErrorKind::OverBudget);
//! assert!(refused.retry_after().is_some());
//! # Ok(()) }
//! ```

mod account;
mod advice;
mod books;
mod bound;
mod budgets;
mod cell;
mod check;
mod clock;
mod error;
mod handle;
mod held;
mod layer;
mod limit;
mod period;
mod prices;
mod report;
mod ring;
mod shared;
mod store;
mod tally;
mod ticket;

pub use books::Totals;
pub use budgets::{Budgets, BudgetsBuilder, UnknownPrice};
pub use check::{BudgetCheck, BudgetPermit};
pub use error::{ConfigError, Refusal};
pub use handle::{BudgetEvent, BudgetHandle, Standing};
pub use layer::{Budget, BudgetLayer};
pub use limit::Limit;
pub use period::{Day, Period};
pub use prices::{LongContext, Price, PriceError, PriceTable, ServiceTier};
pub use report::{Advice, Report, ReportLine};
#[cfg(feature = "file-store")]
pub use store::FileStore;
pub use store::{Closed, Journal, Record, Store, StoreError, keeper::WhenUnkept};
