//! Fuzzing on a stable compiler: packets of our own encoder and logs of a store, whole and broken, through the functions in `targets.rs`.
//!
//! `SUNDEW_FUZZ_INPUTS` is the number of inputs (200,000 by default, a few seconds), `SUNDEW_FUZZ_SEED` where they start from.
//! For millions use `cargo test --release --test fuzz`. A failure names the seed of the one input that broke a promise.

mod generate;
mod history;
mod targets;

use std::panic::catch_unwind;

use generate::{Random, frame, mutate, with_packet};
use sundew::codec::{DecodeOptions, Role, decode, encode};
use sundew::protocol::packet::Packet;
use sundew::protocol::version::Version;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// Runs `one` for every seed and says which seed it was that failed.
fn for_every_seed(one: fn(&mut Random)) {
    for_seeds(1, one);
}

/// The same for a part of the inputs: one that takes as long as `weight` others.
fn for_seeds(weight: u64, one: fn(&mut Random)) {
    let first = setting("SUNDEW_FUZZ_SEED", 1);
    for seed in first..first + setting("SUNDEW_FUZZ_INPUTS", 200_000).div_ceil(weight) {
        if catch_unwind(|| one(&mut Random::new(seed))).is_err() {
            panic!("seed {seed}: run again with SUNDEW_FUZZ_SEED={seed} SUNDEW_FUZZ_INPUTS=1");
        }
    }
}

#[test]
fn broken_packets_break_no_promise() {
    for_every_seed(|random| {
        let (_, _, mut bytes) = frame(random);
        mutate(random, &mut bytes);
        targets::decode(&bytes);
    });
}

#[test]
fn random_topics_and_property_blocks_break_no_promise() {
    for_every_seed(|random| {
        const PIECES: &[&[u8]] = &[
            b"a",
            b"/",
            b"+",
            b"#",
            b"$",
            b"$share/",
            b"g",
            b"\n",
            b"\0",
            b"\xC3\xA9",
            b"\xFF",
        ];
        let mut topic = Vec::new();
        for _ in 0..random.below(12) {
            topic.extend_from_slice(random.pick(PIECES));
        }
        targets::topic(&topic);
        let (_, _, mut bytes) = frame(random);
        mutate(random, &mut bytes);
        targets::properties(bytes.get(random.below(8)..).unwrap_or_default());
    });
}

#[test]
fn files_of_users_and_rules_break_no_promise() {
    for_every_seed(|random| {
        const PIECES: &[&[u8]] = &[
            b"alice:",
            b"$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0$MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE",
            b"$7$101$r02FpQM6Al2pzMki$644//s1o1Wnoh+VSi4K82qd5XhHK4buXE+daF2wEmPq23FrhHIvz89QvBcSuJ8zfqvvTsLFAzirEbEYOEa6Cow==",
            b"$6$",
            b" $scram-sha-256$4096$W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=$wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
            b"$",
            b"=",
            b":",
            b"\n",
            b"\r\n",
            b"#",
            b"user ",
            b"topic ",
            b"pattern ",
            b"read ",
            b"deny ",
            b"a/%u/%c",
            b"/+",
            b"\xEF\xBB\xBF",
            b"\xFF",
        ];
        let mut text = Vec::new();
        for _ in 0..random.below(16) {
            text.extend_from_slice(random.pick(PIECES));
        }
        targets::access_files(&text);
        mutate(random, &mut text);
        targets::access_files(&text);
    });
}

#[test]
fn messages_of_scram_prove_nothing() {
    for_every_seed(|random| {
        const PIECES: &[&[u8]] = &[
            b"n,,",
            b"y,",
            b"p=tls-exporter",
            b"n=a",
            b"=2C",
            b"=3D",
            b"r=AAAA",
            b"AAAAAAAAAAAAAAAAAAAAAAAA",
            b"c=biws",
            b"s=c2FsdHNhbHQ=",
            b"i=4096",
            b"p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
            b"v=AAAA",
            b"m=x",
            b"e=other-error",
            b",",
            b"=",
            b"$scram-sha-256$4096$c2FsdHNhbHQ=",
            b"$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
            b"\0",
            b"\xC3\xBC",
            b"\xFF",
        ];
        let mut text = Vec::new();
        for _ in 0..random.below(12) {
            text.extend_from_slice(random.pick(PIECES));
            if random.below(2) == 0 {
                text.push(b',');
            }
        }
        targets::scram(&text);
        mutate(random, &mut text);
        targets::scram(&text);
    });
}

