#![doc = include_str!("README.md")]

pub mod codec;
pub mod metrics;
#[cfg(feature = "server")]
pub mod config;
pub mod protocol;
pub mod router;
#[cfg(feature = "server")]
pub mod transport;
