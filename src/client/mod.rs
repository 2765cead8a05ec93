//! Layer 3: the other end of the wire. A client of MQTT 3.1, 3.1.1 and 5.0 as a machine without sockets and clock.
//!
//! A [`Client`] takes bytes and the time, and gives bytes and [`Event`]s. It outlives its network connections: what is not
//! acknowledged when one is lost is sent again on the next, in order. `sundew pub` and `sundew sub` are built on it, through
//! `transport::client_driver`.

mod event;
mod machine;
mod options;
mod publications;
#[cfg(test)]
mod tests;

pub use event::{Connected, Event, Fault, Received, RequestError, RequestId};
pub use machine::Client;
pub use options::{ClientOptions, ClientScram, ClientWill, Outgoing};
