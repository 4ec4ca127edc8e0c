//! What providers stream. The first byte chooses the dialect, the second into how long packets the
//! rest is cut. However it is cut, the same must be read.
#![no_main]

use std::convert::Infallible;

use bytes::Bytes;
use donjon_core::{CommitLayer, LlmRequest, Message};
use donjon_providers::{Anthropic, Codec, OpenAi, Provider};
use futures_util::{FutureExt, stream};
use http::Response;
use http_body_util::StreamBody;
use libfuzzer_sys::fuzz_target;
use tower::{Layer, ServiceExt, service_fn};

fuzz_target!(|data: &[u8]| {
    let Some(([dialect, packet], wire)) = data.split_first_chunk::<2>() else {
        return;
    };
    let wire = Bytes::copy_from_slice(wire);
    let packet = usize::from(*packet).max(1);
    if dialect % 2 == 0 {
        let codec = OpenAi::builder().api_key("k").build().expect("complete");
        agrees(codec, &wire, packet);
    } else {
        let codec = Anthropic::builder().api_key("k").build().expect("complete");
        agrees(codec, &wire, packet);
    }
});

fn agrees<C>(codec: C, wire: &Bytes, packet: usize)
where
    C: Codec<Decoder: Send + 'static> + Clone,
{
    let whole = read(codec.clone(), wire, wire.len().max(1));
    let cut = read(codec, wire, packet);
    assert_eq!(whole, cut, "it was read in another way");
}

/// What a caller gets: the text and why it ended, or what kind of error.
fn read<C>(codec: C, wire: &Bytes, packet: usize) -> Result<String, String>
where
    C: Codec<Decoder: Send + 'static> + Clone,
{
    let wire = wire.clone();
    let http = service_fn(move |_: http::Request<http_body_util::Full<Bytes>>| {
        let packets: Vec<_> = wire
            .chunks(packet)
            .map(|packet| {
                Ok::<_, Infallible>(http_body::Frame::data(Bytes::copy_from_slice(packet)))
            })
            .collect();
        let response = Response::builder()
            .header("content-type", "text/event-stream")
            .body(StreamBody::new(stream::iter(packets)))
            .expect("a good response");
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let model = CommitLayer::new().layer(Provider::new(codec, http));
    let request = LlmRequest::chat("m", [Message::user("hi")]).streamed();
    let collected = async {
        let response = model.oneshot(request).await?;
        response.collect().await
    };
    // Everything is there at once, so nothing is ever waited for.
    let collected = collected.now_or_never().expect("nothing to wait for");
    match collected {
        Ok((_, answer)) => Ok(format!(
            "{:?}",
            answer.as_chat().map(|chat| {
                let ends: Vec<_> = chat
                    .choices
                    .iter()
                    .map(|choice| choice.finish_reason.clone())
                    .collect();
                (chat.first_text().into_owned(), ends)
            })
        )),
        Err(error) => Err(format!("{:?}", error.kind())),
    }
}