#[test]
fn tokens_and_keys_that_nobody_has_signed_break_no_promise() {
    const SECRET: &str = "a secret of more than thirty-two bytes";
    for_seeds(4, |random| {
        const PIECES: &[&str] = &[
            "{\"alg\":\"HS256\"",
            "{\"alg\":\"none\"",
            "\"kid\":\"1\"",
            "{\"keys\":[",
            "{\"kty\":\"oct\",\"k\":\"c2VjcmV0\"}",
            "{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"AA\",\"y\":\"AA\"}",
            "{\"kty\":\"RSA\",\"n\":\"AQAB\",\"e\":\"AQAB\"}",
            "]",
            "}",
            "{",
            "[",
            ",",
            "\"sub\":\"a\"",
            "\"exp\":1e308",
            "\"pub\":[\"a/%u/#\"]",
            "\"all\":",
            "\"topic\":\"a\"",
            "\"permission\":\"allow\"",
            "7",
            "null",
            ".",
            "eyJhbGciOiJIUzI1NiJ9.",
            "eyJhbGciOiJub25lIn0.",
            "e30.",
            "-----BEGIN PUBLIC KEY-----\n",
            "-----END PUBLIC KEY-----\n",
            "MCowBQYDK2VwAyEA",
        ];
        let claims = serde_json::json!({"sub": "a", "exp": 4_000_000_000_u64, "acl": {"pub": ["a"]}});
        let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
        let real = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).expect("a token");
        let mut text = real.clone().into_bytes();
        targets::tokens(&text, SECRET, &real);
        mutate(random, &mut text);
        targets::tokens(&text, SECRET, &real);
        let mut text = String::new();
        for _ in 0..random.below(16) {
            text.push_str(random.pick(PIECES));
        }
        targets::tokens(text.as_bytes(), SECRET, &real);
    });
}

#[test]
fn files_of_mosquitto_break_no_promise() {
    for_seeds(2, |random| {
        const CONF: &[&[u8]] = &[
            b"listener 1883", b"listener ", b"connection c\n", b"plugin p.so\n", b"plugin_opt_a ", b"auth_opt_", b"include_dir d\n",
            b"per_listener_settings true\n", b"allow_anonymous false\n", b"password_file ", b"topic # both 2 a/ b/\n", b"certfile x\n",
            b"max_queued_messages -1\n", b"# ", b" ", b"\t", b"\r\n", b"\n", b"user ", b"topic ", b"pattern deny ", b"a/%u/%c", b"alice:",
            b"$7$101$r02FpQM6Al2pzMki$644//s1o1Wnoh+VSi4K82qd5XhHK4buXE+daF2wEmPq23FrhHIvz89QvBcSuJ8zfqvvTsLFAzirEbEYOEa6Cow==",
            b"PBKDF2$sha512$7$", b"\xEF\xBB\xBF", b"\xC3\xA9",
        ];
        const JSON: &[&[u8]] = &[
            b"{",
            b"}",
            b"[",
            b"]",
            b",",
            b":",
            b"\"clients\":",
            b"\"roles\":[",
            b"\"groups\":",
            b"{\"username\":\"a\"",
            b"{\"rolename\":\"r\"",
            b"\"acls\":[",
            b"{\"acltype\":\"subscribePattern\",\"topic\":\"a/#\",\"allow\":true}",
            b"\"encoded_password\":\"$6$",
            b"\"",
            b"\\u00e9",
            b"\\ud83d\\ude00",
            b"\\ud83d",
            b"\\n",
            b"-1.5e3",
            b"0",
            b"01",
            b"1e999",
            b"true",
            b"null",
            b" ",
            b"\n",
            b"\xC3\xA9",
        ];
        let pieces = random.pick(&[CONF, JSON]);
        let mut text = Vec::new();
        for _ in 0..random.below(20) {
            text.extend_from_slice(random.pick(pieces));
        }
        targets::mosquitto_files(&text);
        mutate(random, &mut text);
        targets::mosquitto_files(&text);
    });
}

