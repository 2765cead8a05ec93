use super::super::*;
use super::DYNAMIC;

/// A line that mosquitto could have, or a person could have written.
fn some_line() -> impl proptest::strategy::Strategy<Value = String> {
    use proptest::prelude::*;
    let names: Vec<&str> = grammar::every_option()
        .chain(["listener", "plugin", "connection", "include_dir", "flobble"])
        .collect();
    let values = [
        "true",
        "false",
        "0",
        "-1",
        "7",
        "99999999999",
        "1883",
        "14d",
        "2 \" x",
        "127.0.0.1",
        "mqtt",
        "websockets",
        "@/c.pem",
        "all",
        "none",
        "file @/log",
        "stdout",
        "tlsv1.3",
        "ipv4",
        "a/# out 1",
        "\u{e9}\u{1}",
        "",
        "4,5",
        "go-auth.so",
        "dynamic_security.so",
        "site/",
        "site/a/",
        "@/d.json",
    ];
    prop_oneof![
        4 => (proptest::sample::select(names), proptest::sample::select(values.to_vec())).prop_map(|(name, value)| format!("{name} {value}\n")),
        1 => (1024..60_000_u16, proptest::sample::select(&["", " 127.0.0.1", " [::1]", " # x"][..])).prop_map(|(port, host)| format!("listener {port}{host}\n")),
        1 => proptest::sample::select(&["plugin dynamic_security.so\nplugin_opt_config_file @/d.json\n", "certfile @/c.pem\nkeyfile @/c.pem\n",
            "per_listener_settings true\n", "password_file @/passwd\n", "acl_file @/acl\n"][..]).prop_map(str::to_owned),
    ]
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(400))]
    /// Whatever mosquitto's file says: what comes of it is a configuration that Sundew starts with.
    #[test]
    fn what_is_made_is_a_configuration(lines in proptest::collection::vec(some_line(), 0..14)) {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().display().to_string();
        for (name, text) in [("c.pem", ""), ("passwd", "a:b\n"), ("acl", "user a\ntopic #\npattern deny x\n"), ("d.json", DYNAMIC)] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let path = folder.path().join("mosquitto.conf");
        let text = lines.concat().replace('@', &at);
        let mut out = Outcome::default();
        configuration(&path, &text, &mut out);
        let made = folder.path().join("made");
        let written = out.configuration("mosquitto.conf");
        files::write(&made, written.clone(), &out.files, false).unwrap();
        let loaded = crate::config::load(&crate::config::Layers::new(Some(made.join(CONFIGURATION)), Vec::new()));
        let errors: Vec<_> = loaded.err().into_iter().flatten()
            .filter(|problem| problem.severity == crate::config::Severity::Error)
            .map(|problem| problem.to_string())
            // Two listeners of one port are as wrong in mosquitto; a key or authority that is nowhere, or empty, is said by both.
            .filter(|problem| !problem.contains("is the address of") && !problem.contains("in PEM form") && !problem.contains("cannot be checked, add client_ca") && !problem.contains("cannot read"))
            .collect();
        proptest::prop_assert!(errors.is_empty(), "{errors:#?}\n{text}\n{written}");
    }
}
