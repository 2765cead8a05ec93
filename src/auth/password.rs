//! Password files: `USER:HASH` lines, as mosquitto has them and as `sundew user` writes them. Reading them is here, the arithmetic of
//! the hashes, which takes its time, is `backends/hashing`.
//!
//! ```text
//! alice:$argon2id$v=19$m=19456,t=2,p=1$SALT$HASH     argon2id (RFC 9106), base64 without padding: ours, and mosquitto 2.1
//! bob:$7$101$SALT$HASH                               PBKDF2-HMAC-SHA512, 101 times, base64: mosquitto 2.0
//! carol:$6$SALT$HASH                                 one SHA-512 of password and salt, base64: mosquitto before 2.0; not crypt(3)
//! dave:$scram-sha-256$4096$SALT$STOREDKEY$SERVERKEY  what SCRAM-SHA-256 needs (RFC 7677), base64; $scram-sha-512$ for the other
//! ```
//!
//! Several may stand behind one name with blanks between them, each of another kind: one password by which its user can enter in more ways
//! than one. Without one of the first three nobody enters who shows his password.

use core::hash::{BuildHasher, Hash};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use hashbrown::HashMap;

use super::place::{FileProblem, lines};
use crate::scram::{Credential, Mechanism};

/// Rounds of PBKDF2 that a line may ask for: one check takes some seconds with so many.
const ITERATIONS_MAX: u32 = 10_000_000;
/// Memory that a line may ask for, KiB: 1 GiB for each hashing thread.
const MEMORY_KIB_MAX: u32 = 1 << 20;
/// Passes and lanes of argon2id that a line may ask for.
const PASSES_MAX: u32 = 1000;
const LANES_MAX: u32 = 255;
/// The longest user name, and line, that is read.
const LINE_BYTES_MAX: usize = 65_535 + 1024;

/// How passwords of a scheme are named to people.
impl core::fmt::Display for Scheme {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Argon2id { .. } => f.write_str("argon2id"),
            Self::Pbkdf2 { iterations } => write!(f, "PBKDF2-SHA512, {iterations} iterations"),
            Self::Sha512 => f.write_str("SHA-512, weak: set the password anew"),
        }
    }
}

/// How a password was hashed, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PasswordHash {
    /// With what.
    pub scheme: Scheme,
    /// What the password is mixed with.
    pub salt: Box<[u8]>,
    /// What must come out.
    pub hash: Box<[u8]>,
}

/// A way to hash passwords, with what it costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// argon2id, version 1.3 (RFC 9106).
    Argon2id {
        /// KiB of memory.
        memory_kib: u32,
        /// Passes over it.
        passes: u32,
        /// Lanes.
        lanes: u32,
    },
    /// PBKDF2 with HMAC-SHA512 (RFC 8018).
    Pbkdf2 {
        /// Rounds.
        iterations: u32,
    },
    /// SHA-512 of the password followed by the salt, once.
    Sha512,
}

