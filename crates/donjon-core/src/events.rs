//! Telling of changes of state.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use tokio::sync::broadcast;

/// A bounded broadcast of changes of state. It costs one load while nobody listens; a listener that
/// falls behind loses the oldest events and is told how many.
pub struct Events<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    sender: OnceLock<broadcast::Sender<T>>,
    capacity: usize,
    told: AtomicU64,
}

impl<T: Clone> Events<T> {
    /// Keeps up to `capacity` events for the slowest listener; at least one.
    pub fn new(capacity: usize) -> Self {
        Self {
            shared: Arc::new(Shared {
                sender: OnceLock::new(),
                capacity: capacity.max(1),
                told: AtomicU64::new(0),
            }),
        }
    }

    /// Tells of an event, which is made only if somebody listens. Never call it under a lock.
    pub fn tell(&self, event: impl FnOnce() -> T) {
        if let Some(sender) = self.shared.sender.get()
            && sender.receiver_count() > 0
            && sender.send(event()).is_ok()
        {
            self.shared.told.fetch_add(1, Relaxed);
        }
    }

    /// Listens to events from now on.
    pub fn listen(&self) -> Listener<T> {
        let sender = self
            .shared
            .sender
            .get_or_init(|| broadcast::Sender::new(self.shared.capacity));
        Listener {
            receiver: sender.subscribe(),
        }
    }

    /// How many events were told to somebody.
    pub fn told(&self) -> u64 {
        self.shared.told.load(Relaxed)
    }
}

impl<T> Clone for Events<T> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
        }
    }
}

impl<T> fmt::Debug for Events<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events")
            .field("capacity", &self.shared.capacity)
            .finish_non_exhaustive()
    }
}

/// Somebody who listens to [`Events`].
pub struct Listener<T> {
    receiver: broadcast::Receiver<T>,
}

/// What a listener hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard<T> {
    /// An event.
    Event(T),
    /// It fell behind, and so many events are lost.
    Missed(u64),
}

impl<T: Clone> Listener<T> {
    /// Waits for the next event; `None` when the layer is gone.
    pub async fn next(&mut self) -> Option<Heard<T>> {
        match self.receiver.recv().await {
            Ok(event) => Some(Heard::Event(event)),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(Heard::Missed(missed)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }

    /// The next event, if there is one now.
    pub fn try_next(&mut self) -> Option<Heard<T>> {
        match self.receiver.try_recv() {
            Ok(event) => Some(Heard::Event(event)),
            Err(broadcast::error::TryRecvError::Lagged(missed)) => Some(Heard::Missed(missed)),
            Err(_) => None,
        }
    }
}

impl<T> fmt::Debug for Listener<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Listener")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_listening_makes_no_event() {
        let events = Events::<u8>::new(2);
        events.tell(|| unreachable!("nobody listens"));
        drop(events.listen());
        events.tell(|| unreachable!("nobody listens any more"));
        assert_eq!(events.told(), 0);
    }

    #[test]
    fn a_slow_listener_is_told_what_it_missed() {
        let events = Events::new(2);
        let mut listener = events.listen();
        for event in 0..4 {
            events.tell(|| event);
        }
        assert_eq!(listener.try_next(), Some(Heard::Missed(2)));
        assert_eq!(listener.try_next(), Some(Heard::Event(2)));
        assert_eq!(listener.try_next(), Some(Heard::Event(3)));
        assert_eq!(listener.try_next(), None);
    }
}
