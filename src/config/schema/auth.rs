//! Who may connect, and what he may do.

use core::time::Duration;
use std::{collections::BTreeMap, path::PathBuf};

use super::{Http, Jwt, seconds};
use crate::config::{
    option::{choice, section},
    value::{Auto, Network, Placed, Topics},
};

section! {
    /// Who may connect, and what he may do. As soon as users are configured, nobody enters without; as soon as rules are, what none
    /// of them allows is denied.
    pub struct Auth {
        /// Whether clients without a user name are let in: `true`, `false`, `"loopback"`: only where nobody but this machine can reach
        /// the listener, or `"auto"`: as `"loopback"`, and nowhere as soon as the listener has a password file, takes tokens or has a program asked.
        /// Cost: with `true` whoever reaches the port enters.
        allow_anonymous: Anonymous = Anonymous::Auto;
        /// Users and the hashes of their passwords, written by `sundew user` or by mosquitto_passwd. Changes count within a second;
        /// who was removed, or has another password, is disconnected. Default: absent. Cost: about 200 bytes a user.
        password_file: Option<PathBuf> = None;
        /// What users may do, as mosquitto's `acl_file` says it. Changes count within a second. Default: absent.
        /// Cost: about 200 bytes a line; a look at a user's lines for each topic that its client has not used lately.
        acl_file: Option<PathBuf> = None;
        /// What becomes of a subscription to more than its client may subscribe to: it is `"refuse"`d (0x87), or granted and `"narrow"`ed
        /// when it is delivered, if it may receive a part of it at all, or always `"grant"`ed, as mosquitto does; nothing is
        /// delivered that may not be received. Cost of the others: each delivery to such clients is looked at.
        wide_subscriptions: WideSubscriptions = WideSubscriptions::Refuse;
        /// What a client of MQTT 3.1 or 3.1.1 is told that may not publish to a topic: `"acknowledge"`: nothing, its message is dropped and
        /// counted, or `"disconnect"`: its connection ends. MQTT 5 clients are told 0x87. [MQTT311-3.3.5-2] Cost: it believes it was published.
        refused_publish: RefusedPublish = RefusedPublish::Acknowledge;
        /// Whether a retained message is held back once its publisher may not publish it any more, or is no user any more: new
        /// subscribers do not get it, until he may again. What is retained of a version that did not keep who published it, is
        /// delivered. Cost: where there are rules, a look at those of its publisher for each that is delivered.
        check_retained_source: bool = true;
        /// What an MQTT 5 client is told whose user name or password is wrong: `"bad_password"` (0x86), or `"not_authorized"` (0x87), as
        /// mosquitto says. Older ones are told 5. Which of the two was wrong, only the log says. Cost: none.
        refused_login: RefusedLogin = RefusedLogin::BadPassword;
        /// Threads that check passwords; `"auto"`: one for every four cores. Cost: 19 MiB each while one is checked.
        hashing_threads: Auto = Auto::Auto, in Auto::Fixed(1) => Auto::Fixed(64);
        /// Passwords that wait to be checked; clients beyond are refused (0x97, 3), those of the address with the most first. Cost: the CONNECT each.
        hashing_waiting_max: u32 = 256, in 1 => 1_000_000;
        /// How often files of users, rules, keys and certificates are looked at; a change counts at the second look, when it has come to rest; `"0s"`:
        /// never, only SIGHUP and `sundew reload` read them again, and tell of certificates that end. Cost: a system call a file each time.
        watch_interval: Duration = Duration::from_millis(250), in seconds(0) => seconds(3600);
        /// Methods of MQTT 5's enhanced authentication. `"SCRAM-…"`: users of a password file prove their passwords instead of showing them, where
        /// a user's line has what it needs (`sundew user add --scram`). `"OAUTH2-JWT"`: the data is a token, where there is `jwt`, and a client
        /// sends a new one before the old one ends. `[]`: none. Cost: a few microseconds an exchange.
        enhanced_methods: Vec<EnhancedMethod> =
            vec![EnhancedMethod::ScramSha256, EnhancedMethod::ScramSha512, EnhancedMethod::Oauth2Jwt];
        /// JSON Web Tokens (RFC 7519) that clients show in the place of a password: who has one that is valid is whom it names. They are
        /// looked at before the password file; who shows something else is looked for there.
        jwt: Vec<Placed<Jwt>> = Vec::new();
        /// Programs that are asked over HTTP who may enter, and what he may do: after tokens, the password file and the rules.
        http: Vec<Placed<Http>> = Vec::new();
        /// Groups of users, to be named in rules. Members of `admin` read `$SYS` from anywhere; others only from this machine. The
        /// groups `anonymous` and `authenticated` are there already: clients without a user name, and with one.
        groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
        /// What clients may do and may not. A rule applies where everything fits that it names. A rule that denies wins, wherever it stands;
        /// else one that allows is enough; else it is denied. They hold on all listeners, beside the ACL files.
        rules: Vec<Placed<AccessRule>> = Vec::new();
    }
}

