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

    /// Cutting what has no end keeps the count within what it says.
    #[test]
    fn a_quick_count_is_near(text in "(?s)([aé中!1 \n🏰\u{a0}]{1,3}){1,3}", times in 1..400_usize) {
        let text = text.repeat(times);
        for encoding in [OpenAi::O200k, OpenAi::Cl100k] {
            let (quick, truth) = (encoding.count_quickly(&text), encoding.count(&text));
            let (least, most) = (quick.least(), quick.most());
            prop_assert!((least..=most).contains(&truth.tokens()), "{quick}, not {truth}");
        }
    }

    #[test]
    fn so_do_signs_that_matter_to_the_splitting(
        text in "[aZé中я。，가 \t\n\r/\u{a0}\u{2003}\u{85}'s1.\u{301}]{0,1200}"
    ) {
        same(&text);
    }
}

/// What is not made to be without end is counted as exactly when it is counted quickly.
#[test]
fn a_quick_count_of_ordinary_texts_is_exact() {
    let texts = (0..20).map(|seed| corpus::long(20 << 10, seed));
    let prose = corpus::PROSE
        .iter()
        .map(|language| language.join("").repeat(30));
    let prose: Vec<_> = prose.chain(texts).collect();
    let exact = |text: &&String| {
        let quick = OpenAi::O200k.count_quickly(text);
        assert!(quick.error() < 0.05, "{quick}");
        quick == OpenAi::O200k.count(text)
    };
    let count = prose.iter().filter(exact).count();
    assert!(count + 3 >= prose.len(), "{count} of {}", prose.len());
}

#[test]
fn special_tokens_in_a_text_are_text() {
    assert!(OpenAi::O200k.count("<|endoftext|>").tokens() > 1);
    assert_eq!(OpenAi::O200k.count(""), Count::Exact(0));
}

#[test]
fn samples_of_a_long_text_come_within_their_error() {
    let handle = |sampling: Option<Sampling>| {
        let layer = TokenCountLayer::builder().sampling(sampling).build();
        layer.expect("sensible").handle()
    };
    let sampled = handle(Some(Sampling::above(256 << 10).samples(32)));
    let exact = handle(None);
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
