//! The server's side of an exchange. Costs a few HMACs.

use core::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq as _;

use super::message::ClientFinal;
use super::{ClientFirst, Credential, Fault, NONCE_BYTES, xor};

/// An exchange whose first message was answered. It ends with the next one, whatever that says.
pub struct Exchange {
    credential: Arc<Credential>,
    is_real: bool,
    first: ClientFirst,
    /// Both nonces.
    nonce: String,
    server_first: String,
}

impl Exchange {
    /// Answers the first message of a client. `is_real`: it is the credential of a user; with one that was made up instead, so that nobody
    /// can tell by the answer, every proof is wrong. `nonce`: random bytes, never used before.
    pub fn begin(first: ClientFirst, credential: Arc<Credential>, is_real: bool, nonce: &[u8; NONCE_BYTES]) -> Self {
        Self::begin_with(first, credential, is_real, &STANDARD.encode(nonce))
    }

    pub(super) fn begin_with(first: ClientFirst, credential: Arc<Credential>, is_real: bool, nonce: &str) -> Self {
        let nonce = format!("{}{nonce}", first.nonce);
        let salt = STANDARD.encode(&credential.salt);
        Self {
            server_first: format!("r={nonce},s={salt},i={}", credential.iterations),
            credential,
            is_real,
            first,
            nonce,
        }
    }

    /// The answer.
    pub fn server_first(&self) -> &[u8] {
        self.server_first.as_bytes()
    }

    /// Who the client says it is.
    pub fn user_name(&self) -> &str {
        &self.first.user_name
    }

    /// Checks the proof, and gives the message by which the server proves that it, too, has the user's credential.
    ///
    /// # Errors
    /// [`Fault`]: the client has not proved anything.
    pub fn finish(self, message: &[u8]) -> Result<Box<[u8]>, Fault> {
        let last = ClientFinal::parse(message)?;
        if *last.header != *self.first.header.as_bytes() {
            return Err(Fault::ChannelBinding);
        }
        if last.nonce != self.nonce {
            return Err(Fault::Nonce);
        }
        let Credential {
            mechanism,
            stored_key,
            server_key,
            ..
        } = &*self.credential;
        let proved = format!("{},{},{}", self.first.bare, self.server_first, last.without_proof);
        let client_key = xor(&mechanism.hmac(stored_key, proved.as_bytes()), &last.proof);
        let is_proved = mechanism.hash(&client_key).ct_eq(stored_key);
        let signature = mechanism.hmac(server_key, proved.as_bytes());
        if last.proof.len() == mechanism.key_bytes() && self.is_real && bool::from(is_proved) {
            Ok(format!("v={}", STANDARD.encode(signature)).into_bytes().into())
        } else {
            Err(Fault::Proof)
        }
    }
}

/// Says who, and nothing that proves it.
impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange")
            .field("user_name", &self.first.user_name)
            .finish_non_exhaustive()
    }
}
