//! Scripted models, a faulty upstream over real HTTP, and contract checks for tower layers around language models.

pub mod upstream;