#[test]
fn headers_of_proxies_break_no_promise() {
    for_every_seed(|random| {
        const LINES: &[&[u8]] = &[
            b"PROXY ",
            b"TCP4 ",
            b"TCP6 ",
            b"UNKNOWN",
            b"192.0.2.7 ",
            b"2001:db8::7 ",
            b"49152 ",
            b"1883",
            b"99999",
            b" ",
            b"\r\n",
            b"\n",
            b"\xFF",
        ];
        let mut bytes = Vec::new();
        if random.below(2) == 0 {
            bytes.extend_from_slice(b"PROXY ");
            for _ in 0..random.below(12) {
                bytes.extend_from_slice(random.pick(LINES));
            }
            bytes.extend_from_slice(b"\r\n");
        } else {
            bytes.extend_from_slice(b"\r\n\r\n\0\r\nQUIT\n");
            bytes.push(random.pick(&[0x20, 0x21, 0x21, 0x21, 0x31]));
            bytes.push(random.pick(&[0x00, 0x11, 0x12, 0x21, 0x31, 0x41]));
            let mut body: Vec<u8> = (0..random.below(60)).map(|_| random.next() as u8).collect();
            for _ in 0..random.below(4) {
                // PP2_TYPE_ALPN, AUTHORITY, SSL with a common name in it, CRC32C.
                let value: &[u8] =
                    random.pick(&[b"mqtt".as_slice(), b"broker.example", b"\x05\0\0\0\0\x22\0\x01a", b""]);
                body.push(random.pick(&[0x01, 0x02, 0x20, 0x03, 0x04]));
                body.extend((value.len() as u16).to_be_bytes());
                body.extend_from_slice(value);
            }
            let length = body.len() as u16;
            bytes.extend(
                random
                    .pick(&[length, length, length, length.saturating_sub(1), length + 1, 3000])
                    .to_be_bytes(),
            );
            bytes.append(&mut body);
        }
        bytes.extend_from_slice(random.pick(&[b"".as_slice(), b"\x10\x0c\0\x04MQTT", b"\x16\x03\x01"]));
        targets::proxy(&bytes);
        mutate(random, &mut bytes);
        targets::proxy(&bytes);
    });
}

#[test]
fn configurations_break_no_promise() {
    const REFERENCE: &str = include_str!("../../config/reference.toml");
    for_seeds(200, |random| {
        let options: Vec<&str> = REFERENCE
            .lines()
            .filter_map(|line| {
                let line = line.strip_prefix('#').unwrap_or(line);
                (line.starts_with('[') || line.contains(" = "))
                    .then_some(line)
                    .filter(|line| !line.starts_with(' '))
            })
            .collect();
        let mut text = Vec::new();
        for _ in 0..random.below(20) {
            text.extend_from_slice(options[random.below(options.len())].as_bytes());
            text.push(b'\n');
        }
        targets::configuration(&text);
        mutate(random, &mut text);
        targets::configuration(&text);
    });
}

#[test]
fn files_of_tls_break_no_promise() {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    static MADE: std::sync::OnceLock<Vec<(&str, Vec<u8>)>> = std::sync::OnceLock::new();
    for_seeds(100, |random| {
        let made = MADE.get_or_init(|| {
            let key = rcgen::KeyPair::generate().expect("a key");
            let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            params.key_usages = vec![rcgen::KeyUsagePurpose::CrlSign, rcgen::KeyUsagePurpose::KeyCertSign];
            let key_der = key.serialize_der();
            let issuer = rcgen::CertifiedIssuer::self_signed(params, key).expect("a certificate");
            let now = time::OffsetDateTime::now_utc();
            let one = |serial: u64| rcgen::RevokedCertParams {
                serial_number: rcgen::SerialNumber::from(serial),
                revocation_time: now,
                reason_code: None,
                invalidity_date: None,
            };
            let list = rcgen::CertificateRevocationListParams {
                this_update: now,
                next_update: now + time::Duration::DAY,
                crl_number: rcgen::SerialNumber::from(1),
                issuing_distribution_point: None,
                revoked_certs: vec![one(1), one(2)],
                key_identifier_method: rcgen::KeyIdMethod::Sha256,
            };
            let list = list.signed_by(&issuer).expect("a list");
            vec![
                ("CERTIFICATE", issuer.der().to_vec()),
                ("PRIVATE KEY", key_der),
                ("X509 CRL", list.der().to_vec()),
            ]
        });
        let mut pem = Vec::new();
        for _ in 0..1 + random.below(4) {
            let (kind, der) = &made[random.below(made.len())];
            let mut der = der.clone();
            if random.below(3) > 0 {
                mutate(random, &mut der);
            }
            let text = STANDARD.encode(der);
            pem.extend_from_slice(format!("-----BEGIN {kind}-----\n{text}\n-----END {kind}-----\n").as_bytes());
        }
        if random.below(4) == 0 {
            mutate(random, &mut pem);
        }
        targets::certificates(&pem);
    });
}

