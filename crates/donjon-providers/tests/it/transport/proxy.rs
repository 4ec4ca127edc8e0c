//! Through a proxy: forwarded, tunnelled, or not at all.

use bytes::Bytes;
use donjon_providers::transport::{HttpClient, Proxy, TransportErrorKind};
use http::Response;
use http_body_util::Full;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use super::support::{builder, chain, closed_port, get, http1_connection, listen, read_head, text};
use super::tls::Identity;

/// `lord:hunter2`.
const CREDENTIALS: &str = "Basic bG9yZDpodW50ZXIy";

/// A proxy that answers everything with `answer` and then, where it opened a tunnel, plays the host behind it.
async fn proxy(
    answer: &'static str,
    behind: Option<Identity>,
) -> (String, mpsc::UnboundedReceiver<String>) {
    let (heads, seen) = mpsc::unbounded_channel();
    let address = listen(move |mut stream| {
        let (heads, behind) = (heads.clone(), behind.clone());
        async move {
            let head = read_head(&mut stream).await;
            heads.send(head.to_lowercase()).unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            if let Some(host) = behind {
                host.serve(stream).await;
            }
        }
    })
    .await;
    (address, seen)
}

#[tokio::test]
async fn a_plain_request_is_forwarded_in_absolute_form_with_credentials() {
    let (address, mut seen) = proxy("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", None).await;
    let client = HttpClient::builder()
        .proxy(Proxy::all(format!("http://lord:hunter2@{address}")))
        .build()
        .unwrap();
    let response = client
        .request(get("http://castle.test/gate?x=1"))
        .await
        .unwrap();
    assert_eq!(text(response).await, "ok");
    let head = seen.recv().await.unwrap();
    assert!(
        head.starts_with("get http://castle.test/gate?x=1 http/1.1\r\n"),
        "{head}"
    );
    assert!(head.contains("host: castle.test\r\n"), "{head}");
    let credentials = format!("proxy-authorization: {}\r\n", CREDENTIALS.to_lowercase());
    assert!(head.contains(&credentials), "{head}");
}

#[tokio::test]
async fn a_secure_request_goes_through_a_tunnel_and_keeps_the_credentials_from_the_host() {
    let identity = Identity::new("castle.test");
    let root = identity.certificate.clone();
    let (address, mut seen) = proxy("HTTP/1.1 200 OK\r\n\r\n", Some(identity)).await;
    let client = HttpClient::builder()
        .proxy(Proxy::none().https(format!("http://lord:hunter2@{address}")))
        .add_root_certificate(root)
        .build()
        .unwrap();
    let response = client
        .request(get("https://castle.test/gate"))
        .await
        .unwrap();
    assert_eq!(
        text(response).await,
        "HTTP/2.0 None",
        "no credentials reach the host"
    );
    let head = seen.recv().await.unwrap();
    assert!(
        head.starts_with("connect castle.test:443 http/1.1\r\n"),
        "{head}"
    );
    assert!(head.contains(&CREDENTIALS.to_lowercase()), "{head}");
    assert!(seen.try_recv().is_err(), "one tunnel");
}

#[tokio::test]
async fn an_excepted_host_is_reached_directly_and_another_is_not() {
    let host = listen(|stream| {
        http1_connection(stream, |_| async {
            Response::new(Full::new(Bytes::from("direct")))
        })
    })
    .await;
    let nobody = closed_port().await;
    let through = Proxy::all(format!("http://lord:hunter2@{nobody}"));
    let request = || get(format!("http://{host}/"));
    let client = builder()
        .proxy(through.clone().except("castle.test,127.0.0.0/8"))
        .build()
        .unwrap();
    let response = client.request(request()).await.unwrap();
    assert_eq!(text(response).await, "direct");
    let client = builder()
        .proxy(through.except("castle.test"))
        .build()
        .unwrap();
    let error = client.request(request()).await.unwrap_err();
    assert_eq!(error.kind(), TransportErrorKind::Connect);
}

#[tokio::test]
async fn a_refusing_proxy_is_connect_and_no_credentials_are_printed() {
    let (address, _seen) = proxy("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", None).await;
    let proxy = Proxy::all(format!("http://lord:hunter2@{address}"));
    let builder = builder().proxy(proxy.clone());
    let client = builder.clone().build().unwrap();
    let error = client
        .request(get("https://castle.test/"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), TransportErrorKind::Connect);
    assert!(!error.may_have_been_sent());
    let causes = chain(&error);
    assert!(
        causes
            .iter()
            .any(|cause| cause.contains("authorization required")),
        "{causes:?}"
    );
    let printed = format!("{proxy:?} {builder:?} {client:?} {error} {error:?} {causes:?}");
    assert!(printed.contains(&address), "{printed}");
    for secret in ["hunter2", "lord", "bG9yZDpodW50ZXIy"] {
        assert!(!printed.contains(secret), "{printed}");
    }
}
