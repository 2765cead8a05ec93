//! The files that say who may enter and what he may do: read together, watched, and taken over all or none.

mod asked;

use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::mem;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::{error, info, warn};

use super::hashing::{HashingOptions, HashingPool, random};
use super::pool::AnswersTo;
use super::token::Issuers;
use super::ways::{Backends, HttpAsked, TokenIssuer};
use crate::auth::acl_file::AclFile;
use crate::auth::chain::{CertificateName, Chain, Entrance, Entrances};
use crate::auth::enhanced::ScramSeed;
use crate::auth::password::PasswordFile;
use crate::auth::rule::Rule;
use crate::auth::rules::{LiveRules, Rules, Scope, WideSubscriptions};
use crate::auth::tenants::{Tenant, Tenants};
use crate::protocol::reason::ReasonCode;
use crate::scram::Mechanism;

/// Who may enter and what he may do.
#[derive(Clone, Debug, Default)]
pub struct AccessOptions {
    /// Every listener, with what is its own.
    pub listeners: Vec<ListenerAccess>,
    /// Rules of the configuration, for all listeners.
    pub rules: Vec<Rule>,
    /// mosquitto's rules for listeners that have no file of their own.
    pub acl_file: Option<PathBuf>,
    /// What becomes of a subscription to more than its client may receive.
    pub wide_subscriptions: WideSubscriptions,
    /// Users who read `$SYS` from anywhere.
    pub admins: Vec<Box<str>>,
    /// Everybody may read `$SYS`.
    pub is_sys_public: bool,
    /// MQTT 5 clients whose user name or password is wrong are told 0x87, as by mosquitto, instead of 0x86.
    pub hides_wrong_password: bool,
    /// Whose tokens are taken.
    pub tokens: Vec<TokenIssuer>,
    /// Who is asked; of several for one listener the first.
    pub http: Vec<HttpAsked>,
    /// Clients that are kept apart from all others.
    pub tenants: Vec<Tenant>,
}

/// Who may enter through one listener.
#[derive(Clone, Debug, Default)]
pub struct ListenerAccess {
    /// Its name.
    pub name: Box<str>,
    /// Where it is bound and what is spoken there, as text: [`LiveAccess::reload`] takes over nothing for another one of the same name.
    pub bound: Box<str>,
    /// Users with passwords.
    pub password_file: Option<PathBuf>,
    /// mosquitto's rules, in the place of the file for all.
    pub acl_file: Option<PathBuf>,
    /// Clients without a user name are let in.
    pub allows_anonymous: bool,
    /// What of a verified certificate is the user name.
    pub certificate_name: Option<CertificateName>,
    /// Methods of enhanced authentication, offered where a user of the file can use them.
    pub scram: Vec<Mechanism>,
    /// Tokens are taken by enhanced authentication, too, and again while their clients are connected.
    pub takes_tokens_again: bool,
}

/// Largest file that is read, bytes.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Changes that are logged one by one.
const CHANGES_LOGGED_MAX: usize = 20;

/// What is wrong with a file, or strange about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{}: {message}", file.display(), line.map_or_else(String::new, |line| format!(":{line}")))]
pub struct AccessProblem {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: Option<u32>,
    /// What, and what to do about it.
    pub message: String,
    /// It may be over without a change of the file: too many open files, a device that is away for a moment.
    pub is_passing: bool,
}

/// What the files say.
#[derive(Debug)]
pub struct Access {
    /// Who may enter.
    pub entrances: Entrances,
    /// What he may do.
    pub rules: Rules,
    /// Whom he belongs to.
    pub tenants: Tenants,
    /// Whose tokens are taken on each listener, in their order.
    pub issuers: Vec<Arc<Issuers>>,
    /// What is strange.
    pub warnings: Vec<AccessProblem>,
}

impl AccessOptions {
    /// Every file, each once.
    pub fn files(&self) -> Vec<&Path> {
        let own = self
            .listeners
            .iter()
            .flat_map(|listener| [&listener.password_file, &listener.acl_file]);
        let keys = self.tokens.iter().filter_map(|issuer| issuer.keys.file());
        let authorities = self
            .http
            .iter()
            .filter_map(|asked| asked.options.client.ca_file.as_ref());
        let all = own.chain([&self.acl_file]).flatten().chain(keys).chain(authorities);
        let mut files: Vec<_> = all.map(PathBuf::as_path).collect();
        files.sort_unstable();
        files.dedup();
        files
    }

