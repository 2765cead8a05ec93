//! The arithmetic of password hashes, on threads of its own: it takes milliseconds on purpose, and no worker waits for it.
//!
//! As many checks as there are threads run at once, a bounded number waits, and what comes beyond is refused (0x97): so however many
//! clients try passwords, the processor is theirs only as far as the operator lets it.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use argon2::{Algorithm, Argon2, Block, Params, Version};
use sha2::{Digest as _, Sha512};
use subtle::ConstantTimeEq as _;

use super::pool::AnswersTo;
use crate::auth::Answers;
use crate::auth::chain::{PasswordCheck, PasswordChecker};
use crate::auth::password::{PasswordHash, Scheme};
use crate::scram::{Credential, Mechanism};

/// How passwords are checked.
#[derive(Clone, Debug)]
pub struct HashingOptions {
    /// Threads; default a quarter of the cores, at least one. Each holds the memory of one hash: 19 MiB for ours.
    pub threads: usize,
    /// Checks that wait for a thread; default 256. One more is refused.
    pub waiting_max: usize,
}

impl Default for HashingOptions {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            threads: (cores / 4).max(1),
            waiting_max: 256,
        }
    }
}

/// What a new hash costs: the second choice of RFC 9106 for machines that do other things, too, as OWASP has it.
const NEW: Scheme = Scheme::Argon2id {
    memory_kib: 19 * 1024,
    passes: 2,
    lanes: 1,
};
const NEW_SALT_BYTES: usize = 16;
const NEW_HASH_BYTES: usize = 32;
/// Longest password that is read from a person or a file, bytes: what MQTT can carry.
pub const PASSWORD_BYTES_MAX: usize = 65_535;

/// The hash of a new password.
///
/// # Errors
/// The system has no random numbers.
pub fn hash_password(password: &[u8]) -> io::Result<PasswordHash> {
    let mut salt = [0; NEW_SALT_BYTES];
    getrandom::fill(&mut salt).map_err(|error| io::Error::other(format!("no random numbers for a salt: {error}")))?;
    let mut hash = [0; NEW_HASH_BYTES];
    let is_made = derive(NEW, password, &salt, &mut hash, &mut Vec::new());
    if !is_made {
        return Err(io::Error::other("argon2id refused its costs"));
    }
    Ok(PasswordHash {
        scheme: NEW,
        salt: salt.into(),
        hash: hash.into(),
    })
}

/// What SCRAM needs of a new password. Takes as long as the iterations say.
///
/// # Errors
/// The system has no random numbers.
pub fn scram_credential(mechanism: Mechanism, password: &[u8], iterations: u32) -> io::Result<Credential> {
    let mut salt = [0; NEW_SALT_BYTES];
    if !random(&mut salt) {
        return Err(io::Error::other("no random numbers for a salt"));
    }
    Ok(Credential::new(mechanism, password, &salt, iterations))
}

/// Random numbers of the system; false where it has none.
pub fn random(bytes: &mut [u8]) -> bool {
    getrandom::fill(bytes).is_ok()
}

/// Whether a password is the one that was hashed. Takes as long as the hash costs, however far they agree.
pub fn is_password(password: &[u8], of: &PasswordHash) -> bool {
    is_password_with(password, of, &mut Vec::new())
}

fn is_password_with(password: &[u8], of: &PasswordHash, memory: &mut Vec<Block>) -> bool {
    let mut hash = vec![0; of.hash.len()];
    derive(of.scheme, password, &of.salt, &mut hash, memory) && bool::from(hash.ct_eq(&of.hash))
}

/// False where the costs are none that argon2id takes: the reader of password files has let none through.
fn derive(scheme: Scheme, password: &[u8], salt: &[u8], out: &mut [u8], memory: &mut Vec<Block>) -> bool {
    match scheme {
        Scheme::Sha512 => {
            let digest = Sha512::new().chain_update(password).chain_update(salt).finalize();
            out.copy_from_slice(&digest);
            true
        }
        Scheme::Pbkdf2 { iterations } => {
            pbkdf2::pbkdf2_hmac::<Sha512>(password, salt, iterations, out);
            true
        }
        Scheme::Argon2id {
            memory_kib,
            passes,
            lanes,
        } => {
            let Ok(params) = Params::new(memory_kib, passes, lanes, Some(out.len())) else {
                return false;
            };
            memory.resize(params.block_count(), Block::new());
            let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
            argon2
                .hash_password_into_with_memory(password, salt, out, memory)
                .is_ok()
        }
    }
}

