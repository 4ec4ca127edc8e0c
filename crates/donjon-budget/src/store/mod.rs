//! Keeping what was spent across restarts.

#[cfg(feature = "file-store")]
mod file;
pub(crate) mod keeper;
pub(crate) mod records;

use std::{error::Error, fmt, sync::Arc};

#[cfg(feature = "file-store")]
pub use file::FileStore;

/// Where what was spent is kept. It is called from a thread of its own, so it may block.
///
/// What is kept are sums: each record says what a figure *is* and not by how much it grew. So it does
/// not matter if one is saved twice, and nothing can be charged twice.
pub trait Store: Send + 'static {
    /// All records.
    ///
    /// # Errors
    ///
    /// They cannot be read; the budgets are not built then.
    fn load(&mut self) -> Result<Vec<Record>, StoreError>;

    /// Puts these records in the place of those that have the same `id`: all of them or none, and so that
    /// they last once this returns.
    ///
    /// # Errors
    ///
    /// They may not last. They are saved again, with what was spent since, until that succeeds.
    fn save(&mut self, records: &[Record]) -> Result<(), StoreError>;

    /// Forgets these records, which nobody will ask for: their periods are past.
    ///
    /// # Errors
    ///
    /// They may still be there.
    fn forget(&mut self, ids: &[String]) -> Result<(), StoreError>;
}

/// What is kept of one sum, or of some that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Of what: a JSON text.
    pub id: String,
    /// How much.
    pub figures: Vec<u64>,
}

/// What is spent cannot be kept, or cannot be read.
#[derive(Clone)]
pub struct StoreError {
    what: String,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl StoreError {
    /// An error that says `what`.
    pub fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            source: None,
        }
    }

    /// Sets its cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }
}

impl PartialEq for StoreError {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

impl Eq for StoreError {}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "budget store: {}", self.what)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreError({self})")
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source
            .as_ref()
            .map(|source| &**source as &(dyn Error + 'static))
    }
}
