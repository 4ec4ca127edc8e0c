//! Heads of answers.

use std::{borrow::Cow, time::Duration};

use bytes::Bytes;
use donjon_core::{BoxLlmFuture, ErrorKind, Head, LlmError, Origin, ResponseStream};
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
    header::{AGE, ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER},
};

use crate::{body::ServeBody, dialect::Complaint, future::Exchange, gather::Unread, route::Api};

pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TARGET: HeaderName = HeaderName::from_static("x-donjon-target");
const MODEL: HeaderName = HeaderName::from_static("x-donjon-model");
const ATTEMPTS: HeaderName = HeaderName::from_static("x-donjon-attempts");
const ORIGIN: HeaderName = HeaderName::from_static("x-donjon-origin");
/// The status that an error would have had.
const STATUS: HeaderName = HeaderName::from_static("x-donjon-status");
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
/// Asks nginx and its kin not to hold events back.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream");

/// A whole answer.
pub(crate) fn whole(head: &Head, json: Bytes, exchange: &Exchange) -> Response<ServeBody> {
    let mut response = json_response(StatusCode::OK, json);
    let headers = response.headers_mut();
    put_call(headers, exchange);
    put_head(headers, head);
    response
}

/// A streamed answer.
pub(crate) fn stream(
    head: Head,
    stream: ResponseStream,
    exchange: &Exchange,
) -> Response<ServeBody> {
    let mut headers = event_headers();
    put_call(&mut headers, exchange);
    put_head(&mut headers, &head);
    with_headers(headers, ServeBody::stream(head, stream, exchange))
}

/// A stream that is opened before its call has committed; who will serve is not known.
pub(crate) fn early(call: BoxLlmFuture, exchange: &Exchange) -> Response<ServeBody> {
    let mut headers = event_headers();
    if let Some(id) = &exchange.request_id {
        headers.insert(REQUEST_ID, id.clone());
    }
    with_headers(headers, ServeBody::early(call, exchange))
}

/// The service has failed.
pub(crate) fn failed(error: &LlmError, exchange: &Exchange) -> Response<ServeBody> {
    let complaint = Complaint::of(error);
    let own = error.http_status();
    let should_retry = (exchange.settings.should_retry)(error);
    let in_place = exchange.settings.final_status;
    let in_place = in_place.filter(|_| should_retry == Some(false) && is_repeated(own));
    let mut response = complain(exchange.api, in_place.unwrap_or(own), &complaint);
    let headers = response.headers_mut();
    if in_place.is_some() {
        headers.insert(STATUS, own.into());
    }
    put_call(headers, exchange);
    if let Some(target) = error.target() {
        put_text(headers, TARGET, target.as_str());
    }
    if let Some(after) = complaint.retry_after() {
        put_retry_after(headers, after);
    }
    match should_retry {
        Some(true) => headers.insert(SHOULD_RETRY, HeaderValue::from_static("true")),
        Some(false) => headers.insert(SHOULD_RETRY, HeaderValue::from_static("false")),
        None => None,
    };
    response
}

/// Whether clients repeat a request that was answered with `status`: the rule of OpenAI's and
/// Anthropic's own, where no header says otherwise.
pub(crate) const fn is_repeated(status: u16) -> bool {
    matches!(status, 408 | 409 | 429 | 500..)
}

/// The request makes no sense; no service was asked.
pub(crate) fn refused(api: Api, error: &LlmError) -> Response<ServeBody> {
    complain(api, error.http_status(), &Complaint::of(error))
}

/// The body of the request was not read whole.
pub(crate) fn unread(api: Api, why: Unread) -> Response<ServeBody> {
    match why {
        Unread::TooLarge => own(
            api,
            StatusCode::PAYLOAD_TOO_LARGE,
            ErrorKind::RequestTooLarge,
            "request_too_large",
            "the body is larger than is accepted here",
        ),
        Unread::TooSlow => own(
            api,
            StatusCode::REQUEST_TIMEOUT,
            ErrorKind::InvalidRequest,
            "request_timeout",
            "the rest of the body did not come in time",
        ),
        Unread::Broken => own(
            api,
            StatusCode::BAD_REQUEST,
            ErrorKind::InvalidRequest,
            "incomplete_body",
            "the body broke off",
        ),
    }
}

