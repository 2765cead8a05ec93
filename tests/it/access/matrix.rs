//! The matrix: what is done × how the topic is named × whom a rule is about × the way the client came in × MQTT 3.1.1 and 5 × whose tenant it is.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use sundew::auth::filter::overlap;
use sundew::auth::grants::Grants;
use sundew::auth::rule::{Action, Actions, ClientPattern, Effect, Rule, TopicPattern, Users};
use sundew::auth::rules::{LiveRules, Rules, Scope, WideSubscriptions};
use sundew::auth::{Access, Answer, Authenticator, Identity, Verdict};
use sundew::protocol::ids::Token;
use sundew::protocol::property::PropertyId;
use sundew::protocol::version::Version;
use sundew::session::peer::{ListenerRules, Peer};
use sundew::session::request::ConnectRequest;
use sundew::transport::certificates::{self, CertificatesOptions};
use sundew::transport::options::{CertificateFiles, ListenAddress, ListenerOptions, TlsOptions, WebSocketOptions};

use super::refused;
use crate::broker::{BOTH, Broker};
use crate::client::{Client, PATIENCE};
use crate::streams::{WebSocket, tcp, tls, tls_config};
use crate::wire::{Connect, PINGREQ, Packet, Publish, Will};

/// What it is all about: with the names of him who may not.
const SECRET: &str = "secret/mallory/m-1/north/x";
/// What everybody may.
const OPEN: &str = "open/x";

/// Somebody with claims in what he was let in by: `site`, `tenant`.
#[derive(Clone, Copy)]
pub(super) struct Who {
    pub(super) user: &'static str,
    client_id: &'static str,
    /// The name of his tenant, which is his password, too; empty for none.
    tenant: &'static str,
}

pub(super) const MALLORY: Who = Who {
    user: "mallory",
    client_id: "m-1",
    tenant: "",
};
pub(super) const GRETA: Who = Who {
    user: "greta",
    client_id: "g-1",
    tenant: "",
};
pub(super) const WATCHER: Who = Who {
    user: "watcher",
    client_id: "w",
    tenant: "",
};

/// Where a rule is, and about whom it is tried: two of them have one user name and one client identifier.
const TENANTS: [(&str, &[Who]); 3] = [
    ("", &[MALLORY, GRETA]),
    ("a/", &[MALLORY.of("a"), MALLORY.of("b"), GRETA.of("a")]),
    ("%{tenant}/", &[MALLORY.of("a"), MALLORY.of("b"), GRETA.of("a")]),
];

/// Believes names, and knows where everybody works.
pub(super) struct Believing;

impl Authenticator for Believing {
    fn connect(&self, request: &ConnectRequest, _: &Peer, _: Token) -> Answer<Verdict> {
        let mut all = [MALLORY, GRETA, WATCHER].into_iter();
        let who = all.find(|who| Some(who.user) == request.user_name.as_deref()).unwrap();
        let tenant = std::str::from_utf8(request.password.as_deref().unwrap()).unwrap();
        let claims = [
            ("site", who.site()),
            ("tenant", if tenant.is_empty() { "none" } else { tenant }),
        ];
        let grants = Grants {
            claims: claims.map(|(name, value)| (name.into(), value.into())).into(),
            tenant: Some(tenant.into()).filter(|_| !tenant.is_empty()),
            ..Grants::default()
        };
        Answer::Ready(Verdict::Admit(Identity {
            user_name: request.user_name.clone(),
            grants: Some(Arc::new(grants)),
            ..Identity::default()
        }))
    }

