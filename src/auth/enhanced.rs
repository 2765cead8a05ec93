//! SCRAM as a way into a listener: the users of its password file prove by enhanced authentication that they know their passwords
//! (MQTT 5 section 4.12). A client that names such a method is asked for nothing else.

use std::sync::Arc;

use super::chain::{Chain, Entrance};
use super::{AuthStep, Identity, Refusal, Verdict};
use crate::protocol::reason::ReasonCode;
use crate::protocol::version::Version;
use crate::scram::server::Exchange;
use crate::scram::{ClientFirst, Credential, Fault, Mechanism, NONCE_BYTES, Random};

/// What exchanges need from outside.
#[derive(Clone)]
pub struct ScramSeed {
    /// Nobody outside can tell which salt and iterations a name gets that is no user's. They are the same for as long as the secret is.
    pub secret: [u8; 32],
    /// Makes nonces.
    pub random: Random,
}

/// Says nothing of the secret.
impl core::fmt::Debug for ScramSeed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ScramSeed").finish_non_exhaustive()
    }
}

/// An exchange whose next message is awaited.
struct Running {
    exchange: Exchange,
    /// Of the user.
    stamp: Option<u64>,
    /// Why he is refused if what he proves is wrong.
    why: &'static str,
}

impl Entrance {
    /// Whether a mechanism is offered: it is wanted here, and a user can use it.
    pub fn offers(&self, mechanism: Mechanism) -> bool {
        let users = self.passwords.as_ref();
        self.scram.contains(&mechanism) && users.is_some_and(|users| users.has_scram(mechanism))
    }
}

impl Chain {
    /// A step of an exchange with this mechanism.
    pub(super) fn scram(&self, mechanism: Mechanism, entrance: &Entrance, step: &mut AuthStep<'_>) -> Verdict {
        let data = step.data.unwrap_or_default();
        if step.begins {
            return self.begin_scram(mechanism, entrance, data, step);
        }
        let state = step.exchange.state.take();
        let Some(running) = state.and_then(|state| state.downcast::<Running>().ok()) else {
            return self.refused_step(step, "auth_malformed");
        };
        let Running { exchange, stamp, why } = *running;
        let user_name = exchange.user_name().into();
        match exchange.finish(data) {
            Ok(signature) => Verdict::Admit(Identity {
                user_name: Some(user_name),
                stamp,
                data: Some(signature),
                ..Identity::default()
            }),
            Err(Fault::Proof) => self.refused_step(step, why),
            Err(fault) => self.refused_step(step, reason(fault)),
        }
    }

    fn begin_scram(&self, mechanism: Mechanism, entrance: &Entrance, data: &[u8], step: &mut AuthStep<'_>) -> Verdict {
        let (Some(seed), Some(users)) = (&self.scram_seed, &entrance.passwords) else {
            return self.refused_step(step, "unknown_method");
        };
        let first = match ClientFirst::parse(data) {
            Ok(first) => first,
            Err(fault) => return self.refused_step(step, reason(fault)),
        };
        step.exchange.user_name = Some(first.user_name.clone());
        let is_other = |name: &str| *name != *first.user_name;
        if step.user_name.is_some_and(is_other) || first.authorization.as_deref().is_some_and(is_other) {
            return self.refused_step(step, "another_user");
        }
        let mut nonce = [0; NONCE_BYTES];
        if !(seed.random)(&mut nonce) {
            return Verdict::Refuse(Refusal {
                reason: ReasonCode::ServerUnavailable,
                why: "no_random_numbers",
            });
        }
        let user = users.get(&first.user_name);
        // It is made up for those, too, who have one: that takes as long for the one as for the other.
        let Some(made_up) = made_up(
            users.scram_like(mechanism, &first.user_name, &seed.secret),
            &first,
            seed,
        ) else {
            return self.refused_step(step, "unknown_method");
        };
        let real = user.and_then(|user| user.entry.scram(mechanism));
        let why = match (user, real) {
            (_, Some(_)) => "bad_password",
            (Some(_), None) => "no_scram_credential",
            (None, None) => "unknown_user",
        };
        let exchange = match real {
            Some(real) => Exchange::begin(first, Arc::clone(real), true, &nonce),
            None => Exchange::begin(first, Arc::new(made_up), false, &nonce),
        };
        let answer = exchange.server_first().into();
        step.exchange.state = Some(Box::new(Running {
            exchange,
            stamp: user.map(|user| user.stamp),
            why,
        }));
        Verdict::Continue(answer)
    }

    fn refused_step(&self, step: &AuthStep<'_>, why: &'static str) -> Verdict {
        if step.is_again {
            let reason = ReasonCode::NotAuthorized;
            return Verdict::Refuse(Refusal { reason, why });
        }
        self.refused_password(Version::V5, why)
    }
}

/// A credential that nobody has, with salt and iterations as others of the file have them.
fn made_up(like: Option<&Arc<Credential>>, first: &ClientFirst, seed: &ScramSeed) -> Option<Credential> {
    let like = like?;
    let part = |what: &str| {
        let text = format!("{what} {} {}", like.mechanism.name(), first.user_name);
        Mechanism::Sha512.hmac(&seed.secret, text.as_bytes()) // 64 bytes: no salt and no key is longer
    };
    Some(Credential {
        mechanism: like.mechanism,
        iterations: like.iterations,
        salt: part("salt")[..like.salt.len()].into(),
        stored_key: part("stored key")[..like.stored_key.len()].into(),
        server_key: part("server key")[..like.server_key.len()].into(),
    })
}

/// For the log.
const fn reason(fault: Fault) -> &'static str {
    match fault {
        Fault::ChannelBinding => "channel_binding",
        Fault::Nonce => "auth_nonce",
        Fault::Proof => "bad_password",
        Fault::Malformed | Fault::Extension | Fault::Iterations(_) | Fault::Text | Fault::Over => "auth_malformed",
    }
}

#[cfg(test)]
#[path = "enhanced/tests.rs"]
mod tests;
