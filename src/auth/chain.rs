//! Who may enter through which listener: the ways that it knows, one after the other; the first that decides, decides.
//!
//! ```text
//! certificate of the client, where it says who he is ─► a token ─► a user name of the password file ─► any other: who is asked elsewhere
//!                                                                  └─► no user name ─► anonymous, where allowed; else who is asked elsewhere
//! ```
//!
//! Who begins enhanced authentication goes none of these ways but [`super::enhanced`], certificate or not.

use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use super::enhanced::ScramSeed;
use super::password::{PasswordFile, PasswordHash};
use super::tenants::{Tenant, TenantLimits, Tenants};
use super::way::{Asked, Asker, Question, Shown, TOKEN_METHOD, Way, begins_like_token, looks_like_token};
use super::{Access, Answer, Answers, AuthStep, Authenticator, Identity, Refusal, Verdict};
use crate::protocol::ids::Token;
use crate::protocol::mount::Mount;
use crate::protocol::reason::ReasonCode;
use crate::protocol::version::Version;
use crate::router::RetainedLimits;
use crate::scram::Mechanism;
use crate::session::peer::{Peer, PeerCertificate};
use crate::session::request::ConnectRequest;

/// What of a certificate is a user name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateName {
    /// The common name of its subject.
    CommonName,
    /// The first of its alternative names: a DNS name, e-mail address, URI or IP address.
    AlternativeName,
    /// The whole subject as text: `O=Example, CN=device-7`, as it stands in the certificate.
    Subject,
}

impl CertificateName {
    fn of(self, certificate: &PeerCertificate) -> Option<&str> {
        let name = match self {
            Self::CommonName => certificate.common_name.as_deref(),
            Self::AlternativeName => certificate.alternative_names.first().map(String::as_str),
            Self::Subject => Some(certificate.subject.as_str()),
        };
        name.filter(|name| !name.is_empty())
    }
}

/// The ways into one listener.
#[derive(Clone, Debug, Default)]
pub struct Entrance {
    /// What of a verified certificate of the client is its user name, and no password asked for; `None`: nothing.
    pub certificate_name: Option<CertificateName>,
    /// Asked about clients that show a token.
    pub tokens: Option<Arc<dyn Way>>,
    /// Users with passwords; `None` where none are configured: then a user name is believed, where anonymous clients are let in and no
    /// other way is there.
    pub passwords: Option<Arc<PasswordFile>>,
    /// Methods of enhanced authentication that those may use of them who have a credential for it.
    pub scram: Vec<Mechanism>,
    /// Tokens may be shown by enhanced authentication, too, and a new one before the old one ends.
    pub takes_tokens_again: bool,
    /// Asked about clients that nothing else decides about.
    pub elsewhere: Option<Arc<dyn Way>>,
    /// Clients without a user name are let in.
    pub allows_anonymous: bool,
}

/// The entrances of all listeners, by their names.
pub type Entrances = Vec<(Box<str>, Entrance)>;

impl Entrance {
    /// Asked about tokens that are shown by enhanced authentication, where they may be.
    fn token_method(&self) -> Option<&Arc<dyn Way>> {
        self.tokens.as_ref().filter(|_| self.takes_tokens_again)
    }

    /// Whether a user name that nothing is asked for is believed.
    pub const fn believes_names(&self) -> bool {
        self.allows_anonymous && self.passwords.is_none() && self.tokens.is_none() && self.elsewhere.is_none()
    }
}

/// Why a client is refused whose password or token cannot even wait to be checked.
pub const TOO_MANY_CHECKS: &str = "too_many_password_checks";
/// The same of a token.
pub const TOO_MANY_TOKEN_CHECKS: &str = "too_many_token_checks";

/// A password that is to be checked; it takes so long that others do it.
pub struct PasswordCheck {
    /// Whom the answer is for. Addresses take turns.
    pub asker: Asker,
    /// What the client says.
    pub password: Box<[u8]>,
    /// What it is compared with.
    pub hash: Arc<PasswordHash>,
    /// The answer if it is right.
    pub admit: Verdict,
    /// The answer if it is wrong.
    pub refuse: Verdict,
}

/// Says nothing of the password.
impl core::fmt::Debug for PasswordCheck {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("PasswordCheck")
            .field("asker", &self.asker)
            .finish_non_exhaustive()
    }
}

/// Checks passwords elsewhere.
pub trait PasswordChecker: Send + Sync {
    /// Where answers go.
    fn attach(&self, answers: Arc<dyn Answers>);

    /// Takes a check; false when too many wait already.
    fn check(&self, check: PasswordCheck) -> bool;
}