impl PasswordHash {
    /// Reads what stands behind the user name and its colon.
    ///
    /// # Errors
    /// What is wrong with it, as a sentence without a subject.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(hashed) = text.strip_prefix('$') else {
            return Err("the password is not hashed; write the line with `sundew user add`".into());
        };
        let mut parts = hashed.split('$');
        let scheme = parts.next().unwrap_or_default();
        let rest: Vec<_> = parts.collect();
        match (scheme, rest.as_slice()) {
            ("6", [salt, hash]) => Self::of(Scheme::Sha512, decode(salt)?, decode(hash)?, 64..=64),
            ("7", [iterations, salt, hash]) => {
                let iterations = number("iterations", iterations, 1, ITERATIONS_MAX)?;
                Self::of(Scheme::Pbkdf2 { iterations }, decode(salt)?, decode(hash)?, 12..=64)
            }
            ("argon2id", [version, costs, salt, hash]) => {
                if *version != "v=19" {
                    return Err(format!("argon2id has version 1.3 here (v=19), not {version:?}"));
                }
                let scheme = argon2_costs(costs)?;
                Self::of(scheme, decode(salt)?, decode(hash)?, 16..=128)
            }
            ("6" | "7" | "argon2id", _) => Err(format!("the hash is not whole: {}", form(scheme))),
            _ => Err("the hash is of no kind that is known: $argon2id$, $7$ or $6$".into()),
        }
    }

    fn of(scheme: Scheme, salt: Vec<u8>, hash: Vec<u8>, len: core::ops::RangeInclusive<usize>) -> Result<Self, String> {
        let salt_min = if matches!(scheme, Scheme::Argon2id { .. }) {
            8
        } else {
            1
        };
        if !(salt_min..=64).contains(&salt.len()) {
            return Err(format!("the salt has {} bytes, expected {salt_min} to 64", salt.len()));
        }
        if !len.contains(&hash.len()) {
            return Err(format!(
                "the hash has {} bytes, expected {} to {}",
                hash.len(),
                len.start(),
                len.end()
            ));
        }
        Ok(Self {
            scheme,
            salt: salt.into(),
            hash: hash.into(),
        })
    }
}

/// As it stands in a file.
impl core::fmt::Display for PasswordHash {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let (salt, hash) = (&self.salt, &self.hash);
        match self.scheme {
            Scheme::Argon2id {
                memory_kib,
                passes,
                lanes,
            } => {
                let (salt, hash) = (STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(hash));
                write!(f, "$argon2id$v=19$m={memory_kib},t={passes},p={lanes}${salt}${hash}")
            }
            Scheme::Pbkdf2 { iterations } => {
                let (salt, hash) = (STANDARD.encode(salt), STANDARD.encode(hash));
                write!(f, "$7${iterations}${salt}${hash}")
            }
            Scheme::Sha512 => write!(f, "$6${}${}", STANDARD.encode(salt), STANDARD.encode(hash)),
        }
    }
}

fn form(scheme: &str) -> &'static str {
    match scheme {
        "6" => "expected $6$SALT$HASH",
        "7" => "expected $7$ITERATIONS$SALT$HASH",
        _ => "expected $argon2id$v=19$m=KIB,t=PASSES,p=LANES$SALT$HASH",
    }
}

/// Padded or not: argon2's form has none, mosquitto's others have it.
fn decode(text: &str) -> Result<Vec<u8>, String> {
    STANDARD_NO_PAD
        .decode(text.trim_end_matches('='))
        .map_err(|_| "the salt or the hash is not base64".to_owned()) // and whatever it is, no log has it
}

fn argon2_costs(text: &str) -> Result<Scheme, String> {
    let (mut memory_kib, mut passes, mut lanes) = (None, None, None);
    for cost in text.split(',') {
        match cost.split_once('=') {
            Some(("m", value)) => memory_kib = Some(number("m", value, 8, MEMORY_KIB_MAX)?),
            Some(("t", value)) => passes = Some(number("t", value, 1, PASSES_MAX)?),
            Some(("p", value)) => lanes = Some(number("p", value, 1, LANES_MAX)?),
            _ => return Err(format!("{cost:?} is no cost of argon2id, expected m=, t= and p=")),
        }
    }
    match (memory_kib, passes, lanes) {
        (Some(memory_kib), Some(passes), Some(lanes)) if memory_kib >= 8 * lanes => Ok(Scheme::Argon2id {
            memory_kib,
            passes,
            lanes,
        }),
        (Some(_), Some(_), Some(_)) => Err("argon2id needs 8 KiB of memory (m) for each lane (p)".into()),
        _ => Err("the costs of argon2id are not whole: expected m=KIB,t=PASSES,p=LANES".into()),
    }
}

fn number(name: &str, text: &str, least: u32, most: u32) -> Result<u32, String> {
    text.parse()
        .ok()
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| format!("{name} is {text:?}, expected {least} to {most}"))
}

