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
        let (mut begun, mut hash) = (None, None);
        request.canonical(scope.whose(), |piece| match &mut begun {
            // All there is: a hasher would copy it once more.
            None if piece.last => hash = Some(blake3::hash(piece.bytes)),
            begun => {
                let hasher = begun.get_or_insert_with(blake3::Hasher::new);
                hasher.update(piece.bytes);
            }
        });
        let hash = hash.or_else(|| begun.map(|hasher| hasher.finalize()));
        Self(*hash.expect("a canonical form ends").as_bytes())
    }

    /// What places it in a table.
    pub(crate) const fn prefix(&self) -> Prefix {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        Prefix(u64::from_le_bytes([a, b, c, d, e, f, g, h]))
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// It is a hash already: its first bytes are enough for a table.
impl Hash for CacheKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.prefix().hash(state);
    }
}

/// The first bytes of a key: enough to find what was kept under it, not to say that it is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prefix(u64);

impl Hash for Prefix {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0);
    }
}

impl quick_cache::Equivalent<CacheKey> for Prefix {
    fn equivalent(&self, key: &CacheKey) -> bool {
        *self == key.prefix()
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

/// A key is a hash: its first bytes are as good as any.
#[derive(Default)]
pub(crate) struct ByPrefix(u64);

impl Hasher for ByPrefix {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}
