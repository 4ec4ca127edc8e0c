//! The models that are known: who counts them, by which rules.

use std::sync::Arc;

use crate::{
    estimator::Estimator,
    limits::{self, Row},
    registry::{Model, Registry},
    rules::{ImageRule, Rules, ToolRule},
    tokenizer::Tokenizer,
};

pub(crate) fn add_to(registry: &mut Registry) {
    openai(registry);
    claude(registry);
    gemini(registry);
    let llama = estimator("llama", 1.0, 0.15);
    add(registry, &llama, &Rules::llama3(), limits::LLAMA);
    let deepseek = estimator("deepseek", 1.0, 0.2);
    add(registry, &deepseek, &Rules::chatml(), limits::DEEPSEEK);
    let mistral = estimator("mistral", 1.1, 0.2);
    add(registry, &mistral, &Rules::chatml(), limits::MISTRAL);
    let qwen = estimator("qwen", 1.0, 0.2);
    add(registry, &qwen, &Rules::chatml(), limits::QWEN);
}

fn openai(registry: &mut Registry) {
    let (o200k, cl100k) = vocabularies();
    let tiles = |base, tile| Rules::openai().with_images(ImageRule::Tiles { base, tile });
    let patches = |percent, most, high| {
        Rules::openai().with_images(ImageRule::Patches {
            percent,
            most,
            high,
        })
    };
    let mut o200k = |rules: Rules, rows| add(registry, &o200k, &rules, rows);
    o200k(tiles(85, 170), limits::GPT_4O);
    o200k(tiles(2_833, 5_667), limits::GPT_4O_MINI);
    o200k(tiles(75, 150), limits::O_SERIES);
    o200k(tiles(70, 140), limits::GPT_5);
    o200k(patches(162, 1_536, 1_536), limits::MINI);
    o200k(patches(246, 1_536, 1_536), limits::NANO);
    o200k(patches(172, 1_536, 1_536), limits::O4_MINI);
    // Without a word of detail they see images as they are.
    o200k(patches(120, 10_000, 2_500), limits::GPT_5_4);
    o200k(patches(120, 30_000, 2_500), limits::GPT_6);
    // Its template is public, and has three marks, the role and a channel for each message.
    let mut harmony = Rules::chatml();
    harmony.doubt = 2;
    o200k(harmony, limits::GPT_OSS);
    let mut cl100k = |rules: Rules, rows| add(registry, &cl100k, &rules, rows);
    let older = Rules::openai().with_tools(ToolRule::OpenAi { per_function: 10 });
    cl100k(older, limits::GPT_4);
    cl100k(Rules::plain(), limits::EMBEDDING);
}

/// The prompts that come with tools are of
/// <https://platform.claude.com/docs/en/agents-and-tools/tool-use/overview#pricing>, as it was in 2026.
fn claude(registry: &mut Registry) {
    let tools = |auto, forced| Rules::anthropic().with_tools(ToolRule::Json { auto, forced });
    let older = estimator("claude", 1.15, 0.25);
    let mut of_older = |rules: Rules, rows| add(registry, &older, &rules, rows);
    of_older(Rules::anthropic(), limits::CLAUDE_3_SONNETS);
    of_older(tools(264, 340), limits::CLAUDE_3_HAIKUS);
    of_older(tools(530, 281), limits::CLAUDE_3_OPUS);
    of_older(tools(313, 315), limits::CLAUDE_4);
    of_older(tools(496, 588), limits::CLAUDE_4_5);
    // From 4.7 on there is another tokenizer, of which the provider says that it makes about 30 % more.
    let newer = estimator("claude-4.7", 1.5, 0.3);
    let high = ImageRule::Blocks {
        side: 28,
        longest: 2_576,
        most: 4_784,
    };
    let mut of_newer = |rules: Rules, rows| add(registry, &newer, &rules.with_images(high), rows);
    of_newer(tools(675, 804), limits::CLAUDE_OPUS_4_7);
    of_newer(tools(290, 410), limits::CLAUDE_OPUS_4_8);
    // Of Sonnet 5; those of the others are not known.
    of_newer(tools(354, 474), limits::CLAUDE_5);
}

fn gemini(registry: &mut Registry) {
    let gemini = estimator("gemini", 1.0, 0.25);
    add(registry, &gemini, &Rules::gemini(), limits::GEMINI_2);
    let fixed = Rules::gemini().with_images(ImageRule::Fixed { tokens: 1_120 });
    add(registry, &gemini, &fixed, limits::GEMINI_3);
}

#[cfg(feature = "openai")]
fn vocabularies() -> (Arc<dyn Tokenizer>, Arc<dyn Tokenizer>) {
    use crate::openai::OpenAi;
    (Arc::new(OpenAi::O200k), Arc::new(OpenAi::Cl100k))
}

/// Without the vocabularies, the estimates that were made from them.
#[cfg(not(feature = "openai"))]
fn vocabularies() -> (Arc<dyn Tokenizer>, Arc<dyn Tokenizer>) {
    (
        estimator("o200k_base", 1.0, 0.05),
        estimator("cl100k_base", 1.0, 0.05),
    )
}

fn estimator(name: &str, scale: f32, doubt: f32) -> Arc<dyn Tokenizer> {
    Arc::new(Estimator::new(name).scale(scale).doubt(doubt))
}

fn add(registry: &mut Registry, tokenizer: &Arc<dyn Tokenizer>, rules: &Rules, rows: &[Row]) {
    let limit = |tokens: u64| (tokens > 0).then_some(tokens);
    for row in rows {
        let [context, input, output] = row.limits;
        let model = Model::shared(tokenizer.clone(), rules.clone())
            .context(limit(context))
            .max_input(limit(input))
            .max_output(limit(output))
            .stated(row.source, row.as_of);
        for name in row.names {
            registry.insert(name, model.clone());
            if let Some(dotted) = dotted(name) {
                registry.insert(&dotted, model.clone());
            }
        }
    }
}

/// `claude-opus-4.5` for `claude-opus-4-5`, as gateways write it.
fn dotted(name: &str) -> Option<String> {
    let (family, minor) = name.rsplit_once('-')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let major = family.rsplit('-').next()?;
    (name.starts_with("claude-") && digits(major) && digits(minor))
        .then(|| format!("{family}.{minor}"))
}