    /// Whether a token or a program may name a tenant.
    fn may_name_tenants(&self) -> bool {
        let mut tokens = self.tokens.iter().map(|issuer| &issuer.options);
        !self.http.is_empty() || tokens.any(|token| token.tenant_claim.is_some())
    }

    /// Reads every file, to look at what they say. Stamps of users are made with `seed`.
    ///
    /// # Errors
    /// All that is wrong with any of them.
    pub fn read(&self, seed: &foldhash::fast::RandomState) -> Result<Access, Vec<AccessProblem>> {
        self.read_for(seed, &Backends::new(&AnswersTo::default()))
    }

    /// Reads every file, for a broker with these back ends.
    fn read_for(&self, seed: &foldhash::fast::RandomState, backends: &Backends) -> Result<Access, Vec<AccessProblem>> {
        let mut reading = Reading {
            seed,
            passwords: Vec::new(),
            warnings: Vec::new(),
            problems: Vec::new(),
        };
        let mut entrances = Entrances::new();
        let mut rules = self.rules.clone();
        let (mut issuers, mut rights) = (Vec::new(), Vec::new());
        let ways = reading.ways(self, backends);
        for (listener, ways) in self.listeners.iter().zip(ways) {
            issuers.push(ways.issuers);
            rights.extend(ways.rights.map(|one| (listener.name.clone(), one)));
            let entrance = Entrance {
                tokens: ways.tokens,
                elsewhere: ways.elsewhere,
                certificate_name: listener.certificate_name,
                scram: listener.scram.clone(),
                takes_tokens_again: listener.takes_tokens_again,
                passwords: listener
                    .password_file
                    .as_ref()
                    .and_then(|path| reading.password_file(path)),
                allows_anonymous: listener.allows_anonymous,
            };
            entrances.push((listener.name.clone(), entrance));
            if let Some(path) = &listener.acl_file {
                rules.extend(reading.acl_file(path, vec![listener.name.clone()]));
            }
        }
        let without = self.listeners.iter().filter(|listener| listener.acl_file.is_none());
        let without: Vec<_> = without.map(|listener| listener.name.clone()).collect();
        let scope = match &self.acl_file {
            _ if !self.rules.is_empty() => Scope::Everywhere,
            Some(_) => Scope::Everywhere, // who has no file of his own has this one
            None if without.len() == self.listeners.len() => Scope::Nowhere,
            None => Scope::Except(without.clone()),
        };
        if let Some(path) = &self.acl_file {
            rules.extend(reading.acl_file(path, without));
        }
        if !reading.problems.is_empty() {
            return Err(reading.problems);
        }
        Ok(Access {
            entrances,
            rules: Rules::new(rules, scope, self.wide_subscriptions, self.admins.clone())
                .with_public_sys(self.is_sys_public)
                .with_elsewhere(rights)
                .with_listeners(self.listeners.iter().map(|listener| listener.name.clone()).collect()),
            tenants: Tenants::new(self.tenants.clone()).with_others(self.may_name_tenants()),
            issuers,
            warnings: reading.warnings,
        })
    }
}

struct Reading<'a> {
    seed: &'a foldhash::fast::RandomState,
    /// Several listeners have the same one, mostly.
    passwords: Vec<(PathBuf, Option<Arc<PasswordFile>>)>,
    warnings: Vec<AccessProblem>,
    problems: Vec<AccessProblem>,
}

