#![doc = include_str!("README.md")]

pub mod protocol;
#[cfg(feature = "server")]
pub mod transport;
