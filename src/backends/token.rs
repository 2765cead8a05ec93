//! JSON Web Tokens (RFC 7519): a client shows one in the place of a password, and is whom it names for as long as it is valid.
//!
//! A token is checked on a thread of its own, as a signature costs up to a tenth of a millisecond; how many wait is bounded.

pub mod claims;
pub mod keys;

use core::hash::BuildHasher;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::Value;

use super::jwks::JwksUrl;
use super::pool::Pool;
use crate::auth::chain::TOO_MANY_TOKEN_CHECKS;
use crate::auth::grants::Grants;
use crate::auth::way::{Asked, Asker, Question, Shown, TOKEN_TOO_LARGE, Way, looks_like_token};
use crate::auth::{Identity, Refusal, Verdict};
use crate::protocol::reason::ReasonCode;
use crate::session::request::ConnectRequest;
use claims::Claims;
use keys::{Key, Keys, NoKey};

/// What is wanted of tokens of one issuer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TokenOptions {
    /// Where it is configured: `FILE:LINE`.
    pub place: Box<str>,
    /// What `iss` must be; `None`: anything.
    pub issuer: Option<Box<str>>,
    /// One of these must be in `aud`; empty: anything.
    pub audiences: Vec<Box<str>>,
    /// How far clocks may differ, milliseconds.
    pub leeway_ms: u64,
    /// The claim that is the user name.
    pub user_claim: Box<str>,
    /// The claim that the client id must be equal to.
    pub client_id_claim: Option<Box<str>>,
    /// The claim with rules for this client. A token without it brings none, and what the configuration does not allow is denied.
    pub acl_claim: Option<Box<str>>,
    /// The claim that names the client's tenant.
    pub tenant_claim: Option<Box<str>>,
    /// A token without `exp` is refused.
    pub wants_expiry: bool,
    /// The token is the user name, not the password.
    pub is_user_name: bool,
    /// Longest token, bytes.
    pub token_bytes_max: usize,
}

impl Default for TokenOptions {
    fn default() -> Self {
        Self {
            place: "".into(),
            issuer: None,
            audiences: Vec::new(),
            leeway_ms: 5000,
            user_claim: "sub".into(),
            client_id_claim: None,
            acl_claim: None,
            tenant_claim: None,
            wants_expiry: true,
            is_user_name: false,
            token_bytes_max: 8192,
        }
    }
}

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// It is longer than allowed.
    #[error("it is longer than token_bytes_max")]
    TooLarge,
    /// It is no JSON Web Token.
    #[error("it is no JSON Web Token in the compact form, or it has a critical header that is not known here")]
    Malformed,
    /// `iss` is not the one that is wanted.
    #[error("its issuer (iss) is not the one that is configured")]
    Issuer,
    /// `aud` is not one of those that are wanted.
    #[error("it is not for this broker: none of its audiences (aud) is configured")]
    Audience,
    /// Its algorithm is none, or not one of its key.
    #[error("its algorithm (alg) is not one of the key")]
    Algorithm,
    /// It names a key that is not known.
    #[error("it is signed with a key (kid) that is not known")]
    UnknownKey,
    /// There are no keys yet.
    #[error("there are no keys to check it with yet")]
    NoKeys,
    /// The signature is wrong.
    #[error("its signature is wrong")]
    Signature,
    /// Its time has passed.
    #[error("it has expired (exp)")]
    Expired,
    /// Its time has not come.
    #[error("it is not valid yet (nbf)")]
    NotYetValid,
    /// It never ends.
    #[error("it has no end (exp); see require_expiry")]
    NoExpiry,
    /// One of its moments is none.
    #[error("its {0} is no number of seconds since 1970")]
    Moment(&'static str),
    /// It names no user.
    #[error("it has no user name in the claim of user_claim")]
    NoUser,
    /// It is for another client.
    #[error("it is for another client id")]
    ClientId,
    /// It names no tenant.
    #[error("it has no tenant in the claim of tenant_claim")]
    NoTenant,
    /// Its ACL claim cannot be read.
    #[error("its ACL claim is none of the forms that are understood")]
    Acl,
}

