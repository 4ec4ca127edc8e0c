//! Plays a script on a call: the response and its body.

use std::collections::VecDeque;
use std::future::{Future, pending};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode, Version};
use http_body::{Body, Frame};
use tokio::time::{Sleep, sleep};

use super::form::Form;
use super::line::Control;
use super::plan::{self, Step};
use super::record::{Dialect, End, Exchange};
use super::script::{Reply, Script};

/// Plays the script up to the head of the response. An error ends the connection (over HTTP/2: the stream) without one.
pub(super) async fn play(
    script: Script,
    mut exchange: Exchange,
    control: Arc<Control>,
) -> io::Result<Response<ScriptBody>> {
    pause(script.delay).await;
    let request = Arc::clone(&exchange.request);
    // Over HTTP/2 the connection is not this call's alone, so only its stream is broken.
    let own_line = request.version < Version::HTTP_2;
    if let Some((bytes, every)) = script.trickle
        && own_line
    {
        control.trickle_head(bytes, every);
    }
    let (head, steps) = match script.reply {
        Reply::Answer(answer) if request.streamed() => (
            Head::stream(request.dialect),
            plan::stream(&answer, &script.framing, &request),
        ),
        Reply::Answer(answer) => {
            let unary = plan::unary(&answer, &request);
            match unary.wait {
                Some(wait) => pause(wait).await,
                None => pending().await,
            }
            match unary.outcome {
                Ok(whole) => (Head::json(whole.length), whole.steps),
                Err(failure) => failed(failure.form(request.dialect)),
            }
        }
        Reply::Failure(failure) => {
            let form = failure.form(request.dialect);
            if form.event && request.streamed() {
                let steps = plan::told(form.body.clone(), &script.framing);
                (Head::stream(request.dialect), steps)
            } else {
                failed(form)
            }
        }
        Reply::HeadersOnly if request.streamed() => {
            (Head::stream(request.dialect), [Step::Hang].into())
        }
        Reply::HeadersOnly => (Head::json(256), [Step::Hang].into()),
        Reply::Hang => pending().await,
        Reply::Close { reset } => {
            if reset && own_line {
                control.close_by_reset();
            }
            exchange.end(End::Broken);
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Reply::Garbage(bytes) => {
            control.write_instead(bytes);
            exchange.end(End::Broken);
            (Head::stream(request.dialect), VecDeque::new())
        }
    };
    let mut response = Response::new(ScriptBody::new(steps, Some((exchange, control, own_line))));
    *response.status_mut() = head.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(head.content_type));
    match head.length {
        Some(length) => headers.insert(CONTENT_LENGTH, length.into()),
        None => headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    };
    let request_id = match request.dialect {
        Dialect::OpenAi => Some("x-request-id"),
        Dialect::Anthropic => Some("request-id"),
        Dialect::Gemini | Dialect::Ollama => None,
    };
    if let Some(name) = request_id {
        let id = format!("req_{}", request.number);
        headers.insert(
            name,
            HeaderValue::try_from(id).expect("letters and digits are a header value"),
        );
    }
    for (name, value) in &script.headers {
        headers.insert(name, value.clone());
    }
    Ok(response)
}

/// A response that no script was asked for.
pub(super) fn aside(form: &Form) -> Response<ScriptBody> {
    let (head, steps) = failed(form);
    let mut response = Response::new(ScriptBody::new(steps, None));
    *response.status_mut() = head.status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(head.content_type));
    response
}

struct Head {
    status: StatusCode,
    content_type: &'static str,
    /// The length promised; `None` for a stream.
    length: Option<usize>,
}

impl Head {
    fn stream(dialect: Dialect) -> Self {
        Self {
            status: StatusCode::OK,
            content_type: match dialect {
                Dialect::OpenAi | Dialect::Anthropic => "text/event-stream; charset=utf-8",
                Dialect::Gemini => "text/event-stream",
                Dialect::Ollama => "application/x-ndjson",
            },
            length: None,
        }
    }

    fn json(length: usize) -> Self {
        Self {
            status: StatusCode::OK,
            content_type: "application/json",
            length: Some(length),
        }
    }
}

fn failed(form: &Form) -> (Head, VecDeque<Step>) {
    let steps = [Step::Send {
        bytes: form.body.clone(),
        tokens: 0,
    }];
    let head = Head {
        status: form.status,
        content_type: form.content_type,
        length: Some(form.body.len()),
    };
    (head, steps.into())
}

async fn pause(wait: Duration) {
    if !wait.is_zero() {
        sleep(wait).await;
    }
}

/// A body that follows a timetable.
pub(super) struct ScriptBody {
    steps: VecDeque<Step>,
    sleep: Option<Pin<Box<Sleep>>>,
    /// The call that is answered, its connection, and whether that is the call's alone.
    call: Option<(Exchange, Arc<Control>, bool)>,
}

impl ScriptBody {
    fn new(steps: VecDeque<Step>, call: Option<(Exchange, Arc<Control>, bool)>) -> Self {
        let mut body = Self {
            steps,
            sleep: None,
            call,
        };
        if body.steps.is_empty() {
            body.end(End::Completed);
        }
        body
    }

    fn end(&mut self, how: End) {
        if let Some((exchange, ..)) = &mut self.call {
            exchange.end(how);
        }
    }
}

impl Body for ScriptBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        loop {
            if let Some(sleep) = &mut this.sleep {
                ready!(sleep.as_mut().poll(cx));
                this.sleep = None;
            }
            match this.steps.pop_front() {
                None => {
                    this.end(End::Completed);
                    return Poll::Ready(None);
                }
                Some(Step::Send { bytes, tokens }) => {
                    if let Some((exchange, ..)) = &this.call {
                        exchange.sent(tokens);
                    }
                    if this.steps.is_empty() {
                        this.end(End::Completed);
                    }
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                Some(Step::Flush) => {
                    // The connection writes what it has whenever its body is pending.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Some(Step::Wait(wait)) => this.sleep = Some(Box::pin(sleep(wait))),
                Some(Step::Repeat { left: 0, .. }) => {}
                Some(Step::Repeat { bytes, every, left }) => {
                    this.steps.push_front(Step::Repeat {
                        bytes: bytes.clone(),
                        every,
                        left: left - 1,
                    });
                    this.steps.push_front(Step::Send { bytes, tokens: 0 });
                    this.sleep = Some(Box::pin(sleep(every)));
                }
                Some(Step::Hang) => {
                    // The connection watches for the peer and drops this body when it leaves.
                    this.steps.push_front(Step::Hang);
                    return Poll::Pending;
                }
                Some(Step::Cut { reset }) => {
                    this.end(End::Broken);
                    if let Some((_, control, true)) = &this.call
                        && reset
                    {
                        control.close_by_reset();
                    }
                    return Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into())));
                }
                Some(Step::Tear { bytes, pass }) => {
                    this.end(End::Broken);
                    if let Some((_, control, _)) = &this.call {
                        control.break_after(pass);
                    }
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.steps.is_empty()
    }
}
