//! How much models have room for, as public sources say.
//!
//! `models.dev` is the repository `anomalyco/models.dev`, whose entries name the pages of the providers that
//! they were taken from.

/// Models of the same limits.
pub(crate) struct Row {
    pub(crate) names: &'static [&'static str],
    /// Context, input, output; zero where it is not limited apart, or not known.
    pub(crate) limits: [u64; 3],
    pub(crate) source: &'static str,
    /// Year and month.
    pub(crate) as_of: &'static str,
}

const fn row(
    names: &'static [&'static str],
    limits: [u64; 3],
    source: &'static str,
    as_of: &'static str,
) -> Row {
    Row {
        names,
        limits,
        source,
        as_of,
    }
}

const OPENAI: &str = "https://developers.openai.com/api/docs/models";
const CLAUDE: &str = "https://platform.claude.com/docs/en/models/overview";
const GEMINI: &str = "https://ai.google.dev/gemini-api/docs/models";
const MODELS_DEV: &str = "https://github.com/anomalyco/models.dev";
const LITELLM: &str =
    "https://github.com/BerriAI/litellm/blob/main/model_prices_and_context_window.json";

pub(crate) const GPT_4O: &[Row] = &[
    row(
        &["gpt-4o", "chatgpt-4o-latest"],
        [128_000, 0, 16_384],
        LITELLM,
        "2025-10",
    ),
    row(
        &["gpt-4o-2024-05-13"],
        [128_000, 0, 4_096],
        LITELLM,
        "2025-10",
    ),
    row(&["gpt-4.1"], [1_047_576, 0, 32_768], MODELS_DEV, "2026-09"),
    row(&["gpt-audio"], [128_000, 0, 16_384], OPENAI, "2026-09"),
];
pub(crate) const GPT_4O_MINI: &[Row] = &[row(
    &["gpt-4o-mini"],
    [128_000, 0, 16_384],
    LITELLM,
    "2025-10",
)];
pub(crate) const O_SERIES: &[Row] = &[
    row(
        &["o1", "o1-pro", "o3", "o3-mini", "o3-pro"],
        [200_000, 0, 100_000],
        MODELS_DEV,
        "2026-09",
    ),
    row(&["o1-mini"], [128_000, 0, 65_536], MODELS_DEV, "2026-09"),
    row(&["o1-preview"], [128_000, 0, 32_768], MODELS_DEV, "2026-09"),
];
pub(crate) const O4_MINI: &[Row] = &[row(
    &["o4-mini"],
    [200_000, 0, 100_000],
    MODELS_DEV,
    "2026-09",
)];
pub(crate) const GPT_5: &[Row] = &[
    row(
        &["gpt-5", "gpt-5.1", "gpt-5.2"],
        [400_000, 272_000, 128_000],
        MODELS_DEV,
        "2026-09",
    ),
    row(
        &["gpt-5-pro"],
        [400_000, 272_000, 272_000],
        MODELS_DEV,
        "2026-09",
    ),
    row(
        &["gpt-5-chat", "gpt-5.1-chat-latest", "gpt-5.2-chat-latest"],
        [128_000, 0, 16_384],
        LITELLM,
        "2025-10",
    ),
];
pub(crate) const MINI: &[Row] = &[
    row(
        &["gpt-4.1-mini"],
        [1_047_576, 0, 32_768],
        MODELS_DEV,
        "2026-09",
    ),
    row(
        &["gpt-5-mini"],
        [400_000, 272_000, 128_000],
        MODELS_DEV,
        "2026-09",
    ),
    // Its window was found nowhere.
    row(&["gpt-5.4-mini"], [0, 0, 128_000], OPENAI, "2026-09"),
];
pub(crate) const NANO: &[Row] = &[
    row(
        &["gpt-4.1-nano"],
        [1_047_576, 0, 32_768],
        MODELS_DEV,
        "2026-09",
    ),
    row(
        &["gpt-5-nano"],
        [400_000, 272_000, 128_000],
        MODELS_DEV,
        "2026-09",
    ),
    row(&["gpt-5.4-nano"], [0, 0, 128_000], OPENAI, "2026-09"),
];
pub(crate) const GPT_5_4: &[Row] = &[
    // What it takes of prompt is said to be 272,000 and 922,000; the larger refuses nothing wrongly.
    row(
        &["gpt-5.4", "gpt-5.5"],
        [1_050_000, 922_000, 128_000],
        MODELS_DEV,
        "2026-09",
    ),
];
pub(crate) const GPT_6: &[Row] = &[
    row(
        &["gpt-5.6", "gpt-6", "gpt-6.1"],
        [1_050_000, 922_000, 128_000],
        MODELS_DEV,
        "2026-09",
    ),
    row(
        &["gpt-6.2"],
        [1_050_000, 922_000, 128_000],
        OPENAI,
        "2026-11",
    ),
];
pub(crate) const GPT_OSS: &[Row] = &[
    // Providers give shorter answers; the model itself has no other limit.
    row(&["gpt-oss"], [131_072, 0, 131_072], MODELS_DEV, "2026-09"),
];
pub(crate) const GPT_4: &[Row] = &[
    row(&["gpt-4"], [8_192, 0, 8_192], MODELS_DEV, "2026-09"),
    row(&["gpt-4-32k"], [32_768, 0, 32_768], LITELLM, "2025-10"),
    row(
        &["gpt-4-turbo", "gpt-4-0125-preview", "gpt-4-1106-preview"],
        [128_000, 0, 4_096],
        MODELS_DEV,
        "2026-09",
    ),
    row(
        &["gpt-3.5-turbo", "gpt-35-turbo"],
        [16_385, 0, 4_096],
        MODELS_DEV,
        "2026-09",
    ),
];
pub(crate) const EMBEDDING: &[Row] = &[row(
    &[
        "text-embedding-3-small",
        "text-embedding-3-large",
        "text-embedding-ada-002",
    ],
    [0, 8_192, 0],
    "https://developers.openai.com/api/docs/guides/embeddings",
    "2025-10",
)];