    fn mount_of(&self, who: &Access<'_>) -> Result<Option<Box<str>>, &'static str> {
        let tenant = who.grants.and_then(|grants| grants.tenant.as_deref());
        Ok(tenant.map(|tenant| format!("{tenant}/").into()))
    }

    fn has_tenants(&self) -> bool {
        true
    }
}

const WAYS: [&str; 5] = ["tcp", "tls", "ws", "wss", "unix"];

/// A broker with a listener for each way in, and one more for who watches.
struct Site {
    broker: Broker,
    rules: Arc<LiveRules>,
    folder: tempfile::TempDir,
}

impl Site {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let made = CertificatesOptions {
            folder: folder.path().to_owned(),
            ..CertificatesOptions::default()
        };
        certificates::make(&made).unwrap();
        let listener = |name: &str| {
            let any_port = ListenAddress::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
            let socket = |name| ListenAddress::Unix {
                path: folder.path().join(name),
                mode: 0o600,
            };
            let certificates = vec![CertificateFiles {
                chain: folder.path().join("server.pem"),
                key: folder.path().join("server.key"),
            }];
            let tls = TlsOptions {
                certificates,
                ..TlsOptions::default()
            };
            let options = ListenerOptions {
                name: name.to_owned(),
                addresses: vec![if ["unix", "watch"].contains(&name) {
                    socket(name)
                } else {
                    any_port
                }],
                tls: ["tls", "wss"].contains(&name).then_some(tls),
                websocket: ["ws", "wss"].contains(&name).then(WebSocketOptions::default),
                ..ListenerOptions::default()
            };
            let rules = ListenerRules {
                name: name.to_owned(),
                ..ListenerRules::default()
            };
            (options, rules)
        };
        let rules = Arc::new(LiveRules::default());
        let broker = Broker::start(2, |options, parts| {
            options.listeners = WAYS.iter().chain(&["watch"]).map(|name| listener(name)).collect();
            parts.authenticator = Arc::new(Believing);
            parts.authorizer = Arc::clone(&rules) as _;
        });
        Self { broker, rules, folder }
    }

    fn open(&self, way: &str, version: Version) -> Client {
        let port = || {
            let mut addresses = self.broker.server.addresses().iter();
            addresses.find(|(name, _)| name == way).unwrap().1[0].port()
        };
        let encrypted = || tls(tls_config(self.folder.path(), false, false), "localhost", port());
        match way {
            "tcp" => Client::over(tcp(port()), version),
            "tls" => Client::over(encrypted(), version),
            "ws" => Client::over(WebSocket::open(tcp(port()), "/", Some("mqtt")).1.unwrap(), version),
            "wss" => Client::over(WebSocket::open(encrypted(), "/", Some("mqtt")).1.unwrap(), version),
            socket => {
                let stream = UnixStream::connect(self.folder.path().join(socket)).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                Client::over(stream, version)
            }
        }
    }

    fn connect(&self, way: &str, version: Version, who: Who) -> Client {
        let mut client = self.open(way, version);
        client.connect(&who.connect());
        client
    }

    /// Everything is allowed but what this rule denies.
    fn deny(&self, rule: Rule) {
        let all = [OPEN, "secret/#"]
            .map(|topics| Rule::new(Effect::Allow, Actions::ALL, TopicPattern::plain(topics).unwrap(), "all"));
        let everything = Rule::new(Effect::Allow, Actions::ALL, TopicPattern::plain("#").unwrap(), "all");
        let list = all.into_iter().chain([everything, rule]).collect();
        self.rules.replace(Rules::new(
            list,
            Scope::Everywhere,
            WideSubscriptions::Refuse,
            Vec::new(),
        ));
    }
}

impl Who {
    fn site(self) -> &'static str {
        if self.user == "mallory" { "north" } else { "south" }
    }

    pub(super) fn connect(self) -> Connect<'static> {
        Connect {
            client_id: self.client_id,
            user_name: Some(self.user),
            password: Some(self.tenant.as_bytes()),
            ..Connect::default()
        }
    }

    pub(super) const fn of(self, tenant: &'static str) -> Self {
        Self { tenant, ..self }
    }

    pub(super) const fn tenant(self) -> &'static str {
        self.tenant
    }

    /// Who has the same names somewhere else.
    const fn twin(self) -> Self {
        self.of(if matches!(self.tenant.as_bytes(), b"a") {
            "b"
        } else {
            "a"
        })
    }

    /// What his topic is called by those of no tenant.
    pub(super) fn full(self, topic: &str) -> String {
        let slash = if self.tenant.is_empty() { "" } else { "/" };
        [self.tenant, slash, topic].concat()
    }
}

/// Whom a rule is about: what it says, and whether that is somebody who came in some way.
struct Kind {
    name: &'static str,
    topics: &'static str,
    narrow: fn(&mut Rule),
    is_about: fn(Who, &str) -> bool,
}

fn everybody(_: Who, _: &str) -> bool {
    true
}