/// An authenticator with a chain for each listener, which can be replaced while clients are connected.
pub struct Chain {
    entrances: RwLock<Arc<Entrances>>,
    tenants: RwLock<Arc<Tenants>>,
    generation: Arc<AtomicU64>,
    checker: Arc<dyn PasswordChecker>,
    /// What an MQTT 5 client is told whose user name or password is wrong.
    wrong_password: ReasonCode,
    /// Without it there is no enhanced authentication.
    pub(super) scram_seed: Option<ScramSeed>,
    /// Nobody outside can tell which decoy he gets.
    seed: foldhash::fast::RandomState,
}

impl core::fmt::Debug for Chain {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Chain")
            .field("entrances", &self.current())
            .finish_non_exhaustive()
    }
}

impl Chain {
    /// Begins with these. Password files must have been read with `seed`, so that their stamps compare.
    pub fn new(entrances: Entrances, checker: Arc<dyn PasswordChecker>, seed: foldhash::fast::RandomState) -> Self {
        Self {
            entrances: RwLock::new(Arc::new(entrances)),
            tenants: RwLock::default(),
            generation: Arc::default(),
            checker,
            wrong_password: ReasonCode::BadUserNameOrPassword,
            scram_seed: None,
            seed,
        }
    }

    /// Tells MQTT 5 clients whose user name or password is wrong this instead of 0x86.
    #[must_use]
    pub const fn with_wrong_password(mut self, reason: ReasonCode) -> Self {
        self.wrong_password = reason;
        self
    }

    /// Lets users enter by SCRAM, too.
    #[must_use]
    pub const fn with_scram(mut self, seed: ScramSeed) -> Self {
        self.scram_seed = Some(seed);
        self
    }

    /// Whose clients are.
    #[must_use]
    pub fn with_tenants(mut self, tenants: Tenants) -> Self {
        self.tenants = RwLock::new(Arc::new(tenants));
        self
    }

    /// Counts its generations there, where others move it, too: ways whose answers may be other ones than before.
    #[must_use]
    pub fn with_generation(mut self, generation: Arc<AtomicU64>) -> Self {
        self.generation = generation;
        self
    }

    /// Replaces them; clients that were let in for what is not there any more are told to go.
    pub fn replace(&self, entrances: Entrances) {
        let mut current = self.entrances.write().unwrap_or_else(PoisonError::into_inner);
        let before = mem::replace(&mut *current, Arc::new(entrances));
        self.generation.fetch_add(1, Ordering::Release);
        drop(current);
        drop(before); // which may take long
    }

    /// Replaces the entrances, the tenants, whose clients are told to go where they belong to another one now, or to none any more, and
    /// whatever else `and` replaces, as one: who has seen something of it and looks at the generations sees that they have moved, and whatever
    /// he asks then is of the new ones.
    pub fn replace_all(&self, entrances: Entrances, tenants: Tenants, and: impl FnOnce()) {
        let mut all = self.entrances.write().unwrap_or_else(PoisonError::into_inner);
        let mut whose = self.tenants.write().unwrap_or_else(PoisonError::into_inner);
        and();
        let before = mem::replace(&mut *all, Arc::new(entrances));
        let belonged = mem::replace(&mut *whose, Arc::new(tenants));
        self.generation.fetch_add(1, Ordering::Release);
        drop((all, whose));
        drop((before, belonged));
    }

