//! Which proxy a request goes through.

use std::fmt;

use http::uri::{Scheme, Uri};
use hyper_util::client::proxy::matcher::Matcher;

use super::builder::ConfigError;

/// The proxies of a client: from the environment (the default), none, or given here.
///
/// A proxy is `http://` or `https://` (or a bare `host:port`, which is HTTP), with `user:password@` for Basic authentication, both
/// percent-encoded. Requests to `http://` hosts are sent to it in absolute form, requests to `https://` hosts through a `CONNECT`
/// tunnel. SOCKS is not supported.
///
/// The list of exceptions is that of `NO_PROXY`: separated by commas, a domain covers its subdomains, an address or a network
/// (`10.0.0.0/8`) is matched against hosts given as addresses, `*` is every host. Ports are not looked at.
#[derive(Clone)]
pub struct Proxy {
    // A name beside each value, so that an error can say which one is wrong.
    http: Setting,
    https: Setting,
    all: Setting,
    except: String,
}

/// A name, as the user knows it, and a URL that may hold a password.
#[derive(Clone, Default)]
struct Setting {
    name: &'static str,
    url: String,
}

impl Proxy {
    /// The proxies named by the environment at the time of this call: `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` for what the first two
    /// leave open, and `NO_PROXY`; each also in lower case. An empty variable counts as unset.
    ///
    /// In a CGI process (`REQUEST_METHOD` is set) `HTTP_PROXY` is not read: there it can be a header of the request being served
    /// (CVE-2016-5385).
    #[must_use]
    pub fn from_env() -> Self {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// No proxy, whatever the environment says.
    #[must_use]
    pub fn none() -> Self {
        Self {
            http: Setting::default(),
            https: Setting::default(),
            all: Setting::default(),
            except: String::new(),
        }
    }

    /// One proxy for every host.
    #[must_use]
    pub fn all(url: impl Into<String>) -> Self {
        Self {
            all: Setting {
                name: "proxy",
                url: url.into(),
            },
            ..Self::none()
        }
    }

    /// A proxy for `http://` hosts only.
    #[must_use]
    pub fn http(mut self, url: impl Into<String>) -> Self {
        self.http = Setting {
            name: "proxy.http",
            url: url.into(),
        };
        self
    }

    /// A proxy for `https://` hosts only.
    #[must_use]
    pub fn https(mut self, url: impl Into<String>) -> Self {
        self.https = Setting {
            name: "proxy.https",
            url: url.into(),
        };
        self
    }

    /// The hosts that are reached directly, in the form of `NO_PROXY`.
    #[must_use]
    pub fn except(mut self, hosts: impl Into<String>) -> Self {
        self.except = hosts.into();
        self
    }

    fn from_variables(lookup: impl Fn(&str) -> Option<String>) -> Self {
        let read = |names: [&'static str; 2]| {
            names
                .into_iter()
                .find_map(|name| {
                    let url = lookup(name).filter(|url| !url.is_empty())?;
                    Some(Setting { name, url })
                })
                .unwrap_or_default()
        };
        let http = if lookup("REQUEST_METHOD").is_some() {
            Setting::default()
        } else {
            read(["HTTP_PROXY", "http_proxy"])
        };
        Self {
            http,
            https: read(["HTTPS_PROXY", "https_proxy"]),
            all: read(["ALL_PROXY", "all_proxy"]),
            except: read(["NO_PROXY", "no_proxy"]).url,
        }
    }

    /// The rules in the form they are asked in; `None` without any proxy.
    pub(super) fn parse(&self) -> Result<Option<Matcher>, ConfigError> {
        let settings = [&self.http, &self.https, &self.all];
        for setting in settings {
            setting.check()?;
        }
        if settings.iter().all(|setting| setting.url.is_empty()) {
            return Ok(None);
        }
        let matcher = Matcher::builder()
            .http(self.http.url.as_str())
            .https(self.https.url.as_str())
            .all(self.all.url.as_str())
            .no(self.except.as_str());
        Ok(Some(matcher.build()))
    }
}

impl Default for Proxy {
    fn default() -> Self {
        Self::from_env()
    }
}

impl Setting {
    /// The matcher drops a URL that it cannot use, and the request would go out directly: so look first.
    fn check(&self) -> Result<(), ConfigError> {
        if self.url.is_empty() {
            return Ok(());
        }
        // No reason repeats the value, which may hold a password.
        let refuse = |reason| Err(ConfigError::new(self.name, reason));
        let Ok(url) = self.url.parse::<Uri>() else {
            return refuse("is not a URL");
        };
        if url
            .authority()
            .is_none_or(|authority| authority.host().is_empty())
        {
            return refuse("has no host");
        }
        match url.scheme() {
            None => Ok(()),
            Some(scheme) if *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS => Ok(()),
            Some(_) => refuse("is neither an http:// nor an https:// proxy"),
        }
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |setting: &Setting| {
            let after_credentials = setting.url.rsplit('@').next().unwrap_or_default();
            after_credentials.to_owned()
        };
        f.debug_struct("Proxy")
            .field("http", &shown(&self.http))
            .field("https", &shown(&self.https))
            .field("all", &shown(&self.all))
            .field("except", &self.except)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(variables: &[(&str, &str)]) -> Proxy {
        Proxy::from_variables(|name| {
            let found = variables.iter().find(|(known, _)| *known == name)?;
            Some(found.1.to_owned())
        })
    }

    fn hop(proxy: &Proxy, host: &'static str) -> Option<String> {
        let matcher = proxy.parse().unwrap()?;
        let hop = matcher.intercept(&Uri::from_static(host))?;
        Some(hop.uri().to_string())
    }

    #[test]
    fn the_environment_is_read_in_both_cases() {
        let upper = from(&[
            ("HTTP_PROXY", "http://plain:1"),
            ("HTTPS_PROXY", "secure:2"),
            ("NO_PROXY", "internal, 10.0.0.0/8"),
        ]);
        assert_eq!(hop(&upper, "http://a/").as_deref(), Some("http://plain:1/"));
        assert_eq!(
            hop(&upper, "https://a/").as_deref(),
            Some("http://secure:2/")
        );
        assert_eq!(hop(&upper, "https://api.internal/"), None);
        assert_eq!(hop(&upper, "http://10.1.2.3:80/"), None);
        assert!(hop(&upper, "https://notinternal/").is_some());
        let lower = from(&[("https_proxy", "http://secure:2"), ("no_proxy", "*")]);
        assert_eq!(hop(&lower, "https://a/"), None);
        let all = from(&[
            ("all_proxy", "http://any:3"),
            ("HTTPS_PROXY", ""),
            ("https_proxy", "http://secure:2"),
        ]);
        assert_eq!(hop(&all, "http://a/").as_deref(), Some("http://any:3/"));
        assert_eq!(hop(&all, "https://a/").as_deref(), Some("http://secure:2/"));
        assert!(from(&[]).parse().unwrap().is_none());
    }

    #[test]
    fn a_cgi_process_does_not_read_http_proxy() {
        let proxy = from(&[
            ("REQUEST_METHOD", "GET"),
            ("HTTP_PROXY", "http://evil:1"),
            ("HTTPS_PROXY", "http://good:2"),
        ]);
        assert_eq!(hop(&proxy, "http://a/"), None);
        assert!(hop(&proxy, "https://a/").is_some());
    }

    #[test]
    fn a_proxy_that_cannot_be_used_is_refused_by_name_and_without_its_password() {
        for (url, reason) in [
            ("socks5://user:hunter2@host:1", "neither"),
            ("http://user:hunter2@", "not a URL"),
            ("/hunter2", "no host"),
            ("http://user:hunter2@ho st", "not a URL"),
        ] {
            let error = from(&[("HTTPS_PROXY", url)]).parse().expect_err(url);
            assert_eq!(error.field(), "HTTPS_PROXY");
            assert!(error.to_string().contains(reason), "{url}: {error}");
            assert!(!format!("{error} {error:?}").contains("hunter2"));
        }
    }
}
