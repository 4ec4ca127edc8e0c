//! Retry for language model calls as a tower layer: Retry-After, backoff with jitter, retry budget, one ledger per call.