section! {
    /// One rule.
    pub struct AccessRule {
        /// Whether it is to `"allow"` or to `"deny"`. Required.
        effect: Option<Effect> = None;
        /// Of what. Who may `"subscribe"` may `"receive"`, and who is denied it does not; `"receive"` alone is looked at when a
        /// message is delivered, and makes each delivery to such clients cost that look.
        actions: Vec<Action> = vec![Action::Publish, Action::Subscribe, Action::Receive];
        /// Topic filters. In them `%u` is the user name, `%c` the client id and `%{claim}` a claim of the client's token; one with `+`, `#`
        /// or `/` in it fits no rule that allows, and for one that denies it is any. Required.
        topics: Topics = Topics(Vec::new());
        /// Users by name; these, or members of the groups. Default: absent, everybody; `[]` is refused.
        users: Vec<String> = Vec::new();
        /// Groups of `auth.groups`, `"anonymous"` or `"authenticated"`. Default: absent, everybody; `[]` is refused.
        groups: Vec<String> = Vec::new();
        /// Client ids, or beginnings of them: `"sensor-*"`. A client id is what its client says; nothing proves it.
        /// Default: absent, all; `[]` is refused.
        client_ids: Vec<String> = Vec::new();
        /// Addresses, or blocks of them. Default: absent, all; `[]` is refused.
        addresses: Vec<Network> = Vec::new();
        /// Listeners by name. Default: absent, all; `[]` is refused.
        listeners: Vec<String> = Vec::new();
        /// The highest QoS that a rule allows to publish or subscribe with.
        qos_max: u8 = 2, in 0 => 2;
        /// Whether a rule allows to publish retained messages.
        retain: bool = true;
    }
}

choice! {
    /// What a rule says.
    pub enum Effect {
        /// It may be done.
        Allow = "allow",
        /// It may not be done.
        Deny = "deny",
    }
}

choice! {
    /// How a client says who it is in packets of its own.
    pub enum EnhancedMethod {
        /// RFC 7677.
        ScramSha256 = "SCRAM-SHA-256",
        /// The same with SHA-512.
        ScramSha512 = "SCRAM-SHA-512",
        /// A JSON Web Token, and a new one in time.
        Oauth2Jwt = "OAUTH2-JWT",
    }
}

choice! {
    /// What can be done with a topic.
    pub enum Action {
        /// Sending messages to it.
        Publish = "publish",
        /// Asking for its messages.
        Subscribe = "subscribe",
        /// Being sent its messages.
        Receive = "receive",
    }
}

choice! {
    /// What becomes of a subscription to more than its client may receive.
    pub enum WideSubscriptions {
        /// It is refused.
        Refuse = "refuse",
        /// It is granted where it may receive a part.
        Narrow = "narrow",
        /// It is granted.
        Grant = "grant",
    }
}

choice! {
    /// What a client before MQTT 5 is told that may not publish.
    pub enum RefusedPublish {
        /// That it was published.
        Acknowledge = "acknowledge",
        /// Its connection ends.
        Disconnect = "disconnect",
    }
}

choice! {
    /// What an MQTT 5 client is told whose user name or password is wrong.
    pub enum RefusedLogin {
        /// 0x86.
        BadPassword = "bad_password",
        /// 0x87.
        NotAuthorized = "not_authorized",
    }
}

/// Whether clients without a user name are let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anonymous {
    /// On listeners that only this machine can reach, as long as they have no users.
    Auto,
    /// On every listener.
    Everywhere,
    /// On listeners that only this machine can reach.
    Loopback,
    /// Nowhere.
    Nowhere,
}

impl crate::config::value::Scalar for Anonymous {
    fn from_text(text: &str) -> Option<Self> {
        match text {
            "auto" => Some(Self::Auto),
            "true" => Some(Self::Everywhere),
            "loopback" => Some(Self::Loopback),
            "false" => Some(Self::Nowhere),
            _ => None,
        }
    }
    fn to_toml(&self) -> String {
        let text = match self {
            Self::Auto => "\"auto\"",
            Self::Everywhere => "true",
            Self::Loopback => "\"loopback\"",
            Self::Nowhere => "false",
        };
        text.to_owned()
    }
    fn expected() -> String {
        "true, false, \"loopback\" or \"auto\"".to_owned()
    }
    fn words() -> &'static [&'static str] {
        &["true", "false", "loopback", "auto"]
    }
}
