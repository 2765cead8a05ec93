//! Keys that tokens are signed with: a secret, public keys in PEM, a set of them as JWKS (RFC 7517).
//!
//! **What a token may be signed with follows from the key, never from the token**: a public key takes no HMAC, a secret no signature of
//! RSA, and nothing takes `none` (RFC 8725 section 3.1).

use core::hash::BuildHasher;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::jwk::{EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind};
use serde_json::Value;

use crate::auth::chain::NO_PASSWORD;

/// Keys of one set at most; what stands behind them is left out.
const KEYS_MAX: usize = 64;
/// Signatures that are tried for a token that does not say which key it is signed with.
const TRIES_MAX: usize = 8;
/// A shorter secret can be found by whoever sees one token (RFC 7518 section 3.2 wants 32).
const SECRET_BYTES_MIN: usize = 16;
/// One shorter than this is warned about.
const SECRET_BYTES_GOOD: usize = 32;

/// One key.
#[derive(Clone, Debug)]
pub struct Key {
    /// Its name in the header of tokens (`kid`), where it has one.
    pub id: Option<Box<str>>,
    /// What it can be used with.
    pub algorithms: Vec<Algorithm>,
    /// Tells it from every other.
    pub stamp: u64,
    decoding: DecodingKey,
}

/// Some keys.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    list: Vec<Key>,
    /// What is strange about them.
    pub warnings: Vec<String>,
}

/// Why no key fits a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoKey {
    /// There is none at all.
    Empty,
    /// None has that name.
    Unknown,
    /// None that could be meant takes that algorithm.
    Algorithm,
    /// Those that could be meant did not make the signature.
    Signature,
}

impl Keys {
    /// A secret for HMAC: the text as it stands, without a line break at its end, or what is in it as base64.
    ///
    /// # Errors
    /// What is wrong, and what to do.
    pub fn from_secret(text: &str, is_base64: bool, seed: &impl BuildHasher) -> Result<Self, String> {
        let text = text.trim_end_matches(['\n', '\r']);
        let secret = if is_base64 {
            let read = STANDARD.decode(text.trim());
            read.map_err(|_| "it is no base64; take secret_base64 = false, or `openssl rand -base64 48 > FILE`")?
        } else {
            text.as_bytes().to_vec()
        };
        if secret.len() < SECRET_BYTES_MIN {
            return Err(format!(
                "the secret has {} bytes, so it can be found out from one token; at least {SECRET_BYTES_MIN}, better {SECRET_BYTES_GOOD}: `openssl rand -base64 48 > FILE`",
                secret.len()
            ));
        }
        let warnings = if secret.len() < SECRET_BYTES_GOOD {
            vec![format!(
                "the secret has {} bytes, RFC 7518 wants {SECRET_BYTES_GOOD}",
                secret.len()
            )]
        } else {
            Vec::new()
        };
        let key = Key::new(None, DecodingKey::from_secret(&secret), &secret, seed);
        Ok(Self {
            list: vec![key.ok_or("it is no secret")?],
            warnings,
        })
    }

    /// Public keys in PEM, one or several: RSA, ECDSA on P-256 or P-384, Ed25519.
    ///
    /// # Errors
    /// What is wrong, and what to do.
    pub fn from_pem(text: &str, seed: &impl BuildHasher) -> Result<Self, String> {
        const BEGIN: &str = "-----BEGIN ";
        let mut keys = Self::default();
        for (number, block) in (1..).zip(text.split(BEGIN).skip(1)) {
            let kind = block.split_once("-----").map_or("", |(kind, _)| kind);
            if kind.ends_with("PRIVATE KEY") {
                return Err("it is a private key, which only the issuer of tokens may have; take the public one: `openssl pkey -in KEY -pubout`".into());
            }
            let pem = format!("{BEGIN}{block}");
            let decoding = match kind {
                "PUBLIC KEY" | "RSA PUBLIC KEY" => DecodingKey::from_rsa_pem(pem.as_bytes())
                    .or_else(|_| DecodingKey::from_ec_pem(pem.as_bytes()))
                    .or_else(|_| DecodingKey::from_ed_pem(pem.as_bytes())),
                _ => {
                    return Err(format!(
                        "key {number} is a {kind:?}; a PUBLIC KEY is wanted: `openssl x509 -in CERTIFICATE -pubkey -noout`"
                    ));
                }
            };
            let decoding = decoding
                .map_err(|_| format!("key {number} cannot be read; is it the output of `openssl pkey -pubout`?"))?;
            let key = Key::new(None, decoding, pem.trim().as_bytes(), seed);
            keys.list.push(key.ok_or_else(|| {
                format!("key {number} is of a kind that is not taken: RSA from 2048 bits, ECDSA on P-256 or P-384, Ed25519 are")
            })?);
        }
        match keys.list.len() {
            0 => Err("there is no public key in it; PEM begins with -----BEGIN PUBLIC KEY-----".into()),
            1..=KEYS_MAX => Ok(keys),
            _ => Err(format!("there are more than {KEYS_MAX} keys in it")),
        }
    }

