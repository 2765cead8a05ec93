//! Layer 7: what the operator wants. [`schema`] declares every option once; [`load()`] reads them from file, environment and flags
//! and reports every mistake at once, with its place; [`mod@reference`] writes the manual from the same declarations.
//!
//! This folder decides nothing about MQTT: `apply` translates into the options that each layer declares for itself.

mod access;
mod apply;
mod check;
pub mod load;
pub mod memory;
mod option;
mod problem;
pub mod reference;
pub mod schema;
mod suggest;
mod tenants;
mod toml_source;
pub mod value;
pub mod waiting;
mod ways;

pub use load::{Layers, Listen, Loaded, load, looks, read_layers};
pub use problem::{Problem, Severity};
pub use schema::Config;

#[cfg(test)]
mod tests;
