//! Compressed answers.

use std::{cell::RefCell, sync::Arc};

use bytes::Bytes;
use donjon_core::{ErrorKind, LlmError};

use crate::{
    codec::{Reader, Writer, read_kept, write_kept},
    entry::{Entry, Kept},
};

/// Quick, and most of what there is to win.
const LEVEL: i32 = 1;

thread_local! {
    // A context is some hundred kilobytes, and is made once for each thread that has use for it.
    static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> =
        const { RefCell::new(None) };
}

/// The same entry, compressed where that makes it smaller.
pub(crate) fn packed(entry: Arc<Entry>) -> Arc<Entry> {
    let mut to = Writer(Vec::new());
    if write_kept(&entry.kept, &mut to).is_none() {
        return entry;
    }
    let packed = COMPRESSOR.with_borrow_mut(|context| {
        if context.is_none() {
            *context = zstd::bulk::Compressor::new(LEVEL).ok();
        }
        context.as_mut()?.compress(&to.0).ok()
    });
    match packed {
        Some(packed) if (packed.len() as u64) < entry.weight / 2 => {
            let kept = Kept::Packed(packed.into(), to.0.len());
            let (head, asked) = (entry.head.clone(), entry.asked.clone());
            let entry = Entry::new(head, asked, entry.identity.clone(), kept, entry.times);
            Arc::new(entry)
        }
        _ => entry,
    }
}

/// What was compressed, which is `size` bytes and no more.
pub(crate) fn unpack(packed: &[u8], size: usize) -> Result<Kept, LlmError> {
    let bytes = DECOMPRESSOR.with_borrow_mut(|context| {
        if context.is_none() {
            *context = zstd::bulk::Decompressor::new().ok();
        }
        context.as_mut()?.decompress(packed, size.min(MAX)).ok()
    });
    let kept = bytes.and_then(|bytes| read_kept(&mut Reader(Bytes::from(bytes))));
    kept.ok_or_else(|| LlmError::new(ErrorKind::Internal, "a kept answer cannot be read"))
}

/// No answer is longer, whatever a store says.
const MAX: usize = 64 * 1024 * 1024;
