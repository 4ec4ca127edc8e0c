//! Prices: to the nano-dollar, checked by hand.

use donjon_budget::{LongContext, Price, PriceError, PriceTable, ServiceTier};
use donjon_core::{NanoUsd, Usage};

const STANDARD: ServiceTier = ServiceTier::Standard;

fn usage(input: u64, output: u64, change: impl FnOnce(&mut Usage)) -> Usage {
    let mut usage = Usage::new(input, output);
    change(&mut usage);
    usage
}

fn nanos(n: i64) -> Option<NanoUsd> {
    Some(NanoUsd::from_nanos(n))
}

#[cfg(feature = "prices")]
#[test]
fn examples_checked_by_hand() {
    let prices = PriceTable::embedded();
    let cost = |provider: &str, model: &str, usage: Usage, tier| {
        prices
            .find(Some(provider), model)
            .expect(model)
            .cost(&usage, 0, tier)
    };
    // 1,000 at $2.50 + 500 at $10: $0.0025 + $0.005.
    assert_eq!(
        cost("openai", "gpt-4o", Usage::new(1_000, 500), STANDARD),
        nanos(7_500_000)
    );
    // 600 at $2.50, 400 cached at $1.25, 500 at $10.
    let cached = usage(1_000, 500, |u| u.cache_read = 400);
    assert_eq!(
        cost("openai", "gpt-4o-2024-08-06", cached, STANDARD),
        nanos(1_500_000 + 500_000 + 5_000_000)
    );
    assert_eq!(
        cost(
            "openai",
            "gpt-4o",
            Usage::new(1_000, 500),
            ServiceTier::Batch
        ),
        nanos(3_750_000)
    );
    assert_eq!(
        cost(
            "openai",
            "gpt-4o",
            Usage::new(1_000, 500),
            ServiceTier::Priority
        ),
        nanos(12_750_000)
    );
    // 1 token at $0.15 is 150 nano-dollars; one cached at $0.075 is 75.
    assert_eq!(
        cost("openai", "gpt-4o-mini", Usage::new(1, 0), STANDARD),
        nanos(150)
    );
    assert_eq!(
        cost(
            "openai",
            "gpt-4o-mini",
            usage(1, 0, |u| u.cache_read = 1),
            STANDARD
        ),
        nanos(75)
    );
    // 100 plain, 800 read at $0.30, 100 written at $3.75, 10 at $15.
    let claude = usage(1_000, 10, |u| (u.cache_read, u.cache_write) = (800, 100));
    assert_eq!(
        cost("anthropic", "claude-sonnet-4-20250514", claude, STANDARD),
        nanos(300_000 + 240_000 + 375_000 + 150_000)
    );
    // 200,000 is not above 200,000; one more is dearer as a whole: $6 and $22.50.
    assert_eq!(
        cost(
            "anthropic",
            "claude-sonnet-4",
            Usage::new(200_000, 10),
            STANDARD
        ),
        nanos(600_000_000 + 150_000)
    );
    assert_eq!(
        cost(
            "anthropic",
            "claude-sonnet-4",
            Usage::new(200_001, 10),
            STANDARD
        ),
        nanos(1_200_006_000 + 225_000)
    );
    // 100 of text at $0.30, 50 of audio at $1.
    let audio = usage(150, 0, |u| u.input_audio = 50);
    assert_eq!(
        cost("gemini", "gemini-2.5-flash", audio, STANDARD),
        nanos(30_000 + 50_000)
    );
    assert_eq!(
        cost("openai", "o1", Usage::new(10, 10), ServiceTier::Priority),
        None
    );
}