fn is_mallory(who: Who, _: &str) -> bool {
    who.user == "mallory"
}

const KINDS: [Kind; 9] = [
    Kind {
        name: "user",
        topics: "secret/#",
        narrow: |rule| rule.users.names = ["mallory".into()].into(),
        is_about: is_mallory,
    },
    Kind {
        name: "group",
        topics: "secret/#",
        narrow: |rule| {
            rule.users = Users {
                names: ["eve".into(), "mallory".into()].into(),
                has_group: true,
                ..Users::default()
            };
        },
        is_about: is_mallory,
    },
    Kind {
        name: "client id",
        topics: "secret/#",
        narrow: |rule| rule.clients = vec![ClientPattern::new("m-1")],
        is_about: is_mallory,
    },
    Kind {
        name: "client id by its beginning",
        topics: "secret/#",
        narrow: |rule| rule.clients = vec![ClientPattern::new("m-*")],
        is_about: is_mallory,
    },
    Kind {
        // Who comes over a Unix socket is at no address.
        name: "address",
        topics: "secret/#",
        narrow: |rule| rule.networks = vec!["127.0.0.0/8".parse().unwrap()],
        is_about: |_, way| way != "unix" && way != "watch",
    },
    Kind {
        name: "listener",
        topics: "secret/#",
        narrow: |rule| rule.listeners = ["tcp", "wss", "unix"].map(Into::into).into(),
        is_about: |_, way| ["tcp", "wss", "unix"].contains(&way),
    },
    Kind {
        name: "%u",
        topics: "secret/%u/#",
        narrow: |_| {},
        is_about: everybody,
    },
    Kind {
        name: "%c",
        topics: "secret/+/%c/#",
        narrow: |_| {},
        is_about: everybody,
    },
    Kind {
        name: "%{claim}",
        topics: "secret/+/+/%{site}/#",
        narrow: |_| {},
        is_about: everybody,
    },
];

impl Kind {
    /// What somebody may not, by the names that he has for it, if anything.
    fn denied(&self, front: &str, who: Who, way: &str) -> Option<String> {
        let of_his = |topics: &str| {
            let topics = topics.replace("%u", who.user).replace("%c", who.client_id);
            topics.replace("%{site}", who.site())
        };
        let is_there = front.replace("%{tenant}", who.tenant) == who.full("");
        (is_there && (self.is_about)(who, way)).then(|| of_his(self.topics))
    }

    fn denying(&self, front: &str, actions: Actions) -> Rule {
        let topics = TopicPattern::parse(&format!("{front}{}", self.topics)).unwrap();
        let mut rule = Rule::new(Effect::Deny, actions, topics, self.name);
        (self.narrow)(&mut rule);
        rule
    }
}

/// Filters that show something of it.
const FILTERS: [&str; 8] = [
    SECRET,
    "secret/#",
    "#",
    "secret/+/m-1/+/x",
    "+/mallory/#",
    "$share/g/secret/#",
    "$share/g/#",
    "$share/g/secret/mallory/m-1/north/x",
];

/// For every kind of rule, version and way in: him whom it is about, and her whom it mostly is not; each in its tenant, while somebody of the
/// same names is connected who is of another one, and hears nothing of it.
fn for_all(site: &Site, actions: Actions, try_it: impl Fn(&str, Version, Who, Option<&str>, &str)) {
    let rules = TENANTS
        .iter()
        .flat_map(|(front, all)| KINDS.iter().map(move |kind| (front, all, kind)));
    for (front, all, kind) in rules {
        site.deny(kind.denying(front, actions));
        for (version, way) in BOTH.iter().flat_map(|version| WAYS.map(|way| (*version, way))) {
            for who in *all {
                let case = format!(
                    "{} of {:?} by {way}, MQTT {}, a rule by {} on {front}{}",
                    who.user,
                    who.tenant,
                    version.name(),
                    kind.name,
                    kind.topics
                );
                let mut twin = site.connect(way, version, who.twin());
                for filter in ["open/#", "secret/#", "#"] {
                    twin.subscribe(filter, 0);
                }
                twin.send(&PINGREQ);
                while twin.receive() != Packet::PingResp {} // what is retained there
                try_it(way, version, *who, kind.denied(front, *who, way).as_deref(), &case);
                twin.expect_ping_answered();
                twin.disconnect();
            }
        }
    }
}

