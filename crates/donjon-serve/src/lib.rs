//! Any language model service as an OpenAI- and Anthropic-compatible http service.