#[test]
fn parts_are_summed_exactly_and_rounded_up_once() {
    let price = Price::new(NanoUsd::from_nanos(1), NanoUsd::from_nanos(1));
    assert_eq!(price.cost(&Usage::new(1, 1), 0, STANDARD), nanos(1));
    assert_eq!(
        price.cost(&Usage::new(500_000, 500_001), 0, STANDARD),
        nanos(2)
    );
    assert_eq!(price.cost(&Usage::new(0, 0), 0, STANDARD), nanos(0));
    let mut price = Price::new(NanoUsd::from_dollars(1), NanoUsd::from_dollars(2));
    price.reasoning = Some(NanoUsd::from_dollars(4));
    price.image = NanoUsd::from_nanos(7);
    let reasoned = usage(10, 10, |u| u.reasoning = 4);
    assert_eq!(
        price.cost(&reasoned, 3, STANDARD),
        nanos(10_000 + 12_000 + 16_000 + 21)
    );
    assert_eq!(
        price.cost(&Usage::new(u64::MAX, u64::MAX), 0, STANDARD),
        nanos(i64::MAX)
    );
}

#[test]
fn the_worst_case_is_the_dearest_that_may_apply() {
    let dollars = NanoUsd::from_dollars;
    let mut price = Price::new(dollars(1), dollars(2)).cache(dollars(0), dollars(3));
    price.long_context = vec![LongContext::new(100, dollars(5), dollars(6))];
    let worst = |input| price.worst_case(input, 10, 0, false, STANDARD);
    assert_eq!(worst(100), nanos(300_000 + 20_000));
    assert_eq!(worst(101), nanos(505_000 + 60_000));
}

#[cfg(feature = "prices")]
#[test]
fn every_entry_says_where_and_when_it_was_read() {
    let list: serde_json::Value =
        serde_json::from_str(include_str!("../../data/prices.json")).expect("JSON");
    let entries = list["prices"].as_array().expect("entries");
    assert!(entries.len() > 90, "{}", entries.len());
    for entry in entries {
        let model = &entry["model"];
        let text = |member: &str| entry[member].as_str().unwrap_or_default();
        assert!(text("source").starts_with("https://"), "{model}");
        assert!(text("seen").len() > 5, "{model}");
        let date: Vec<_> = text("as_of").split('-').collect();
        let parts: Vec<u32> = date.iter().filter_map(|part| part.parse().ok()).collect();
        assert!(
            matches!(
                parts[..],
                [2025..=2099, 1..=12] | [2025..=2099, 1..=12, 1..=31]
            ),
            "{model}: {date:?}"
        );
    }
}

/// Mistakes of a unit or a column, which no price of a provider has.
#[cfg(feature = "prices")]
#[test]
fn the_prices_of_an_entry_fit_together() {
    let dollars = NanoUsd::from_dollars;
    for (provider, model, price) in PriceTable::embedded().iter() {
        let name = format!("{provider}/{model}");
        assert!(
            price.input > dollars(0) && price.input <= dollars(150),
            "{name}"
        );
        let embeds = model.contains("embedding");
        assert!(embeds || price.output >= price.input, "{name}");
        assert!(
            embeds || price.max_output.is_some_and(|most| most >= 4_096),
            "{name}"
        );
        assert!(
            price.cache_read.is_none_or(|read| read < price.input),
            "{name}"
        );
        assert!(
            price.cache_write.is_none_or(|write| write > price.input),
            "{name}"
        );
        assert!(
            price.input_audio.is_none_or(|audio| audio >= price.input),
            "{name}"
        );
        assert!(
            price.output_audio.is_none_or(|audio| audio > price.output),
            "{name}"
        );
        assert!(price.batch.is_none_or(|batch| batch == 500), "{name}");
        assert!(
            price.priority.is_none_or(|priority| priority > 1_500),
            "{name}"
        );
        for long in &price.long_context {
            assert!(
                long.input > price.input && long.output > price.output,
                "{name}"
            );
            let reads = [price.cache_read, long.cache_read].map(Option::unwrap_or_default);
            assert!(reads[1] >= reads[0], "{name}");
        }
    }
}