impl Reading<'_> {
    fn password_file(&mut self, path: &Path) -> Option<Arc<PasswordFile>> {
        if let Some((_, file)) = self.passwords.iter().find(|(known, _)| known == path) {
            return file.clone();
        }
        let file = self.text(path, "`sundew user add NAME` makes one").and_then(|text| {
            let read = PasswordFile::parse(&text, self.seed);
            read.map_err(|problems| self.reject(path, problems)).ok().map(Arc::new)
        });
        self.passwords.push((path.to_owned(), file.clone()));
        file
    }

    /// The rules of a file, for these listeners only.
    fn acl_file(&mut self, path: &Path, listeners: Vec<Box<str>>) -> Vec<Rule> {
        if listeners.is_empty() {
            return Vec::new();
        }
        let Some(text) = self.text(path, "check the path") else {
            return Vec::new();
        };
        match AclFile::parse(&path.display().to_string(), &text) {
            Ok(mut file) => {
                for rule in &mut file.rules {
                    rule.listeners.clone_from(&listeners);
                }
                let at = |problem| of_line(path, problem);
                self.warnings.extend(file.warnings.into_iter().map(at));
                file.rules
            }
            Err(problems) => {
                self.reject(path, problems);
                Vec::new()
            }
        }
    }

    fn reject(&mut self, path: &Path, problems: Vec<crate::auth::place::FileProblem>) {
        self.problems
            .extend(problems.into_iter().map(|problem| of_line(path, problem)));
    }

    fn text(&mut self, path: &Path, if_missing: &str) -> Option<String> {
        match read_text(path) {
            Ok(text) => Some(text),
            Err(error) => {
                let hint = match error.kind() {
                    io::ErrorKind::NotFound => if_missing,
                    io::ErrorKind::PermissionDenied => {
                        "let the user that runs sundew read it, and nobody else write it"
                    }
                    _ => "it must be a text file in UTF-8",
                };
                self.problems.push(AccessProblem {
                    file: path.to_owned(),
                    line: None,
                    message: format!("cannot read it: {error}; {hint}"),
                    // A file that comes back looks different, and one that is no good stays so until it does.
                    is_passing: error.raw_os_error().is_some() && error.kind() != io::ErrorKind::NotFound,
                });
                None
            }
        }
    }
}

fn of_line(path: &Path, problem: crate::auth::place::FileProblem) -> AccessProblem {
    AccessProblem {
        file: path.to_owned(),
        line: Some(problem.line),
        message: problem.message,
        is_passing: false,
    }
}

fn read_text(path: &Path) -> io::Result<String> {
    // A pipe would have us wait for who writes into it, and nobody hear a signal meanwhile.
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32; // bit 11
    let file = File::options().read(true).custom_flags(nonblocking).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    if metadata.mode() & 0o002 != 0 {
        let message = "everybody on this machine may write it, so it protects nothing";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    if metadata.len() > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("larger than {FILE_BYTES_MAX} bytes")));
    }
    let mut text = String::new();
    file.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// Tells one state of a file, or of a folder, from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint(Option<(u64, u64, u64, i64, i64, i64, i64)>);

impl Fingerprint {
    /// How it looks now.
    pub fn of(path: &Path) -> Self {
        let of = |file: Metadata| {
            let (modified, changed) = ((file.mtime(), file.mtime_nsec()), (file.ctime(), file.ctime_nsec()));
            (
                file.dev(),
                file.ino(),
                file.len(),
                modified.0,
                modified.1,
                changed.0,
                changed.1,
            )
        };
        Self(fs::metadata(path).ok().map(of))
    }

    /// The same file with nothing in it any more: who writes it anew has not come further. Who wants it empty replaces it.
    fn is_emptied_of(&self, before: &Self) -> bool {
        let (Some(now), Some(before)) = (self.0, before.0) else {
            return false;
        };
        (now.0, now.1) == (before.0, before.1) && now.2 == 0 && before.2 > 0
    }
}

/// Who may enter and what he may do, while the broker runs.
#[derive(Debug)]
pub struct LiveAccess {
    chain: Arc<Chain>,
    rules: Arc<LiveRules>,
    seed: foldhash::fast::RandomState,
    backends: Backends,
    watch: Mutex<Watch>,
}

/// What the files looked like.
#[derive(Debug)]
struct Watch {
    /// Which they are, and what is said of them.
    options: AccessOptions,
    /// When they were read.
    read: Vec<Fingerprint>,
    /// At the last look: who writes a file slowly is waited for.
    seen: Vec<Fingerprint>,
    /// When it was told that one of them had been emptied.
    told_empty: Vec<Fingerprint>,
    /// That one cannot be read has been told, and is tried again.
    is_failing: bool,
}

/// Why it does not begin.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// Files are wrong.
    #[error("{}", .0.first().map_or_else(String::new, ToString::to_string))]
    Files(Vec<AccessProblem>),
    /// The system gives no thread for passwords.
    #[error("cannot start a thread that checks passwords: {0}; is the limit of processes (ulimit -u) too low?")]
    Thread(#[from] io::Error),
    /// The system has no random numbers.
    #[error("the system has no random numbers; is getrandom(2) forbidden here?")]
    Random,
}

