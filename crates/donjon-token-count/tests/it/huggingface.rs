//! Counts of a user's tokenizer are those of the Hugging Face library.

use donjon_core::{LlmRequest, Message};
use donjon_token_count::{Count, HuggingFace, Model, Rules, TokenCountLayer, Tokenizer};

use crate::corpus;

/// A byte-level tokenizer with a few merges, as they come with models; one that wants texts cut.
fn file() -> String {
    // The letters that stand for bytes in such files.
    let printable = |byte: &u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let mut letters: Vec<char> = (0..256)
        .filter(printable)
        .filter_map(char::from_u32)
        .collect();
    letters.extend((256..256 + 68).filter_map(char::from_u32));
    let merges = [
        ["t", "h"],
        ["th", "e"],
        ["Ġ", "the"],
        ["i", "n"],
        ["e", "r"],
        ["o", "n"],
        ["Ġ", "a"],
        ["Ð", "¾"],
    ];
    let tokens = letters.iter().map(|letter| letter.to_string());
    let tokens = tokens.chain(merges.iter().map(|pair| pair.concat()));
    let vocabulary: serde_json::Map<_, _> = tokens
        .zip(0..)
        .map(|(token, id)| (token, id.into()))
        .collect();
    serde_json::json!({
        "version": "1.0",
        "truncation": {"max_length": 10, "stride": 0, "strategy": "LongestFirst", "direction": "Right"},
        "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": null, "decoder": null,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": false, "vocab": vocabulary, "merges": merges},
    })
    .to_string()
}

#[test]
fn counts_are_those_of_the_library() {
    let ours = HuggingFace::from_bytes("mine", file()).expect("a tokenizer");
    let mut library = tokenizers::Tokenizer::from_bytes(file()).expect("a tokenizer");
    library.with_truncation(None).expect("off");
    for text in corpus::texts(300, 8) {
        let truth = library
            .encode(text.as_str(), false)
            .expect("it counts")
            .len();
        assert_eq!(ours.count(&text), Count::Exact(truth as u64), "{text:?}");
    }
    assert!(ours.count("the then in on").tokens() < 12, "it merges");
}

#[test]
fn a_model_counts_by_a_file() {
    let tokenizer = HuggingFace::from_bytes("mine", file()).expect("a tokenizer");
    let text = tokenizer.count("the then");
    let model = Model::new(tokenizer, Rules::plain()).context(1_000);
    let layer = TokenCountLayer::builder().model("mine", model).build();
    let handle = layer.expect("sensible").handle();
    let request = LlmRequest::chat("mine", [Message::user("the then")]);
    assert_eq!(handle.count(&request), text);
}

#[test]
fn a_file_that_is_none_is_refused() {
    let error = HuggingFace::from_bytes("mine", "{}").expect_err("no tokenizer");
    assert_eq!(error.to_string(), "the tokenizer `mine` cannot be read");
    assert!(std::error::Error::source(&error).is_some());
    assert!(HuggingFace::from_file("mine", "/nowhere/tokenizer.json").is_err());
}