#[test]
fn who_may_not_publish_and_subscribe_does_neither_by_any_way() {
    let site = Site::start();
    for_all(&site, Actions::ALL, |way, version, who, denied, case| {
        let is_denied = denied.is_some_and(|denied| overlap(denied, SECRET));
        let mut watcher = site.connect("watch", Version::V5, WATCHER);
        watcher.publish(Publish::new(&who.full(SECRET), "", 1).retained());
        let mut client = site.connect(way, version, who);
        for filter in FILTERS {
            let topics = filter.strip_prefix("$share/g/").unwrap_or(filter);
            let is_refused = denied.is_some_and(|denied| overlap(denied, topics));
            let expected = if is_refused { refused(version) } else { 0 };
            assert_eq!(client.subscribe(filter, 0), expected, "{filter}: {case}");
            client.unsubscribe(&[filter]);
        }
        assert_eq!(client.subscribe(OPEN, 0), 0, "{case}");
        for qos in 0..3 {
            for retain in [false, true] {
                let message = Publish::new(SECRET, "x", qos);
                let reason = client.try_publish(if retain { message.retained() } else { message });
                let is_told = is_denied && qos > 0 && version.has_properties();
                assert_eq!(reason == 0x87, is_told, "QoS {qos}, {retain}: {case}");
            }
        }
        if version.has_properties() {
            for topic in [SECRET, ""] {
                let message = Publish::new(topic, "x", 1).with(|p| p.push_u16(PropertyId::TopicAlias, 1));
                assert_eq!(client.try_publish(message) == 0x87, is_denied, "an alias: {case}");
            }
        }
        client.publish(Publish::new(OPEN, "x", 1));
        client.expect_text(OPEN, "x");
        client.disconnect();
        let will = Some(Will {
            topic: SECRET,
            payload: b"gone",
            ..Will::default()
        });
        let leaves_will = Connect { will, ..who.connect() };
        let mut client = site.open(way, version);
        let expected = match (is_denied, version.has_properties()) {
            (false, _) => 0,
            (true, true) => 0x87,
            (true, false) => 5,
        };
        assert_eq!(client.try_connect(&leaves_will).1, expected, "a will: {case}");
        if !is_denied {
            client.disconnect();
        }
        // What was denied is not there.
        watcher.subscribe(&who.full(SECRET), 0);
        if !is_denied {
            watcher.expect_text(&who.full(SECRET), "x");
        }
        watcher.expect_ping_answered();
        watcher.disconnect();
    });
}

/// Where only receiving is denied, every subscription is granted, and what it may not show is left out: live and retained, once or by two
/// subscriptions, and of a group.
#[test]
fn who_may_not_receive_does_not_by_any_way() {
    let site = Site::start();
    let receive = Actions::default().with(Action::Receive);
    for_all(&site, receive, |way, version, who, denied, case| {
        let is_denied = denied.is_some_and(|denied| overlap(denied, SECRET));
        let mut watcher = site.connect("watch", Version::V5, WATCHER);
        watcher.publish(Publish::new(&who.full(SECRET), "kept", 1).retained());
        for filters in [&[SECRET][..], &["#"], &["secret/#", "+/mallory/#"], &["$share/g/#"]] {
            let mut client = site.connect(way, version, who);
            for filter in filters {
                assert_eq!(client.subscribe(filter, 1), 1, "{filter}: {case}");
                if !is_denied && !filter.starts_with("$share/") {
                    client.expect_text(SECRET, "kept");
                }
            }
            client.subscribe("open/+", 0);
            for qos in 0..3 {
                let reason = watcher.try_publish(Publish::new(&who.full(SECRET), "now", qos));
                assert!(reason < 0x80, "{reason:#x}: {filters:?}, QoS {qos}: {case}");
            }
            watcher.publish(Publish::new(&who.full(OPEN), "x", 1));
            if !is_denied {
                for _ in 0..3 {
                    client.expect_text(SECRET, "now");
                }
            }
            client.expect_text(OPEN, "x");
            client.disconnect();
        }
        watcher.publish(Publish::new(&who.full(SECRET), "", 1).retained());
        watcher.disconnect();
    });
}
