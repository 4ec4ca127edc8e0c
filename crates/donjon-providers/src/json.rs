//! Small helpers around JSON.

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

/// `value` as JSON.
pub(crate) fn to_bytes(value: &impl Serialize) -> Bytes {
    // What is written here has string keys and finite numbers, so that it always has a JSON.
    serde_json::to_vec(value).unwrap_or_default().into()
}

/// `value` as JSON to be put into other JSON.
pub(crate) fn raw(value: &impl Serialize) -> Option<Box<RawValue>> {
    to_raw_value(value).ok()
}
