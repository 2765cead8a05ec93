//! Layer 6, the I/O half: accepts connections, carries bytes, and knows nothing of what an MQTT packet means.
//!
//! A connection is accepted by a [`listener`], goes through [`establish`] (PROXY header, TLS, WebSocket upgrade) and is
//! then one [`stream::Stream`], whatever is underneath. A stream can leave one runtime and join another.

#![allow(clippy::disallowed_methods)] // the I/O half reads the clock

pub mod accept;
mod addresses;
pub mod certificates;
pub mod classify;
pub mod client_driver;
pub mod client_stream;
mod driver;
pub mod establish;
pub mod inside;
pub mod listener;
pub mod memory;
pub mod options;
mod parking;
pub mod peer;
pub mod proxy_protocol;
pub mod socket;
pub mod stream;
pub mod tls;
pub mod upgrade;
pub mod websocket;
pub mod worker;
