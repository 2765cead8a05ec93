//! Layer 1: SCRAM, by which client and server each prove that they know a password, or what was made of it, without saying it (RFC 5802,
//! RFC 7677). Values only: random bytes are given in, and nobody is known here but by what is in the messages.
//!
//! ```text
//! client                                             server, which has a [`Credential`] of the user
//!   n,,n=user,r=NONCE                          ──►
//!                                              ◄──   r=NONCE+MORE,s=SALT,i=ITERATIONS
//!   c=biws,r=NONCE+MORE,p=PROOF                ──►   a few HMACs: the password is stretched by the client alone
//!                                              ◄──   v=SIGNATURE
//! ```
//!
//! Names and passwords are taken as they are, and without control characters. RFC 4013 (SASLprep) would have others than ASCII in one
//! normal form: here they have to be the same characters on both sides, best in form NFKC.

pub mod client;
mod credential;
mod message;
pub mod server;
#[cfg(test)]
mod tests;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256, Sha512};

pub use self::credential::Credential;
pub use self::message::{ClientFirst, Fault, MESSAGE_BYTES_MAX};

/// Fewest rounds that a password is stretched with (RFC 7677 section 4).
pub const ITERATIONS_MIN: u32 = 4096;
/// Most rounds: a second or two of a client's time. Neither a file nor a server has it work longer.
pub const ITERATIONS_MAX: u32 = 2_000_000;
/// Random bytes of a nonce; in a message they are base64.
pub const NONCE_BYTES: usize = 18;

/// Fills with random numbers that nobody can guess; false where the system has none.
pub type Random = fn(&mut [u8]) -> bool;

/// A mechanism. Those that are bound to a TLS channel (`-PLUS`) are not offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mechanism {
    /// With SHA-256 (RFC 7677).
    Sha256,
    /// With SHA-512, as IANA has registered it; everything else is as in RFC 7677.
    Sha512,
}

impl Mechanism {
    /// All.
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Sha512];

    /// What MQTT calls Authentication Method.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "SCRAM-SHA-256",
            Self::Sha512 => "SCRAM-SHA-512",
        }
    }

    /// The mechanism of an Authentication Method.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mechanism| mechanism.name() == name)
    }

    /// Bytes of a key.
    pub const fn key_bytes(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    /// Rounds for a new password, as OWASP has them for PBKDF2 with this hash: about a third of a second of a client's time.
    pub const fn iterations_default(self) -> u32 {
        match self {
            Self::Sha256 => 600_000,
            Self::Sha512 => 210_000,
        }
    }

    /// HMAC(key, text) of RFC 5802 section 2.2.
    pub fn hmac(self, key: &[u8], text: &[u8]) -> Box<[u8]> {
        // HMAC takes a key of any length.
        match self {
            Self::Sha256 => {
                Hmac::<Sha256>::new_from_slice(key).map(|mac| mac.chain_update(text).finalize().into_bytes()[..].into())
            }
            Self::Sha512 => {
                Hmac::<Sha512>::new_from_slice(key).map(|mac| mac.chain_update(text).finalize().into_bytes()[..].into())
            }
        }
        .unwrap_or_default()
    }

    fn hash(self, text: &[u8]) -> Box<[u8]> {
        match self {
            Self::Sha256 => Sha256::digest(text)[..].into(),
            Self::Sha512 => Sha512::digest(text)[..].into(),
        }
    }

    /// Hi(password, salt, iterations): takes its time.
    fn stretch(self, password: &[u8], salt: &[u8], iterations: u32) -> Box<[u8]> {
        let mut key = vec![0; self.key_bytes()];
        match self {
            Self::Sha256 => pbkdf2::pbkdf2_hmac::<Sha256>(password, salt, iterations, &mut key),
            Self::Sha512 => pbkdf2::pbkdf2_hmac::<Sha512>(password, salt, iterations, &mut key),
        }
        key.into()
    }
}

fn xor(one: &[u8], other: &[u8]) -> Box<[u8]> {
    one.iter().zip(other).map(|(a, b)| a ^ b).collect()
}

/// True where SCRAM can carry it as a user name or a password.
pub fn is_plain(text: &str) -> bool {
    !text.is_empty() && !text.contains(char::is_control)
}