#[test]
fn answers_of_programs_and_lists_of_bans_break_no_promise() {
    for_every_seed(|random| {
        const PIECES: &[&[u8]] = &[
            b"{",
            b"}",
            b"[",
            b"]",
            b",",
            b":",
            b"\"result\":",
            b"\"allow\"",
            b"\"deny\"",
            b"\"ok\":true",
            b"\"is_superuser\":true",
            b"\"acl\":[",
            b"{\"permission\":\"allow\",\"action\":\"all\",\"topic\":\"a/#\"}",
            b"allow",
            b"ok",
            b"\n",
            b"${username}",
            b"${",
            b"http://h/",
            b"..",
            b"/",
            b"\\",
            b"?",
            b"%2e",
            b"\xC3\xA9",
            b"{\"kind\":\"address\",\"value\":\"192.0.2.0/24\"}",
            b"{\"kind\":\"user\",\"value\":\"a\",\"until\":7}",
            b"{\"kind\":\"address\",\"value\":\"192.0.2.0/99\",\"note\":\"n\"}",
        ];
        let mut text = Vec::new();
        for _ in 0..random.below(8) {
            text.extend_from_slice(random.pick(PIECES));
        }
        targets::answers(&text);
        mutate(random, &mut text);
        targets::answers(&text);
    });
}

#[test]
fn a_log_is_read_whole_and_a_broken_one_breaks_no_promise() {
    for_seeds(20, |random| {
        let mut log = history::log(random);
        targets::log(&log);
        for _ in 0..1 + random.below(4) {
            mutate(random, &mut log);
        }
        targets::records(&log);
    });
}

#[test]
fn every_packet_is_read_back_from_any_split() {
    for_every_seed(|random| {
        let version = random.pick(&Version::ALL);
        let reader = random.pick(&[Role::Server, Role::Client]);
        let mut split = Random::new(random.next());
        with_packet(random, version, reader, &mut |packet| {
            check_splits(packet, version, reader, &mut split)
        });
    });
}

fn check_splits(packet: &Packet<'_>, version: Version, reader: Role, random: &mut Random) {
    let options = DecodeOptions::default();
    let mut bytes = Vec::new();
    let length = encode(packet, version, &mut bytes).expect("what is generated can be written");
    assert_eq!(length, bytes.len());
    let read_as = (!matches!(packet, Packet::Connect(_))).then_some(version);
    // Arrives in pieces: nothing until the last byte, then the packet, whatever is behind it.
    let mut arrived = 0;
    while arrived < length {
        assert_eq!(
            decode(&bytes[..arrived], read_as, reader, &options),
            Ok(None),
            "{packet:?} cut at {arrived}"
        );
        arrived += 1 + random.below(8);
    }
    bytes.push(random.next() as u8);
    let (read, consumed) = decode(&bytes, read_as, reader, &options)
        .expect("a good packet")
        .expect("a whole packet");
    assert_eq!((&read, consumed), (packet, length));
}

#[test]
fn requests_on_the_control_socket_break_no_promise() {
    for_every_seed(|random| {
        const PIECES: &[&[u8]] = &[
            b"\"list_bans\"",
            b"\"reload\"",
            b"{\"add_ban\":{\"kind\":\"address\",\"value\":\"10.0.0.0/8\",\"seconds\":null,\"note\":\"\"}}",
            b"{\"add_ban\":{\"kind\":\"user\",\"value\":\"a\",\"seconds\":18446744073709551615,\"note\":\"n\"}}",
            b"{\"lift_ban\":{\"kind\":\"client\",\"value\":\"\\u0000\"}}",
            b"{\"done\":1}",
            b"{\"bans\":[]}",
            b"{\"reloaded\":{\"taken\":[\"a\"],\"refused\":[],\"waiting\":[]}}",
            b"{\"failed\":\"\"}",
            b"\n",
        ];
        let mut line = random.pick(PIECES).to_vec();
        targets::control(&line);
        mutate(random, &mut line);
        targets::control(&line);
        line.extend_from_slice(random.pick(PIECES));
        targets::control(&line);
    });
}

/// The list is that of the functions in `targets.rs`, but for what is read from a whole log only.
#[test]
fn every_target_has_a_wrapper_for_cargo_fuzz() {
    let functions = include_str!("targets.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("pub(crate) fn "));
    let names = functions
        .filter_map(|function| function.split('(').next())
        .filter(|name| *name != "log");
    let mut names: Vec<_> = names.map(str::to_owned).collect();
    names.sort();
    let manifest = include_str!("cargo-fuzz/Cargo.toml");
    let binaries = manifest
        .split("[[bin]]")
        .skip(1)
        .filter_map(|binary| binary.split('"').nth(1));
    let mut binaries: Vec<_> = binaries.map(str::to_owned).collect();
    binaries.sort();
    assert_eq!(binaries, names);
    for name in names {
        let file = format!(
            "{}/tests/fuzz/cargo-fuzz/fuzz_targets/{name}.rs",
            env!("CARGO_MANIFEST_DIR")
        );
        let wrapper = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(wrapper.contains(&format!("targets::{name}(")), "{file}");
    }
}
