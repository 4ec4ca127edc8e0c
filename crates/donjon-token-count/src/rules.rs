//! What a provider adds to the texts of a request.

/// What a provider adds to the texts of a request: for each message, for names, tools and images.
///
/// The rules of the named constructors are those that the providers publish; where they publish none,
/// the count is an estimate, and its error says so.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Rules {
    /// Tokens of each message beside its texts; its role is one of them.
    pub per_message: u32,
    /// Tokens of a speaker's name beside the name itself.
    pub per_name: u32,
    /// Tokens of each tool call beside the name of the function and its arguments.
    pub per_tool_call: u32,
    /// Tokens with which the answer begins, counted once.
    pub reply: u32,
    /// How many tokens each message may have more or less than that, where no rule is published.
    pub doubt: u32,
    /// What the definitions of tools cost.
    pub tools: ToolRule,
    /// What an image costs.
    pub images: ImageRule,
}

/// What the definitions of tools cost.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum ToolRule {
    /// As OpenAI's cookbook has it: names, types, descriptions and enumerated values are counted, each
    /// with some tokens of its own (<https://developers.openai.com/cookbook/examples/how_to_count_tokens_with_tiktoken>).
    /// It is said for flat parameters; those within parameters are counted in the same way, and
    /// make the count an estimate.
    OpenAi {
        /// Tokens with which each function begins: 7 from GPT-4o on, 10 before.
        per_function: u32,
    },
    /// Name, description and schema as they stand, and a prompt of the provider's own.
    Json {
        /// Tokens of that prompt where the model chooses whether to call.
        auto: u32,
        /// Tokens of that prompt where it has to call some tool, or a certain one.
        forced: u32,
    },
}

/// What an image costs.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum ImageRule {
    /// A base and so much for each tile of 512 pixels, once it fits into 2,048 pixels and its shorter
    /// side has at most 768; with low detail the base alone
    /// (<https://platform.openai.com/docs/guides/images-vision#calculating-costs>).
    Tiles {
        /// Tokens of the image.
        base: u32,
        /// Tokens of each tile.
        tile: u32,
    },
    /// So much for each patch of 32 pixels, of which there are at most `most`
    /// (<https://developers.openai.com/api/docs/guides/images-vision>). What low detail costs is not
    /// published; it is taken for an image of 512 pixels.
    Patches {
        /// Hundredths of a token for each patch.
        percent: u32,
        /// The most patches that an image has once it is made smaller.
        most: u32,
        /// The most with high detail, where that is less.
        high: u32,
    },
    /// A token for each block of `side` pixels, once the image is made small enough for its longer side
    /// and for the number of its blocks (<https://platform.claude.com/docs/en/build-with-claude/vision>). What
    /// is counted of an image that is made smaller, or is longer than 2,000 pixels, is an estimate: less than
    /// the guide says was reported of these.
    Blocks {
        /// The side of a block, in pixels.
        side: u32,
        /// The longest side that is not made smaller.
        longest: u32,
        /// The most blocks of an image.
        most: u32,
    },
    /// So much for an image of at most 384 pixels a side, and for each tile of a larger one; a tile's
    /// side is two thirds of the image's shorter side, from 256 to 768 pixels
    /// (<https://ai.google.dev/gemini-api/docs/image-understanding>).
    Crops {
        /// Tokens of each tile.
        tile: u32,
    },
    /// The same for each image.
    Fixed {
        /// Tokens of the image.
        tokens: u32,
    },
}

impl Rules {
    /// Those of OpenAI's chat completions, for models with the vocabulary `o200k`: three tokens and
    /// the role for each message, one for a name, three with which the answer begins
    /// (<https://developers.openai.com/cookbook/examples/how_to_count_tokens_with_tiktoken>). An image
    /// costs 85 tokens and 170 for each tile.
    pub const fn openai() -> Self {
        Self {
            per_message: 4,
            per_name: 1,
            per_tool_call: 8,
            reply: 3,
            doubt: 0,
            tools: ToolRule::OpenAi { per_function: 7 },
            images: ImageRule::Tiles {
                base: 85,
                tile: 170,
            },
        }
    }

    /// Those of Anthropic's messages. What a message adds is not published. Tools come with a prompt that
    /// differs from model to model, here of 346 tokens, or 313 where one has to be called, as Claude 3.5 to
    /// 3.7 Sonnet have it (<https://platform.claude.com/docs/en/agents-and-tools/tool-use/overview#pricing>).
    /// An image has a token for each block of 28 pixels, at most 1,568, as models before Claude 4.7 have it.
    pub const fn anthropic() -> Self {
        Self {
            per_message: 4,
            per_name: 0,
            per_tool_call: 12,
            reply: 3,
            doubt: 3,
            tools: ToolRule::Json {
                auto: 346,
                forced: 313,
            },
            images: ImageRule::Blocks {
                side: 28,
                longest: 1_568,
                most: 1_568,
            },
        }
    }

    /// Those of Gemini before 3: messages add nothing, an image costs 258 tokens a tile
    /// (<https://ai.google.dev/gemini-api/docs/tokens>). From Gemini 3 on an image costs 1,120 tokens at most
    /// unless another resolution is asked for.
    pub const fn gemini() -> Self {
        Self {
            per_message: 1,
            per_name: 0,
            per_tool_call: 8,
            reply: 0,
            doubt: 1,
            tools: ToolRule::Json { auto: 0, forced: 0 },
            images: ImageRule::Crops { tile: 258 },
        }
    }

    /// Those of a template like ChatML, as Qwen and many others have: two marks, the role and two
    /// newlines for each message (<https://qwen.readthedocs.io/en/latest/getting_started/concepts.html>).
    pub const fn chatml() -> Self {
        Self {
            per_message: 5,
            per_name: 0,
            per_tool_call: 12,
            reply: 3,
            doubt: 1,
            tools: ToolRule::Json {
                auto: 120,
                forced: 120,
            },
            images: ImageRule::Fixed { tokens: 1_280 },
        }
    }

    /// Those of Llama 3: two marks around the role, a blank line, a mark at the end
    /// (<https://www.llama.com/docs/model-cards-and-prompt-formats/llama3_1/>).
    pub const fn llama3() -> Self {
        Self {
            per_message: 5,
            per_name: 0,
            per_tool_call: 12,
            reply: 5,
            doubt: 1,
            tools: ToolRule::Json {
                auto: 120,
                forced: 120,
            },
            images: ImageRule::Fixed { tokens: 1_601 },
        }
    }

    /// Nothing is added, as for embeddings; an image costs 1,000 tokens.
    pub const fn plain() -> Self {
        Self {
            per_message: 0,
            per_name: 0,
            per_tool_call: 0,
            reply: 0,
            doubt: 0,
            tools: ToolRule::Json { auto: 0, forced: 0 },
            images: ImageRule::Fixed { tokens: 1_000 },
        }
    }

    /// The same with another rule for images.
    #[must_use]
    pub const fn with_images(mut self, images: ImageRule) -> Self {
        self.images = images;
        self
    }

    /// The same with another rule for tools.
    #[must_use]
    pub const fn with_tools(mut self, tools: ToolRule) -> Self {
        self.tools = tools;
        self
    }
}