/// Why users and rules stay as they were.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// Those are for listeners that there are not.
    #[error("listeners have changed in the configuration, which counts at a restart only")]
    Listeners,
    /// Files are wrong.
    #[error("a file is wrong: {}", .0.first().map_or_else(String::new, ToString::to_string))]
    Files(Vec<AccessProblem>),
    /// Somebody is writing a file.
    #[error("a file changes while it is read")]
    Changing,
}

impl LiveAccess {
    /// Reads the files and starts what checks passwords.
    ///
    /// # Errors
    /// See [`AccessError`].
    pub fn start(options: AccessOptions, hashing: &HashingOptions) -> Result<Self, AccessError> {
        let seed = foldhash::fast::RandomState::default();
        let looks = options.looks();
        let pool = Arc::new(HashingPool::start(hashing)?);
        let backends = Backends::new(pool.answers());
        let access = options.read_for(&seed, &backends).map_err(AccessError::Files)?;
        backends.start(&access.issuers);
        let mut secret = [0; 32];
        if !random(&mut secret) {
            return Err(AccessError::Random);
        }
        let mut chain =
            Chain::new(access.entrances, pool, seed.clone()).with_generation(Arc::clone(&backends.generation));
        chain = chain.with_scram(ScramSeed { secret, random });
        chain = chain.with_tenants(access.tenants);
        if options.hides_wrong_password {
            chain = chain.with_wrong_password(ReasonCode::NotAuthorized);
        }
        Ok(Self {
            chain: Arc::new(chain),
            rules: Arc::new(LiveRules::new(access.rules)),
            seed,
            backends,
            watch: Mutex::new(Watch {
                read: looks.clone(),
                seen: looks,
                told_empty: Vec::new(),
                is_failing: false,
                options,
            }),
        })
    }

    /// Decides who enters.
    pub const fn chain(&self) -> &Arc<Chain> {
        &self.chain
    }

    /// Decides what a client may do.
    pub const fn rules(&self) -> &Arc<LiveRules> {
        &self.rules
    }

    /// Looks whether a file has changed, and has come to rest since the last look; then reads all of them. True when something is
    /// different now: [`crate::broker::Broker::access_changed`] is to be called.
    pub fn look(&self) -> bool {
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        let now = watch.options.looks();
        let is_at_rest = now == watch.seen;
        watch.seen.clone_from(&now);
        if !is_at_rest || now == watch.read {
            return false;
        }
        let files = watch.options.files();
        let mut changes = files.into_iter().zip(watch.read.iter().zip(&now));
        if let Some((file, _)) = changes.find(|(_, (read, now))| now.is_emptied_of(read)) {
            if watch.told_empty != now {
                warn!(file = %file.display(), "emptied: users and rules stay as they were until it is filled or replaced, or SIGHUP");
                watch.told_empty = now;
            }
            return false;
        }
        self.read_again(&mut watch, now, true).is_ok()
    }

    /// Reads all files again, changed or not, and, where there are, with other options: files and rules of a configuration that was read
    /// again. Answers how many rules there are. Listeners stay bound as they are, so options for others are
    /// refused: what was meant for one that is not there yet must not open one that is.
    ///
    /// # Errors
    /// [`ReloadError`]; everything stays as it was.
    pub fn reload(&self, options: Option<AccessOptions>) -> Result<usize, ReloadError> {
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        if options.as_ref().is_some_and(|new| new.bound() != watch.options.bound()) {
            let error = ReloadError::Listeners;
            error!("users and rules stay as they were: {error}");
            return Err(error);
        }
        watch.is_failing = false; // who asks is told
        // Who asks for it may have changed what a program says.
        self.backends.forget_answers();
        let Some(options) = options else {
            let now = watch.options.looks();
            return self.read_again(&mut watch, now, false);
        };
        let (before, were_read) = (mem::replace(&mut watch.options, options), watch.read.clone());
        let now = watch.options.looks();
        let read = self.read_again(&mut watch, now, false);
        if read.is_err() {
            // Of the files that go on counting nothing was taken over: what has changed in them is looked at as before.
            (watch.options, watch.read) = (before, were_read);
        }
        read
    }

