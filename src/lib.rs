#![doc = include_str!("README.md")]

pub mod auth;
pub mod broker;
pub mod codec;
pub mod delivery;
pub mod metrics;
#[cfg(feature = "server")]
pub mod config;
pub mod protocol;
pub mod router;
pub mod session;
pub mod storage;
#[cfg(feature = "server")]
pub mod transport;
