//! Layer 3: may he? Who a client is, and what it may do. Mechanisms come as implementations of two traits.
//!
//! Who a client is: a [`chain::Chain`] for each listener, over [`password`] files, by password or by [`enhanced`] authentication, and other [`way`]s. What it may do: [`rules`] made of
//! [`rule`]s, from mosquitto's [`acl_file`], from the configuration, or brought by the client ([`grants`]). Whose topics it means: [`tenants`]. Who is kept out for
//! a while: [`bans`].

pub mod acl_file;
pub mod bans;
pub mod chain;
pub mod enhanced;
pub mod filter;
pub mod grants;
pub mod password;
pub mod place;
pub mod rule;
pub mod rules;
pub mod tenants;
pub mod way;

use core::fmt;
use core::net::IpAddr;
use std::sync::Arc;

use self::grants::Grants;
use self::tenants::TenantLimits;
use self::way::BackendEvent;
use crate::protocol::ids::{Token, WorkerId};
use crate::protocol::mount::Mount;
use crate::protocol::qos::QoS;
use crate::protocol::reason::ReasonCode;
use crate::protocol::topic::{TopicFilter, TopicName};
use crate::router::RetainedLimits;
use crate::session::connection::Connection;
use crate::session::enhanced::Exchange;
use crate::session::peer::Peer;
use crate::session::request::ConnectRequest;

/// An answer, or the promise of one: whoever says `Pending` calls back later with the token it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<T> {
    /// The answer.
    Ready(T),
    /// It comes through `Mail::Complete` with the token.
    Pending,
}

/// What an authenticator says of a CONNECT or of an AUTH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The client may enter under this identity.
    Admit(Identity),
    /// Enhanced authentication goes on with this data [MQTT-4.12.0-2].
    Continue(Box<[u8]>),
    /// The client may not enter.
    Refuse(Refusal),
}

/// Who a client is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// User name; `None` for an anonymous client.
    pub user_name: Option<Box<str>>,
    /// Nothing was asked for that name: it is what the client says of itself. Its sessions belong to nobody then.
    pub is_believed: bool,
    /// What it was let in for, where that can change: [`Authenticator::stands`] is asked about it later.
    pub stamp: Option<u64>,
    /// Data that goes back with success (enhanced authentication).
    pub data: Option<Box<[u8]>>,
    /// What it brings with it, for as long as it is connected.
    pub grants: Option<Arc<Grants>>,
    /// How long it may stay, milliseconds from now; then it is disconnected (0xA0). `None`: as long as it likes.
    pub lifetime_ms: Option<u64>,
}

/// Why a client may not enter: a code for the client, a word for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Told to the client.
    pub reason: ReasonCode,
    /// For the log only: `anonymous_disabled`, `unknown_user`, `bad_password`.
    pub why: &'static str,
}

/// A wrong guess of a client that is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guess {
    /// Where it came from.
    pub from: Option<IpAddr>,
    /// Who it said it was.
    pub user_name: Option<Box<str>>,
    /// See [`Refusal::why`].
    pub why: &'static str,
}

/// Decides who enters.
pub trait Authenticator: Send + Sync {
    /// A client wants to connect without enhanced authentication.
    fn connect(&self, request: &ConnectRequest, peer: &Peer, token: Token) -> Answer<Verdict>;

    /// True where the method of an enhanced authentication is offered to such a client; others are refused with 0x8C [MQTT-4.12.0-1].
    fn knows_method(&self, method: &str, peer: &Peer) -> bool {
        let _ = (method, peer);
        false
    }

    /// A step of an enhanced authentication: CONNECT, which begins one, or AUTH, then or again later (section 4.12.1). Called for known
    /// methods only.
    fn continue_with(&self, step: &mut AuthStep<'_>, token: Token) -> Answer<Verdict> {
        let _ = (step, token);
        Answer::Ready(Verdict::Refuse(Refusal {
            reason: ReasonCode::BadAuthenticationMethod,
            why: "unknown_method",
        }))
    }

    /// Where answers go that were not [`Answer::Ready`]. Called once, before anything is asked.
    fn attach(&self, answers: Arc<dyn Answers>) {
        let _ = answers;
    }

    /// Moves when somebody who was let in before may have to go: then [`Authenticator::stands`] is asked about every client.
    fn generation(&self) -> u64 {
        0
    }

    /// Whether this user is in the list of users by which such a client is let in; `None` where there is no such list, or he is let in
    /// by something else. Answers from memory.
    fn lists(&self, user_name: &str, peer: &Peer) -> Option<bool> {
        let _ = (user_name, peer);
        None
    }

