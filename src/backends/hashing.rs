//! The arithmetic of password hashes, on threads of its own: it takes milliseconds on purpose, and no worker waits for it.
//!
//! As many checks as there are threads run at once, a bounded number waits, and what comes beyond is refused (0x97): so however many
//! clients try passwords, the processor is theirs only as far as the operator lets it. Addresses take turns: one that tries a thousand passwords
//! keeps nobody else out.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use argon2::{Algorithm, Argon2, Block, Params, Version};
use sha2::{Digest as _, Sha512};
use subtle::ConstantTimeEq as _;

use super::lines::{Added, Lines, origin};
use super::pool::AnswersTo;
use crate::auth::chain::{PasswordCheck, PasswordChecker, TOO_MANY_CHECKS};
use crate::auth::password::{PasswordHash, Scheme};
use crate::auth::{Answers, Refusal, Verdict};
use crate::protocol::reason::ReasonCode;
use crate::scram::{Credential, Mechanism};

/// How passwords are checked.
#[derive(Clone, Debug)]
pub struct HashingOptions {
    /// Threads; default a quarter of the cores, at least one. Each holds the memory of one hash: 19 MiB for ours.
    pub threads: usize,
    /// Checks that wait for a thread; default 256. One more is refused, or takes the place of one of whoever has the most.
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

/// Memory of a hash that a thread keeps while it has nothing to do, blocks of 1 KiB: that of ours.
const KEPT_BLOCKS_MAX: usize = 32 * 1024;

/// Threads that check passwords. They end when it is dropped.
pub struct HashingPool {
    waiting: Arc<Waiting>,
    answers: AnswersTo,
}

/// What waits for a thread.
struct Waiting {
    lines: Mutex<(Lines<PasswordCheck>, IsOver)>,
    changed: Condvar,
}

/// Nothing comes any more.
type IsOver = bool;

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, (Lines<PasswordCheck>, IsOver)> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next that somebody still waits for, where there is one.
    fn try_next(lines: &mut Lines<PasswordCheck>) -> Option<PasswordCheck> {
        std::iter::from_fn(|| lines.take_next()).find(|check| check.asker.waits())
    }

