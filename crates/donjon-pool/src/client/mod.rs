//! Pooled clients, for services that a factory makes.

mod builder;
mod checkout;
mod keeper;
mod service;
mod state;
mod stats;

use std::{fmt, sync::Arc};

use tower_service::Service;

pub use builder::ClientPoolBuilder;
pub use checkout::{Checkout, Client};
pub use service::{Pooled, PooledFuture};
pub use stats::ClientStats;

use keeper::Keeper;
use state::Shared;

/// A pool of clients that a factory makes: any `Service<Target, Response = Client>`, which tower
/// calls a `MakeService`.
///
/// * A checkout takes the client that was used last, else makes one if there may be another one, else
///   waits for its turn, first come first served. A client goes back when it is dropped, straight to
///   who is next; one that is broken is [discarded](Client::discard).
/// * Some can be kept warm from the start. What is idle for too long is dropped, as far as more than
///   those remain; so is what is too old, and what fails the check at checkout. One task sees to it,
///   which ends with the pool; without a runtime at [`build`](ClientPoolBuilder::build) there is none, nothing is kept
///   warm, and what is over is dropped at the next checkout.
///
/// ```
/// use donjon_pool::ClientPool;
/// use std::{convert::Infallible, time::Duration};
/// use tower::service_fn;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // Makes a client for an address: here a string that is as good as one.
/// let connect = service_fn(|address: &'static str| async move {
///     Ok::<_, Infallible>(format!("connected to {address}"))
/// });
/// let pool = ClientPool::builder(connect, "model:8000")
///     .min_warm(1)
///     .max(4)
///     .idle_timeout(Duration::from_secs(60))
///     .build()?;
/// pool.warm().await?;
/// let client = pool.checkout().await?;
/// assert_eq!(*client, "connected to model:8000");
/// drop(client);
/// assert_eq!(pool.handle().stats().made, 1);
/// # Ok(()) }
/// ```
pub struct ClientPool<M, T>
where
    M: Service<T>,
{
    maker: M,
    target: T,
    shared: Arc<Shared<M::Response>>,
    _keeper: Arc<Keeper<M::Response>>,
}

impl<M, T> ClientPool<M, T>
where
    M: Service<T> + Clone,
    T: Clone,
{
    /// Builds a pool of clients that `maker` makes for `target`.
    pub fn builder(maker: M, target: T) -> ClientPoolBuilder<M, T> {
        ClientPoolBuilder::new(maker, target)
    }

    /// Checks a client out. Its error is the factory's.
    pub fn checkout(&self) -> Checkout<M, T> {
        Checkout::new(&self.shared, &self.maker, &self.target)
    }

    /// Waits until as many clients are there as are to be kept warm, and makes those that nobody is
    /// making.
    ///
    /// # Errors
    ///
    /// The first error of the factory.
    pub async fn warm(&self) -> Result<(), M::Error> {
        loop {
            let made = self.shared.made.notified();
            if let Some(slot) = self.shared.too_few() {
                Checkout::for_slot(slot, self.maker.clone(), self.target.clone()).await?;
            } else if self.shared.is_warm() {
                return Ok(());
            } else {
                made.await;
            }
        }
    }

    /// A service that checks a client out for each call and gives it back when the response ends.
    pub fn service(&self) -> Pooled<M, T> {
        Pooled::new(self.clone())
    }
}

impl<M, T> ClientPool<M, T>
where
    M: Service<T>,
{
    /// Reads the figures of the pool.
    pub fn handle(&self) -> ClientPoolHandle<M::Response> {
        ClientPoolHandle {
            shared: self.shared.clone(),
        }
    }
}

/// Clones share the clients.
impl<M, T> Clone for ClientPool<M, T>
where
    M: Service<T> + Clone,
    T: Clone,
{
    fn clone(&self) -> Self {
        Self {
            maker: self.maker.clone(),
            target: self.target.clone(),
            shared: self.shared.clone(),
            _keeper: self._keeper.clone(),
        }
    }
}

impl<M: Service<T>, T> fmt::Debug for ClientPool<M, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientPool")
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}

/// Reads the figures of a [`ClientPool`].
pub struct ClientPoolHandle<S> {
    shared: Arc<Shared<S>>,
}

impl<S> ClientPoolHandle<S> {
    /// The figures now.
    pub fn stats(&self) -> ClientStats {
        self.shared.stats()
    }
}

impl<S> Clone for ClientPoolHandle<S> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
        }
    }
}

impl<S> fmt::Debug for ClientPoolHandle<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stats().fmt(f)
    }
}
