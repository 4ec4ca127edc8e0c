//! The parts: hashes and tables without a layer.

use std::future::ready;
use std::sync::Arc;

use donjon_cache::{CacheKey, Scope};
use donjon_core::{ChatCompletion, Completion, LlmRequest};

use crate::row::{Row, known, text};

pub(crate) fn rows(size: (&str, usize)) -> [Row; 6] {
    let bytes = size.1;
    let hashed = text(bytes);
    let quick = Arc::new(quick_cache::sync::Cache::new(10_000));
    let moka = moka::sync::Cache::new(10_000);
    let key = key(&known(bytes)());
    quick.insert(key, answer());
    moka.insert(key, answer());
    let (quick_too, moka_too) = (quick.clone(), moka.clone());
    [
        Row::new(
            "blake3 of the text, bare",
            size,
            move || hashed.clone(),
            |text| ready(blake3::hash(text.as_bytes())),
        )
        .hashing(bytes),
        Row::new("donjon's key", size, known(bytes), |request| {
            ready(self::key(&request))
        })
        .hashing(bytes),
        Row::new(
            "quick_cache, bare",
            size,
            move || key,
            move |key| ready(quick.get(&key)),
        ),
        Row::new(
            "moka, bare",
            size,
            move || key,
            move |key| ready(moka.get(&key)),
        ),
        Row::new(
            "donjon's key and quick_cache",
            size,
            known(bytes),
            move |request| ready(quick_too.get(&self::key(&request))),
        ),
        Row::new(
            "donjon's key and moka",
            size,
            known(bytes),
            move |request| ready(moka_too.get(&self::key(&request))),
        ),
    ]
}

fn key(request: &LlmRequest) -> CacheKey {
    CacheKey::of(request, Scope::Tenant)
}

fn answer() -> Completion {
    ChatCompletion::text("gpt-4o-mini", "The keep.").into()
}