    /// The tenants as they are now.
    pub fn tenants(&self) -> Arc<Tenants> {
        Arc::clone(&self.tenants.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The entrances as they are now.
    pub fn current(&self) -> Arc<Entrances> {
        Arc::clone(&self.entrances.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// `takes_tokens`: a wrong password that begins as a token does is a token that is broken.
    fn check(&self, name: &str, file: &PasswordFile, takes_tokens: bool, question: &Question<'_>) -> Answer<Verdict> {
        let request = question.request;
        let is_token = takes_tokens && request.password.as_deref().is_some_and(begins_like_token);
        let user = file.get(name);
        let (hash, why) = match user.map(|user| &user.entry.hash) {
            Some(Some(hash)) if is_token => (Some(Arc::clone(hash)), "token_malformed"),
            Some(Some(hash)) => (Some(Arc::clone(hash)), "bad_password"),
            Some(None) => (file.decoy(name, &self.seed), ONLY_SCRAM),
            None if is_token => (file.decoy(name, &self.seed), "token_malformed"),
            None => (file.decoy(name, &self.seed), "unknown_user"),
        };
        let user = user.filter(|user| user.entry.hash.is_some());
        let refuse = self.refused_password(request.version, why);
        // Where there are no users at all there is nothing to tell one name from another by. A missing password is no guess, and an
        // empty one is none, whatever a file says.
        let password = request.password.as_ref().filter(|password| !password.is_empty());
        let (Some(hash), Some(password)) = (hash, password) else {
            return Answer::Ready(refuse);
        };
        let admit = match user {
            Some(user) => Verdict::Admit(Identity {
                user_name: Some(name.into()),
                stamp: Some(user.stamp),
                ..Identity::default()
            }),
            None => refuse.clone(),
        };
        let is_taken = self.checker.check(PasswordCheck {
            asker: question.asker(),
            password: password.clone(),
            hash,
            admit,
            refuse,
        });
        if is_taken {
            Answer::Pending
        } else {
            refuse_with(ReasonCode::QuotaExceeded, TOO_MANY_CHECKS)
        }
    }
}

impl Chain {
    /// In MQTT 3.1.1 code 4 is for data that is malformed (table 3.1); mosquitto, too, answers a wrong password with 5.
    const fn wrong_password(&self, version: Version) -> ReasonCode {
        if version.has_properties() {
            self.wrong_password
        } else {
            ReasonCode::NotAuthorized
        }
    }

    /// A token in the data of CONNECT or AUTH.
    fn take_token(&self, way: &Arc<dyn Way>, step: &mut AuthStep<'_>, token: Token) -> Answer<Verdict> {
        let wrong = if step.is_again {
            ReasonCode::NotAuthorized
        } else {
            self.wrong_password(Version::V5)
        };
        let text = step.data.and_then(|data| simdutf8::basic::from_utf8(data).ok());
        let Some(text) = text.filter(|text| looks_like_token(text)) else {
            return refuse_with(wrong, NO_TOKEN);
        };
        // It is waited for as long as there is the exchange.
        let presence = Arc::new(());
        let asker = Asker {
            token,
            presence: Arc::downgrade(&presence),
            from: step.peer.ip,
            user_name: step.user_name.map(Into::into),
        };
        step.exchange.state = Some(Box::new(presence));
        let asked = way.show(&Shown {
            text,
            client_id: step.client_id,
            asker,
            wrong,
        });
        match asked {
            Asked::Said(verdict) => Answer::Ready(verdict),
            Asked::Later => Answer::Pending,
            Asked::NotMine => refuse_with(wrong, NO_TOKEN),
        }
    }

    pub(super) const fn refused_password(&self, version: Version, why: &'static str) -> Verdict {
        let reason = self.wrong_password(version);
        Verdict::Refuse(Refusal { reason, why })
    }
}

impl Authenticator for Chain {
    fn connect(&self, request: &ConnectRequest, peer: &Peer, token: Token) -> Answer<Verdict> {
        let entrances = self.current();
        let Some((_, entrance)) = entrances.iter().find(|(name, _)| **name == *peer.rules.name) else {
            return refuse_with(ReasonCode::NotAuthorized, "listener_not_configured");
        };
        if let (Some(part), Some(certificate)) = (entrance.certificate_name, &peer.certificate)
            && let Some(name) = part.of(certificate)
        {
            return admit(Some(name), false);
        }
        let question = Question {
            request,
            peer,
            token,
            wrong: self.wrong_password(request.version),
        };
        if let Some(answer) = ask(entrance.tokens.as_ref(), &question) {
            return answer;
        }
        let elsewhere = entrance.elsewhere.as_ref();
        match (&request.user_name, &entrance.passwords) {
            (Some(name), Some(file)) if elsewhere.is_none() || file.get(name).is_some() => {
                self.check(name, file, entrance.tokens.is_some(), &question)
            }
            (Some(name), None) if entrance.believes_names() => admit(Some(name), true),
            (None, _) if entrance.allows_anonymous => admit(None, false),
            (name, _) => ask(elsewhere, &question).unwrap_or_else(|| match name {
                Some(_) if entrance.tokens.is_some() => refuse_with(question.wrong, NO_TOKEN),
                Some(_) => refuse_with(question.wrong, "unknown_user"),
                None => refuse_with(ReasonCode::NotAuthorized, "anonymous_disabled"),
            }),
        }
    }

    fn knows_method(&self, method: &str, peer: &Peer) -> bool {
        let entrances = self.current();
        let entrance = entrance_of(&entrances, peer);
        if method == TOKEN_METHOD {
            return entrance.is_some_and(|entrance| entrance.token_method().is_some());
        }
        let mechanism = Mechanism::from_name(method).filter(|_| self.scram_seed.is_some());
        mechanism.is_some_and(|mechanism| entrance.is_some_and(|entrance| entrance.offers(mechanism)))
    }

    fn continue_with(&self, step: &mut AuthStep<'_>, token: Token) -> Answer<Verdict> {
        let entrances = self.current();
        let way = entrance_of(&entrances, step.peer).and_then(Entrance::token_method);
        if let Some(way) = way.filter(|_| step.method == TOKEN_METHOD) {
            return self.take_token(way, step, token);
        }
        let mechanism = Mechanism::from_name(step.method);
        Answer::Ready(match (entrance_of(&entrances, step.peer), mechanism) {
            (Some(entrance), Some(mechanism)) if entrance.offers(mechanism) => self.scram(mechanism, entrance, step),
            // It was offered when the client connected.
            _ => Verdict::Refuse(Refusal {
                reason: ReasonCode::BadAuthenticationMethod,
                why: "unknown_method",
            }),
        })
    }

    fn attach(&self, answers: Arc<dyn Answers>) {
        self.checker.attach(answers);
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    fn lists(&self, user_name: &str, peer: &Peer) -> Option<bool> {
        let entrances = self.current();
        if let Some((_, entrance)) = entrances.iter().find(|(name, _)| **name == *peer.rules.name) {
            let certified = entrance.certificate_name.zip(peer.certificate.as_deref());
            if certified.and_then(|(part, certificate)| part.of(certificate)).is_some() {
                return None;
            }
            return Some(entrance.passwords.as_ref()?.get(user_name).is_some());
        }
        // The listener is not there any more: he may be in any list.
        let mut files = entrances.iter().filter_map(|(_, entrance)| entrance.passwords.as_ref());
        let mut files = [files.next()?].into_iter().chain(files);
        Some(files.any(|file| file.get(user_name).is_some()))
    }

    fn mount_of(&self, who: &Access<'_>) -> Result<Option<Box<str>>, &'static str> {
        self.tenants().mount_of(who)
    }

    fn has_tenants(&self) -> bool {
        self.tenants().are_there()
    }

    fn tenant_limits(&self, mount: Mount<'_>) -> TenantLimits {
        self.tenants().limits_of(mount)
    }

    fn retained_shares(&self) -> Vec<(Box<str>, RetainedLimits)> {
        let tenants = self.tenants();
        let bounded = tenants.list().iter().filter(|tenant| {
            let limits = &tenant.limits;
            limits.retained_messages_max != usize::MAX || limits.retained_bytes_max != usize::MAX
        });
        let share = |tenant: &Tenant| {
            let limits = RetainedLimits {
                messages_max: tenant.limits.retained_messages_max,
                bytes_max: tenant.limits.retained_bytes_max,
            };
            (tenant.mount.clone(), limits)
        };
        bounded.map(share).collect()
    }

    fn stands(&self, user_name: Option<&str>, stamp: u64, peer: &Peer) -> bool {
        let entrances = self.current();
        let Some((_, entrance)) = entrances.iter().find(|(name, _)| **name == *peer.rules.name) else {
            return false;
        };
        let certificate = peer.certificate.as_deref();
        let certified = entrance.certificate_name.zip(certificate);
        if let (NO_PASSWORD, Some(name)) = (stamp, certified.and_then(|(part, certificate)| part.of(certificate))) {
            return user_name == Some(name);
        }
        let others = [&entrance.tokens, &entrance.elsewhere];
        if others.into_iter().flatten().any(|way| way.stands(stamp)) {
            return true;
        }
        // As it was decided in `connect`, without the password.
        match (user_name, &entrance.passwords) {
            (Some(name), Some(file)) => file.get(name).is_some_and(|user| user.stamp == stamp),
            (Some(_), None) => entrance.believes_names(),
            (None, _) => entrance.allows_anonymous,
        }
    }
}

fn entrance_of<'a>(entrances: &'a Entrances, peer: &Peer) -> Option<&'a Entrance> {
    let (_, entrance) = entrances.iter().find(|(name, _)| **name == *peer.rules.name)?;
    Some(entrance)
}

/// Why a user is refused who shows a password and may enter by SCRAM only.
pub const ONLY_SCRAM: &str = "only_scram";

/// Why a client is refused that shows something else where only tokens are taken.
pub const NO_TOKEN: &str = "no_token";

/// What a way says; `None` where there is none, or it has nothing to say.
fn ask(way: Option<&Arc<dyn Way>>, question: &Question<'_>) -> Option<Answer<Verdict>> {
    match way?.ask(question) {
        Asked::Said(verdict) => Some(Answer::Ready(verdict)),
        Asked::Later => Some(Answer::Pending),
        Asked::NotMine => None,
    }
}

/// The stamp of who was let in without a password. A password's is this by chance once in 2^64, another way's never.
pub const NO_PASSWORD: u64 = 0;

fn admit(user_name: Option<&str>, is_believed: bool) -> Answer<Verdict> {
    Answer::Ready(Verdict::Admit(Identity {
        user_name: user_name.map(Into::into),
        is_believed,
        stamp: Some(NO_PASSWORD),
        ..Identity::default()
    }))
}

fn refuse_with(reason: ReasonCode, why: &'static str) -> Answer<Verdict> {
    Answer::Ready(Verdict::Refuse(Refusal { reason, why }))
}

#[cfg(test)]
#[path = "chain/tests.rs"]
mod tests;
