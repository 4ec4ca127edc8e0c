//! The events of a body, however they are framed.

use std::{
    pin::Pin,
    task::{self, Poll},
};

use donjon_core::BoxError;
use futures_core::Stream;
use http_body::Body;
use pin_project_lite::pin_project;

use crate::{
    codec::Framing,
    lines::LineData,
    sse::{EventData, EventError},
};

pin_project! {
    #[project = EventsProj]
    pub(super) enum Events<B>
    where
        B: Body,
        B::Error: Into<BoxError>,
    {
        Sse {
            #[pin]
            events: EventData<B>,
        },
        Lines {
            #[pin]
            lines: LineData<B>,
        },
    }
}

impl<B> Events<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    pub(super) fn new(framing: Framing, body: B, max_event: usize) -> Self {
        match framing {
            Framing::Events => Self::Sse {
                events: EventData::new(body, max_event),
            },
            Framing::Lines => Self::Lines {
                lines: LineData::new(body, max_event),
            },
        }
    }
}

impl<B> Stream for Events<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Item = Result<String, EventError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Option<Self::Item>> {
        match self.project() {
            EventsProj::Sse { events } => events.poll_next(cx),
            EventsProj::Lines { lines } => lines.poll_next(cx),
        }
    }
}
