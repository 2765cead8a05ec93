//! The ways in that are asked: how they are configured, and what they share while configurations come and go.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::http::client::ClientOptions;
use super::http::{HttpBackend, HttpOptions};
use super::jwks::{JwksOptions, JwksUrl};
use super::pool::{AnswersTo, Pool};
use super::token::{Issuers, TokenOptions};

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
    /// The same at an address.
    Url(JwksOptions),
}

impl KeysFrom {
    /// Its file, or that of the authorities of its address.
    pub const fn file(&self) -> Option<&PathBuf> {
        match self {
            Self::PublicKeys(file) | Self::Secret { file, .. } | Self::Jwks(file) => Some(file),
            Self::Url(options) => options.client.ca_file.as_ref(),
        }
    }
}

/// A program that is asked.
#[derive(Clone, Debug)]
pub struct HttpAsked {
    /// The listeners whose clients it is asked about, by name; all where it is empty.
    pub listeners: Vec<Box<str>>,
    /// How.
    pub options: HttpOptions,
}

/// True where something for these listeners, all where there are none, is for this one.
pub fn is_for(listeners: &[Box<str>], name: &str) -> bool {
    listeners.is_empty() || listeners.iter().any(|one| **one == *name)
}

/// Something that a configuration has, for as long as one has it, with what its file of authorities said.
type Known<T> = (Option<Vec<u8>>, Weak<T>);

/// What outlives a reload: threads, and what they know.
pub struct Backends {
    /// Checks tokens.
    pub tokens: Arc<Pool>,
    /// Moves when who was let in before may have to go.
    pub generation: Arc<AtomicU64>,
    answers: AnswersTo,
    jwks: Mutex<Vec<Known<JwksUrl>>>,
    http: Mutex<Vec<Known<HttpBackend>>>,
}

impl fmt::Debug for Backends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backends").finish_non_exhaustive()
    }
}

impl Backends {
    /// Whose answers go there. Threads begin when there is something to do.
    pub fn new(answers: &AnswersTo) -> Self {
        Self {
            tokens: Arc::new(Pool::new("token", 1, TOKENS_WAITING_MAX, answers)),
            generation: Arc::default(),
            answers: Arc::clone(answers),
            jwks: Mutex::default(),
            http: Mutex::default(),
        }
    }

    /// The keys of an address: those that are there already, or new ones that nobody has fetched yet.
    ///
    /// # Errors
    /// Its authorities cannot be read.
    pub fn jwks(&self, options: &JwksOptions, seed: &foldhash::fast::RandomState) -> Result<Arc<JwksUrl>, String> {
        let make = || JwksUrl::new(options.clone(), seed.clone(), Arc::clone(&self.generation));
        same_or_new(&self.jwks, &options.client, |known| known.options() == options, make)
    }

    /// A program that is asked: the one that is there already, with what it has said, or a new one.
    ///
    /// # Errors
    /// Its authorities cannot be read.
    pub fn http(&self, options: &HttpOptions, seed: &foldhash::fast::RandomState) -> Result<Arc<HttpBackend>, String> {
        let make = || HttpBackend::new(options.clone(), seed, &self.answers);
        same_or_new(&self.http, &options.client, |known| known.options() == options, make)
    }

    /// Programs are asked anew about everything.
    pub fn forget_answers(&self) {
        let known = self.http.lock().unwrap_or_else(PoisonError::into_inner);
        let programs = known.iter().filter_map(|(_, one)| one.upgrade());
        programs.for_each(|program| program.forget_answers());
    }

    /// Begins to fetch what issuers need; where that goes on already, it goes on.
    pub fn start(&self, issuers: &[Arc<Issuers>]) {
        for url in issuers.iter().flat_map(|issuers| issuers.urls()) {
            url.start(&self.answers);
        }
    }
}

fn same_or_new<T>(
    known: &Mutex<Vec<Known<T>>>,
    client: &ClientOptions,
    is_same: impl Fn(&T) -> bool,
    make: impl FnOnce() -> Result<T, String>,
) -> Result<Arc<T>, String> {
    let authorities = client.ca_file.as_ref().and_then(|file| std::fs::read(file).ok());
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    known.retain(|(_, one)| one.strong_count() > 0);
    let mut same = known.iter().filter(|(theirs, _)| *theirs == authorities);
    if let Some(one) = same.find_map(|(_, one)| one.upgrade().filter(|one| is_same(one))) {
        return Ok(one);
    }
    let one = Arc::new(make()?);
    known.push((authorities, Arc::downgrade(&one)));
    Ok(one)
}