/// What stands behind the name of a user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Entry {
    /// How a password that is shown is checked; `None`: it is not taken.
    pub hash: Option<Arc<PasswordHash>>,
    /// How one that is proved is, at most one for each mechanism.
    pub scram: Vec<Arc<Credential>>,
}

impl Entry {
    /// What is kept for a mechanism.
    pub fn scram(&self, mechanism: Mechanism) -> Option<&Arc<Credential>> {
        self.scram.iter().find(|credential| credential.mechanism == mechanism)
    }

    /// Reads what stands behind the user name and its colon.
    ///
    /// # Errors
    /// What is wrong with it, as a sentence without a subject.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut entry = Self::default();
        for part in text.split_ascii_whitespace() {
            if Credential::is_one(part) {
                let credential = Credential::parse(part)?;
                if entry.scram(credential.mechanism).is_some() {
                    return Err(format!("{} is there twice", credential.mechanism.name()));
                }
                entry.scram.push(Arc::new(credential));
            } else if entry.hash.replace(Arc::new(PasswordHash::parse(part)?)).is_some() {
                return Err("there are two hashes of the password, expected one and what is for SCRAM".into());
            }
        }
        if entry == Self::default() {
            PasswordHash::parse("")?; // says what is expected
        }
        Ok(entry)
    }

    /// How its password is kept, for people.
    pub fn kinds(&self) -> String {
        let hash = self.hash.iter().map(|hash| hash.scheme.to_string());
        let scram = self.scram.iter();
        let scram = scram.map(|one| format!("{} with {} iterations", one.mechanism.name(), one.iterations));
        hash.chain(scram).collect::<Vec<_>>().join(", ")
    }
}

/// As it stands in a file.
impl core::fmt::Display for Entry {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let hash = self.hash.iter().map(ToString::to_string);
        let all: Vec<_> = hash.chain(self.scram.iter().map(ToString::to_string)).collect();
        f.write_str(&all.join(" "))
    }
}

/// One user of a file.
#[derive(Clone, Debug)]
pub struct User {
    /// How the password is checked.
    pub entry: Entry,
    /// Line in the file, from 1.
    pub line: u32,
    /// Changes with the password: what a connection was let in for.
    pub stamp: u64,
}

/// A password file that was read.
#[derive(Clone, Debug, Default)]
pub struct PasswordFile {
    users: HashMap<Box<str>, User, foldhash::fast::RandomState>,
    /// In the order of the file, so that a name that nobody has finds the same decoy each time.
    order: Vec<Arc<PasswordHash>>,
    /// The same for SCRAM.
    scram_order: [Vec<Arc<Credential>>; Mechanism::ALL.len()],
}

impl PasswordFile {
    /// Reads a whole file. Blank lines and lines that begin with `#` are skipped; CRLF and a byte order mark are fine.
    ///
    /// # Errors
    /// Every line that is wrong.
    pub fn parse(text: &str, seed: &impl BuildHasher) -> Result<Self, Vec<FileProblem>> {
        let mut file = Self::default();
        let mut problems = Vec::new();
        for (number, line) in lines(text) {
            if line.is_empty() || line.trim_start().starts_with('#') {
                continue;
            }
            if let Err(message) = file.add(number, line, seed) {
                problems.push(FileProblem { line: number, message });
            }
        }
        if problems.is_empty() { Ok(file) } else { Err(problems) }
    }

