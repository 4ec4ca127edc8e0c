//! Failover between language model targets as a tower service, up to the first token.
