//! Layer 6, the I/O half: accepts connections, carries bytes, and knows nothing of what an MQTT packet means.
//!
//! A connection is accepted by a [`listener`], goes through [`establish`] (PROXY header, TLS, WebSocket upgrade) and is
//! then one [`stream::Stream`], whatever is underneath. A stream can leave one runtime and join another.

pub mod establish;
pub mod listener;
pub mod options;
pub mod peer;
pub mod socket;
pub mod stream;
pub mod websocket;
