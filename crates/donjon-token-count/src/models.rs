//! The models that are known, as their providers describe them.

use std::sync::Arc;

use crate::{
    estimator::Estimator,
    registry::{Model, Registry},
    rules::{ImageRule, Rules, ToolRule},
    tokenizer::Tokenizer,
};

const OPENAI: &str = "https://platform.openai.com/docs/models";
const ANTHROPIC: &str = "https://docs.anthropic.com/en/docs/about-claude/models/overview";
const GEMINI: &str = "https://ai.google.dev/gemini-api/docs/models";
const LLAMA: &str = "https://www.llama.com/docs/model-cards-and-prompt-formats/";
const DEEPSEEK: &str = "https://api-docs.deepseek.com/quick_start/pricing";
const MISTRAL: &str = "https://docs.mistral.ai/getting-started/models/models_overview/";
const QWEN: &str = "https://qwen.readthedocs.io/en/latest/";
const AS_OF: &str = "2025-10";

/// Names, and the limits: context, input, output; zero where it is not limited apart.
type Row = (&'static [&'static str], [u64; 3]);

pub(crate) fn add_to(registry: &mut Registry) {
    openai(registry);
    let claude = estimator("claude", 1.15, 0.25);
    add(registry, &claude, Rules::anthropic(), ANTHROPIC, CLAUDE);
    let gemini = estimator("gemini", 1.0, 0.25);
    add(registry, &gemini, Rules::gemini(), GEMINI, GEMINI_ROWS);
    let llama = estimator("llama", 1.0, 0.15);
    add(registry, &llama, Rules::llama3(), LLAMA, LLAMA_ROWS);
    let deepseek = estimator("deepseek", 1.0, 0.2);
    add(
        registry,
        &deepseek,
        Rules::chatml(),
        DEEPSEEK,
        DEEPSEEK_ROWS,
    );
    let mistral = estimator("mistral", 1.1, 0.2);
    add(registry, &mistral, Rules::chatml(), MISTRAL, MISTRAL_ROWS);
    let qwen = estimator("qwen", 1.0, 0.2);
    add(
        registry,
        &qwen,
        Rules::chatml(),
        QWEN,
        &[(&["qwen", "qwen2", "qwen2.5", "qwen3", "qwq"], [0; 3])],
    );
}

const CLAUDE: &[Row] = &[
    (&["claude"], [0, 0, 0]),
    (
        &[
            "claude-opus-4-5",
            "claude-sonnet-4",
            "claude-haiku-4",
            "claude-3-7-sonnet",
        ],
        [200_000, 0, 64_000],
    ),
    (&["claude-opus-4"], [200_000, 0, 32_000]),
    (
        &["claude-3-5-sonnet", "claude-3-5-haiku"],
        [200_000, 0, 8_192],
    ),
    (
        &["claude-3-opus", "claude-3-sonnet", "claude-3-haiku"],
        [200_000, 0, 4_096],
    ),
];

const GEMINI_ROWS: &[Row] = &[
    (&["gemini"], [0, 0, 0]),
    (
        &["gemini-2.5-pro", "gemini-2.5-flash"],
        [0, 1_048_576, 65_536],
    ),
    (&["gemini-2.0-flash"], [0, 1_048_576, 8_192]),
    (&["gemini-1.5-pro"], [0, 2_097_152, 8_192]),
    (&["gemini-1.5-flash"], [0, 1_048_576, 8_192]),
];

const LLAMA_ROWS: &[Row] = &[
    (&["llama", "llama-3", "llama3", "meta-llama-3"], [0, 0, 0]),
    (
        &[
            "llama-3.1",
            "llama3.1",
            "llama-3.2",
            "llama3.2",
            "llama-3.3",
            "llama3.3",
            "meta-llama-3.1",
        ],
        [131_072, 0, 0],
    ),
];

const DEEPSEEK_ROWS: &[Row] = &[
    (&["deepseek"], [0, 0, 0]),
    (&["deepseek-chat"], [128_000, 0, 8_192]),
    (&["deepseek-reasoner"], [128_000, 0, 64_000]),
];

