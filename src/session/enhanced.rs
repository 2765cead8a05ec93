//! Enhanced authentication of a connection (MQTT 5 section 4.12): what is kept of it between two packets.

use core::any::Any;
use std::sync::Arc;

/// Of a connection whose CONNECT named a method.
#[derive(Debug)]
pub struct Enhanced {
    /// The method: every AUTH has the same [MQTT-4.12.0-5].
    pub method: Arc<str>,
    /// The client has been asked for more, so that its next AUTH goes on with the exchange.
    pub is_running: bool,
    /// What the authenticator keeps of the exchange.
    pub exchange: Exchange,
}

impl Enhanced {
    /// Nothing has been exchanged.
    pub fn new(method: &str) -> Self {
        Self {
            method: method.into(),
            is_running: false,
            exchange: Exchange::default(),
        }
    }
}

/// What an authenticator keeps from one packet of an exchange to the next. It is gone when the exchange is.
#[derive(Debug, Default)]
pub struct Exchange {
    /// Its own.
    pub state: Option<Box<dyn Any + Send + Sync>>,
    /// Who the client says it is, for the log.
    pub user_name: Option<Box<str>>,
}