impl TokenFault {
    /// The word in the log.
    pub const fn why(self) -> &'static str {
        match self {
            Self::TooLarge => TOKEN_TOO_LARGE,
            Self::Malformed | Self::Moment(_) => "token_malformed",
            Self::Issuer => "token_issuer",
            Self::Audience => "token_audience",
            Self::Algorithm => "token_algorithm",
            Self::UnknownKey => "token_unknown_key",
            Self::NoKeys => "token_no_keys",
            Self::Signature => "token_signature",
            Self::Expired => "token_expired",
            Self::NotYetValid => "token_not_yet_valid",
            Self::NoExpiry => "token_without_expiry",
            Self::NoUser => "token_without_user",
            Self::ClientId => "token_client_id",
            Self::NoTenant => "token_without_tenant",
            Self::Acl => "token_acl",
        }
    }

    fn refusal(self, wrong: ReasonCode) -> Refusal {
        let reason = match self {
            Self::NoKeys => ReasonCode::ServerUnavailable,
            Self::ClientId => ReasonCode::NotAuthorized,
            _ => wrong,
        };
        Refusal {
            reason,
            why: self.why(),
        }
    }
}

impl From<NoKey> for TokenFault {
    fn from(no: NoKey) -> Self {
        match no {
            NoKey::Empty => Self::NoKeys,
            NoKey::Unknown => Self::UnknownKey,
            NoKey::Algorithm => Self::Algorithm,
            NoKey::Signature => Self::Signature,
        }
    }
}

/// What a token says, before anything of it is believed.
struct Parsed<'a> {
    /// What is signed.
    message: &'a [u8],
    signature: &'a str,
    key_id: Option<Box<str>>,
    /// `None` for `none`, and for what is not known.
    algorithm: Option<Algorithm>,
    claims: Claims,
}

impl<'a> Parsed<'a> {
    fn of(token: &'a str) -> Option<Self> {
        let (message, signature) = token.rsplit_once('.')?;
        let (header, payload) = message.split_once('.')?;
        let header = object(header)?;
        // RFC 7515 section 4.1.11: none is understood.
        if header.contains_key("crit") {
            return None;
        }
        let key_id = match header.get("kid") {
            None => None,
            Some(id) => Some(id.as_str()?.into()),
        };
        Some(Self {
            message: message.as_bytes(),
            signature,
            key_id,
            algorithm: header.get("alg")?.as_str()?.parse().ok(),
            claims: object(payload)?,
        })
    }
}

fn object(part: &str) -> Option<Claims> {
    let json = URL_SAFE_NO_PAD.decode(part).ok()?;
    match serde_json::from_slice(&json).ok()? {
        Value::Object(object) => Some(object),
        _ => None,
    }
}

/// Where the keys of an issuer come from.
#[derive(Clone, Debug)]
pub enum KeySource {
    /// They are these, until configuration or files are read again.
    Fixed(Arc<Keys>),
    /// They are fetched.
    Url(Arc<JwksUrl>),
}

impl KeySource {
    fn keys(&self) -> Arc<Keys> {
        match self {
            Self::Fixed(keys) => Arc::clone(keys),
            Self::Url(url) => url.keys(),
        }
    }

    fn last(&self) -> Arc<Keys> {
        match self {
            Self::Fixed(keys) => Arc::clone(keys),
            Self::Url(url) => url.last(),
        }
    }
}

/// An issuer of tokens.
#[derive(Debug)]
pub struct Issuer {
    options: TokenOptions,
    keys: KeySource,
    /// What is wanted of its tokens, as a number: who was let in for something else does not stand.
    terms: u64,
}

impl Issuer {
    /// Of these keys.
    pub fn new(options: TokenOptions, keys: KeySource, seed: &impl BuildHasher) -> Self {
        let mut wanted = options.clone();
        wanted.place = "".into(); // a line more above it changes nothing
        let terms = seed.hash_one(wanted);
        Self { options, keys, terms }
    }

    /// What is wanted.
    pub const fn options(&self) -> &TokenOptions {
        &self.options
    }

    fn stamp_of(&self, key: &Key) -> u64 {
        (key.stamp ^ self.terms).max(1)
    }

    /// Whether one of its keys is that.
    fn stands(&self, stamp: u64) -> bool {
        self.keys.last().list().iter().any(|key| self.stamp_of(key) == stamp)
    }

    fn is_of(&self, claims: &Claims) -> bool {
        let issuer = claims.get("iss").and_then(Value::as_str);
        self.options.issuer.is_none() || self.options.issuer.as_deref() == issuer
    }

