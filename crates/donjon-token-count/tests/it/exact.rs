//! Counts are those of tiktoken.

use std::sync::LazyLock;

use donjon_token_count::{Count, OpenAi, Sampling, TokenCountLayer, Tokenizer};
use proptest::prelude::*;
use tiktoken_rs::CoreBPE;

use crate::corpus;

static O200K: LazyLock<CoreBPE> = LazyLock::new(|| tiktoken_rs::o200k_base().expect("embedded"));
static CL100K: LazyLock<CoreBPE> = LazyLock::new(|| tiktoken_rs::cl100k_base().expect("embedded"));

fn same(text: &str) {
    let truth = |bpe: &CoreBPE| Count::Exact(bpe.encode_ordinary(text).len() as u64);
    assert_eq!(OpenAi::O200k.count(text), truth(&O200K), "o200k: {text:?}");
    assert_eq!(
        OpenAi::Cl100k.count(text),
        truth(&CL100K),
        "cl100k: {text:?}"
    );
}

#[test]
fn ten_thousand_texts_count_the_same() {
    corpus::pieces().into_iter().for_each(same);
    corpus::texts(10_000, 1).for_each(|text| same(&text));
}

#[test]
fn so_does_a_megabyte() {
    let text = corpus::long(1 << 20, 2);
    assert!(text.len() >= 1 << 20);
    same(&text);
}

/// Windows are cut in texts longer than they, so these are long.
#[test]
fn so_do_repeated_patterns_of_odd_white_space() {
    let signs: Vec<char> = "aA1.'\n\r \t/é\u{301}中\u{a0}\u{2003}\u{85}\u{3000}\0🙂\u{200b}s_ǅ"
        .chars()
        .collect();
    let mut dice = fastrand::Rng::with_seed(3);
    for _ in 0..2_000 {
        let length = dice.usize(1..=8);
        let pattern: String = (0..length)
            .map(|_| signs[dice.usize(..signs.len())])
            .collect();
        // A sign now and then that breaks the pattern.
        let text: String = (0..1_500 / pattern.len())
            .flat_map(|n| [if n % 17 == 16 { "x " } else { "" }, &pattern])
            .collect();
        same(&text);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn so_does_anything(text in "(?s).{0,900}") {
        same(&text);
    }

    #[test]
    fn so_do_signs_that_matter_to_the_splitting(
        text in "[aZé中 \t\n\r/\u{a0}\u{2003}\u{85}'s1.\u{301}]{0,1200}"
    ) {
        same(&text);
    }
}

#[test]
fn special_tokens_in_a_text_are_text() {
    assert!(OpenAi::O200k.count("<|endoftext|>").tokens() > 1);
    assert_eq!(OpenAi::O200k.count(""), Count::Exact(0));
}

#[test]
fn samples_of_a_long_text_come_within_their_error() {
    let layer = TokenCountLayer::builder().sampling(Sampling::above(256 << 10));
    let sampled = layer.build().expect("sensible").handle();
    let exact = TokenCountLayer::default().handle();
    let mut texts: Vec<_> = (0..10).map(|seed| corpus::long(500 << 10, seed)).collect();
    let uniform = corpus::CODE[0].repeat(2_000);
    // One half is English, the other Chinese.
    let halves = corpus::PROSE[0][0].repeat(2_500) + &corpus::PROSE[5][0].repeat(2_500);
    texts.extend([uniform, halves]);
    for text in texts {
        let (estimate, truth) = (
            sampled.count_text("gpt-4o", &text),
            exact.count_text("gpt-4o", &text),
        );
        assert!(truth.is_exact() && !estimate.is_exact());
        let (least, most) = (estimate.least(), estimate.most());
        assert!(
            (least..=most).contains(&truth.tokens()),
            "{estimate} for {truth}"
        );
        assert!(estimate.error() < 0.5, "{estimate} for {truth}");
    }
    let short = corpus::long(200 << 10, 1);
    assert!(sampled.count_text("gpt-4o", &short).is_exact());
}
