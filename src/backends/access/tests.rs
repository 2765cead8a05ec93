use super::*;
use crate::auth::Access as Client;
use crate::protocol::qos::QoS;
use crate::session::peer::{ListenerRules, Peer};

fn listener(name: &str, acl_file: Option<&Path>) -> ListenerAccess {
    ListenerAccess {
        name: name.into(),
        acl_file: acl_file.map(Path::to_owned),
        ..ListenerAccess::default()
    }
}

fn may_publish(rules: &Rules, listener: &str) -> bool {
    let peer = Peer {
        address: "192.0.2.1:1".into(),
        ip: None,
        is_secure: false,
        certificate: None,
        rules: Arc::new(ListenerRules {
            name: listener.into(),
            ..ListenerRules::default()
        }),
    };
    let who = Client {
        client_id: "c",
        user_name: None,
        peer: &peer,
    };
    rules.publish(&who, "a", QoS::AtMostOnce, false).is_allowed
}

/// A listener that is still bound and not in the configuration any more has no free hand.
#[test]
fn a_listener_that_nobody_knows_is_governed() {
    let folder = tempfile::tempdir().unwrap();
    let acl = folder.path().join("acl");
    fs::write(&acl, "topic a\n").unwrap();
    let seed = foldhash::fast::RandomState::default();
    let asked = |options: AccessOptions| {
        let rules = options.read(&seed).unwrap().rules;
        ["ruled", "free", "gone"].map(|listener| may_publish(&rules, listener))
    };
    let own = AccessOptions {
        listeners: vec![listener("ruled", Some(&acl)), listener("free", None)],
        ..AccessOptions::default()
    };
    assert_eq!(asked(own.clone()), [true, true, false]);
    fs::write(&acl, "topic b\n").unwrap();
    assert_eq!(asked(own), [false, true, false]);
    let of_all = AccessOptions {
        listeners: vec![listener("ruled", None), listener("free", None)],
        acl_file: Some(acl),
        ..AccessOptions::default()
    };
    assert_eq!(asked(of_all), [false, false, false]);
    let none = AccessOptions {
        listeners: vec![listener("ruled", None), listener("free", None)],
        ..AccessOptions::default()
    };
    assert_eq!(asked(none), [true, true, true], "no rules anywhere");
}

/// What is meant for a listener that will be there after a restart is not given to one of the same name that is there now.
#[test]
fn listeners_that_have_changed_are_not_taken_over() {
    let options = |bound: &str, allows_anonymous| AccessOptions {
        listeners: vec![ListenerAccess {
            bound: bound.into(),
            allows_anonymous,
            ..listener("mqtt", None)
        }],
        ..AccessOptions::default()
    };
    let live = LiveAccess::start(options("0.0.0.0:1883", false), &HashingOptions::default()).unwrap();
    let is_open = || live.chain().current()[0].1.allows_anonymous;
    assert!(!live.reload(Some(options("127.0.0.1:1883", true))) && !is_open());
    let mut two = options("0.0.0.0:1883", true);
    two.listeners.push(listener("mqtt-2", None));
    assert!(!live.reload(Some(two)) && !is_open());
    assert!(live.reload(Some(options("0.0.0.0:1883", true))) && is_open());
}
