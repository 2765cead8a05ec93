//! Layer 2: the state machines of MQTT, pure. What one client may do, and in which order.
//!
//! Two lifetimes, two types: a [`connection::Connection`] dies with its network connection, a [`state::Session`] may outlive it.

pub mod ahead;
pub mod connection;
pub mod decisions;
pub mod delivery;
pub mod enhanced;
pub mod held;
pub mod network;
pub mod outbound;
pub mod output;
pub mod packet_ids;
pub mod peer;
pub mod rare;
pub mod request;
pub mod review;
pub mod state;
pub mod subscribing;
pub mod topic_alias;
pub mod unreleased;
pub mod violation;
pub mod will;