    fn add(&mut self, number: u32, line: &str, seed: &impl BuildHasher) -> Result<(), String> {
        if line.len() > LINE_BYTES_MAX {
            return Err(format!("longer than {LINE_BYTES_MAX} bytes"));
        }
        // The hash has no colon, a user name may.
        let (name, hash) = line
            .rsplit_once(':')
            .ok_or("expected USER:HASH; `sundew user add` writes such lines")?;
        let name = name.trim();
        if name.is_empty() {
            return Err("no user name before the colon".into());
        }
        let entry = Entry::parse(hash).map_err(|error| {
            // Behind a colon there may be a part of a password.
            let shown = name.split(':').next().unwrap_or_default();
            format!("user {shown:?}: {error}")
        });
        let entry = entry?;
        if let Some(earlier) = self.users.get(name) {
            return Err(format!("user {name:?} is in line {} already", earlier.line));
        }
        self.order.extend(entry.hash.clone());
        for credential in &entry.scram {
            self.scram_order[credential.mechanism as usize].push(Arc::clone(credential));
        }
        let stamp = seed.hash_one((name, &entry)).max(1); // 0 is that of who has no password
        self.users.insert(
            name.into(),
            User {
                entry,
                line: number,
                stamp,
            },
        );
        Ok(())
    }

    /// A user by name.
    pub fn get(&self, name: &str) -> Option<&User> {
        self.users.get(name)
    }

    /// Users, in no particular order.
    pub fn users(&self) -> impl Iterator<Item = (&str, &User)> {
        self.users.iter().map(|(name, user)| (&**name, user))
    }

    /// Whether a user can use this mechanism.
    pub fn has_scram(&self, mechanism: Mechanism) -> bool {
        !self.scram_order[mechanism as usize].is_empty()
    }

    /// The credential whose salt is as long, and whose iterations are as many, as are told to whoever has none of this mechanism; see
    /// [`PasswordFile::decoy`].
    pub fn scram_like(&self, mechanism: Mechanism, name: &str, secret: &[u8]) -> Option<&Arc<Credential>> {
        let all = &self.scram_order[mechanism as usize];
        let chosen = Mechanism::Sha256.hmac(secret, name.as_bytes());
        let number = chosen
            .iter()
            .take(8)
            .fold(0, |number, byte| number << 8 | u64::from(*byte));
        all.get((number % all.len().max(1) as u64) as usize)
    }

    /// How many users there are.
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// True when nobody can enter by password.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// The hash that is computed for a user that does not exist, so that it takes as long as for one who does. The same name finds
    /// the same one; over many names they are as in the file.
    pub fn decoy(&self, name: &str, seed: &impl BuildHasher) -> Option<Arc<PasswordHash>> {
        let place = (seed.hash_one(name) % self.order.len().max(1) as u64) as usize;
        self.order.get(place).map(Arc::clone)
    }
}

/// The text of a password file with the line of one user replaced, added at the end, or, without a new one, removed; comments and
/// the order of the others stay. False where nothing was there to be replaced.
pub fn with_user(text: &str, name: &str, line: Option<&str>) -> (String, bool) {
    let mut out = String::with_capacity(text.len() + line.map_or(0, str::len) + 1);
    let mut was_there = false;
    for old in text.strip_prefix('\u{feff}').unwrap_or(text).lines() {
        let is_user =
            !old.trim_start().starts_with('#') && old.rsplit_once(':').is_some_and(|(found, _)| found.trim() == name);
        let new = if is_user {
            line.filter(|_| !was_there)
        } else {
            Some(old)
        };
        was_there |= is_user;
        if let Some(new) = new {
            out.push_str(new);
            out.push('\n');
        }
    }
    if let (false, Some(line)) = (was_there, line) {
        out.push_str(line);
        out.push('\n');
    }
    (out, was_there)
}

/// What is wrong with a user name that is to be written into a file; `None` where nothing is.
pub fn wrong_with_name(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        Some("a user name has at least one character")
    } else if name.len() > 65_535 {
        Some("a user name has at most 65,535 bytes")
    } else if name.trim() != name || name.starts_with('#') {
        Some("a user name begins with no # and has no blanks around it: a password file cannot keep it")
    } else if name.contains(|c: char| c.is_control()) || name.contains(':') {
        Some("a user name has no colon, line end or other control character: a password file cannot keep it")
    } else {
        None
    }
}

#[cfg(test)]
#[path = "password/tests.rs"]
mod tests;
