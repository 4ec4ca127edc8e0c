//! A second place for answers, behind the memory.

use std::{pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use donjon_core::{BoxError, Identity};

use crate::key::CacheKey;

/// The future of a [`Store`].
pub type StoreFuture<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

/// A place for answers that several processes share, or that outlives one: asked where the memory has
/// nothing, told of each answer that is kept there.
///
/// It is asked for at most `store_timeout`; one that is slower, or fails, has nothing. It is written
/// to in the background, and no answer waits for that. It keeps bytes and need not know what they are.
pub trait Store: Send + Sync + 'static {
    /// What was put under `key`; `None` if nothing was, or it is older than was said.
    fn get(&self, key: &CacheKey) -> StoreFuture<Option<Bytes>>;

    /// Puts an answer under `key`, in the place of an older one.
    fn put(&self, key: &CacheKey, answer: Stored) -> StoreFuture<()>;

    /// Forgets what `which` names.
    fn invalidate(&self, which: &Invalidate) -> StoreFuture<()>;
}

/// An answer for a [`Store`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stored {
    /// The answer. The same bytes are read on every platform.
    pub bytes: Bytes,
    /// After this time it is good for nothing.
    pub keep: Duration,
    /// The model that was asked.
    pub model: Arc<str>,
    /// On whose behalf: tenant and tags are what it may be forgotten by.
    pub identity: Arc<Identity>,
}

impl Stored {
    pub(crate) fn new(
        bytes: Bytes,
        keep: Duration,
        model: Arc<str>,
        identity: Arc<Identity>,
    ) -> Self {
        Self {
            bytes,
            keep,
            model,
            identity,
        }
    }
}

/// Which answers are forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Invalidate {
    /// The one under this key.
    Key(CacheKey),
    /// Those of callers with this [tag](Identity::tags).
    Tag(Arc<str>, Arc<str>),
    /// Those of this model, whether it was asked for or served.
    Model(Arc<str>),
    /// Those of this [tenant](Identity::tenant).
    Tenant(Arc<str>),
    /// All.
    All,
}

impl Invalidate {
    /// Those of callers with this tag.
    pub fn tag(name: impl Into<Arc<str>>, value: impl Into<Arc<str>>) -> Self {
        Self::Tag(name.into(), value.into())
    }

    /// Those of this model.
    pub fn model(model: impl Into<Arc<str>>) -> Self {
        Self::Model(model.into())
    }

    /// Those of this tenant.
    pub fn tenant(tenant: impl Into<Arc<str>>) -> Self {
        Self::Tenant(tenant.into())
    }

    pub(crate) fn names(&self, key: &CacheKey, entry: &crate::entry::Entry) -> bool {
        match self {
            Self::Key(named) => named == key,
            Self::Tag(name, value) => {
                let mut tags = entry.identity.tags.iter();
                tags.any(|(own, is)| own == name && is == value)
            }
            Self::Model(model) => entry.asked == *model || entry.head.model == *model,
            Self::Tenant(tenant) => entry.identity.tenant.as_ref() == Some(tenant),
            Self::All => true,
        }
    }
}

impl From<CacheKey> for Invalidate {
    fn from(key: CacheKey) -> Self {
        Self::Key(key)
    }
}
