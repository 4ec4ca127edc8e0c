//! Resilience middleware for calls to large language models: every layer, and the preset stack.
