//! The server that comes with it.

use std::{future::pending, time::Duration};

use donjon_core::{ChatCompletion, LlmResponse};
use donjon_serve::{
    Serve,
    server::{Server, bind, serve},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    time::timeout,
};

use crate::support::{CHAT, HELLO, head, llm};

const SOON: Duration = Duration::from_secs(5);

fn request() -> String {
    let length = HELLO.len();
    format!("POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{HELLO}")
}

#[tokio::test]
async fn answers_under_way_are_waited_for() {
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (called, was_called) = oneshot::channel();
    let (release, released) = oneshot::channel::<()>();
    let once = std::sync::Arc::new(std::sync::Mutex::new(Some((called, released))));
    let llm = tower::service_fn(move |_| {
        let (called, released) = once.lock().unwrap().take().unwrap();
        async move {
            called.send(()).unwrap();
            released.await.unwrap();
            let answer = ChatCompletion::text("m", "late");
            Ok::<_, donjon_core::LlmError>(LlmResponse::complete(head(), answer))
        }
    });
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(serve(listener, Serve::new(llm), stopped));
    let mut caller = TcpStream::connect(addr).await.unwrap();
    caller.write_all(request().as_bytes()).await.unwrap();
    was_called.await.unwrap();
    stop.send(()).unwrap();
    // Nobody new is let in.
    let refused = async {
        while TcpStream::connect(addr).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(SOON, refused).await.expect("the listener closes");
    assert!(!server.is_finished());
    release.send(()).unwrap();
    let mut answer = String::new();
    let read = caller.read_to_string(&mut answer);
    timeout(SOON, read).await.expect("it closes").unwrap();
    assert!(answer.contains("late"), "{answer}");
    timeout(SOON, server).await.expect("it ends").unwrap();
}

#[tokio::test]
async fn a_head_that_does_not_come_is_given_up() {
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let server = Server::new().header_timeout(Duration::from_millis(20));
    let llm = llm(|_| panic!("not to be asked"));
    tokio::spawn(server.serve(listener, Serve::new(llm), pending::<()>()));
    // Nor one of which not even the version of HTTP can be told.
    for begun in ["POST / HTTP/1.1\r\nhost", "", "P", "PRI * HTTP/2.0\r\n"] {
        let mut caller = TcpStream::connect(addr).await.unwrap();
        caller.write_all(begun.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let read = caller.read_to_end(&mut answer);
        timeout(SOON, read).await.expect(begun).ok();
    }
}

#[tokio::test]
async fn an_answer_may_take_longer_than_a_head() {
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let server = Server::new().header_timeout(Duration::from_millis(10));
    let llm = tower::service_fn(|_| async {
        tokio::time::sleep(Duration::from_millis(40)).await;
        let answer = ChatCompletion::text("m", "late");
        Ok::<_, donjon_core::LlmError>(LlmResponse::complete(head(), answer))
    });
    tokio::spawn(server.serve(listener, Serve::new(llm), pending::<()>()));
    let mut caller = TcpStream::connect(addr).await.unwrap();
    caller.write_all(request().as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = caller.read_to_string(&mut answer);
    timeout(SOON, read).await.expect("it closes").unwrap();
    assert!(answer.contains("late"), "{answer}");
}
