//! The ways in that are asked: how they are configured, and what they share while configurations come and go.

use std::path::PathBuf;
use std::sync::Arc;

use super::pool::{AnswersTo, Pool};
use super::token::TokenOptions;

/// Tokens that wait to be checked: a twentieth of a second's work, with the longest tokens 8 MiB.
const TOKENS_WAITING_MAX: usize = 1024;

/// Tokens of one issuer.
#[derive(Clone, Debug)]
pub struct TokenIssuer {
    /// The listeners on which they are taken, by name; all where it is empty.
    pub listeners: Vec<Box<str>>,
    /// What is wanted of them.
    pub options: TokenOptions,
    /// What they are signed with.
    pub keys: KeysFrom,
}

/// Where keys are.
#[derive(Clone, Debug)]
pub enum KeysFrom {
    /// A file with public keys in PEM.
    PublicKeys(PathBuf),
    /// A file with a secret.
    Secret {
        /// Its path.
        file: PathBuf,
        /// The secret is what is in it as base64.
        is_base64: bool,
    },
    /// A file with a JSON Web Key Set.
    Jwks(PathBuf),
}

impl KeysFrom {
    /// Its file.
    pub const fn file(&self) -> Option<&PathBuf> {
        match self {
            Self::PublicKeys(file) | Self::Secret { file, .. } | Self::Jwks(file) => Some(file),
        }
    }
}

/// True where something for these listeners, all where there are none, is for this one.
pub fn is_for(listeners: &[Box<str>], name: &str) -> bool {
    listeners.is_empty() || listeners.iter().any(|one| **one == *name)
}

/// What outlives a reload: threads, and what they know.
#[derive(Debug)]
pub struct Backends {
    /// Checks tokens.
    pub tokens: Arc<Pool>,
}

impl Backends {
    /// Whose answers go there. Threads begin when there is something to do.
    pub fn new(answers: &AnswersTo) -> Self {
        Self {
            tokens: Arc::new(Pool::new("token", 1, TOKENS_WAITING_MAX, answers)),
        }
    }
}
