//! Enhanced authentication of a client: it proves its password by SCRAM, and has the server prove that it knows it, too. MQTT 5 section
//! 4.12; RFC 5802.

use super::Client;
use crate::client::event::Fault;
use crate::protocol::packet::{Auth, ConnAck};
use crate::protocol::property::{PropertiesBuf, PropertyId};
use crate::protocol::reason::ReasonCode;
use crate::protocol::time::Time;
use crate::scram::client::Exchange;
use crate::scram::{self, NONCE_BYTES};

impl Client {
    /// Begins an exchange, where the options want one: what CONNECT has in its properties.
    pub(super) fn begin_exchange(&mut self) -> Result<PropertiesBuf, Fault> {
        let mut properties = self.options.properties.clone();
        self.exchange = None;
        let Some(options) = &self.options.scram else {
            return Ok(properties);
        };
        let mut nonce = [0; NONCE_BYTES];
        if !(options.random)(&mut nonce) {
            return Err(Fault::NoRandomNumbers);
        }
        let user_name = self.options.user_name.as_deref().unwrap_or_default();
        let password = self.options.password.as_deref().unwrap_or_default();
        let exchange =
            Exchange::begin(options.mechanism, user_name, password, &nonce).map_err(Fault::Authentication)?;
        properties.push_text(PropertyId::AuthenticationMethod, options.mechanism.name());
        properties.push_binary(PropertyId::AuthenticationData, &exchange.first());
        self.exchange = Some(exchange);
        Ok(properties)
    }

    /// AUTH came while an exchange is under way.
    pub(super) fn go_on(&mut self, auth: &Auth<'_>, now: Time) -> Result<(), Fault> {
        let (Some(exchange), Some(options)) = (&mut self.exchange, &self.options.scram) else {
            return Ok(());
        };
        let method = options.mechanism.name();
        if auth.reason != ReasonCode::ContinueAuthentication
            || auth.properties.text(PropertyId::AuthenticationMethod) != Some(method)
        {
            return Err(Fault::Protocol("an AUTH that does not belong to the exchange")); // [MQTT-4.12.0-5]
        }
        let data = auth.properties.binary(PropertyId::AuthenticationData);
        let proof = exchange
            .prove(data.unwrap_or_default())
            .map_err(Fault::Authentication)?;
        let mut properties = PropertiesBuf::new();
        properties.push_text(PropertyId::AuthenticationMethod, method);
        properties.push_binary(PropertyId::AuthenticationData, &proof);
        self.auth(ReasonCode::ContinueAuthentication, properties.view(), now)
            .map_err(Fault::Connect)
    }

    /// CONNACK with success came: a server that has proved nothing is none.
    pub(super) fn end_exchange(&mut self, ack: &ConnAck<'_>) -> Result<(), Fault> {
        let Some(mut exchange) = self.exchange.take() else {
            return Ok(());
        };
        let data = ack.properties.binary(PropertyId::AuthenticationData);
        let verified = data.ok_or(scram::Fault::Proof).and_then(|data| exchange.verify(data));
        verified.map_err(Fault::Authentication)
    }
}
