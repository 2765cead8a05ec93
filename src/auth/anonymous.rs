//! Clients without a password, where the operator lets them in.

use super::{AllowAnonymous, Answer, Authenticator, DenyAll, Verdict};
use crate::protocol::ids::Token;
use crate::session::peer::Peer;
use crate::session::request::ConnectRequest;

/// Lets everyone in through some listeners, with the user name they claim, and nobody through the others.
#[derive(Clone, Debug, Default)]
pub struct AnonymousOn {
    /// Names of the listeners that let everyone in.
    pub listeners: Vec<String>,
}

impl Authenticator for AnonymousOn {
    fn connect(&self, request: &ConnectRequest, peer: &Peer, token: Token) -> Answer<Verdict> {
        if self.listeners.contains(&peer.rules.name) {
            AllowAnonymous.connect(request, peer, token)
        } else {
            DenyAll.connect(request, peer, token)
        }
    }
}
