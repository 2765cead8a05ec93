use super::*;

/// A folder with files, and what comes of its `mosquitto.conf`: the configuration, remarks, files.
pub(super) fn import(files: &[(&str, &str)]) -> (String, Vec<String>, Outcome) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text.replace("@", &folder.path().display().to_string())).unwrap();
    }
    let path = folder.path().join("mosquitto.conf");
    let text = files::read(&path).unwrap();
    let mut out = Outcome::default();
    configuration(&path, &text, &mut out);
    let short = |text: String| text.replace(&format!("{}/", folder.path().display()), "");
    out.remarks.sort_by_key(|remark| remark.weight);
    let remarks = out.remarks.iter().map(|remark| short(remark.to_string())).collect();
    let configuration = short(out.configuration("mosquitto.conf"));
    (configuration, remarks, out)
}

/// Without the first line and what aligns comments.
fn lines(configuration: &str) -> Vec<String> {
    let lines = configuration.lines().skip(1).filter(|line| !line.is_empty());
    lines
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

#[test]
fn each_line_says_where_it_comes_from_and_defaults_are_not_repeated() {
    let conf = "pid_file /run/mosquitto.pid\npersistence true\npersistence_location /var/lib/mosquitto/\n\
                log_dest stdout\nlog_type error\nlog_type warning\nlistener 1883\nlistener 9001\nprotocol websockets\n\
                allow_anonymous true\nmax_queued_messages 500\nmax_inflight_messages 0\nqueue_qos0_messages true\n\
                persistent_client_expiration 2w\nmessage_size_limit 1000\nsys_interval 60\nmax_connections -1\n\
                check_retain_source false\n";
    let (configuration, remarks, out) = import(&[("mosquitto.conf", conf)]);
    let expected = [
        "[[listeners]]",
        "address = [\"0.0.0.0:1883\", \"[::]:1883\"] # mosquitto.conf:7",
        "[[listeners]]",
        "address = [\"0.0.0.0:9001\", \"[::]:9001\"] # mosquitto.conf:8",
        "protocol = \"websocket\" # mosquitto.conf:9",
        "[auth]",
        "allow_anonymous = true # mosquitto.conf:10",
        "check_retained_source = false # mosquitto.conf:18",
        "[limits]",
        "packet_bytes_max = \"66545B\" # mosquitto.conf:15",
        "[mqtt]",
        "max_inflight = 65535 # mosquitto.conf:12",
        "session_expiry_max = \"14days\" # mosquitto.conf:14",
        "session_expiry_v3 = \"14days\" # mosquitto.conf:14",
        "[queue]",
        "messages_max = 500 # mosquitto.conf:11",
        "policy = \"drop_newest\" # mosquitto.conf:11: mosquitto drops what comes then",
        "qos0_offline = true # mosquitto.conf:13",
        "[log]",
        "target = \"stdout\" # mosquitto.conf:4",
        "level = \"warn\" # mosquitto.conf:6",
        "[sys]",
        "interval = \"60s\" # mosquitto.conf:16",
        "public = true # mosquitto's default: every client may read $SYS",
    ];
    assert_eq!(lines(&configuration), expected);
    assert!(out.is_whole(), "{remarks:?}");
    assert_eq!(remarks.len(), 4, "{remarks:?}");
    assert!(
        remarks[1].starts_with("mosquitto.conf:1: left out: pid_file /run/mosquitto.pid: "),
        "{remarks:?}"
    );
}

#[test]
fn without_a_listener_only_this_machine_gets_in() {
    for (conf, expected) in [
        ("", "\"127.0.0.1:1883\", \"[::1]:1883\""),
        ("port 1884\n", "\"0.0.0.0:1884\", \"[::]:1884\""),
        ("bind_address 192.0.2.1\n", "\"192.0.2.1:1883\""),
        (
            "port 1884\nbind_address localhost\nsocket_domain ipv4\n",
            "\"127.0.0.1:1884\"",
        ),
    ] {
        let (configuration, ..) = import(&[("mosquitto.conf", conf)]);
        assert!(configuration.contains(expected), "{conf}: {configuration}");
        // What Sundew does by itself needs no word; where mosquitto refuses, one is needed on the loopback.
        assert_eq!(
            configuration.contains("allow_anonymous = false"),
            conf.contains("localhost"),
            "{conf}{configuration}"
        );
    }
}

#[test]
fn listeners_have_settings_of_their_own_where_they_differ() {
    let conf = "per_listener_settings true\nlistener 1883 127.0.0.1\nallow_anonymous true\nlistener 8883\n\
                password_file @/passwd\nacl_file @/acl\nlistener 0 /run/m.sock\nallow_anonymous false\n";
    let (configuration, remarks, out) = import(&[
        ("mosquitto.conf", conf),
        (
            "passwd",
            "a:$6$c2FsdHNhbHQ=$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==\n",
        ),
        ("acl", "user a\ntopic #\n"),
    ]);
    let expected = [
        "[[listeners]]",
        "address = \"127.0.0.1:1883\" # mosquitto.conf:2",
        "allow_anonymous = true # mosquitto.conf:3",
        "[[listeners]]",
        "address = [\"0.0.0.0:8883\", \"[::]:8883\"] # mosquitto.conf:4",
        "password_file = \"passwd\" # mosquitto.conf:5",
        "acl_file = \"acl\" # mosquitto.conf:6",
        "[[listeners]]",
        "address = \"unix:/run/m.sock\" # mosquitto.conf:7",
        "allow_anonymous = false # mosquitto.conf:8",
        "[auth]",
        "wide_subscriptions = \"grant\" # mosquitto.conf:6: mosquitto grants every subscription, and looks when it delivers",
    ];
    assert_eq!(lines(&configuration), expected);
    assert!(remarks.is_empty(), "{remarks:?}");
    assert_eq!(
        out.files.iter().map(|file| file.name.as_str()).collect::<Vec<_>>(),
        ["passwd", "acl"]
    );
}

/// What is not carried must not let anybody in who was kept out.
#[test]
fn what_cannot_be_carried_closes() {
    let open = "allow_anonymous true\nlistener 1883\n";
    for (more, expected) in [
        (
            "plugin /usr/lib/some.so\nplugin_opt_password hunter2\n",
            vec!["allow_anonymous = false", "acl_file = \"acl\""],
        ),
        (
            "psk_hint x\n",
            vec!["allow_anonymous = false", "address = \"127.0.0.1:1883\""],
        ),
        (
            "bind_interface eth7\n",
            vec!["address = [\"127.0.0.1:1883\", \"[::1]:1883\"]"],
        ),
        ("password_file /nowhere/passwd\n", vec!["password_file = \"passwd\""]),
        ("acl_file /nowhere/acl\n", vec!["acl_file = \"acl\""]),
        (
            "use_identity_as_username true\ncertfile @/c.pem\nkeyfile @/c.key\n",
            vec![
                "allow_anonymous = false",
                "user_name = \"common_name\"",
                "client_certificate = \"required\"",
            ],
        ),
        (
            "certfile @/c.pem\nkeyfile @/c.key\nrequire_certificate true\n",
            vec!["client_certificate = \"required\""],
        ),
        ("mount_point site\n", vec!["acl_file = \"acl\""]),
        (
            "clientid_prefixes dev-\n",
            vec!["topics = \"#\"", "client_ids = [\"dev-*\"]"],
        ),
        (
            "use_username_as_clientid true\nacl_file @/rules\n",
            vec!["allow_anonymous = false", "acl_file = \"rules\""],
        ),
        ("enable_proxy_protocol 2\n", vec!["trusted = [\"127.0.0.1\", \"::1\"]"]),
    ] {
        let (configuration, remarks, out) = import(&[
            ("mosquitto.conf", &format!("{open}{more}")),
            ("c.pem", ""),
            ("c.key", ""),
            ("rules", "pattern write devices/%c\n"),
        ]);
        let text = out.files.first().map(|file| file.text.as_str()).unwrap_or_default();
        assert!(!text.contains("%c"), "{more}: {text}");
        for expected in expected {
            assert!(
                configuration.contains(expected),
                "{more}: no {expected} in\n{configuration}"
            );
        }
        assert!(
            more.starts_with("use_identity") || !out.is_whole(),
            "{more}: {remarks:?}"
        );
        assert!(!remarks.join("\n").contains("hunter2"), "{remarks:?}");
    }
}

#[test]
fn what_sundew_does_not_have_is_listed_with_its_line() {
    let conf = "listener 1883\nmount_point site\nuse_username_as_clientid true\nclientid_prefixes dev-\n\
                max_inflight_bytes 100\nupgrade_outgoing_qos true\nlog_dest topic\nflobble 7\nmax_keepalive soon\n\
                connection cloud\naddress cloud.example:8883\nremote_username me\nremote_password hunter2\ntopic # out 1\n\
                allow_anonymous true\nhttp_dir /var/www\nciphers DEFAULT\nauth_opt_x y\n";
    let (configuration, remarks, _) = import(&[("mosquitto.conf", conf)]);
    let not_carried: Vec<_> = remarks
        .iter()
        .filter(|remark| remark.contains(": not carried: "))
        .collect();
    let at: Vec<_> = not_carried
        .iter()
        .filter_map(|remark| remark.split(':').nth(1))
        .collect();
    assert_eq!(
        at,
        ["2", "3", "16", "17", "4", "5", "6", "9", "7", "8", "18", "10"],
        "{not_carried:#?}"
    );
    for expected in [
        "# Not carried yet, the bridge of mosquitto.conf:10:",
        "#   address cloud.example:8883",
        "#   remote_password (a password)",
    ] {
        assert!(configuration.contains(expected), "{configuration}");
    }
    assert!(!configuration.contains("hunter2") && !remarks.join("\n").contains("hunter2"));
}

/// Compose files mount ./config as /mosquitto/config.
#[test]
fn files_of_a_container_are_found_beside_the_configuration() {
    let conf = "listener 1883\npassword_file /mosquitto/config/passwd # users\ninclude_dir /mosquitto/config/conf.d\n";
    let (configuration, remarks, out) = import(&[
        ("mosquitto.conf", conf),
        ("passwd", "# none\n"),
        (
            "conf.d/more.conf",
            "max_connections 7\nlistener 1884\nallow_anonymous false\n",
        ),
    ]);
    assert!(out.is_whole(), "{remarks:?}");
    assert!(remarks[0].ends_with("it is not there, passwd was taken"), "{remarks:?}");
    assert!(
        configuration.contains("[\"0.0.0.0:1884\", \"[::]:1884\"]  # conf.d/more.conf:2"),
        "{configuration}"
    );
    // max_connections stands in a file of its own, so it is for the default listener, which that opens.
    assert!(
        configuration.contains("connections_max = 7") && configuration.matches("[[listeners]]").count() == 3,
        "{configuration}"
    );
}

/// mosquitto's rules are about topics with their mount points, and so are ours.
#[test]
fn a_mount_point_is_carried_where_it_keeps_its_clients_apart() {
    let conf = "listener 1883\nallow_anonymous true\nacl_file @/rules\nmount_point site/a/\n\
                listener 1884\nallow_anonymous true\nmount_point site/b/\n\
                listener 1885\nallow_anonymous true\nmount_point site/b/\n";
    let rules = ("rules", "topic readwrite site/a/#\n");
    let (configuration, remarks, _) = import(&[("mosquitto.conf", conf), rules]);
    assert!(!remarks.iter().any(|remark| remark.contains("mount")), "{remarks:?}");
    assert_eq!(
        configuration.matches("mount_point = \"site/a/\"").count(),
        1,
        "{configuration}"
    );
    assert_eq!(
        configuration.matches("mount_point = \"site/b/\"").count(),
        2,
        "{configuration}"
    );
    let (configuration, remarks, _) = import(&[("mosquitto.conf", &conf.replace("site/b/", "site/")), rules]);
    assert!(!configuration.contains("mount_point ="), "{configuration}");
    let closed = remarks.iter().filter(|remark| remark.contains("it is not apart from"));
    assert_eq!(closed.count(), 3, "{remarks:?}");
}

/// What cannot be carried of a mount point closes the listener.
#[test]
fn a_listener_that_is_closed_is_not_opened_by_a_program() {
    let conf = "auth_plugin /usr/share/mosquitto/go-auth.so\nauth_opt_backends http\nauth_opt_http_host 127.0.0.1\n\
                auth_opt_http_port 80\nauth_opt_http_getuser_uri /user\nauth_opt_http_aclcheck_uri /acl\n\
                listener 1883\nlistener 1884\n";
    let (configuration, ..) = import(&[("mosquitto.conf", conf)]);
    assert!(!configuration.contains("listeners = "), "{configuration}");
    let (configuration, ..) = import(&[("mosquitto.conf", &format!("{conf}mount_point site\n"))]);
    let names: Vec<_> = configuration
        .lines()
        .filter(|line| line.starts_with("name = "))
        .collect();
    assert_eq!(names.len(), 2, "{configuration}");
    let open = names[0].split('"').nth(1).unwrap();
    assert!(
        configuration.contains(&format!("listeners = [\"{open}\"]")),
        "{configuration}"
    );
}

/// As the Home Assistant add-on makes it.
#[test]
fn go_auth_has_files_that_are_carried() {
    let conf = "user root\nlog_dest stdout\npersistence true\npersistence_location /data/\n\
                auth_plugin /usr/share/mosquitto/go-auth.so\nauth_opt_backends files,http\nauth_opt_hasher pbkdf2\n\
                auth_opt_cache true\nauth_opt_files_password_path @/pw\nauth_opt_http_host 127.0.0.1\nauth_opt_http_port 80\n\
                auth_opt_http_getuser_uri /authentication\nauth_opt_http_superuser_uri /superuser\nauth_opt_http_aclcheck_uri /acl\nlistener 1883\nprotocol mqtt\n\
                listener 1884\nprotocol websockets\n";
    let hash = "PBKDF2$sha512$100$c2FsdHNhbHQ=$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==";
    let (configuration, remarks, out) = import(&[("mosquitto.conf", conf), ("pw", &format!("addons:{hash}\n"))]);
    assert!(
        configuration.contains("password_file = \"pw\"  # mosquitto.conf:9"),
        "{configuration}"
    );
    assert!(
        !configuration.contains("allow_anonymous = true") && !configuration.contains("acl_file"),
        "{configuration}"
    );
    assert!(
        out.files[0].text.starts_with("addons:$7$100$c2FsdHNhbHQ=$"),
        "{}",
        out.files[0].text
    );
    // Files without rules allow everything, and one back end is enough: nobody is asked what may be done.
    let program = [
        "[[auth.http]] # mosquitto.conf:10",
        "connect_url = \"http://127.0.0.1:80/authentication\" # mosquitto.conf:12",
        "answer = \"status\" # go-auth's default",
    ];
    let found = lines(&configuration);
    assert!(found.windows(3).any(|three| three == program), "{found:#?}");
    assert!(out.is_whole(), "{remarks:?}");
    let alone = conf.replace("files,http", "http");
    let (configuration, remarks, out) = import(&[("mosquitto.conf", &alone)]);
    assert!(
        configuration.contains("acl_url = \"http://127.0.0.1:80/acl\""),
        "{configuration}"
    );
    assert!(
        !configuration.contains("public = true") && !configuration.contains("allow_anonymous = true"),
        "{configuration}"
    );
    assert!(
        remarks[0].starts_with("mosquitto.conf:13: not carried: auth_opt_http_superuser_uri"),
        "{remarks:?}"
    );
    assert_eq!(out.files.len(), 0);
    let other = import(&[("mosquitto.conf", &conf.replace("files,http", "mysql"))]);
    assert!(
        other.0.contains("acl_file = \"acl\"") && !other.2.is_whole(),
        "{}",
        other.0
    );
}

#[test]
fn files_of_users_and_rules_are_known_by_what_is_in_them() {
    for (text, kind) in [
        ("# c\nalice:$7$101$a$b\n", Kind::Passwords),
        ("topic read a/#\nuser alice\npattern write %u/#\n", Kind::Rules),
        ("user mosquitto\nlistener 1883\n", Kind::Configuration),
        ("", Kind::Configuration),
    ] {
        assert_eq!(kind_of(text), kind, "{text}");
    }
}

#[test]
fn nothing_is_replaced_without_force_and_mosquittos_own_files_never() {
    let folder = tempfile::tempdir().unwrap();
    let (target, source) = (folder.path().join("out"), folder.path().join("passwd"));
    std::fs::write(&source, "of mosquitto").unwrap();
    let mut out = Outcome::default();
    out.add_file("passwd", "new".into(), Some(&source), true);
    files::write(&target, "one".into(), &out.files, false).unwrap();
    assert!(
        files::write(&target, "two".into(), &out.files, false)
            .unwrap_err()
            .contains("--force")
    );
    assert_eq!(std::fs::read_to_string(target.join(CONFIGURATION)).unwrap(), "one");
    files::write(&target, "two".into(), &out.files, true).unwrap();
    assert_eq!(std::fs::read_to_string(target.join(CONFIGURATION)).unwrap(), "two");
    assert!(
        files::write(folder.path(), "x".into(), &out.files, true)
            .unwrap_err()
            .contains("mosquitto's own")
    );
    assert_eq!(std::fs::read_to_string(&source).unwrap(), "of mosquitto");
}

const DYNAMIC: &str = r#"{
	"clients":	[
		{ "username": "alice", "password": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==", "salt": "c2FsdHNhbHQ=", "iterations": 101, "roles": [{"rolename": "writer"}] },
		{ "username": "gone", "disabled": true },
		{ "username": "bound", "clientid": "c7", "encoded_password": "plain", "roles": [{"rolename": "reader"}] }
	],
	"groups":	[{ "groupname": "guests", "roles": [{"rolename": "reader"}], "clients": [{"username": "alice", "priority": 3}] }],
	"roles":	[
		{ "rolename": "writer", "acls": [
			{ "acltype": "publishClientSend", "topic": "home/#", "priority": 0, "allow": true },
			{ "acltype": "publishClientSend", "topic": "home/safe", "priority": 5, "allow": false },
			{ "acltype": "publishClientSend", "topic": "home/late", "priority": -5, "allow": false },
			{ "acltype": "publishClientSend", "topic": "+/late", "priority": -6, "allow": false },
			{ "acltype": "publishClientSend", "topic": "$CONTROL/#", "allow": true } ] },
		{ "rolename": "reader", "acls": [
			{ "acltype": "subscribePattern", "topic": "public/#", "allow": true },
			{ "acltype": "publishClientReceive", "topic": "public/secret", "allow": false },
			{ "acltype": "subscribeLiteral", "topic": "\u0023", "allow": false } ] },
		{ "rolename": "unused", "acls": [] }
	],
	"anonymousGroup": "guests",
	"defaultACLAccess": { "publishClientSend": false, "publishClientReceive": true, "subscribe": false, "unsubscribe": true }
}"#;

const DYNAMIC_RULES: [&str; 38] = [
    "[auth]",
    "password_file = \"users\" # mosquitto.conf:4",
    "allow_anonymous = true # mosquitto.conf:2",
    "[auth.groups]",
    "\"writer\" = [\"alice\"] # d.json:9",
    "\"reader\" = [\"alice\"] # d.json:15",
    "[[auth.rules]]",
    "effect = \"allow\"",
    "actions = [\"publish\"]",
    "topics = [\"home/#\"] # d.json:10",
    "groups = \"writer\"",
    "[[auth.rules]]",
    "effect = \"deny\"",
    "actions = [\"publish\"]",
    "topics = [\"home/safe\", \"+/late\"] # d.json:11, d.json:13",
    "groups = \"writer\"",
    "[[auth.rules]]",
    "effect = \"allow\"",
    "actions = [\"subscribe\"]",
    "topics = [\"public/#\"] # d.json:16",
    "users = \"bound\"",
    "client_ids = \"c7\" # d.json:5",
    "[[auth.rules]]",
    "effect = \"deny\"",
    "actions = [\"receive\"]",
    "topics = [\"public/secret\"] # d.json:17",
    "users = \"bound\"",
    "client_ids = \"c7\" # d.json:5",
    "[[auth.rules]]",
    "effect = \"allow\"",
    "actions = [\"subscribe\"]",
    "topics = [\"public/#\"] # d.json:16",
    "groups = [\"reader\", \"anonymous\"]",
    "[[auth.rules]]",
    "effect = \"deny\"",
    "actions = [\"receive\"]",
    "topics = [\"public/secret\"] # d.json:17",
    "groups = [\"reader\", \"anonymous\"]",
];

/// mosquitto does not let him in with another client id: what everybody may do, he may with his own only.
#[test]
fn what_is_allowed_by_default_is_so_to_a_bound_user_with_his_client_id_only() {
    let conf = "listener 1883\nplugin /usr/lib/mosquitto_dynamic_security.so\nplugin_opt_config_file @/d.json\n";
    let json = DYNAMIC.replace("\"publishClientSend\": false", "\"publishClientSend\": true");
    let (configuration, ..) = import(&[("mosquitto.conf", conf), ("d.json", &json)]);
    let found = lines(&configuration);
    let rules: Vec<_> = found.split(|line| line == "[[auth.rules]]").collect();
    let of_default: Vec<_> = rules
        .iter()
        .filter(|rule| rule.iter().any(|line| line.starts_with("topics = [\"#\"]")))
        .collect();
    assert_eq!(of_default.len(), 2, "{configuration}");
    assert_eq!(of_default[0][3], "groups = [\"dynamic-security\", \"anonymous\"]");
    assert_eq!(of_default[1][3], "users = \"bound\"");
    assert!(of_default[1][4].starts_with("client_ids = \"c7\""), "{configuration}");
    assert!(
        found
            .iter()
            .any(|line| line.contains("dynamic-security\" = [\"alice\"]")
                || line.starts_with("dynamic-security = [\"alice\"]")),
        "{configuration}"
    );
}

#[test]
fn dynamic_security_becomes_users_groups_and_rules() {
    let conf = "listener 1883\nallow_anonymous true\nplugin /usr/lib/mosquitto_dynamic_security.so\nplugin_opt_config_file @/d.json\n";
    let (configuration, remarks, out) = import(&[("mosquitto.conf", conf), ("d.json", DYNAMIC)]);
    let found = lines(&configuration);
    assert_eq!(found[2..], DYNAMIC_RULES, "{configuration}");
    assert!(
        out.files[0].text.starts_with("alice:$7$101$c2FsdHNhbHQ=$AAAA"),
        "{:?}",
        out.files
    );
    assert_eq!(out.files[0].text.lines().count(), 1);
    let said = |line: &str, what: &str| {
        let is_it = |remark: &&String| remark.starts_with(&format!("d.json:{line}: {what}"));
        assert!(
            remarks.iter().any(|remark| is_it(&remark)),
            "{line} {what}: {remarks:#?}"
        );
    };
    said("5", "not carried: user \"bound\": the password is not hashed");
    said(
        "5",
        "not carried: user \"bound\" may enter with the client id \"c7\" only",
    );
    said(
        "13",
        "not carried: role writer: denies +/late after a rule that allows a part",
    );
    said(
        "12",
        "left out: role writer: denies home/late, but a rule before it allows all of that",
    );
    said("18", "left out: role reader: denies # as a subscription");
    said("4", "left out: user \"gone\" is disabled");
    said("9", "left out: role writer: rights on $CONTROL");
    said("19", "left out: role unused: nobody has it");
}

/// Who may subscribe and who may receive are asked apart by mosquitto, and may come of several roles.
#[test]
fn where_receiving_has_to_be_allowed_readers_are_named() {
    let text = r#"{"clients": [{"username": "a", "roles": [{"rolename": "s"}, {"rolename": "r"}]}, {"username": "b", "roles": [{"rolename": "s"}]}],
"roles": [{"rolename": "s", "acls": [{"acltype": "subscribePattern", "topic": "x/#", "allow": true}]},
{"rolename": "r", "acls": [{"acltype": "publishClientReceive", "topic": "x/y/#", "allow": true}, {"acltype": "publishClientReceive", "topic": "z", "allow": true}]}]}"#;
    let mut out = Outcome::default();
    let read = DynamicSecurity::parse("d.json", text, &mut out).unwrap();
    let rules = roles::carry(&read, &["one".into()], false, &mut out);
    out.tables = rules.tables;
    let expected = [
        "[auth.groups]",
        "\"s\" = [\"a\", \"b\"] # d.json:2",
        "\"r\" = [\"a\"] # d.json:3",
        "[[auth.rules]]",
        "effect = \"allow\"",
        "actions = [\"subscribe\"]",
        "listeners = [\"one\"]",
        "topics = [\"x/y/#\"] # d.json:3",
        "users = [\"a\"]",
    ];
    let found = lines(&out.configuration("d.json"));
    assert!(
        found.ends_with(&expected[3..].iter().map(|line| (*line).to_owned()).collect::<Vec<_>>()),
        "{found:#?}"
    );
    assert_eq!(rules.wide.map(|(wide, _)| wide), Some("narrow"));
}

mod random;
