//! What a server keeps of a password: enough to check a proof, not enough to make one.

use core::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{ITERATIONS_MAX, ITERATIONS_MIN, Mechanism};

const SALT_BYTES_MIN: usize = 8;
const SALT_BYTES_MAX: usize = 64;

/// What is kept for one user and mechanism. Whoever has it can try passwords, and can pretend to be the server.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Credential {
    /// For this mechanism.
    pub mechanism: Mechanism,
    /// Rounds of PBKDF2, from [`ITERATIONS_MIN`] to [`ITERATIONS_MAX`].
    pub iterations: u32,
    /// 8 to 64 bytes.
    pub salt: Box<[u8]>,
    /// H(HMAC(SaltedPassword, "Client Key")).
    pub stored_key: Box<[u8]>,
    /// HMAC(SaltedPassword, "Server Key").
    pub server_key: Box<[u8]>,
}

impl Credential {
    /// Makes one of a password. Takes as long as its iterations say.
    pub fn new(mechanism: Mechanism, password: &[u8], salt: &[u8], iterations: u32) -> Self {
        let salted = mechanism.stretch(password, salt, iterations);
        Self {
            mechanism,
            iterations,
            salt: salt.into(),
            stored_key: mechanism.hash(&mechanism.hmac(&salted, b"Client Key")),
            server_key: mechanism.hmac(&salted, b"Server Key"),
        }
    }

    /// True where a text is meant to be one.
    pub fn is_one(text: &str) -> bool {
        text.starts_with("$scram-")
    }

    /// Reads `$scram-sha-256$ITERATIONS$SALT$STORED-KEY$SERVER-KEY`, the last three in base64.
    ///
    /// # Errors
    /// What is wrong with it, as a sentence without a subject.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parts: Vec<_> = text.split('$').collect();
        let ["", name, iterations, salt, stored_key, server_key] = parts.as_slice() else {
            return Err("the hash is not whole: expected $scram-sha-256$ITERATIONS$SALT$STOREDKEY$SERVERKEY".into());
        };
        let mechanism = match *name {
            "scram-sha-256" => Mechanism::Sha256,
            "scram-sha-512" => Mechanism::Sha512,
            _ => return Err("SCRAM is known as $scram-sha-256$ and $scram-sha-512$".into()),
        };
        let known = iterations.parse().ok();
        let known = known.filter(|rounds| (ITERATIONS_MIN..=ITERATIONS_MAX).contains(rounds));
        let iterations = known
            .ok_or_else(|| format!("iterations is {iterations:?}, expected {ITERATIONS_MIN} to {ITERATIONS_MAX}"))?;
        let decode = |text: &str| {
            STANDARD
                .decode(text)
                .map_err(|_| "the salt or a key is not base64".to_owned())
        };
        let (salt, stored_key, server_key) = (decode(salt)?, decode(stored_key)?, decode(server_key)?);
        if !(SALT_BYTES_MIN..=SALT_BYTES_MAX).contains(&salt.len()) {
            let bytes = salt.len();
            return Err(format!(
                "the salt has {bytes} bytes, expected {SALT_BYTES_MIN} to {SALT_BYTES_MAX}"
            ));
        }
        let key_bytes = mechanism.key_bytes();
        if stored_key.len() != key_bytes || server_key.len() != key_bytes {
            return Err(format!(
                "the keys have {} and {} bytes, expected {key_bytes}",
                stored_key.len(),
                server_key.len()
            ));
        }
        Ok(Self {
            mechanism,
            iterations,
            salt: salt.into(),
            stored_key: stored_key.into(),
            server_key: server_key.into(),
        })
    }
}

/// As it stands in a file.
impl fmt::Display for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.mechanism.name().to_ascii_lowercase();
        let [salt, stored_key, server_key] =
            [&self.salt, &self.stored_key, &self.server_key].map(|part| STANDARD.encode(part));
        write!(f, "${name}${}${salt}${stored_key}${server_key}", self.iterations)
    }
}

/// Says nothing of the keys.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("mechanism", &self.mechanism)
            .field("iterations", &self.iterations)
            .finish_non_exhaustive()
    }
}
