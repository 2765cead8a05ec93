//! Ways into a listener that are decided elsewhere: by keys that tokens are signed with, by a program that is asked.

use core::fmt;

use core::net::IpAddr;
use std::sync::{Arc, Weak};

use super::bans::is_guess;
use super::rule::Action;
use super::{Access, Answer, Answers, Guess, Verdict};
use crate::protocol::ids::Token;
use crate::protocol::qos::QoS;
use crate::protocol::reason::ReasonCode;
use crate::session::peer::Peer;
use crate::session::request::ConnectRequest;

/// Whoever can say of a client that it may enter.
pub trait Way: Send + Sync + fmt::Debug {
    /// Asks about a client. An answer that comes later goes through [`super::Answers`] with the token of the question.
    fn ask(&self, question: &Question<'_>) -> Asked;

    /// A client shows a token by enhanced authentication, at CONNECT or while it is connected. Answered as [`Way::ask`] is.
    fn show(&self, shown: &Shown<'_>) -> Asked {
        let _ = shown;
        Asked::NotMine
    }

    /// Whether a client that was let in for this still would be.
    fn stands(&self, stamp: u64) -> bool;
}

/// A client that wants to enter.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// What it says.
    pub request: &'a ConnectRequest,
    /// Where it comes from.
    pub peer: &'a Peer,
    /// For an answer that comes later.
    pub token: Token,
    /// What it is told if it is not who it says.
    pub wrong: ReasonCode,
}

impl Question<'_> {
    /// Who asks, for an answer that comes later.
    pub fn asker(&self) -> Asker {
        Asker {
            token: self.token,
            presence: Arc::downgrade(&self.request.presence),
            from: self.peer.ip,
            user_name: self.request.user_name.clone(),
        }
    }
}

/// A client that waits for an answer, as long as it does.
#[derive(Clone, Debug)]
pub struct Asker {
    /// Where the answer goes.
    pub token: Token,
    /// Gone when nobody waits for the answer any more, see [`ConnectRequest::presence`].
    pub presence: Weak<()>,
    /// Where the client comes from.
    pub from: Option<IpAddr>,
    /// Who it says it is.
    pub user_name: Option<Box<str>>,
}

impl Asker {
    /// False when it has gone: what has not been begun for it need not be done.
    pub fn waits(&self) -> bool {
        self.presence.strong_count() > 0
    }

    /// Tells it the answer. Where it has gone meanwhile, what it has guessed wrongly counts all the same: who does not wait to hear it would
    /// otherwise have passwords checked without end.
    pub fn tell(self, answers: &dyn Answers, verdict: Verdict) {
        match verdict {
            Verdict::Refuse(refusal) if !self.waits() && is_guess(refusal.why) => {
                let guess = Guess {
                    from: self.from,
                    user_name: self.user_name,
                    why: refusal.why,
                };
                answers.guessed(self.token.worker, guess);
            }
            verdict => {
                answers.verdict(self.token, verdict);
            }
        }
    }
}

/// The method of enhanced authentication whose data is a JSON Web Token, the whole of it, in CONNECT and in AUTH; no AUTH is asked for. Azure
/// Event Grid calls it so.
pub const TOKEN_METHOD: &str = "OAUTH2-JWT";

/// A token that a client shows.
#[derive(Clone)]
pub struct Shown<'a> {
    /// It.
    pub text: &'a str,
    /// The client.
    pub client_id: &'a str,
    /// For an answer that comes later.
    pub asker: Asker,
    /// What it is told if the token is not good.
    pub wrong: ReasonCode,
}

/// What came of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The answer.
    Said(Verdict),
    /// It comes later.
    Later,
    /// It is for another way to say.
    NotMine,
}

/// Whoever can say what a client may do, where no rule does.
pub trait Rights: Send + Sync + fmt::Debug {
    /// May it do that? An answer that comes later goes through [`super::Answers`] with the token.
    fn ask(&self, who: &Access<'_>, deed: &Deed<'_>, token: Token) -> Answer<bool>;
}

/// Something that a client wants to do.
#[derive(Clone, Copy, Debug)]
pub struct Deed<'a> {
    /// To publish, or to subscribe.
    pub action: Action,
    /// The topic, or the topic filter without `$share/GROUP/`.
    pub topic: &'a str,
    /// With it.
    pub qos: QoS,
    /// It is to be retained.
    pub retain: bool,
}

/// What happened with a back end, to be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendEvent {
    /// It was asked, and has answered.
    Asked,
    /// It was asked in vain.
    Failed,
    /// It could not be asked, as too many questions wait.
    Overloaded,
}

/// Why a client is refused whose token is longer than any that is taken.
pub const TOKEN_TOO_LARGE: &str = "token_too_large";
/// Shortest text that is taken for a piece of a token, bytes: nobody has such a password by chance.
const TOKEN_BYTES_MIN: usize = 32;

/// Whether something begins as a JSON Web Token does, and is too long for a password that somebody made up. For the log only.
pub fn begins_like_token(password: &[u8]) -> bool {
    password.len() >= TOKEN_BYTES_MIN && password.starts_with(b"eyJ")
}

/// Whether a text has the form of a JSON Web Token: three parts with points between them, the first a JSON object in base64. What has it is
/// taken for nothing else, and never logged.
pub fn looks_like_token(text: &str) -> bool {
    let begins = text.starts_with("ey") || text.starts_with("ew"); // `{"`, `{ `; `{` and a line break
    begins && text.bytes().filter(|byte| *byte == b'.').count() == 2
}
