//! Layer 6: authenticators and authorisers that wait, and what they wait for: password hashes, signatures, files.

#![allow(clippy::disallowed_methods)] // the I/O half reads the clock

pub mod access;
pub mod hashing;
pub mod http;
pub mod jwks;
pub mod lines;
pub mod pool;
pub mod token;
pub mod user_file;
pub mod watch;
pub mod ways;