pub(crate) const CLAUDE_3_SONNETS: &[Row] = &[
    row(&["claude"], [0, 0, 0], CLAUDE, "2026-11"),
    row(
        &["claude-3-7-sonnet"],
        [200_000, 0, 64_000],
        MODELS_DEV,
        "2026-02",
    ),
    row(
        &["claude-3-5-sonnet"],
        [200_000, 0, 8_192],
        MODELS_DEV,
        "2026-02",
    ),
    row(
        &["claude-3-sonnet"],
        [200_000, 0, 4_096],
        MODELS_DEV,
        "2026-02",
    ),
];
pub(crate) const CLAUDE_3_HAIKUS: &[Row] = &[
    row(
        &["claude-3-5-haiku"],
        [200_000, 0, 8_192],
        MODELS_DEV,
        "2026-02",
    ),
    row(
        &["claude-3-haiku"],
        [200_000, 0, 4_096],
        MODELS_DEV,
        "2026-02",
    ),
];
pub(crate) const CLAUDE_3_OPUS: &[Row] = &[row(
    &["claude-3-opus"],
    [200_000, 0, 4_096],
    MODELS_DEV,
    "2026-02",
)];
pub(crate) const CLAUDE_4: &[Row] = &[
    row(
        &["claude-sonnet-4"],
        [200_000, 0, 64_000],
        MODELS_DEV,
        "2026-02",
    ),
    row(
        &["claude-opus-4", "claude-opus-4-1"],
        [200_000, 0, 32_000],
        MODELS_DEV,
        "2026-02",
    ),
];
pub(crate) const CLAUDE_4_5: &[Row] = &[
    row(
        &["claude-opus-4-5", "claude-sonnet-4-5", "claude-haiku-4-5"],
        [200_000, 0, 64_000],
        CLAUDE,
        "2026-11",
    ),
    row(
        &["claude-opus-4-6"],
        [1_000_000, 0, 128_000],
        MODELS_DEV,
        "2026-03",
    ),
    row(
        &["claude-sonnet-4-6"],
        [1_000_000, 0, 64_000],
        MODELS_DEV,
        "2026-03",
    ),
];
pub(crate) const CLAUDE_OPUS_4_7: &[Row] = &[row(
    &["claude-opus-4-7"],
    [1_000_000, 0, 128_000],
    CLAUDE,
    "2026-11",
)];
pub(crate) const CLAUDE_OPUS_4_8: &[Row] = &[row(
    &["claude-opus-4-8"],
    [1_000_000, 0, 128_000],
    CLAUDE,
    "2026-11",
)];
pub(crate) const CLAUDE_5: &[Row] = &[row(
    &[
        "claude-fable-5",
        "claude-mythos-5",
        "claude-opus-5",
        "claude-opus-5-5",
        "claude-sonnet-5",
        "claude-sonnet-5-5",
        "claude-haiku-5-5",
        "claude-fable-5-1",
        "claude-fable-5-2",
    ],
    [1_000_000, 0, 128_000],
    CLAUDE,
    "2026-11",
)];

