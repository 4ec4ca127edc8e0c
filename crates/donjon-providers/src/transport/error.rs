//! What can go wrong between a request and the last byte of its answer.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::time::Duration;

use hyper_util::client::legacy;

pub(super) type BoxError = Box<dyn StdError + Send + Sync>;

/// The failure of an exchange with a host.
///
/// The cause is kept whole: walk [`source`](StdError::source) for it. Neither `Display` nor `Debug` shows a header, a body or the
/// credentials of a proxy.
pub struct TransportError {
    kind: TransportErrorKind,
    sent: bool,
    source: BoxError,
}

/// What became of the exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TransportErrorKind {
    /// No connection: the name did not resolve, the host or a proxy refused, or TLS failed. Nothing was sent.
    Connect,
    /// No connection within the time allowed, or the system gave up on it. Nothing was sent.
    ConnectTimeout,
    /// The connection was reset or closed before the head of a response came.
    Closed,
    /// The connection broke while the response body was read.
    Body,
    /// Anything else: a request that cannot be sent as it is, an answer that is not HTTP.
    Other,
}

/// Why a connection was given up: the time allowed for opening it passed.
#[derive(Debug)]
pub(super) struct ConnectTimedOut(pub(super) Duration);

impl TransportError {
    /// What became of the exchange.
    #[must_use]
    pub fn kind(&self) -> TransportErrorKind {
        self.kind
    }

    /// Whether any of the request may have reached the host. `false` only where it certainly has not, so that sending it again repeats
    /// nothing; `true` when the connection closed with the request under way.
    #[must_use]
    pub fn may_have_been_sent(&self) -> bool {
        self.sent
    }

    pub(super) fn request(error: legacy::Error) -> Self {
        let hyper = find::<hyper::Error>(&error);
        let kind = if error.is_connect() {
            if timed_out(&error) {
                TransportErrorKind::ConnectTimeout
            } else {
                TransportErrorKind::Connect
            }
        } else {
            match hyper {
                Some(cause) if !cause.is_user() && !cause.is_parse() => TransportErrorKind::Closed,
                _ => TransportErrorKind::Other,
            }
        };
        // An error from before a connection was chosen carries none; hyper reports "canceled" only for a request that it can
        // give back whole.
        let sent = error.connect_info().is_some() && !hyper.is_some_and(hyper::Error::is_canceled);
        Self {
            kind,
            sent,
            source: Box::new(error),
        }
    }

    pub(super) fn body(error: hyper::Error) -> Self {
        Self {
            kind: TransportErrorKind::Body,
            sent: true,
            source: Box::new(error),
        }
    }
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            TransportErrorKind::Connect => "no connection could be opened",
            TransportErrorKind::ConnectTimeout => "no connection could be opened in time",
            TransportErrorKind::Closed => "the connection was closed before a response came",
            TransportErrorKind::Body => "the response body was cut off",
            TransportErrorKind::Other => "the exchange failed",
        })
    }
}

impl fmt::Debug for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransportError")
            .field("kind", &self.kind)
            .field("may_have_been_sent", &self.sent)
            .field("source", &self.source)
            .finish()
    }
}

impl StdError for TransportError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.source)
    }
}

impl fmt::Display for ConnectTimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not connected after {:?}", self.0)
    }
}

impl StdError for ConnectTimedOut {}

fn timed_out(error: &legacy::Error) -> bool {
    find::<ConnectTimedOut>(error).is_some()
        || find::<io::Error>(error).is_some_and(|io| io.kind() == io::ErrorKind::TimedOut)
}

/// The first error of type `E` in the chain.
fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    std::iter::successors(Some(error), |&error| error.source())
        .find_map(|error| error.downcast_ref())
}