    fn check(&self, token: &Parsed<'_>, client_id: &str, now_ms: u64) -> Result<Identity, TokenFault> {
        let keys = self.keys.keys();
        let key = keys.signer(token.key_id.as_deref(), token.algorithm, token.message, token.signature)?;
        let lifetime_ms = self.lifetime_ms(&token.claims, now_ms)?;
        let options = &self.options;
        if !options.audiences.is_empty() && !self.is_for_us(&token.claims) {
            return Err(TokenFault::Audience);
        }
        let claim = |name| claims::find(&token.claims, name);
        let user = claim(&options.user_claim)
            .and_then(claims::text)
            .filter(|name| !name.contains('\0')) // no name in MQTT has it [MQTT-1.5.4-2]
            .ok_or(TokenFault::NoUser)?;
        if let Some(name) = &options.client_id_claim
            && claim(name).and_then(claims::text).as_deref() != Some(client_id)
        {
            return Err(TokenFault::ClientId);
        }
        let rules = match &options.acl_claim {
            None => None,
            Some(name) => Some(match claim(name) {
                None => Vec::new(),
                Some(acl) => claims::rules(acl, &format!("token claim {name}")).ok_or(TokenFault::Acl)?,
            }),
        };
        let tenant = match &options.tenant_claim {
            None => None,
            Some(name) => Some(claim(name).and_then(claims::text).ok_or(TokenFault::NoTenant)?),
        };
        Ok(Identity {
            user_name: Some(user),
            stamp: Some(self.stamp_of(key)),
            grants: Some(Arc::new(Grants {
                claims: claims::values(&token.claims),
                rules,
                tenant,
            })),
            lifetime_ms,
            ..Identity::default()
        })
    }

    /// How long a token is still good for: until it would be refused, so who was disconnected for its end does not come back with it.
    fn lifetime_ms(&self, claims: &Claims, now_ms: u64) -> Result<Option<u64>, TokenFault> {
        let leeway_ms = self.options.leeway_ms;
        let moment = |name| match claims.get(name) {
            None => Ok(None),
            Some(value) => claims::moment_ms(value).map(Some).ok_or(TokenFault::Moment(name)),
        };
        if moment("nbf")?.is_some_and(|begin| begin > now_ms.saturating_add(leeway_ms)) {
            return Err(TokenFault::NotYetValid);
        }
        match moment("exp")? {
            None if self.options.wants_expiry => Err(TokenFault::NoExpiry),
            None => Ok(None),
            Some(end) => match end.saturating_add(leeway_ms).saturating_sub(now_ms) {
                0 => Err(TokenFault::Expired),
                left => Ok(Some(left)),
            },
        }
    }

    fn is_for_us(&self, claims: &Claims) -> bool {
        let is_ours = |value: &Value| {
            let audience = value.as_str();
            self.options.audiences.iter().any(|ours| Some(&**ours) == audience)
        };
        match claims.get("aud") {
            Some(Value::Array(list)) => list.iter().any(is_ours),
            Some(one) => is_ours(one),
            None => false,
        }
    }
}

/// The issuers whose tokens are taken on one listener.
#[derive(Debug, Default)]
pub struct Issuers(Vec<Arc<Issuer>>);

impl Issuers {
    /// These; the first decides that a token says it is from.
    pub const fn new(list: Vec<Arc<Issuer>>) -> Self {
        Self(list)
    }

