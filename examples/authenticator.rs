//! Decides itself who enters and what they may do: one password for all, and everybody has a folder of topics.
//!
//! `cargo run --example authenticator`, then `sundew pub -u ann -P sesame -t home/ann/lamp -m on`
use std::sync::Arc;

use sundew::auth::{Access, Answer, Authenticator, Authorizer, Identity, Refusal, Verdict};
use sundew::broker::Parts;
use sundew::protocol::ids::Token;
use sundew::protocol::qos::QoS;
use sundew::protocol::reason::ReasonCode;
use sundew::protocol::topic::{TopicFilter, TopicName};
use sundew::server::{Server, ServerOptions};
use sundew::session::peer::Peer;
use sundew::session::request::ConnectRequest;

struct OnePassword;

impl Authenticator for OnePassword {
    fn connect(&self, request: &ConnectRequest, _: &Peer, _: Token) -> Answer<Verdict> {
        // What takes longer says `Pending` and calls back with the token.
        Answer::Ready(if request.password.as_deref() == Some(b"sesame") {
            let user_name = request.user_name.clone();
            Verdict::Admit(Identity {
                user_name,
                ..Identity::default()
            })
        } else {
            Verdict::Refuse(Refusal {
                reason: ReasonCode::BadUserNameOrPassword,
                why: "bad_password",
            })
        })
    }
}

struct OwnFolder;

fn is_own(who: &Access<'_>, topic: &str) -> bool {
    let folder = topic.strip_prefix("home/").and_then(|rest| rest.split('/').next());
    who.user_name.is_some() && folder == who.user_name
}

impl Authorizer for OwnFolder {
    fn publish(&self, who: &Access<'_>, topic: TopicName<'_>, _: QoS, _: bool, _: Token) -> Answer<bool> {
        Answer::Ready(is_own(who, topic.as_str()))
    }

    fn subscribe(&self, who: &Access<'_>, filter: TopicFilter<'_>, _: Token) -> Answer<bool> {
        Answer::Ready(is_own(who, filter.filter()))
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let parts = Parts {
        authenticator: Arc::new(OnePassword),
        authorizer: Arc::new(OwnFolder),
        ..Parts::default()
    };
    let server = Server::start(ServerOptions::default(), parts)?;
    std::io::stdin().read_line(&mut String::new())?; // until Enter
    drop(server);
    Ok(())
}