const MISTRAL_ROWS: &[Row] = &[
    (&["mistral", "mixtral", "codestral", "ministral"], [0, 0, 0]),
    (
        &["mistral-large", "mistral-medium", "mistral-small"],
        [128_000, 0, 0],
    ),
];

fn openai(registry: &mut Registry) {
    let (o200k, cl100k) = vocabularies();
    let tiles = |base, tile| Rules::openai().with_images(ImageRule::Tiles { base, tile });
    let patches = |percent| {
        let most = 1_536;
        Rules::openai().with_images(ImageRule::Patches { percent, most })
    };
    let mut o200k = |rules, rows| add(registry, &o200k, rules, OPENAI, rows);
    o200k(
        tiles(85, 170),
        &[
            (&["gpt-4o", "chatgpt-4o-latest"], [128_000, 0, 16_384]),
            (&["gpt-4.1"], [1_047_576, 0, 32_768]),
        ],
    );
    o200k(
        tiles(2_833, 5_667),
        &[(&["gpt-4o-mini"], [128_000, 0, 16_384])],
    );
    o200k(
        tiles(75, 150),
        &[
            (
                &["o1", "o1-pro", "o3", "o3-mini", "o3-pro"],
                [200_000, 0, 100_000],
            ),
            (&["o1-mini"], [128_000, 0, 65_536]),
            (&["o1-preview"], [128_000, 0, 32_768]),
        ],
    );
    o200k(
        tiles(70, 140),
        &[
            (&["gpt-5"], [400_000, 272_000, 128_000]),
            (&["gpt-5-chat"], [128_000, 0, 16_384]),
        ],
    );
    o200k(
        patches(162),
        &[
            (&["gpt-4.1-mini"], [1_047_576, 0, 32_768]),
            (&["gpt-5-mini"], [400_000, 272_000, 128_000]),
        ],
    );
    o200k(
        patches(246),
        &[
            (&["gpt-4.1-nano"], [1_047_576, 0, 32_768]),
            (&["gpt-5-nano"], [400_000, 272_000, 128_000]),
        ],
    );
    o200k(patches(172), &[(&["o4-mini"], [200_000, 0, 100_000])]);
    // Its template is public, and has three marks, the role and a channel for each message.
    let mut harmony = Rules::chatml();
    harmony.doubt = 2;
    o200k(harmony, &[(&["gpt-oss"], [131_072, 0, 131_072])]);
    let mut cl100k = |rules, rows| add(registry, &cl100k, rules, OPENAI, rows);
    let older = Rules::openai().with_tools(ToolRule::OpenAi { per_function: 10 });
    cl100k(
        older,
        &[
            (&["gpt-4"], [8_192, 0, 8_192]),
            (&["gpt-4-32k"], [32_768, 0, 32_768]),
            (
                &["gpt-4-turbo", "gpt-4-0125-preview", "gpt-4-1106-preview"],
                [128_000, 0, 4_096],
            ),
            (&["gpt-3.5-turbo", "gpt-35-turbo"], [16_385, 0, 4_096]),
        ],
    );
    cl100k(
        Rules::plain(),
        &[(
            &[
                "text-embedding-3-small",
                "text-embedding-3-large",
                "text-embedding-ada-002",
            ],
            [0, 8_192, 0],
        )],
    );
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

fn add(
    registry: &mut Registry,
    tokenizer: &Arc<dyn Tokenizer>,
    rules: Rules,
    source: &'static str,
    rows: &[Row],
) {
    let limit = |tokens: u64| (tokens > 0).then_some(tokens);
    for (names, [context, input, output]) in rows {
        let model = Model::shared(tokenizer.clone(), rules.clone())
            .context(limit(*context))
            .max_input(limit(*input))
            .max_output(limit(*output))
            .stated(source, AS_OF);
        for name in *names {
            registry.insert(name, model.clone());
        }
    }
}
