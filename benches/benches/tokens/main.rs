//! Counting texts: ours, tiktoken-rs, and Hugging Face's tokenizers with the same vocabulary, in one run.
//!
//! `cargo bench -p donjon-benches --bench tokens -- [--rounds N]`. Each text is counted by one after the other, round-robin, in one
//! thread; a figure is the median of the rounds. Hugging Face's tokenizer is made from the vocabulary of `o200k`: its merges are
//! those by which each token comes about. That all agree is checked for each text first.
#![expect(clippy::print_stdout, reason = "a program that prints its figures")]

#[path = "../../../crates/donjon-token-count/tests/it/corpus.rs"]
mod corpus;

use std::collections::HashMap;
use std::hint::black_box;

use donjon_benches::args::Args;
use donjon_benches::clock;
use donjon_benches::report::Table;
use donjon_token_count::{OpenAi, Tokenizer};
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::SplitDelimiterBehavior;

/// A way to count.
type Counter<'a> = Box<dyn Fn(&str) -> u64 + 'a>;

fn main() -> Result<(), String> {
    let args = Args::from_env(&["bench"])?;
    let bench = args.flag("bench");
    let rounds: usize = args.or("rounds", if bench { 15 } else { 1 })?;
    let size = if bench { 450_000 } else { 4_000 };
    let tiktoken_rs = tiktoken_rs::o200k_base().map_err(|error| error.to_string())?;
    let vocabulary = tiktoken::encoding::o200k_base();
    let hugging_face = hugging_face(&vocabulary)?;
    let counters: [(&str, Counter<'_>); 4] = [
        ("ours", Box::new(|text| OpenAi::O200k.count(text).tokens())),
        (
            "tiktoken, uncut",
            Box::new(|text| vocabulary.count(text) as u64),
        ),
        (
            "tiktoken-rs",
            Box::new(|text| tiktoken_rs.encode_ordinary(text).len() as u64),
        ),
        (
            "tokenizers",
            Box::new(|text| {
                let encoding = hugging_face.encode_fast(text, false);
                encoding.map_or(0, |encoding| encoding.len() as u64)
            }),
        ),
    ];
    let repeated = |texts: &[&str]| texts.join("\n").repeat(size / texts.join("\n").len() + 1);
    let prose: Vec<&str> = corpus::PROSE.iter().flatten().copied().collect();
    let texts = [
        ("English", repeated(&corpus::PROSE[0])),
        ("prose, 12 languages", repeated(&prose)),
        ("code", repeated(&corpus::CODE)),
        ("JSON", repeated(&corpus::JSON)),
        ("this repository", repository(size)?),
        ("all kinds, shuffled", corpus::long(size, 1)),
    ];
    let mut table = Table::new([
        "text",
        "tokens",
        "counter",
        "ms",
        "ms / 100,000",
        "MB/s",
        "times ours",
    ]);
    for (name, text) in &texts {
        let tokens = counters[0].1(text);
        for (counter, count) in &counters {
            let theirs = count(text);
            if theirs != tokens {
                println!("{counter} counts {theirs} tokens of {name}, not {tokens}");
            }
        }
        let mut took: Vec<Vec<f64>> = vec![Vec::new(); counters.len()];
        for _ in 0..rounds {
            for ((_, count), took) in counters.iter().zip(&mut took) {
                let begin = clock::cpu();
                black_box(count(black_box(text)));
                took.push((clock::cpu() - begin).as_secs_f64());
            }
        }
        let medians = took.iter_mut().map(|took| {
            took.sort_by(f64::total_cmp);
            took[took.len() / 2]
        });
        let medians: Vec<f64> = medians.collect();
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        for ((counter, _), seconds) in counters.iter().zip(&medians) {
            table.row([
                (*name).to_owned(),
                tokens.to_string(),
                (*counter).to_owned(),
                format!("{:.2}", seconds * 1e3),
                format!("{:.2}", seconds * 1e8 / tokens as f64),
                format!("{:.0}", text.len() as f64 / seconds / 1e6),
                format!("{:.1}", seconds / medians[0]),
            ]);
        }
    }
    println!("{}", table.render());
    Ok(())
}

/// Sources and pages of this workspace, of which nothing is repeated on purpose.
fn repository(size: usize) -> Result<String, String> {
    let mut text = String::new();
    let mut folders = vec![concat!(env!("CARGO_MANIFEST_DIR"), "/..").into()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir::<std::path::PathBuf>(folder);
        let entries = entries.map_err(|error| error.to_string())?;
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() && !name.starts_with('.') && name != "target" {
                folders.push(path);
            } else if name.ends_with(".rs") || name.ends_with(".md") {
                text += &std::fs::read_to_string(&path).map_err(|error| error.to_string())?;
            }
            if text.len() >= size {
                return Ok(text);
            }
        }
    }
    Ok(text)
}

const PATTERN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

/// The vocabulary as the library knows it from files of models.
fn hugging_face(vocabulary: &tiktoken::CoreBpe) -> Result<tokenizers::Tokenizer, String> {
    let size = u32::try_from(vocabulary.vocab_size()).map_err(|error| error.to_string())?;
    let tokens: Vec<Vec<u8>> = (0..size).map(|rank| vocabulary.decode(&[rank])).collect();
    let ranks: HashMap<&[u8], u32> = tokens.iter().map(Vec::as_slice).zip(0..).collect();
    let letters = letters();
    let spell = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| letters[usize::from(*byte)])
            .collect::<String>()
    };
    let mut merges = Vec::new();
    for (token, rank) in tokens.iter().zip(0..) {
        if token.len() > 1
            && let [one, other] = &parts(token, &ranks, rank)[..]
        {
            merges.push((spell(one), spell(other)));
        }
    }
    let named: Vec<(String, u32)> = tokens.iter().map(|token| spell(token)).zip(0..).collect();
    let bpe = BPE::builder()
        .vocab_and_merges(
            named
                .into_iter()
                .collect::<tokenizers::models::bpe::Vocab>(),
            merges,
        )
        .ignore_merges(true)
        .build();
    let mut tokenizer = tokenizers::Tokenizer::new(bpe.map_err(|error| error.to_string())?);
    let pattern = SplitPattern::Regex(PATTERN.to_owned());
    let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false);
    let split = split.map_err(|error| error.to_string())?;
    let bytes = ByteLevel::new(false, false, false);
    tokenizer.with_pre_tokenizer(Some(Sequence::new(vec![split.into(), bytes.into()])));
    Ok(tokenizer)
}

/// What is left of a token once everything is merged that comes before it.
fn parts<'a>(token: &'a [u8], ranks: &HashMap<&[u8], u32>, before: u32) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = (0..=token.len()).collect();
    loop {
        let pairs = (0..cuts.len().saturating_sub(2))
            .filter_map(|at| Some((*ranks.get(&token[cuts[at]..cuts[at + 2]])?, at)));
        match pairs.min() {
            Some((rank, at)) if rank < before => {
                cuts.remove(at + 1);
            }
            _ => return cuts.windows(2).map(|cut| &token[cut[0]..cut[1]]).collect(),
        }
    }
}

/// The letters that stand for bytes.
fn letters() -> Vec<char> {
    let mut next = 256;
    let letter = |byte: u32| {
        let printable = matches!(byte, 33..=126 | 161..=172 | 174..=255);
        let code = if printable {
            byte
        } else {
            next += 1;
            next - 1
        };
        char::from_u32(code).unwrap_or_default()
    };
    (0..256).map(letter).collect()
}