    /// Waits for the next; `None` where nothing comes any more.
    fn next(&self, memory: &mut Vec<Block>) -> Option<PasswordCheck> {
        let mut lines = self.lock();
        loop {
            if lines.1 {
                return None;
            }
            if let Some(check) = Self::try_next(&mut lines.0) {
                return Some(check);
            }
            // Somebody's hash may cost a gigabyte.
            if memory.len() > KEPT_BLOCKS_MAX {
                *memory = Vec::new();
            }
            lines = self.changed.wait(lines).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for HashingPool {
    fn drop(&mut self) {
        self.waiting.lock().1 = true;
        self.waiting.changed.notify_all();
    }
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
        let waiting = Arc::new(Waiting {
            lines: Mutex::new((Lines::new(options.waiting_max), false)),
            changed: Condvar::new(),
        });
        let answers = Arc::new(OnceLock::new());
        for number in 0..options.threads.max(1) {
            let (waiting, answers) = (Arc::clone(&waiting), Arc::clone(&answers));
            let thread = std::thread::Builder::new().name(format!("password-{number}"));
            thread.spawn(move || run(&waiting, &answers))?;
        }
        Ok(Self { waiting, answers })
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
        let origin = origin(check.asker.from);
        let added = self.waiting.lock().0.add(origin, check);
        match added {
            Added::Refused => return false,
            Added::InsteadOf(other) => {
                let refusal = Refusal {
                    reason: ReasonCode::QuotaExceeded,
                    why: TOO_MANY_CHECKS,
                };
                if let Some(answers) = self.answers.get() {
                    other.asker.tell(&**answers, Verdict::Refuse(refusal));
                }
            }
            Added::Waits => {}
        }
        self.waiting.changed.notify_one();
        true
    }
}

fn run(waiting: &Waiting, answers: &OnceLock<Arc<dyn Answers>>) {
    yield_to_workers();
    let mut memory = Vec::new();
    while let Some(check) = waiting.next(&mut memory) {
        let is_right = is_password_with(&check.password, &check.hash, &mut memory);
        let verdict = if is_right { check.admit } else { check.refuse };
        if let Some(answers) = answers.get() {
            check.asker.tell(&**answers, verdict);
        }
    }
}

/// Where processors are scarce, messages go first: this thread gets a tenth of what a worker gets that has something to do. On Linux a
/// priority is a thread's.
fn yield_to_workers() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, 10) {
        tracing::debug!(%error, "passwords are checked at the priority of messages");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Guess;
    use crate::auth::password::PasswordFile;
    use crate::auth::way::Asker;
    use crate::protocol::ids::{Token, WorkerId};

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

    /// Notes who is answered, in order.
    #[derive(Default)]
    struct Told(Mutex<Vec<(u64, bool)>>, Condvar);

    impl Answers for Told {
        fn verdict(&self, token: Token, verdict: Verdict) -> bool {
            let is_busy = matches!(
                verdict,
                Verdict::Refuse(Refusal {
                    why: TOO_MANY_CHECKS,
                    ..
                })
            );
            self.0.lock().unwrap().push((token.sequence.into(), is_busy));
            self.1.notify_all();
            true
        }
    }

    /// Notes who has guessed and gone.
    #[derive(Default)]
    struct Gone(Mutex<Vec<Guess>>, Condvar);

    impl Answers for Gone {
        fn verdict(&self, _: Token, verdict: Verdict) -> bool {
            panic!("nobody waits for {verdict:?}");
        }

        fn guessed(&self, _: WorkerId, guess: Guess) {
            self.0.lock().unwrap().push(guess);
            self.1.notify_all();
        }
    }

    impl Told {
        fn wait(&self, count: usize) -> Vec<(u64, bool)> {
            let told = self.0.lock().unwrap();
            let limit = std::time::Duration::from_secs(60);
            let (told, _) = self
                .1
                .wait_timeout_while(told, limit, |told| told.len() < count)
                .unwrap();
            told.clone()
        }
    }

    /// One thread, `waiting_max` checks that wait, and one that keeps it busy until all others are there.
    fn pool(waiting_max: usize) -> (HashingPool, Arc<Told>) {
        let pool = HashingPool::start(&HashingOptions {
            threads: 1,
            waiting_max,
        })
        .unwrap();
        let told = Arc::new(Told::default());
        pool.attach(Arc::clone(&told) as _);
        (pool, told)
    }

    fn check(sequence: u32, from: u8, presence: &Arc<()>, passes: u32) -> PasswordCheck {
        let scheme = Scheme::Argon2id {
            memory_kib: 19 * 1024,
            passes,
            lanes: 1,
        };
        let refuse = Verdict::Refuse(Refusal {
            reason: ReasonCode::BadUserNameOrPassword,
            why: "bad_password",
        });
        let token = Token {
            worker: crate::protocol::ids::WorkerId(0),
            connection: crate::protocol::ids::ConnectionKey(crate::protocol::ids::SlotKey { slot: 0, generation: 0 }),
            sequence,
        };
        PasswordCheck {
            asker: Asker {
                token,
                from: Some([192, 0, 2, from].into()),
                presence: Arc::downgrade(presence),
                user_name: Some("alice".into()),
            },
            password: b"x".as_slice().into(),
            hash: Arc::new(PasswordHash {
                scheme,
                salt: [7; 16].into(),
                hash: [7; 32].into(),
            }),
            admit: refuse.clone(),
            refuse,
        }
    }

    #[test]
    fn one_address_keeps_no_other_out() {
        let (pool, told) = pool(8);
        let here = Arc::new(());
        assert!(pool.check(check(0, 1, &here, 20)));
        let taken: Vec<_> = (1..=100)
            .filter(|number| pool.check(check(*number, 1, &here, 1)))
            .collect();
        assert!(taken.len() <= 9, "{taken:?}");
        assert!(pool.check(check(200, 2, &here, 1)), "another address");
        let told = told.wait(taken.len() + 2);
        assert_eq!(
            told[0],
            (u64::from(*taken.last().unwrap()), true),
            "the last of the many makes room"
        );
        let at = told.iter().position(|answer| *answer == (200, false)).unwrap();
        assert!(at <= 3, "its turn comes soon: {told:?}");
    }

    /// Who goes while his password is checked has guessed all the same.
    #[test]
    fn a_wrong_password_counts_when_its_client_has_gone_meanwhile() {
        let options = HashingOptions {
            threads: 1,
            waiting_max: 8,
        };
        let pool = HashingPool::start(&options).unwrap();
        let gone = Arc::new(Gone::default());
        pool.attach(Arc::clone(&gone) as _);
        let here = Arc::new(());
        assert!(pool.check(check(0, 1, &here, 200)));
        // Until it is begun.
        while pool.waiting.lock().0.is_waiting() {
            std::thread::yield_now();
        }
        drop(here);
        let limit = std::time::Duration::from_secs(60);
        let guesses = gone.0.lock().unwrap();
        let (guesses, _) = gone.1.wait_timeout_while(guesses, limit, |all| all.is_empty()).unwrap();
        let guess = Guess {
            from: Some([192, 0, 2, 1].into()),
            user_name: Some("alice".into()),
            why: "bad_password",
        };
        assert_eq!(*guesses, [guess]);
    }

    #[test]
    fn what_nobody_waits_for_any_more_is_not_computed() {
        let (pool, told) = pool(8);
        let (here, gone) = (Arc::new(()), Arc::new(()));
        assert!(pool.check(check(0, 1, &here, 20)));
        for number in 1..5 {
            assert!(pool.check(check(number, 1, &gone, 1)));
        }
        drop(gone);
        assert!(pool.check(check(5, 1, &here, 1)));
        assert_eq!(told.wait(2), [(0, false), (5, false)]);
    }
}
