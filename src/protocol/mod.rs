//! Layer 0: the words of MQTT. Every other layer speaks in these types; this one knows no layer at all.

pub mod bucket;
pub mod ids;
pub mod message;
pub mod mount;
pub mod packet;
pub mod property;
pub mod qos;
pub mod reason;
pub mod repeat;
pub mod source;
pub mod time;
pub mod topic;
pub mod version;
