//! What the constructors of providers have in common.

use std::{borrow::Cow, error::Error, fmt};

use bytes::Bytes;
use donjon_core::BoxError;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, header::ACCEPT};
use http_body_util::Full;

/// An option of a provider that makes no sense: which one, and why.
#[derive(Debug)]
pub struct BuildError {
    field: Cow<'static, str>,
    reason: Cow<'static, str>,
    source: Option<BoxError>,
}

impl BuildError {
    pub(crate) fn new(
        field: impl Into<Cow<'static, str>>,
        reason: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            field: field.into(),
            reason: reason.into(),
            source: None,
        }
    }

    pub(crate) fn because(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The option: a method of the builder.
    pub fn field(&self) -> &str {
        &self.field
    }

    /// What is wrong with it, to be read after its name.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.field, self.reason)
    }
}

impl Error for BuildError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}

/// Headers as a builder collects them, checked when it builds.
#[derive(Clone, Debug, Default)]
pub(crate) struct ExtraHeaders(Vec<(String, String)>);

impl ExtraHeaders {
    pub(crate) fn push(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.push((name.into(), value.into()));
    }

    /// Sets each of them in `headers`; a later one of a name takes the place of an earlier one.
    pub(crate) fn put_into(&self, headers: &mut HeaderMap) -> Result<(), BuildError> {
        for (name, value) in &self.0 {
            let field = || format!("header({name})");
            let parsed = HeaderName::try_from(name)
                .map_err(|error| BuildError::new(field(), "has no valid name").because(error))?;
            // Its value may be a secret: never printed, and the error does not quote it.
            let mut value = HeaderValue::try_from(value)
                .map_err(|_| BuildError::new(field(), "has no valid value"))?;
            value.set_sensitive(true);
            headers.insert(parsed, value);
        }
        Ok(())
    }
}

/// An address that requests are sent under, without a slash at its end.
pub(crate) fn base_url(url: &str) -> Result<String, BuildError> {
    let trimmed = url.trim().trim_end_matches('/');
    let uri: Uri = trimmed.parse().map_err(|error: http::uri::InvalidUri| {
        BuildError::new("base_url", "is not an address").because(error)
    })?;
    match uri.scheme_str() {
        Some("http" | "https") if uri.authority().is_some() => {}
        _ => {
            return Err(BuildError::new(
                "base_url",
                "is not an http or https address",
            ));
        }
    }
    if uri.query().is_some() {
        return Err(BuildError::new("base_url", "has a query"));
    }
    Ok(trimmed.to_owned())
}

/// `base` and `path` as one address.
pub(crate) fn join(base: &str, path: &str) -> Result<Uri, BuildError> {
    format!("{base}{path}")
        .parse()
        .map_err(|error: http::uri::InvalidUri| {
            BuildError::new("base_url", "is not an address").because(error)
        })
}

/// A request that reads what is at `address`.
pub(crate) fn get(address: &Uri, headers: &HeaderMap) -> Request<Full<Bytes>> {
    let mut out = Request::new(Full::default());
    *out.uri_mut() = address.clone();
    *out.headers_mut() = headers.clone();
    let json = HeaderValue::from_static("application/json");
    out.headers_mut().insert(ACCEPT, json);
    out
}

/// `text` as one segment of a path
/// (<https://www.rfc-editor.org/rfc/rfc3986#section-2.3>).
pub(crate) fn path_segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => {
                const HEX: &[u8; 16] = b"0123456789ABCDEF";
                out.push('%');
                out.push(char::from(HEX[usize::from(byte >> 4)]));
                out.push(char::from(HEX[usize::from(byte & 15)]));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked() {
        assert_eq!(
            base_url(" https://a.b/v1/ ").expect("valid"),
            "https://a.b/v1"
        );
        for bad in [
            "",
            "a.b/v1",
            "ftp://a.b",
            "https://",
            "https://a.b/v1?x=1",
            "/v1",
        ] {
            assert_eq!(base_url(bad).expect_err(bad).field(), "base_url");
        }
    }

    #[test]
    fn headers_are_checked_and_hidden() {
        let mut extra = ExtraHeaders::default();
        extra.push("x-a", "one");
        extra.push("X-A", "two");
        let mut headers = HeaderMap::new();
        extra.put_into(&mut headers).expect("valid");
        assert_eq!(headers["x-a"], "two");
        assert!(!format!("{headers:?}").contains("two"));
        for (name, value) in [("a b", "c"), ("a", "b\n")] {
            let mut extra = ExtraHeaders::default();
            extra.push(name, value);
            let error = extra.put_into(&mut headers).expect_err("refused");
            assert_eq!(error.field(), format!("header({name})"));
        }
    }

    #[test]
    fn segments_are_escaped() {
        assert_eq!(path_segment("gpt-4o_1.~"), "gpt-4o_1.~");
        assert_eq!(path_segment("a/b?c é"), "a%2Fb%3Fc%20%C3%A9");
    }
}
