//! What tells one question from another.

use std::{
    fmt,
    hash::{Hash, Hasher},
};

use donjon_core::{LlmRequest, Whose};

/// Whose answers a caller may be given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scope {
    /// Those of the same tenant; the default.
    #[default]
    Tenant,
    /// Those of the same user of the same tenant.
    User,
    /// Anybody's.
    Shared,
}

impl Scope {
    /// The same in the words of the ground.
    pub const fn whose(self) -> Whose {
        match self {
            Self::Tenant => Whose::Tenant,
            Self::User => Whose::User,
            Self::Shared => Whose::Anybody,
        }
    }
}

/// The canonical name of a question: 256 bits, the same in every process and on every platform.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CacheKey([u8; 32]);

impl CacheKey {
    /// The key of what `request` asks, among the answers that `scope` allows its caller.
    ///
    /// Whether the answer is asked for whole or as a stream makes no difference.
    pub fn of(request: &LlmRequest, scope: Scope) -> Self {
        let mut hash = blake3::Hasher::new();
        request.canonical(scope.whose(), |bytes| {
            hash.update(bytes);
        });
        Self(*hash.finalize().as_bytes())
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// It is a hash already: its first bytes are enough for a table.
impl Hash for CacheKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        state.write_u64(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
    }
}

impl From<[u8; 32]> for CacheKey {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CacheKey({self})")
    }
}
