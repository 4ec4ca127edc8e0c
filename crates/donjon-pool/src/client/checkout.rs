//! Checking a client out.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tokio::sync::oneshot;
use tower_service::Service;

use super::state::{Entered, Kept, Shared, Slot};
use std::sync::Arc;

/// A client that is checked out. It goes back when it is dropped.
pub struct Client<S> {
    slot: Slot<S>,
    kept: Option<Kept<S>>,
}

impl<S> Client<S> {
    fn new(mut slot: Slot<S>) -> Option<Self> {
        let kept = slot.kept.take()?;
        Some(Self {
            slot,
            kept: Some(kept),
        })
    }

    /// Drops it instead of giving it back: it is broken.
    pub fn discard(mut self) {
        self.slot.shared().counters.discarded.add(1);
        drop(self.kept.take());
    }
}

/// It is there until the client is dropped or discarded, by value both.
const THERE: &str = "a client is there until it is dropped";

impl<S> Deref for Client<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.kept.as_ref().expect(THERE).client
    }
}

impl<S> DerefMut for Client<S> {
    fn deref_mut(&mut self) -> &mut S {
        &mut self.kept.as_mut().expect(THERE).client
    }
}

impl<S> Drop for Client<S> {
    fn drop(&mut self) {
        // What panicked while it was used may be half done.
        if std::thread::panicking() {
            self.slot.shared().counters.discarded.add(1);
            drop(self.kept.take());
        } else {
            self.slot.kept = self.kept.take();
        }
    }
}

impl<S: fmt::Debug> fmt::Debug for Client<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&**self).finish()
    }
}

pin_project! {
    /// Waits for a client, or makes one. Dropping it gives up the place in the queue, or the making.
    pub struct Checkout<M, T>
    where
        M: Service<T>,
    {
        shared: Arc<Shared<M::Response>>,
        maker: Option<(M, T)>,
        #[pin]
        state: State<M::Response, M::Future>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, F> {
        // There is one, or a place to make one.
        Has { slot: Option<Slot<S>> },
        Waiting { turn: oneshot::Receiver<Slot<S>> },
        Making { slot: Option<Slot<S>>, #[pin] future: F },
    }
}

impl<M, T> Checkout<M, T>
where
    M: Service<T> + Clone,
    T: Clone,
{
    pub(super) fn new(shared: &Arc<Shared<M::Response>>, maker: &M, target: &T) -> Self {
        let mut maker_too = true;
        let state = match shared.enter() {
            Entered::Waits(turn) => State::Waiting { turn },
            Entered::Slot(mut slot) => {
                // Where there is one that may be used, the maker is not needed.
                maker_too = !slot.is_usable();
                State::Has { slot: Some(slot) }
            }
        };
        Self {
            shared: shared.clone(),
            maker: maker_too.then(|| (maker.clone(), target.clone())),
            state,
        }
    }
}

impl<M, T> Checkout<M, T>
where
    M: Service<T>,
{
    /// Makes a client for a place of which one is to be kept warm.
    pub(super) fn for_slot(slot: Slot<M::Response>, maker: M, target: T) -> Self {
        Self {
            shared: slot.shared().clone(),
            maker: Some((maker, target)),
            state: State::Has { slot: Some(slot) },
        }
    }
}

impl<M, T> Future for Checkout<M, T>
where
    M: Service<T>,
{
    type Output = Result<Client<M::Response>, M::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                StateProj::Waiting { turn } => match ready!(Pin::new(turn).poll(cx)) {
                    Ok(mut slot) => {
                        slot.is_usable();
                        State::Has { slot: Some(slot) }
                    }
                    // A slot is sent to whoever was taken out of the queue; else once more.
                    Err(_) => match this.shared.enter() {
                        Entered::Waits(turn) => State::Waiting { turn },
                        Entered::Slot(mut slot) => {
                            slot.is_usable();
                            State::Has { slot: Some(slot) }
                        }
                    },
                },
                StateProj::Has { slot } => {
                    if slot.as_ref().is_some_and(|slot| slot.kept.is_some()) {
                        let client = slot.take().and_then(Client::new);
                        return Poll::Ready(Ok(client.expect("it has a client")));
                    }
                    let (maker, _) = this.maker.as_mut().expect("polled after completion");
                    if let Err(error) = ready!(maker.poll_ready(cx)) {
                        *slot = None;
                        this.shared.fail();
                        return Poll::Ready(Err(error));
                    }
                    let (mut maker, target) = this.maker.take().expect("polled after completion");
                    State::Making {
                        slot: slot.take(),
                        future: maker.call(target),
                    }
                }
                StateProj::Making { slot, future } => {
                    let made = ready!(future.poll(cx));
                    let mut slot = slot.take().expect("polled after completion");
                    let client = match made {
                        Ok(client) => client,
                        Err(error) => {
                            drop(slot);
                            this.shared.fail();
                            return Poll::Ready(Err(error));
                        }
                    };
                    this.shared.counters.made.add(1);
                    this.shared.made.notify_waiters();
                    slot.kept = Some(Kept::new(client));
                    State::Has { slot: Some(slot) }
                }
            };
            this.state.set(next);
        }
    }
}

impl<M: Service<T>, T> fmt::Debug for Checkout<M, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.state {
            State::Has { .. } => "Checkout::Has",
            State::Waiting { .. } => "Checkout::Waiting",
            State::Making { .. } => "Checkout::Making",
        })
    }
}
