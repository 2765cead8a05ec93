//! Programs that are asked over HTTP.

pub mod client;
