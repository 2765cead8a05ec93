use proptest::prelude::*;

use super::*;

/// Made by mosquitto_passwd 2.0.11, the passwords are `secret` and `pass word`; the third by its option -H sha512, `test`.
const MOSQUITTO: &str = "\
# made by mosquitto_passwd
alice:$7$101$r02FpQM6Al2pzMki$644//s1o1Wnoh+VSi4K82qd5XhHK4buXE+daF2wEmPq23FrhHIvz89QvBcSuJ8zfqvvTsLFAzirEbEYOEa6Cow==

bob:$7$101$2H1pbgJ7Gf8Gplik$wD3JLuUq5kGZlCNhoS7R09OsiIcO1ol0pzDD5hztlYV6DCnRgVkt+Rk7xBjctSDMx9gFHdqiwNuZn/AumbokOQ==
test:$6$njERlZMi/7DzNB9E$iiavfuXvUm8iyDZArTy7smTxh07GXXOrOsqxfW6gkOYVXHGk+W+i/8d3xDxrMwEPygEBhoA8A/gjQC0N2M4Lkw==
";
const ARGON2: &str = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0$MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE";

fn read(text: &str) -> Result<PasswordFile, Vec<FileProblem>> {
    PasswordFile::parse(text, &foldhash::fast::FixedState::default())
}

fn hash(file: &PasswordFile, name: &str) -> PasswordHash {
    (**file.get(name).unwrap().entry.hash.as_ref().unwrap()).clone()
}

#[test]
fn the_three_kinds_are_read_and_written_as_they_are() {
    let text = format!("{MOSQUITTO}dave:{ARGON2}\r\n");
    let file = read(&text).unwrap();
    assert_eq!(file.len(), 4);
    assert_eq!(hash(&file, "bob").scheme, Scheme::Pbkdf2 { iterations: 101 });
    assert_eq!(hash(&file, "test").scheme, Scheme::Sha512);
    assert_eq!(file.get("test").unwrap().line, 5);
    let argon2 = Scheme::Argon2id {
        memory_kib: 19_456,
        passes: 2,
        lanes: 1,
    };
    assert_eq!(hash(&file, "dave").scheme, argon2);
    for (name, user) in file.users() {
        assert!(text.contains(&format!("{name}:{}", user.entry)), "{name}");
    }
}

#[test]
fn what_is_told_of_a_wrong_line_has_nothing_of_the_password() {
    for line in [
        "a:secret",
        "a:pass:secret",
        "a:$7$101$secret:AAAA",
        "a:$6$secret{$AAAA",
        "a:$6$AAAA$secret{",
    ] {
        let problems = read(&format!("{line}\n")).unwrap_err();
        let message = &problems[0].message;
        assert!(message.starts_with("user \"a\": "), "{message}");
        assert!(!message.contains("secret") && !message.contains("pass:"), "{message}");
    }
}

#[test]
fn every_line_that_is_wrong_is_told_and_nothing_is_taken() {
    let table: &[(&str, &str)] = &[
        ("alice", "expected USER:HASH"),
        (":$6$AAAA$AAAA", "no user name"),
        ("a:secret", "not hashed"),
        ("a:", "not hashed"),
        ("a:$5$AAAA$AAAA", "no kind that is known"),
        ("a:$", "no kind that is known"),
        ("a:$6", "not whole: expected $6$SALT$HASH"),
        ("a:$6$AAAA", "not whole"),
        ("a:$6$AAAA$", "the hash has 0 bytes, expected 64"),
        ("a:$6$AA{A$AAAA", "not base64"),
        ("a:$7$0$AAAA$AAAA", "iterations is \"0\""),
        ("a:$7$99999999$AAAA$AAAA", "iterations is"),
        ("a:$argon2id$v=16$m=8,t=1,p=1$AAAA$AAAA", "version 1.3"),
        ("a:$argon2id$v=19$m=8,t=1$AAAA$AAAA", "not whole"),
        ("a:$argon2id$v=19$m=8,t=1,p=2$AAAA$AAAA", "8 KiB"),
        ("a:$argon2id$v=19$m=99999999,t=1,p=1$AAAA$AAAA", "m is"),
        ("a:$argon2id$v=19$m=8,t=1,p=1$AAAA$AAAA", "the salt has 3 bytes"),
    ];
    let text: String = table.iter().map(|(line, _)| format!("{line}\n")).collect();
    let problems = read(&text).unwrap_err();
    assert_eq!(problems.len(), table.len());
    for (at, (problem, (line, message))) in problems.iter().zip(table).enumerate() {
        assert_eq!(problem.line, at as u32 + 1);
        assert!(problem.message.contains(message), "{line}: {}", problem.message);
    }
    let twice = format!("a:{ARGON2}\na:{ARGON2}\n");
    assert!(read(&twice).unwrap_err()[0].message.contains("line 1 already"));
}

