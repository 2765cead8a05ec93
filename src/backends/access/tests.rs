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
        grants: None,
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
    assert!(live.reload(Some(options("127.0.0.1:1883", true))).is_err() && !is_open());
    let mut two = options("0.0.0.0:1883", true);
    two.listeners.push(listener("mqtt-2", None));
    assert!(live.reload(Some(two)).is_err() && !is_open());
    assert!(live.reload(Some(options("0.0.0.0:1883", true))).is_ok() && is_open());
}

/// `generate > users` empties it first; a user who is not there then is not removed.
#[test]
fn a_file_that_is_being_written_takes_nobody_away() {
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users");
    let line = |name: &str| {
        format!(
            "{name}:$6$njERlZMi/7DzNB9E$iiavfuXvUm8iyDZArTy7smTxh07GXXOrOsqxfW6gkOYVXHGk+W+i/8d3xDxrMwEPygEBhoA8A/gjQC0N2M4Lkw==\n"
        )
    };
    fs::write(&users, line("alice")).unwrap();
    let mut options = AccessOptions {
        listeners: vec![listener("mqtt", None)],
        ..AccessOptions::default()
    };
    options.listeners[0].password_file = Some(users.clone());
    let live = LiveAccess::start(options, &HashingOptions::default()).unwrap();
    let names = || {
        let entrances = live.chain().current();
        let file = entrances[0].1.passwords.clone().unwrap();
        let mut names: Vec<_> = file.users().map(|(name, _)| name.to_owned()).collect();
        names.sort_unstable();
        names.concat()
    };
    let look_three_times = || [live.look(), live.look(), live.look()].contains(&true);
    fs::write(&users, "").unwrap();
    assert!(!look_three_times());
    assert_eq!(names(), "alice");
    fs::write(&users, line("alice") + &line("bob")).unwrap();
    assert!(look_three_times());
    assert_eq!(names(), "alicebob");
    // It changes while it is read: that look was none.
    let before = live.watch.lock().unwrap().options.looks();
    fs::write(&users, line("carol")).unwrap();
    let read = live.read_again(&mut live.watch.lock().unwrap(), before, true);
    assert!(matches!(read, Err(ReloadError::Changing)));
    assert_eq!(names(), "alicebob");
    assert!(look_three_times());
    assert_eq!(names(), "carol");
    // Who wants it empty replaces it, as `sundew user rm` does, or says so.
    let other = folder.path().join("other");
    fs::write(&other, "").unwrap();
    fs::rename(&other, &users).unwrap();
    assert!(look_three_times());
    assert_eq!(names(), "");
    fs::write(&users, line("alice")).unwrap();
    assert!(look_three_times());
    fs::write(&users, "").unwrap();
    live.reload(None).unwrap();
    assert_eq!(names(), "");
}

/// Nobody may ever write into a pipe: who opens it to read waits.
#[test]
fn a_pipe_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let acl = folder.path().join("acl");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &acl, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let (told, said) = std::sync::mpsc::channel();
    std::thread::spawn(move || told.send(read_text(&acl).unwrap_err().to_string()));
    let said = said.recv_timeout(std::time::Duration::from_secs(10));
    assert_eq!(said.as_deref(), Ok("not a regular file"));
}

/// Entrances, tenants and rules are of one configuration for whoever looks at them between two equal readings of the generations.
#[test]
fn a_reload_replaces_all_at_once() {
    use std::sync::atomic::{AtomicBool, Ordering};

    use crate::auth::tenants::TenantLimits;
    use crate::auth::{Authenticator as _, Authorizer as _};

    let options = AccessOptions {
        listeners: vec![listener("mqtt", None)],
        ..AccessOptions::default()
    };
    let live = LiveAccess::start(options, &HashingOptions::default()).unwrap();
    let is_over = AtomicBool::new(false);
    let of = |state: usize| {
        let names = (0..state).map(|number| number.to_string().into_boxed_str());
        let entrances: Entrances = names.clone().map(|name| (name, Entrance::default())).collect();
        let tenants = names.map(|name| Tenant {
            mount: name.clone(),
            name,
            listeners: Vec::new(),
            users: Vec::new(),
            certificates: Vec::new(),
            limits: TenantLimits::UNLIMITED,
        });
        let list = AclFile::parse("acl", &"topic a\n".repeat(state)).unwrap().rules;
        let rules = Rules::new(list, Scope::Everywhere, WideSubscriptions::default(), Vec::new());
        (entrances, Tenants::new(tenants.collect()), rules)
    };
    let replace = |state| {
        let (entrances, tenants, rules) = of(state);
        live.chain()
            .replace_all(entrances, tenants, || live.rules().replace(rules));
    };
    replace(1);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for turn in 0..20_000 {
                replace(1 + turn % 3);
            }
            is_over.store(true, Ordering::Release);
        });
        let generations = || (live.chain().generation(), live.rules().generation());
        while !is_over.load(Ordering::Acquire) {
            let before = generations();
            let rules = live.rules().current().list().len();
            let (tenants, entrances) = (live.chain().tenants().list().len(), live.chain().current().len());
            if generations() == before {
                assert_eq!([rules, tenants], [entrances, entrances]);
            }
        }
    });
}
