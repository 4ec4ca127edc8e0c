//! Scripted models, a faulty upstream over real HTTP, and contract checks for tower layers around language models.

pub mod scripted;
#[cfg(feature = "upstream")]
pub mod upstream;

pub use scripted::{CallEnd, Script, ScriptedLlm, SeenCall};