pub(crate) const GEMINI_2: &[Row] = &[
    row(&["gemini"], [0, 0, 0], GEMINI, "2026-09"),
    row(
        &["gemini-2.5-pro", "gemini-2.5-flash"],
        [0, 1_048_576, 65_536],
        MODELS_DEV,
        "2026-09",
    ),
    row(
        &["gemini-2.0-flash"],
        [0, 1_048_576, 8_192],
        MODELS_DEV,
        "2026-06",
    ),
    row(
        &["gemini-1.5-pro"],
        [0, 2_097_152, 8_192],
        LITELLM,
        "2025-10",
    ),
    row(
        &["gemini-1.5-flash"],
        [0, 1_048_576, 8_192],
        LITELLM,
        "2025-10",
    ),
];
pub(crate) const GEMINI_3: &[Row] = &[
    row(
        &[
            "gemini-3-pro",
            "gemini-3-flash",
            "gemini-3.1-pro",
            "gemini-3.1-flash-lite",
            "gemini-3.5-flash",
            "gemini-3.6-flash",
            "gemini-3.7-flash",
            "gemini-3.8-flash",
        ],
        [0, 1_048_576, 65_536],
        MODELS_DEV,
        "2026-09",
    ),
    // It is said to have a million, and not how it counts images.
    row(&["gemini-3", "gemini-4"], [0, 0, 65_536], GEMINI, "2026-11"),
];

pub(crate) const LLAMA: &[Row] = &[
    row(
        &["llama", "llama-3", "llama3", "meta-llama-3"],
        [0, 0, 0],
        "https://www.llama.com/docs/model-cards-and-prompt-formats/",
        "2025-10",
    ),
    // 128,000 with some providers.
    row(
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
        "https://www.llama.com/docs/model-cards-and-prompt-formats/",
        "2025-10",
    ),
];

pub(crate) const DEEPSEEK: &[Row] = &[
    row(&["deepseek"], [0, 0, 0], MODELS_DEV, "2026-09"),
    row(
        &["deepseek-flash", "deepseek-v4-flash"],
        [1_000_000, 0, 393_216],
        MODELS_DEV,
        "2026-09",
    ),
    row(
        &["deepseek-v4-pro"],
        [1_000_000, 0, 384_000],
        MODELS_DEV,
        "2026-09",
    ),
    row(
        &["deepseek-chat"],
        [1_000_000, 0, 8_192],
        MODELS_DEV,
        "2026-02",
    ),
    row(
        &["deepseek-reasoner"],
        [1_000_000, 0, 128_000],
        MODELS_DEV,
        "2026-02",
    ),
];

pub(crate) const MISTRAL: &[Row] = &[
    row(
        &[
            "mistral",
            "mixtral",
            "codestral",
            "ministral",
            "devstral",
            "magistral",
        ],
        [0, 0, 0],
        MODELS_DEV,
        "2026-09",
    ),
    row(
        &["mistral-large-2512", "mistral-medium-2508"],
        [262_144, 0, 0],
        MODELS_DEV,
        "2026-09",
    ),
    row(
        &["mistral-small-2603"],
        [256_000, 0, 0],
        MODELS_DEV,
        "2026-09",
    ),
    row(
        &["mistral-large-2411"],
        [131_072, 0, 0],
        MODELS_DEV,
        "2026-05",
    ),
    row(
        &["mistral-small-2506", "codestral-2508"],
        [128_000, 0, 0],
        MODELS_DEV,
        "2026-09",
    ),
];

pub(crate) const QWEN: &[Row] = &[row(
    &["qwen", "qwen2", "qwen2.5", "qwen3", "qwq"],
    [0; 3],
    "https://qwen.readthedocs.io/en/latest/",
    "2025-10",
)];
