//! Ways into a listener that are decided elsewhere: by keys that tokens are signed with, by a program that is asked.

use core::fmt;

use super::Verdict;
use crate::protocol::ids::Token;
use crate::protocol::reason::ReasonCode;
use crate::session::peer::Peer;
use crate::session::request::ConnectRequest;

/// Whoever can say of a client that it may enter.
pub trait Way: Send + Sync + fmt::Debug {
    /// Asks about a client. An answer that comes later goes through [`super::Answers`] with the token of the question.
    fn ask(&self, question: &Question<'_>) -> Asked;

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

/// Whether a text has the form of a JSON Web Token: three parts with points between them, the first a JSON object in base64. What has it is
/// taken for nothing else, and never logged.
pub fn looks_like_token(text: &str) -> bool {
    let begins = text.starts_with("ey") || text.starts_with("ew"); // `{"`, `{ `; `{` and a line break
    begins && text.bytes().filter(|byte| *byte == b'.').count() == 2
}