    /// `waits`: what changes while it is read is left for another time.
    fn read_again(&self, watch: &mut Watch, looks: Vec<Fingerprint>, waits: bool) -> Result<usize, ReloadError> {
        let before = mem::replace(&mut watch.read, looks); // a file that is wrong is told about once
        let read = watch.options.read_for(&self.seed, &self.backends);
        if waits && watch.options.looks() != watch.read {
            return Err(ReloadError::Changing);
        }
        let was_failing = mem::take(&mut watch.is_failing);
        let access = match read {
            Ok(access) => access,
            Err(problems) => {
                watch.is_failing = problems.iter().any(|problem| problem.is_passing);
                if watch.is_failing {
                    watch.read = before; // it will not look different when that is over
                }
                if !(watch.is_failing && was_failing) {
                    let first = problems.first().map(ToString::to_string);
                    error!(
                        problems = problems.len(),
                        first, "users and rules stay as they were: a file is wrong"
                    );
                }
                return Err(ReloadError::Files(problems));
            }
        };
        for warning in &access.warnings {
            warn!("{warning}");
        }
        log_changes(&self.chain.current(), &access.entrances);
        let rules = access.rules.list().len();
        info!(rules, "users and rules read again");
        self.backends.start(&access.issuers);
        log_tenants(self.chain.tenants().list(), access.tenants.list());
        // Kept until all is replaced: what it takes to drop many rules, nobody waits for who connects.
        let rules_before = self.rules.current();
        let replace_rules = || self.rules.replace(access.rules);
        self.chain.replace_all(access.entrances, access.tenants, replace_rules);
        drop(rules_before);
        Ok(rules)
    }
}

impl AccessOptions {
    /// Which listeners there are, in any order.
    fn bound(&self) -> Vec<(&str, &str)> {
        let listeners = self.listeners.iter();
        let mut all: Vec<_> = listeners.map(|one| (&*one.name, &*one.bound)).collect();
        all.sort_unstable();
        all
    }

    fn looks(&self) -> Vec<Fingerprint> {
        self.files().into_iter().map(Fingerprint::of).collect()
    }
}

/// Each tenant that has come, has gone, or has other members or limits.
fn log_tenants(old: &[Tenant], new: &[Tenant]) {
    let named = |list: &[Tenant], name: &str| list.iter().find(|one| *one.name == *name).cloned();
    for tenant in new {
        match named(old, &tenant.name) {
            None => info!(tenant = &*tenant.name, "tenant added"),
            Some(before) if before != *tenant => info!(tenant = &*tenant.name, "tenant changed"),
            Some(_) => {}
        }
    }
    for tenant in old.iter().filter(|one| named(new, &one.name).is_none()) {
        info!(tenant = &*tenant.name, "tenant removed");
    }
}

/// Each user that has come, has gone, or has another password.
fn log_changes(old: &Entrances, new: &Entrances) {
    let mut lines: Vec<(&'static str, String)> = Vec::new();
    let mut told: Vec<*const PasswordFile> = Vec::new();
    for (name, entrance) in new {
        let before = old.iter().find(|(known, _)| known == name);
        let before = before.and_then(|(_, entrance)| entrance.passwords.as_ref());
        let (Some(after), Some(before)) = (&entrance.passwords, before) else {
            continue;
        };
        if told.contains(&Arc::as_ptr(after)) {
            continue;
        }
        told.push(Arc::as_ptr(after));
        for (user, state) in after.users() {
            match before.get(user) {
                None => lines.push(("user added", user.to_owned())),
                Some(known) if known.stamp != state.stamp => lines.push(("password changed", user.to_owned())),
                Some(_) => {}
            }
        }
        let gone = before.users().filter(|(user, _)| after.get(user).is_none());
        lines.extend(gone.map(|(user, _)| ("user removed", user.to_owned())));
    }
    lines.sort();
    for (change, user) in lines.iter().take(CHANGES_LOGGED_MAX) {
        info!(user, "{change}");
    }
    if lines.len() > CHANGES_LOGGED_MAX {
        info!(
            more = lines.len() - CHANGES_LOGGED_MAX,
            "more users were added, changed or removed"
        );
    }
}

#[cfg(test)]
#[path = "access/tests.rs"]
mod tests;