    /// The mount point of the tenant that a client belongs to which was let in; `None` for none. Answers from memory.
    ///
    /// # Errors
    /// Why it may not enter all the same.
    fn mount_of(&self, who: &Access<'_>) -> Result<Option<Box<str>>, &'static str> {
        let _ = who;
        Ok(None)
    }

    /// Whether clients may belong to tenants at all.
    fn has_tenants(&self) -> bool {
        false
    }

    /// How much the tenant with this mount point may take.
    fn tenant_limits(&self, mount: Mount<'_>) -> TenantLimits {
        let _ = mount;
        TenantLimits::UNLIMITED
    }

    /// Mount points below which only so much may be retained: messages, and their bytes. None may begin with another. Asked at the start, and
    /// when [`Authenticator::generation`] has moved.
    fn retained_shares(&self) -> Vec<(Box<str>, RetainedLimits)> {
        Vec::new()
    }

    /// Whether a client would still be let in, for what it was let in for then.
    fn stands(&self, user_name: Option<&str>, stamp: u64, peer: &Peer) -> bool {
        let _ = (user_name, stamp, peer);
        true
    }
}

/// Takes answers that come late to whoever waits for them.
pub trait Answers: Send + Sync {
    /// Of [`Authenticator::connect`] or [`Authenticator::continue_with`]. False when nobody waits any more: the broker is gone.
    fn verdict(&self, token: Token, verdict: Verdict) -> bool;

    /// Of [`Authorizer::publish`] or [`Authorizer::subscribe`].
    fn allowed(&self, token: Token, is_allowed: bool) {
        let _ = (token, is_allowed);
    }

    /// The same, where whoever is asked did not answer: it is no, and the log says why.
    fn unanswered(&self, token: Token) {
        self.allowed(token, false);
    }

    /// Something that has to be counted, by the worker that asked.
    fn backend(&self, worker: WorkerId, event: BackendEvent) {
        let _ = (worker, event);
    }

    /// What a client has guessed that has not waited for the answer, for the worker that asked.
    fn guessed(&self, worker: WorkerId, guess: Guess) {
        let _ = (worker, guess);
    }

    /// What [`Authenticator::generation`] or [`Authorizer::generation`] says has moved: whoever has nothing to do looks who has to go.
    fn access_changed(&self) {}
}

/// One packet of an enhanced authentication. One exchange at a time: it ends with a verdict that is no [`Verdict::Continue`].
#[derive(Debug)]
pub struct AuthStep<'a> {
    /// The method, the same as at CONNECT [MQTT-4.12.0-5].
    pub method: &'a str,
    /// Authentication data.
    pub data: Option<&'a [u8]>,
    /// True for the first of an exchange.
    pub begins: bool,
    /// True where a connected client authenticates again; only as who it is already.
    pub is_again: bool,
    /// The client.
    pub client_id: &'a str,
    /// Its user name: what it says at CONNECT, or, again, who it is.
    pub user_name: Option<&'a str>,
    /// Where it comes from.
    pub peer: &'a Peer,
    /// What is to be kept until the next step of the exchange.
    pub exchange: &'a mut Exchange,
}

/// One thing that a client wants to do.
#[derive(Clone, Copy)]
pub struct Access<'a> {
    /// The client.
    pub client_id: &'a str,
    /// Its user name.
    pub user_name: Option<&'a str>,
    /// Where it comes from.
    pub peer: &'a Peer,
    /// What it brought with it.
    pub grants: Option<&'a Grants>,
}

impl<'a> Access<'a> {
    /// What the client of a connection wants to do.
    pub fn of(connection: &'a Connection) -> Self {
        Self {
            client_id: connection.client_name(),
            user_name: connection.user_name.as_deref(),
            peer: &connection.peer,
            grants: connection
                .admission
                .grants
                .as_deref()
                .and_then(|grants| grants.downcast_ref()),
        }
    }
}

impl fmt::Debug for Access<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("client_id", &self.client_id)
            .field("user_name", &self.user_name)
            .finish_non_exhaustive()
    }
}

/// Decides what a client may do.
pub trait Authorizer: Send + Sync {
    /// May it publish to this topic?
    fn publish(&self, who: &Access<'_>, topic: TopicName<'_>, qos: QoS, retain: bool, token: Token) -> Answer<bool>;

    /// May it subscribe to this filter?
    fn subscribe(&self, who: &Access<'_>, filter: TopicFilter<'_>, token: Token) -> Answer<bool>;

    /// Whether somebody has to be asked again about what this client has subscribed to, when it is back and when answers may be others:
    /// where [`Authorizer::receive`] does not know. Nothing is delivered to it meanwhile.
    fn asks_again(&self, who: &Access<'_>) -> bool {
        let _ = who;
        false
    }

    /// Whether it is for them to say of this filter: no rule does.
    fn asks_about(&self, who: &Access<'_>, filter: TopicFilter<'_>) -> bool {
        let _ = filter;
        self.asks_again(who)
    }

    /// May it still subscribe to this filter? Asked where [`Authorizer::asks_again`] says so; what [`Authorizer::receive`] knows is not to be said
    /// here.
    fn subscribe_again(&self, who: &Access<'_>, filter: TopicFilter<'_>, token: Token) -> Answer<bool> {
        self.subscribe(who, filter, token)
    }

