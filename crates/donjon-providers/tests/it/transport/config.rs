//! A client that makes no sense is not built, and the error says why.

use std::time::Duration;

use donjon_providers::transport::{HttpClient, HttpClientBuilder, Proxy};

use super::support::builder;

#[test]
fn an_option_that_makes_no_sense_is_named() {
    const ZERO: Duration = Duration::ZERO;
    const SECOND: Duration = Duration::from_secs(1);
    type Change = fn(HttpClientBuilder) -> HttpClientBuilder;
    let cases: [(&str, Change); 9] = [
        ("connect_timeout", |b| b.connect_timeout(ZERO)),
        ("pool_idle_timeout", |b| b.pool_idle_timeout(ZERO)),
        ("tcp_keepalive", |b| b.tcp_keepalive(ZERO)),
        ("http2_keep_alive.interval", |b| {
            b.http2_keep_alive(ZERO, SECOND)
        }),
        ("http2_keep_alive.timeout", |b| {
            b.http2_keep_alive(SECOND, ZERO)
        }),
        ("max_connections_per_host", |b| {
            b.max_connections_per_host(0)
        }),
        ("user_agent", |b| b.user_agent("two\nlines")),
        ("root_certificate", |b| b.add_root_certificate(b"not DER")),
        ("proxy", |b| b.proxy(Proxy::all("socks5://127.0.0.1:1"))),
    ];
    for (field, change) in cases {
        let error = change(builder()).build().expect_err(field);
        assert_eq!(error.field(), field);
        assert!(error.to_string().starts_with(field), "{error}");
        assert!(!error.reason().is_empty());
    }
}

#[test]
fn nothing_is_an_option_too() {
    builder()
        .pool_idle_timeout(None)
        .tcp_keepalive(None)
        .max_connections_per_host(None)
        .user_agent("")
        .build()
        .unwrap();
}

#[test]
fn a_client_is_send_sync_and_shared_by_cloning() {
    fn shared<T: Clone + Send + Sync + 'static>() {}
    shared::<HttpClient>();
}
