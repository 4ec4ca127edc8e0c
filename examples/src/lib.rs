//! What the examples share: the gateway, so that its tests can run it too.

pub mod gateway;