    /// Whether something that was allowed before must not be published any more: the will of a connection, or a QoS 2 message that was accepted and
    /// is released. Nobody waits for a late answer, and whoever is asked elsewhere was asked then: answers from memory. Asks
    /// [`Authorizer::publish`] where nothing else is said.
    fn forbids(&self, who: &Access<'_>, topic: TopicName<'_>, qos: QoS, retain: bool, token: Token) -> bool {
        self.publish(who, topic, qos, retain, token) == Answer::Ready(false)
    }

    /// The reason code for a refused subscription; 0x87 unless a client base needs another.
    fn subscribe_refusal(&self) -> ReasonCode {
        ReasonCode::NotAuthorized
    }

    /// The highest QoS that it may subscribe to this filter with.
    fn subscribe_qos(&self, who: &Access<'_>, filter: TopicFilter<'_>) -> QoS {
        let _ = (who, filter);
        QoS::ExactlyOnce
    }

    /// Moves when an answer may be another one than before; what connections remember holds until then. `None`: that cannot be
    /// known, so nothing is remembered, and everything below is asked once a connection.
    fn generation(&self) -> Option<u64> {
        None
    }

    /// Whether answers about this client's publications hold until then. Others are asked for each time.
    fn remembers(&self, who: &Access<'_>) -> bool {
        let _ = who;
        self.generation().is_some()
    }

    /// Whether this client's publications have to be asked about at all.
    fn restricts(&self, who: &Access<'_>) -> bool {
        let _ = who;
        true
    }

    /// Whether something that this filter matches may not be received by this client. Then [`Authorizer::receive`] is asked about
    /// its deliveries; else they cost nothing.
    fn watches(&self, who: &Access<'_>, filter: TopicFilter<'_>) -> bool {
        let _ = (who, filter);
        false
    }

    /// Whether [`Authorizer::left`] may have something to say at all.
    fn judges_what_is_left(&self) -> bool {
        false
    }

    /// May what it has left behind still be given to others: a retained message (`retain`), or a will that was delayed or is of before a restart?
    /// Of the client is known what a [`Source`](crate::protocol::source::Source) has, and it may be long gone; `had_grants` where it had some,
    /// of which no more is known. Asked in the middle of a delivery: answers from memory.
    fn left(&self, who: &Access<'_>, had_grants: bool, topic: TopicName<'_>, qos: QoS, retain: bool) -> bool {
        let _ = (who, had_grants, topic, qos, retain);
        true
    }

    /// May messages on this topic be delivered to it? Asked in the middle of a delivery: answers from memory.
    fn receive(&self, who: &Access<'_>, topic: TopicName<'_>) -> bool {
        let _ = (who, topic);
        true
    }
}

/// Lets everyone in, with the user name they claim: for a broker that is reached only from its own machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllowAnonymous;

impl Authenticator for AllowAnonymous {
    fn connect(&self, request: &ConnectRequest, _peer: &Peer, _token: Token) -> Answer<Verdict> {
        Answer::Ready(Verdict::Admit(Identity {
            user_name: request.user_name.clone(),
            is_believed: true,
            ..Identity::default()
        }))
    }
}

/// Lets nobody in: what stands where anonymous clients are not allowed and no other way to authenticate is configured.
#[derive(Clone, Copy, Debug, Default)]
pub struct DenyAll;

impl Authenticator for DenyAll {
    fn connect(&self, request: &ConnectRequest, _peer: &Peer, _token: Token) -> Answer<Verdict> {
        let (reason, why) = if request.user_name.is_none() {
            (ReasonCode::NotAuthorized, "anonymous_disabled")
        } else {
            (ReasonCode::BadUserNameOrPassword, "unknown_user")
        };
        Answer::Ready(Verdict::Refuse(Refusal { reason, why }))
    }
}

/// Allows every client that has entered everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllowAll;

impl Authorizer for AllowAll {
    fn publish(
        &self,
        _who: &Access<'_>,
        _topic: TopicName<'_>,
        _qos: QoS,
        _retain: bool,
        _token: Token,
    ) -> Answer<bool> {
        Answer::Ready(true)
    }

    fn subscribe(&self, _who: &Access<'_>, _filter: TopicFilter<'_>, _token: Token) -> Answer<bool> {
        Answer::Ready(true)
    }

    fn generation(&self) -> Option<u64> {
        Some(0)
    }

    fn restricts(&self, _who: &Access<'_>) -> bool {
        false
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Is asked what clients may do, and never answers.
    pub(crate) struct Silent;

    impl Authorizer for Silent {
        fn publish(&self, _: &Access<'_>, _: TopicName<'_>, _: QoS, _: bool, _: Token) -> Answer<bool> {
            Answer::Pending
        }

        fn subscribe(&self, _: &Access<'_>, _: TopicFilter<'_>, _: Token) -> Answer<bool> {
            Answer::Pending
        }
    }
}
