//! The stack in an axum app that you already have: called by a handler of the app, and mounted
//! beside the app's routes as an OpenAI- and Anthropic-compatible API.
//!
//! ```console
//! cargo run --release --example axum_app
//! curl http://127.0.0.1:3000/summarise -d 'A donjon is the great tower of a castle.'
//! curl http://127.0.0.1:3000/v1/chat/completions -H 'content-type: application/json' \
//!   -d '{"model": "keep-1", "messages": [{"role": "user", "content": "What is a donjon?"}]}'
//! ```
//!
//! With `-- --check` it listens on a free port, asks itself these two things, prints the answers
//! and exits. The models are scripted and the first is always down; put a
//! `donjon::providers::Provider` in the place of each.

#![expect(clippy::print_stdout, reason = "a program")]

use std::{error::Error, net::SocketAddr};

use axum::{
    Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
    serve::ListenerExt,
};
use donjon::{
    ErrorKind, LlmError, LlmRequest, Message, Preset, Stack, failover::Target, serve::Serve,
};
use donjon_testkit::{Script, ScriptedLlm};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

type Model = Stack<ScriptedLlm>;

fn model() -> Result<Model, Box<dyn Error>> {
    let down = ScriptedLlm::new(Script::fail(ErrorKind::QuotaExhausted).status(402));
    let up = ScriptedLlm::new("A castle's great tower.");
    let stack = Preset::new()
        .target(Target::new("main", down))
        .target(Target::new("spare", up))
        .build()?;
    Ok(stack)
}

fn app(model: Model) -> Result<Router, Box<dyn Error>> {
    let serve = Serve::builder(model.clone())
        .models(["keep-1"])
        .snapshots(model.snapshots())
        .build()?;
    let app = Router::new()
        .route("/", get(async || "The app that was here before.\n"))
        .route("/summarise", post(summarise))
        .with_state(model)
        // /v1/chat/completions, /v1/messages, /v1/models, /health; what it does not know is a 404.
        .fallback_service(serve);
    Ok(app)
}

/// A handler of the app: the stack is state like any other, and is called in-process.
async fn summarise(State(model): State<Model>, text: String) -> Result<String, Failed> {
    let task = Message::system("Summarise in five words.");
    let request = LlmRequest::chat("keep-1", [task, Message::user(text)]);
    let (head, answer) = model.send(request).await?.collect().await?;
    let text = answer.as_chat().map(|chat| chat.first_text().into_owned());
    let target = head.target.as_deref().unwrap_or("?").to_owned();
    Ok(format!("{} (by {target})\n", text.unwrap_or_default()))
}

/// An error of the stack as an answer of the app.
struct Failed(LlmError);

impl From<LlmError> for Failed {
    fn from(error: LlmError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.http_status());
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // Not the error itself: it may quote the prompt, or a part of a key.
        (status, format!("{}\n", self.0.kind())).into_response()
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let check = std::env::args().any(|argument| argument == "--check");
    let address = SocketAddr::from(([127, 0, 0, 1], if check { 0 } else { 3000 }));
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    // Without it the kernel holds small chunks of a stream back.
    let listener = listener.tap_io(|tcp| tcp.set_nodelay(true).unwrap_or_default());
    println!("listening on http://{address}");

    let server = axum::serve(listener, app(model()?)?);
    if !check {
        return Ok(server.await?);
    }
    tokio::spawn(server.into_future());
    let question = r#"{"model": "keep-1", "messages": [{"role": "user", "content": "What?"}]}"#;
    for (path, body) in [
        ("/summarise", "A donjon is a tower."),
        ("/v1/chat/completions", question),
    ] {
        let answer = ask(address, path, body).await?;
        println!("\nPOST {path}\n{answer}");
        if !answer.contains(" 200 OK\r\n") {
            return Err(format!("{path} did not answer with 200").into());
        }
    }
    Ok(())
}

/// Sends one request and reads the answer to its end; HTTP/1.0 closes the connection there.
async fn ask(address: SocketAddr, path: &str, body: &str) -> Result<String, Box<dyn Error>> {
    let length = body.len();
    let request = format!("POST {path} HTTP/1.0\r\ncontent-length: {length}\r\n\r\n{body}");
    let mut connection = TcpStream::connect(address).await?;
    connection.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    Ok(answer)
}