    /// A JSON Web Key Set. Keys for something else, or of a kind that is not known, are left out (RFC 7517 section 5). `has_secrets`: keys for
    /// HMAC are taken, too; from a place that everybody can read they must not be.
    ///
    /// # Errors
    /// What is wrong.
    pub fn from_jwks(text: &str, has_secrets: bool, seed: &impl BuildHasher) -> Result<Self, String> {
        let set: Value = serde_json::from_str(text).map_err(|error| format!("it is no JSON: {error}"))?;
        let list = set.get("keys").and_then(Value::as_array);
        let list = list.ok_or("it is no set of keys: {\"keys\": […]}")?;
        let mut keys = Self::default();
        let mut left_out = list.len().saturating_sub(KEYS_MAX);
        for jwk in list.iter().take(KEYS_MAX) {
            match Key::from_jwk(jwk, seed) {
                Some(key) if has_secrets || !key.is_secret() => keys.list.push(key),
                _ => left_out += 1,
            }
        }
        if left_out > 0 {
            keys.warnings.push(format!(
                "{left_out} of {} keys are none that tokens can be checked with here",
                list.len()
            ));
        }
        // An issuer that has withdrawn all of its keys says just that.
        if list.is_empty() {
            keys.warnings
                .push("there is no key in it: no token is right".to_owned());
        } else if keys.list.is_empty() {
            return Err("there is no key in it that tokens can be checked with".into());
        }
        Ok(keys)
    }

    /// All of them.
    pub fn list(&self) -> &[Key] {
        &self.list
    }

    /// The key that has made a signature (base64) of a message.
    ///
    /// # Errors
    /// [`NoKey`].
    pub fn signer(
        &self,
        id: Option<&str>,
        algorithm: Option<Algorithm>,
        message: &[u8],
        signature: &str,
    ) -> Result<&Key, NoKey> {
        if self.list.is_empty() {
            return Err(NoKey::Empty);
        }
        let is_meant = |key: &&Key| match (id, &key.id) {
            (Some(id), Some(known)) => **known == *id,
            _ => true,
        };
        let mut none = NoKey::Unknown;
        let mut tries = 0;
        for key in self.list.iter().filter(is_meant) {
            let Some(algorithm) = algorithm.filter(|algorithm| key.algorithms.contains(algorithm)) else {
                none = if none == NoKey::Signature {
                    none
                } else {
                    NoKey::Algorithm
                };
                continue;
            };
            none = NoKey::Signature;
            tries += 1;
            if tries > TRIES_MAX {
                break;
            }
            if jsonwebtoken::crypto::verify(signature, message, &key.decoding, algorithm) == Ok(true) {
                return Ok(key);
            }
        }
        Err(none)
    }
}

impl Key {
    /// `None` for a key that nothing can be checked with.
    fn new(id: Option<&str>, decoding: DecodingKey, source: &[u8], seed: &impl BuildHasher) -> Option<Self> {
        let algorithms = match decoding.family() {
            AlgorithmFamily::Ec => match decoding.try_get_as_bytes().ok()?.len() {
                65 => vec![Algorithm::ES256],
                97 => vec![Algorithm::ES384],
                _ => return None,
            },
            AlgorithmFamily::Ed if decoding.try_get_as_bytes().ok()?.len() != 32 => return None,
            AlgorithmFamily::Rsa if is_short(&decoding) => return None,
            family => family.algorithms().to_vec(),
        };
        Some(Self {
            id: id.map(Into::into),
            algorithms,
            stamp: seed.hash_one(("key of tokens", source)).max(NO_PASSWORD + 1),
            decoding,
        })
    }

    fn from_jwk(value: &Value, seed: &impl BuildHasher) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value.clone()).ok()?;
        let common = &jwk.common;
        let is_for_signatures = matches!(common.public_key_use, None | Some(PublicKeyUse::Signature))
            && common
                .key_operations
                .as_ref()
                .is_none_or(|all| all.contains(&KeyOperations::Verify));
        if !is_for_signatures {
            return None;
        }
        let decoding = DecodingKey::from_jwk(&jwk).ok()?;
        let source = ["kty", "crv", "n", "e", "x", "y", "k"]
            .map(|name| value.get(name).and_then(Value::as_str).unwrap_or_default());
        let mut key = Self::new(common.key_id.as_deref(), decoding, source.join(".").as_bytes(), seed)?;
        if let Some(only) = common.key_algorithm {
            let only = Algorithm::try_from(only).ok()?;
            key.algorithms.retain(|algorithm| *algorithm == only);
        }
        if let jsonwebtoken::jwk::AlgorithmParameters::EllipticCurve(curve) = &jwk.algorithm
            && !matches!(curve.curve, EllipticCurve::P256 | EllipticCurve::P384)
        {
            return None;
        }
        (!key.algorithms.is_empty()).then_some(key)
    }

    fn is_secret(&self) -> bool {
        self.decoding.family() == AlgorithmFamily::Hmac
    }
}

/// An RSA key of less than 2048 bits: no signature of it is taken (RFC 7518 section 3.3).
fn is_short(rsa: &DecodingKey) -> bool {
    match rsa.kind() {
        DecodingKeyKind::RsaModulusExponent { n, .. } => n.len() < 256,
        // A sequence of two numbers: with what stands around them, a short modulus stays below this.
        DecodingKeyKind::SecretOrDer(der) => der.len() < 256 + 8,
    }
}
