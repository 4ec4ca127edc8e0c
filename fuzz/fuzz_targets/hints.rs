//! What servers say in headers: a line each, `name: value`.
#![no_main]

use std::time::{Duration, SystemTime};

use donjon_providers::hints;
use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_750_000_000);
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n') {
        if let Ok(text) = std::str::from_utf8(line) {
            let _ = hints::duration(text);
            let _ = hints::rfc3339(text);
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(name),
            HeaderValue::from_bytes(value.trim_ascii()),
        ) {
            headers.append(name, value);
        }
    }
    drop(hints::limits(&headers, now));
    let _ = hints::should_retry(&headers);
    if let Some(after) = hints::retry_after(&headers, now) {
        // It can be waited for.
        assert!(after <= Duration::from_secs(366 * 86_400), "{after:?}");
    }
});
