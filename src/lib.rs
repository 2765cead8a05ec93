#![doc = include_str!("README.md")]

pub mod auth;
pub mod broker;
pub mod codec;
#[cfg(feature = "server")]
pub mod config;
pub mod delivery;
#[cfg(feature = "server")]
pub mod logging;
pub mod metrics;
pub mod protocol;
pub mod router;
pub mod session;
pub mod storage;
#[cfg(feature = "server")]
pub mod transport;
