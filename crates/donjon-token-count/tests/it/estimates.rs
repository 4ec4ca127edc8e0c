//! Estimates lie within what they state.

use donjon_token_count::{Count, Estimator, OpenAi, Tokenizer};

use crate::corpus;

fn within(estimate: Count, truth: Count) -> bool {
    (estimate.least()..=estimate.most()).contains(&truth.tokens())
}

/// The weights lie between both encodings: no doubt is added, and each is within the error.
#[test]
fn both_encodings_are_within_the_stated_error() {
    let estimator = Estimator::new("any");
    let texts = corpus::pieces().into_iter().map(String::from);
    let texts = texts.chain(corpus::texts(3_000, 5));
    let (mut all, mut missed) = (0, Vec::new());
    for text in texts {
        let estimate = estimator.count(&text);
        for encoding in [OpenAi::O200k, OpenAi::Cl100k] {
            all += 1;
            let truth = encoding.count(&text);
            if !within(estimate, truth) {
                missed.push(format!("{estimate}, not {truth}: {text:?}"));
            }
        }
    }
    assert!(
        missed.is_empty(),
        "{} of {all}:\n{}",
        missed.len(),
        missed[..missed.len().min(20)].join("\n")
    );
}

#[test]
fn the_error_of_english_is_small() {
    let text = corpus::PROSE[0].join(" ").repeat(10);
    let estimate = Estimator::new("any").count(&text);
    assert!(estimate.error() < 0.25, "{estimate}");
    let scaled = Estimator::new("any").scale(2.0).doubt(0.1).count(&text);
    assert_eq!(scaled.tokens().abs_diff(2 * estimate.tokens()), 0);
    assert!(scaled.error() > estimate.error() + 0.09);
}

#[test]
fn a_scale_that_is_none_changes_nothing() {
    let plain = Estimator::new("any").count("some words");
    for scale in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        assert_eq!(
            Estimator::new("any")
                .scale(scale)
                .doubt(-1.0)
                .count("some words"),
            plain
        );
    }
    assert_eq!(Estimator::new("any").count(""), Count::ZERO);
}
