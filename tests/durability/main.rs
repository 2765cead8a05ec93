//! What was acknowledged is there after the worst: the program killed, the power cut, the disk full, files damaged.
//!
//! A history is the same clients over many lives of one data directory. They are written here, byte by byte, since the account
//! needs to know what each of them sent, was told and got: publishers and subscribers of 3.1.1 and 5.0 at QoS 1 and 2, online,
//! coming and going, away, changing and clearing; a shared group; retained topics; wills. At the end every acknowledged message
//! must have come to everybody who was subscribed, at QoS 2 once.
//!
//! Told short by default; `SUNDEW_TEST_LONG=1`, or `SUNDEW_KILL_ROUNDS=100`, `SUNDEW_POWER_CUTS=20` and
//! `SUNDEW_DAMAGED_PLACES=1000` by themselves, tell them in full; `SUNDEW_SEED` begins elsewhere.
//! `cargo test --test durability -- --nocapture` shows the figures.

#![allow(clippy::print_stderr, reason = "the figures are what one runs the long stories for")]
#![allow(clippy::disallowed_methods, reason = "the clients are on the clock")]

mod damage;
mod faults;
mod history;
mod kept;
mod kill;
mod ledger;
mod link;
mod mortal;
mod power;
mod program;
mod publisher;
mod real;
mod replay;
mod shim;
mod stage;
mod subscriber;
mod talker;
mod wills;

#[allow(dead_code, reason = "only what finds installed clients is needed")]
#[path = "../clients/program.rs"]
mod programs;
#[path = "../sim/random.rs"]
mod random;
#[allow(dead_code, reason = "the stories on sockets use more of it")]
#[path = "../it/wire.rs"]
mod wire;

/// Prints the figures, and fails with what is wrong.
fn check((summary, faults): (String, Vec<String>)) {
    eprintln!("{summary}");
    let shown: Vec<_> = faults.iter().take(40).map(String::as_str).collect();
    assert!(
        faults.is_empty(),
        "{summary}: {} faults\n  {}",
        faults.len(),
        shown.join("\n  ")
    );
}

/// How often a story is told: by a variable of its own, or short or long.
fn rounds(variable: &str, short: usize, long: usize) -> usize {
    let is_long = std::env::var_os("SUNDEW_TEST_LONG").is_some_and(|value| value != "0");
    let own = std::env::var(variable).ok().and_then(|value| value.parse().ok());
    own.unwrap_or(if is_long { long } else { short })
}

/// The seed of a story, moved by `SUNDEW_SEED`.
fn seed(own: u64) -> u64 {
    let moved = std::env::var("SUNDEW_SEED").ok().and_then(|value| value.parse().ok());
    own + 1000 * moved.unwrap_or(0u64)
}