    /// Whether none are configured.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Who shows a token, at a moment in milliseconds since 1970, and by which issuer's word.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn check(&self, token: &str, client_id: &str, now_ms: u64) -> Result<(Identity, &Issuer), TokenFault> {
        if self.0.iter().all(|issuer| token.len() > issuer.options.token_bytes_max) {
            return Err(TokenFault::TooLarge);
        }
        let parsed = Parsed::of(token).ok_or(TokenFault::Malformed)?;
        let of = self.0.iter().find(|issuer| issuer.is_of(&parsed.claims));
        let issuer = of.ok_or(TokenFault::Issuer)?;
        let identity = issuer.check(&parsed, client_id, now_ms)?;
        Ok((identity, issuer))
    }

    /// Whose keys have to be fetched, in the order of the issuers.
    pub fn urls(&self) -> impl Iterator<Item = &Arc<JwksUrl>> {
        self.0.iter().filter_map(|issuer| match &issuer.keys {
            KeySource::Url(url) => Some(url),
            KeySource::Fixed(_) => None,
        })
    }

    /// Whose keys may have changed since, where a token names one that is not known.
    fn url_for(&self, token: &str) -> Option<&Arc<JwksUrl>> {
        let parsed = Parsed::of(token)?;
        match &self.0.iter().find(|issuer| issuer.is_of(&parsed.claims))?.keys {
            KeySource::Url(url) => Some(url),
            KeySource::Fixed(_) => None,
        }
    }

    fn verdict(&self, shown: &str, client_id: &str, wrong: ReasonCode) -> Result<Verdict, TokenFault> {
        match self.check(shown, client_id, now_ms()) {
            Ok((identity, _)) => Ok(Verdict::Admit(identity)),
            Err(fault @ (TokenFault::UnknownKey | TokenFault::NoKeys)) => Err(fault),
            Err(fault) => Ok(Verdict::Refuse(fault.refusal(wrong))),
        }
    }

    /// The token that a client shows, where it shows one: as its password, or, where that is wanted, as its user name.
    fn shown(&self, request: &ConnectRequest) -> Option<Box<str>> {
        let is_taken = |is_user_name| self.0.iter().any(|issuer| issuer.options.is_user_name == is_user_name);
        let password = request.password.as_deref().filter(|_| is_taken(false));
        let password = password.and_then(|password| simdutf8::basic::from_utf8(password).ok());
        let user_name = request.user_name.as_deref().filter(|_| is_taken(true));
        let mut places = [password, user_name].into_iter().flatten();
        places.find(|text| looks_like_token(text)).map(Into::into)
    }
}

/// Checks tokens in passing.
#[derive(Debug)]
pub struct TokenWay {
    issuers: Arc<Issuers>,
    pool: Arc<Pool>,
}

impl TokenWay {
    /// Of these issuers, on those threads.
    pub const fn new(issuers: Arc<Issuers>, pool: Arc<Pool>) -> Self {
        Self { issuers, pool }
    }
}

impl Way for TokenWay {
    fn ask(&self, question: &Question<'_>) -> Asked {
        let request = question.request;
        match self.issuers.shown(request) {
            Some(shown) => self.look_at(shown, request.client_id.clone(), question.asker(), question.wrong),
            None => Asked::NotMine,
        }
    }

    fn show(&self, shown: &Shown<'_>) -> Asked {
        self.look_at(
            shown.text.into(),
            shown.client_id.into(),
            shown.asker.clone(),
            shown.wrong,
        )
    }

    fn stands(&self, stamp: u64) -> bool {
        self.issuers.0.iter().any(|issuer| issuer.stands(stamp))
    }
}

impl TokenWay {
    /// Has a token checked, and what comes of it told later.
    fn look_at(&self, shown: Box<str>, client_id: Box<str>, asker: Asker, wrong: ReasonCode) -> Asked {
        let issuers = Arc::clone(&self.issuers);
        let is_taken = self.pool.run(Box::new(move |answers| {
            if !asker.waits() {
                return;
            }
            let fault = match issuers.verdict(&shown, &client_id, wrong) {
                Ok(verdict) => return asker.tell(answers, verdict),
                Err(fault) => fault,
            };
            let refuse = |fault: TokenFault| Verdict::Refuse(fault.refusal(wrong));
            let Some(url) = issuers.url_for(&shown).cloned() else {
                return asker.tell(answers, refuse(fault));
            };
            let again_for = asker.clone();
            // Once more when the keys have been fetched.
            let again = url.after_fetch(Box::new(move |answers| {
                let verdict = issuers.verdict(&shown, &client_id, wrong);
                let verdict = verdict.unwrap_or_else(|fault| Verdict::Refuse(fault.refusal(wrong)));
                again_for.tell(answers, verdict);
            }));
            if !again {
                asker.tell(answers, too_many());
            }
        }));
        if is_taken {
            Asked::Later
        } else {
            Asked::Said(too_many())
        }
    }
}

const fn too_many() -> Verdict {
    Verdict::Refuse(Refusal {
        reason: ReasonCode::QuotaExceeded,
        why: TOO_MANY_TOKEN_CHECKS,
    })
}

/// Milliseconds since 1970, as this machine's clock has it.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "token/tests.rs"]
mod tests;
