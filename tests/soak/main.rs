//! Stories about the program as a whole, in a process of its own: hostile input, thousands of connections, no descriptors left.
//!
//! Told short by default. `SUNDEW_TEST_LONG=1` (what `tests/run --long` sets) tells them in full: 100,000 hostile inputs, 18,000
//! connections. `cargo test --release --test soak -- --nocapture --test-threads=1` shows their figures.

#![allow(clippy::print_stderr, reason = "the figures are what one runs the long stories for")]
#![allow(clippy::disallowed_methods, reason = "rates and time limits look at the clock")]

mod client;
mod crowd;
mod hostile;
mod program;

#[path = "../fuzz/generate.rs"]
mod generate;

/// Whether the stories are to be told in full.
fn is_long() -> bool {
    std::env::var_os("SUNDEW_TEST_LONG").is_some_and(|value| value != "0")
}