/// Pages of the providers, read by hand.
#[cfg(feature = "prices")]
#[test]
fn what_was_corrected_stays_so() {
    let prices = PriceTable::embedded();
    let of = |model: &str| prices.find(None, model).expect(model).clone();
    let millionths = |price: Option<NanoUsd>| price.map(|price| price.nanos() / 1_000);
    // The cache of Gemini became cheaper in autumn 2025.
    assert_eq!(millionths(of("gemini-2.5-pro").cache_read), Some(125_000));
    assert_eq!(millionths(of("gemini-2.5-flash").cache_read), Some(30_000));
    assert_eq!(
        millionths(of("gemini-2.5-flash-lite").cache_read),
        Some(10_000)
    );
    assert_eq!(of("gpt-4o-mini").priority, Some(1_667));
    assert_eq!(of("o4-mini").priority, Some(1_819));
    assert_eq!(of("claude-3-7-sonnet").max_output, Some(64_000));
    // `-latest` has moved on to another model than the one that had it in 2025.
    assert_eq!(
        of("mistral-large-latest").input,
        of("mistral-large-2512").input
    );
    assert_eq!(
        of("mistral-medium-latest").input,
        of("mistral-medium-3-5").input
    );
    // Nobody who read the sources said that Mistral's batches cost less.
    assert_eq!(of("mistral-large-2512").batch, None);
}

#[cfg(feature = "prices")]
#[test]
fn models_are_found_under_the_names_they_go_by() {
    let prices = PriceTable::embedded();
    let input = |provider: Option<&str>, model: &str| {
        prices
            .find(provider, model)
            .map(|price| price.input.nanos() / 1_000_000)
    };
    for (provider, model, thousandths) in [
        (Some("openai"), "gpt-4o", Some(2_500)),
        (Some("openai"), "gpt-4o-2024-05-13", Some(5_000)),
        (Some("openai"), "gpt-4o-2031-01-01", Some(2_500)),
        (Some("openai"), "GPT-4o", Some(2_500)),
        (None, "openai/gpt-4o", Some(2_500)),
        (None, "claude-3-5-sonnet-latest", Some(3_000)),
        (Some("anthropic"), "claude-3-5-sonnet@20240620", Some(3_000)),
        (Some("gcp.gemini"), "models/gemini-2.0-flash-001", Some(100)),
        (Some("mistral_ai"), "mistral-large-2411", Some(2_000)),
        (Some("openai"), "gpt-4o-super", None),
        (Some("openai"), "claude-3-opus", None),
        (Some("openai"), "", None),
    ] {
        assert_eq!(input(provider, model), thousandths, "{provider:?} {model}");
    }
}

#[test]
fn bad_lists_are_refused_and_the_old_one_stays() {
    let entry = |model: &str, input: &str| {
        format!(r#"{{"provider":"p","model":"{model}","input":"{input}","output":"1"}}"#)
    };
    let list = |entries: &[String]| {
        PriceTable::from_json(&format!(r#"{{"prices":[{}]}}"#, entries.join(",")))
    };
    let four: Vec<_> = ["a", "b", "c", "d"].map(|model| entry(model, "1")).into();
    let budgets = donjon_budget::Budgets::builder().prices(list(&four).expect("good"));
    let handle = budgets.build().expect("sensible").handle();
    assert!(matches!(
        list(&[entry("a", "-1")]),
        Err(PriceError::Negative { .. })
    ));
    assert!(matches!(
        list(&[entry("a", "10001")]),
        Err(PriceError::Absurd { .. })
    ));
    assert!(matches!(
        list(&[entry("a", "1e3")]),
        Err(PriceError::NotAPrice { .. })
    ));
    assert!(matches!(
        list(&[entry("a", "1"), entry("a", "2")]),
        Err(PriceError::Twice { .. })
    ));
    assert!(matches!(
        PriceTable::from_json("{"),
        Err(PriceError::Syntax(_))
    ));
    assert_eq!(list(&[]).err(), Some(PriceError::Empty));
    let one = list(&four[..1]).expect("good");
    assert_eq!(
        handle.replace_prices(one),
        Err(PriceError::Shrinks { from: 4, to: 1 })
    );
    assert_eq!(handle.prices().len(), 4);
    assert_eq!(
        handle.replace_prices(list(&four[..2]).expect("good")),
        Ok(())
    );
    assert_eq!(handle.prices().len(), 2);
}
