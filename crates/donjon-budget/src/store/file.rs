//! The store in a file: a redb database, which is atomic and survives being killed at any moment, and a journal
//! of what is not in it yet.

use std::{error::Error, path::Path, sync::Arc};

use redb::{Database, ReadableTable, TableDefinition};

use super::{Journal, Record, Store, StoreError, generations::Generations};

const RECORDS: TableDefinition<'_, &str, Vec<u64>> = TableDefinition::new("donjon-budget-1");

/// Keeps what was spent in one file, which one process at a time can have open: until the budgets are gone and
/// the last call under them is settled.
///
/// Beside it stand, while it is open and after a kill, the files of its journal: those of its name with `.journal-` and a
/// number behind it. They belong to it: whoever moves the one moves the others.
#[derive(Debug)]
pub struct FileStore {
    database: Arc<Database>,
    journal: Arc<Generations>,
}

impl FileStore {
    /// Opens the file at `path`, or makes it.
    ///
    /// # Errors
    ///
    /// It cannot be opened, is no such file, or is open elsewhere.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref();
        let failed = |error: redb::DatabaseError| {
            StoreError::new(format!("{} cannot be opened", path.display())).with_source(error)
        };
        let database = Arc::new(Database::create(path).map_err(failed)?);
        // Nobody else has it open, so the journal beside it is nobody else's, as long as somebody writes to it.
        let journal = Arc::new(Generations::beside(path, database.clone())?);
        Ok(Self { database, journal })
    }

    fn write(
        &mut self,
        change: impl FnOnce(&mut redb::Table<'_, &str, Vec<u64>>) -> Result<(), redb::StorageError>,
    ) -> Result<(), StoreError> {
        let write = || {
            let transaction = self.database.begin_write().map_err(boxed)?;
            {
                let mut table = transaction.open_table(RECORDS).map_err(boxed)?;
                change(&mut table).map_err(boxed)?;
            }
            transaction.commit().map_err(boxed)?;
            Ok::<_, Box<redb::Error>>(())
        };
        write().map_err(|error| failed("cannot be written", *error))
    }
}

impl Store for FileStore {
    fn load(&mut self) -> Result<Vec<Record>, StoreError> {
        let read = || {
            let transaction = self.database.begin_read().map_err(boxed)?;
            let table = match transaction.open_table(RECORDS) {
                Ok(table) => table,
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                Err(error) => return Err(boxed(error)),
            };
            let mut records = Vec::new();
            for entry in table.iter().map_err(boxed)? {
                let (id, figures) = entry.map_err(boxed)?;
                records.push(Record {
                    id: id.value().to_owned(),
                    figures: figures.value(),
                });
            }
            Ok::<_, Box<redb::Error>>(records)
        };
        read().map_err(|error| failed("cannot be read", *error))
    }

    fn save(&mut self, records: &[Record]) -> Result<(), StoreError> {
        self.write(|table| {
            for record in records {
                table.insert(&*record.id, &record.figures)?;
            }
            Ok(())
        })
    }

    fn forget(&mut self, ids: &[String]) -> Result<(), StoreError> {
        self.write(|table| {
            for id in ids {
                table.remove(&**id)?;
            }
            Ok(())
        })
    }

    fn journal(&mut self) -> Option<Arc<dyn Journal>> {
        Some(self.journal.clone())
    }
}

/// They are large, and rare.
fn boxed(error: impl Into<redb::Error>) -> Box<redb::Error> {
    Box::new(error.into())
}

fn failed(what: &str, error: impl Error + Send + Sync + 'static) -> StoreError {
    StoreError::new(what).with_source(error)
}