/// Threads that check passwords. They end when it is dropped.
pub struct HashingPool {
    checks: SyncSender<PasswordCheck>,
    answers: AnswersTo,
}

impl std::fmt::Debug for HashingPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HashingPool").finish_non_exhaustive()
    }
}

impl HashingPool {
    /// Starts the threads.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(options: &HashingOptions) -> io::Result<Self> {
        let (checks, waiting) = sync_channel(options.waiting_max);
        let waiting = Arc::new(Mutex::new(waiting));
        let answers = Arc::new(OnceLock::new());
        for number in 0..options.threads.max(1) {
            let (waiting, answers) = (Arc::clone(&waiting), Arc::clone(&answers));
            let thread = std::thread::Builder::new().name(format!("password-{number}"));
            thread.spawn(move || run(&waiting, &answers))?;
        }
        Ok(Self { checks, answers })
    }
}

impl HashingPool {
    /// Where its answers go: for others whose answers go there, too.
    pub(super) const fn answers(&self) -> &AnswersTo {
        &self.answers
    }
}

impl PasswordChecker for HashingPool {
    fn attach(&self, answers: Arc<dyn Answers>) {
        let _ = self.answers.set(answers); // the first broker keeps it
    }

    fn check(&self, check: PasswordCheck) -> bool {
        self.checks.try_send(check).is_ok()
    }
}

fn run(waiting: &Mutex<Receiver<PasswordCheck>>, answers: &OnceLock<Arc<dyn Answers>>) {
    let mut memory = Vec::new();
    loop {
        // Taken by whoever comes first; held only while there is nothing to do.
        let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(check) = next else { return };
        let is_right = is_password_with(&check.password, &check.hash, &mut memory);
        let verdict = if is_right { check.admit } else { check.refuse };
        if let Some(answers) = answers.get() {
            answers.verdict(check.token, verdict);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::password::PasswordFile;

    /// Made by mosquitto_passwd 2.0.11 with these passwords; the last by another implementation of argon2id.
    const KNOWN: &[(&str, &str)] = &[
        (
            "secret",
            "$7$101$r02FpQM6Al2pzMki$644//s1o1Wnoh+VSi4K82qd5XhHK4buXE+daF2wEmPq23FrhHIvz89QvBcSuJ8zfqvvTsLFAzirEbEYOEa6Cow==",
        ),
        (
            "pass word",
            "$7$101$2H1pbgJ7Gf8Gplik$wD3JLuUq5kGZlCNhoS7R09OsiIcO1ol0pzDD5hztlYV6DCnRgVkt+Rk7xBjctSDMx9gFHdqiwNuZn/AumbokOQ==",
        ),
        (
            "test",
            "$6$njERlZMi/7DzNB9E$iiavfuXvUm8iyDZArTy7smTxh07GXXOrOsqxfW6gkOYVXHGk+W+i/8d3xDxrMwEPygEBhoA8A/gjQC0N2M4Lkw==",
        ),
    ];

    #[test]
    fn hashes_of_mosquitto_are_checked_as_it_does() {
        for (password, line) in KNOWN {
            let hash = PasswordHash::parse(line).unwrap();
            assert!(is_password(password.as_bytes(), &hash), "{password}");
            for wrong in ["", "Secret", "secret ", "tes"] {
                assert!(!is_password(wrong.as_bytes(), &hash), "{wrong} for {password}");
            }
        }
    }

    #[test]
    fn a_new_hash_is_argon2id_salted_and_survives_its_file() {
        let (one, other) = (hash_password(b"secret").unwrap(), hash_password(b"secret").unwrap());
        assert_ne!(one, other);
        let text = format!("alice:{one}\n");
        let file = PasswordFile::parse(&text, &foldhash::fast::FixedState::default()).unwrap();
        let read = file.get("alice").unwrap().entry.hash.clone().unwrap();
        assert_eq!(*read, one);
        assert!(is_password(b"secret", &read));
        assert!(!is_password(b"secret2", &read));
    }
}