/// No such endpoint, or no such model.
pub(crate) fn not_found(
    api: Api,
    code: &'static str,
    message: impl Into<Cow<'static, str>>,
) -> Response<ServeBody> {
    // The kind whose status is 404; the code says which.
    let kind = ErrorKind::ModelNotFound;
    own(api, StatusCode::NOT_FOUND, kind, code, message)
}

/// The endpoint does not answer this method.
pub(crate) fn method_not_allowed(api: Api, allow: &'static str) -> Response<ServeBody> {
    let mut response = own(
        api,
        StatusCode::METHOD_NOT_ALLOWED,
        ErrorKind::InvalidRequest,
        "method_not_allowed",
        format!("this endpoint answers {allow}"),
    );
    let allow = HeaderValue::from_static(allow);
    response.headers_mut().insert(ALLOW, allow);
    response
}

/// The body is compressed.
pub(crate) fn encoded(api: Api) -> Response<ServeBody> {
    own(
        api,
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ErrorKind::InvalidRequest,
        "unsupported_content_encoding",
        "compressed bodies are not accepted here",
    )
}

/// Echoes the caller's own name for its request.
pub(crate) fn with_request_id(
    mut response: Response<ServeBody>,
    id: Option<HeaderValue>,
) -> Response<ServeBody> {
    if let Some(id) = id {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

pub(crate) fn json_response(status: StatusCode, json: impl Into<Bytes>) -> Response<ServeBody> {
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(CONTENT_TYPE, JSON);
    let mut response = with_headers(headers, ServeBody::whole(json));
    *response.status_mut() = status;
    response
}

/// An error of our own, which no row of the table has the status for.
fn own(
    api: Api,
    status: StatusCode,
    kind: ErrorKind,
    code: &'static str,
    message: impl Into<Cow<'static, str>>,
) -> Response<ServeBody> {
    let error = LlmError::new(kind, message).with_code(code);
    complain(api, status.as_u16(), &Complaint::of(&error))
}

fn complain(api: Api, status: u16, complaint: &Complaint<'_>) -> Response<ServeBody> {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    json_response(status, api.write_error(complaint))
}

fn with_headers(headers: HeaderMap, body: ServeBody) -> Response<ServeBody> {
    let mut response = Response::new(body);
    *response.headers_mut() = headers;
    response
}

fn event_headers() -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(CONTENT_TYPE, EVENTS);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    headers
}

fn put_call(headers: &mut HeaderMap, exchange: &Exchange) {
    if let Some(id) = &exchange.request_id {
        headers.insert(REQUEST_ID, id.clone());
    }
    headers.insert(ATTEMPTS, count(exchange.ledger.sent()));
}

fn put_head(headers: &mut HeaderMap, head: &Head) {
    let origin = HeaderValue::from_static(head.origin.as_str());
    headers.insert(ORIGIN, origin);
    if head.origin == Origin::Cache {
        headers.insert(AGE, head.age.into());
    }
    put_text(headers, MODEL, &head.model);
    if let Some(target) = &head.target {
        put_text(headers, TARGET, target);
    }
}

/// `count` in digits, without an allocation for what nearly every call comes to.
fn count(count: u32) -> HeaderValue {
    const DIGITS: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
    match DIGITS.get(count as usize) {
        Some(digit) => HeaderValue::from_static(digit),
        None => count.into(),
    }
}

/// What cannot stand in a header is left out.
fn put_text(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}

/// Both forms, neither of them earlier than `after`: whole seconds (RFC 9110, section 10.2.3) and
/// the milliseconds that OpenAI's clients prefer.
fn put_retry_after(headers: &mut HeaderMap, after: Duration) {
    let part = u64::from(after.subsec_nanos() > 0);
    let seconds = after.as_secs().saturating_add(part);
    let millis = u64::try_from(after.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
    headers.insert(RETRY_AFTER, seconds.into());
    headers.insert(RETRY_AFTER_MS, millis.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_are_rounded_up() {
        let hint = |after| {
            let mut headers = HeaderMap::new();
            put_retry_after(&mut headers, after);
            let text = |name| headers.get(name).unwrap().to_str().unwrap().to_owned();
            (text(RETRY_AFTER), text(RETRY_AFTER_MS))
        };
        assert_eq!(hint(Duration::from_secs(2)), ("2".into(), "2000".into()));
        assert_eq!(
            hint(Duration::from_nanos(1_000_001)),
            ("1".into(), "2".into())
        );
        assert_eq!(hint(Duration::ZERO), ("0".into(), "0".into()));
        assert_eq!(hint(Duration::MAX).1, u64::MAX.to_string());
    }
}
