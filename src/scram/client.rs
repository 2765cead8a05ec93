//! The client's side of an exchange. Costs what the server's iterations say, within bounds.

use core::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq as _;

use super::message::{ServerFirst, escaped, server_final};
use super::{Fault, ITERATIONS_MAX, ITERATIONS_MIN, Mechanism, NONCE_BYTES, is_plain, xor};

/// Without channel binding, for nobody else.
const HEADER: &str = "n,,";

/// An exchange.
pub struct Exchange {
    mechanism: Mechanism,
    password: Box<[u8]>,
    /// `n=user,r=NONCE`.
    bare: String,
    nonce: String,
    step: Step,
}

enum Step {
    First,
    /// The signature that the server has to know.
    Proved(Box<[u8]>),
    Over,
}

impl Exchange {
    /// Begins. `nonce`: random bytes, never used before.
    ///
    /// # Errors
    /// [`Fault::Text`].
    pub fn begin(
        mechanism: Mechanism,
        user_name: &str,
        password: &[u8],
        nonce: &[u8; NONCE_BYTES],
    ) -> Result<Self, Fault> {
        Self::begin_with(mechanism, user_name, password, STANDARD.encode(nonce))
    }

    pub(super) fn begin_with(
        mechanism: Mechanism,
        user_name: &str,
        password: &[u8],
        nonce: String,
    ) -> Result<Self, Fault> {
        let is_text = str::from_utf8(password).is_ok_and(is_plain);
        if !is_text || !is_plain(user_name) {
            return Err(Fault::Text);
        }
        Ok(Self {
            mechanism,
            password: password.into(),
            bare: format!("n={},r={nonce}", escaped(user_name)),
            nonce,
            step: Step::First,
        })
    }

    /// The first message.
    pub fn first(&self) -> Vec<u8> {
        format!("{HEADER}{}", self.bare).into_bytes()
    }

    /// The server's first message came: gives the proof.
    ///
    /// # Errors
    /// [`Fault`]: this is no server to prove anything to.
    pub fn prove(&mut self, message: &[u8]) -> Result<Vec<u8>, Fault> {
        let Step::First = std::mem::replace(&mut self.step, Step::Over) else {
            return Err(Fault::Over);
        };
        let server = ServerFirst::parse(message)?;
        if server.nonce.len() <= self.nonce.len() || !server.nonce.starts_with(&self.nonce) {
            return Err(Fault::Nonce);
        }
        if !(ITERATIONS_MIN..=ITERATIONS_MAX).contains(&server.iterations) {
            return Err(Fault::Iterations(server.iterations));
        }
        let salted = self.mechanism.stretch(&self.password, &server.salt, server.iterations);
        let without_proof = format!("c={},r={}", STANDARD.encode(HEADER), server.nonce);
        let server_first = String::from_utf8_lossy(message); // it was read as text
        let proved = format!("{},{server_first},{without_proof}", self.bare);
        let client_key = self.mechanism.hmac(&salted, b"Client Key");
        let stored_key = self.mechanism.hash(&client_key);
        let proof = xor(&client_key, &self.mechanism.hmac(&stored_key, proved.as_bytes()));
        let server_key = self.mechanism.hmac(&salted, b"Server Key");
        self.step = Step::Proved(self.mechanism.hmac(&server_key, proved.as_bytes()));
        Ok(format!("{without_proof},p={}", STANDARD.encode(proof)).into_bytes())
    }

    /// The server's last message came: it knows the password's credential, or this is an error.
    ///
    /// # Errors
    /// [`Fault`]: this is not the server that it says it is.
    pub fn verify(&mut self, message: &[u8]) -> Result<(), Fault> {
        let Step::Proved(expected) = std::mem::replace(&mut self.step, Step::Over) else {
            return Err(Fault::Over);
        };
        let signature = server_final(message)?;
        if bool::from(signature.ct_eq(&expected)) {
            Ok(())
        } else {
            Err(Fault::Proof)
        }
    }
}

/// Says nothing of the password.
impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange")
            .field("mechanism", &self.mechanism)
            .finish_non_exhaustive()
    }
}
