//! What the failures of a transport mean.

use std::{error::Error, io};

#[cfg(feature = "hyper-client")]
use donjon_core::TimeoutClock;
use donjon_core::{BoxError, ErrorKind, LlmError};

use crate::sse::EventError;

/// How far an exchange had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// No answer had come.
    Head,
    /// A whole answer was being read.
    Body,
    /// A stream was being read.
    Stream,
}

/// A failure, and whether the request may have reached the provider.
pub(super) struct Failed {
    pub(super) error: LlmError,
    pub(super) sent: bool,
}

/// The failure of a transport of whichever kind. Those of [`transport`](crate::transport) and of the
/// system are told apart; an [`LlmError`] inside stays what it is.
pub(super) fn of_transport(error: BoxError, phase: Phase) -> Failed {
    if find::<LlmError>(&*error).is_some() {
        let error = LlmError::from(error);
        let sent = !error.kind().is_unsent();
        return Failed { error, sent };
    }
    let (kind, sent) = kind(&*error, phase);
    let error = LlmError::new(kind, error.to_string()).with_source(error);
    Failed { error, sent }
}

/// Why a stream of events ended early.
pub(super) fn of_events(error: EventError) -> LlmError {
    match error {
        EventError::Body(cause) => of_transport(cause, Phase::Stream).error,
        other => LlmError::new(ErrorKind::InvalidResponse, other.to_string()).with_source(other),
    }
}

fn kind(error: &(dyn Error + 'static), phase: Phase) -> (ErrorKind, bool) {
    let broken = match phase {
        Phase::Head | Phase::Body => ErrorKind::Transport,
        Phase::Stream => ErrorKind::StreamBroken,
    };
    #[cfg(feature = "hyper-client")]
    if let Some(error) = find::<crate::transport::TransportError>(error) {
        use crate::transport::TransportErrorKind as Kind;
        let kind = match error.kind() {
            Kind::Connect => ErrorKind::Connect,
            Kind::ConnectTimeout => ErrorKind::Timeout(TimeoutClock::Connect),
            Kind::Closed | Kind::Body | Kind::Other => broken,
        };
        return (kind, error.may_have_been_sent());
    }
    if phase == Phase::Head
        && let Some(error) = find::<io::Error>(error)
    {
        use io::ErrorKind as Kind;
        match error.kind() {
            Kind::ConnectionRefused
            | Kind::HostUnreachable
            | Kind::NetworkUnreachable
            | Kind::AddrNotAvailable => return (ErrorKind::Connect, false),
            _ => {}
        }
    }
    (broken, true)
}

/// The first error of type `E` in the chain.
fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    std::iter::successors(Some(error), |&error| error.source())
        .find_map(|error| error.downcast_ref())
}
