//! Keys that are never printed.

use std::{fmt, sync::Arc};

use http::HeaderValue;

use crate::config::BuildError;

/// A provider's key. It is never printed: `Debug` shows `ApiKey(***)`, there is no `Display`, and
/// the header it travels in is marked sensitive.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(Arc<str>);

impl ApiKey {
    /// A key; white space around it, such as the line end of a file, is not part of it.
    pub fn new(key: impl AsRef<str>) -> Self {
        Self(key.as_ref().trim().into())
    }

    /// The key itself, for those who must send it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The value of a header that carries the key after `prefix`.
    pub(crate) fn header(&self, prefix: &str) -> Result<HeaderValue, BuildError> {
        if self.0.is_empty() {
            return Err(BuildError::new("api_key", "is empty"));
        }
        // The error of the conversion is left out: it must not quote the key.
        let mut value = HeaderValue::from_str(&format!("{prefix}{}", self.0))
            .map_err(|_| BuildError::new("api_key", "holds characters no header can carry"))?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl From<&str> for ApiKey {
    fn from(key: &str) -> Self {
        Self::new(key)
    }
}

impl From<String> for ApiKey {
    fn from(key: String) -> Self {
        Self::new(key)
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_never_prints() {
        let key = ApiKey::new("sk-secret\n");
        assert_eq!(format!("{key:?}"), "ApiKey(***)");
        let header = key.header("Bearer ").expect("a header");
        assert_eq!(header.as_bytes(), b"Bearer sk-secret");
        assert!(header.is_sensitive());
        assert!(!format!("{header:?}").contains("secret"));
    }

    #[test]
    fn a_key_no_header_can_carry_is_refused_without_being_quoted() {
        for bad in ["", "sk-\u{7}secret", "sk-\nsecret"] {
            let error = ApiKey::new(bad).header("").expect_err("refused");
            assert_eq!(error.field(), "api_key");
            assert!(!format!("{error} {error:?}").contains("secret"));
        }
    }
}