/// RFC 7677 section 3: the password is `pencil`.
const SCRAM: &str = "$scram-sha-256$4096$W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=$wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

#[test]
fn a_line_may_have_a_hash_and_what_scram_needs() {
    let file = read(&format!("a:{ARGON2} {SCRAM}\nb:  {SCRAM} {ARGON2}\nc:{SCRAM}\n")).unwrap();
    let user = |name: &str| &file.get(name).unwrap().entry;
    assert_eq!(user("a").to_string(), format!("{ARGON2} {SCRAM}"));
    assert_eq!(user("a"), user("b"));
    assert!(user("c").hash.is_none() && user("c").scram(Mechanism::Sha256).is_some());
    assert_eq!(user("a").kinds(), "argon2id, SCRAM-SHA-256 with 4096 iterations");
    assert!(file.has_scram(Mechanism::Sha256) && !file.has_scram(Mechanism::Sha512));
    assert_ne!(
        file.get("a").unwrap().stamp,
        read(&format!("a:{ARGON2}\n")).unwrap().get("a").unwrap().stamp
    );
    for (line, said) in [
        (format!("a:{SCRAM} {SCRAM}"), "SCRAM-SHA-256 is there twice"),
        (format!("a:{ARGON2} {ARGON2}"), "two hashes"),
        (format!("a:{SCRAM} secret"), "not hashed"),
        (format!("a:{}", SCRAM.replace("4096", "1")), "expected 4096 to"),
    ] {
        let message = &read(&line).unwrap_err()[0].message;
        assert!(message.contains(said) && !message.contains("secret"), "{message}");
    }
}

#[test]
fn a_stamp_changes_with_the_password_and_a_decoy_is_steady() {
    let (one, other) = (format!("a:{ARGON2}"), format!("a:{}", ARGON2.replace("c2Fs", "c2Ft")));
    let stamp = |text: &str| read(text).unwrap().get("a").unwrap().stamp;
    assert_eq!(stamp(&one), stamp(&format!("# moved\n{one}")));
    assert_ne!(stamp(&one), stamp(&other));
    let seed = foldhash::fast::FixedState::default();
    let file = read(MOSQUITTO).unwrap();
    let decoy = |name: &str| file.decoy(name, &seed).unwrap();
    assert_eq!(decoy("nobody"), decoy("nobody"));
    let kinds: std::collections::HashSet<_> = (0..100).map(|n| decoy(&format!("u{n}")).scheme).collect();
    assert_eq!(kinds.len(), 2, "both kinds of the file are met");
    assert!(PasswordFile::default().decoy("a", &seed).is_none());
}

#[test]
fn a_user_is_replaced_in_its_place_and_comments_stay() {
    let text = "# ours\na:1\r\nb:2";
    assert_eq!(with_user(text, "a", Some("a:9")), ("# ours\na:9\nb:2\n".into(), true));
    assert_eq!(with_user(text, "b", None), ("# ours\na:1\n".into(), true));
    assert_eq!(
        with_user(text, "c", Some("c:3")),
        ("# ours\na:1\nb:2\nc:3\n".into(), false)
    );
    assert_eq!(with_user("a:1\na:2\n", "a", Some("a:3")), ("a:3\n".into(), true));
    for bad in ["", " a", "#a", "a:b", "a\nb"] {
        assert!(wrong_with_name(bad).is_some(), "{bad:?}");
    }
    assert!(wrong_with_name("Frau Müller/1+").is_none());
}

proptest! {
    #[test]
    fn no_text_panics(text in "[a$:=,6-7vmtp\n #argon2id]{0,80}") {
        let _ = read(&text);
    }
}
