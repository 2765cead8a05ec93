//! What is fuzzed: plain functions over bytes, that panic where a promise is broken. Used by the driver beside this file, which
//! runs on a stable compiler, and by the wrapper in `cargo-fuzz/`.

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use sundew::auth::acl_file::AclFile;
use sundew::auth::password::PasswordFile;
use sundew::backends::http::client::Answer;
use sundew::backends::http::says::{self, Says};
use sundew::backends::http::template::{Template, Values};
use sundew::backends::token::keys::Keys;
use sundew::backends::token::{Issuer, Issuers, KeySource, TokenOptions, claims};
use sundew::cli::import::access_files;
use sundew::cli::import::dynamic_security::DynamicSecurity;
use sundew::cli::import::grammar::MosquittoConf;
use sundew::cli::import::json::{Json, Value};
use sundew::cli::import::outcome::Outcome;
use sundew::codec::{DecodeOptions, PACKET_BYTES_MAX, Role, decode as read, encode, frame_length};
use sundew::config::{self, Layers, Severity};
use sundew::protocol::packet::Packet;
use sundew::protocol::property::{Properties, PropertiesBuf, PropertyId};
use sundew::protocol::time::Time;
use sundew::protocol::topic::{TopicFilter, TopicName, matches};
use sundew::protocol::version::Version;
use sundew::scram::{self, ClientFirst, Credential, ITERATIONS_MIN, MESSAGE_BYTES_MAX, Mechanism, NONCE_BYTES};
use sundew::server::BanLine;
use sundew::server::control::{Request, Response};
use sundew::storage::image::{Image, ImageOptions, Restored};
use sundew::storage::record::{Record, records as framed};
use sundew::transport::options::{CertificateFiles, TlsOptions};
use sundew::transport::proxy_protocol::read_header;
use sundew::transport::tls;

/// Reads the bytes as whoever could get them. What is read can be written, and read again as the same; a part of a packet is
/// never a packet; a fault stays the same fault whatever comes behind it.
pub(crate) fn decode(data: &[u8]) {
    for strict_utf8 in [false, true] {
        let options = DecodeOptions {
            strict_utf8,
            ..DecodeOptions::default()
        };
        decode_as(data, None, Role::Server, &options);
        for version in Version::ALL {
            decode_as(data, Some(version), Role::Server, &options);
            decode_as(data, Some(version), Role::Client, &options);
        }
    }
}

/// Reads the bytes as each of the files of users and rules: what is taken can be asked, and what is refused is told with its line.
pub(crate) fn access_files(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let lines = text.lines().count() as u32;
    match AclFile::parse("acl", text) {
        Ok(file) => assert!(file.rules.len() as u32 <= lines),
        Err(problems) => assert!(problems.iter().all(|problem| (1..=lines).contains(&problem.line))),
    }
    match PasswordFile::parse(text, &foldhash::fast::FixedState::default()) {
        Ok(file) => {
            for (name, user) in file.users() {
                let written = format!("\n{name}:{}", user.entry);
                let again = PasswordFile::parse(&written, &foldhash::fast::FixedState::default());
                let again = again.expect("what was read can be written");
                assert_eq!(again.get(name).map(|user| &user.entry), Some(&user.entry));
            }
        }
        Err(problems) => assert!(problems.iter().all(|problem| (1..=lines).contains(&problem.line))),
    }
}

/// Reads the bytes as each message of SCRAM: nothing of it proves anything to a server, or to a client.
pub(crate) fn scram(data: &[u8]) {
    let mechanism = Mechanism::Sha256;
    let nonce = [0; NONCE_BYTES];
    if let Ok(first) = ClientFirst::parse(data) {
        assert!(data.len() <= MESSAGE_BYTES_MAX && !first.user_name.is_empty());
        assert!(!first.user_name.contains(char::is_control));
    }
    let first = ClientFirst::parse(b"n,,n=a,r=AAAA").expect("a first message");
    let key = || [0; 32].into();
    let credential = Arc::new(Credential {
        mechanism,
        iterations: ITERATIONS_MIN,
        salt: [0; 16].into(),
        stored_key: key(),
        server_key: key(),
    });
    let server = scram::server::Exchange::begin(first, credential, true, &nonce);
    assert!(server.finish(data).is_err());
    let mut client = scram::client::Exchange::begin(mechanism, "a", b"secret", &nonce).expect("plain words");
    assert!(client.verify(data).is_err());
    if let Ok(text) = str::from_utf8(data)
        && let Ok(credential) = Credential::parse(text)
    {
        assert_eq!(Credential::parse(&credential.to_string()), Ok(credential));
    }
}

/// Reads the bytes as a token, as the keys it could be signed with, and as what its claims say. `real`, signed with `secret`, is the only
/// token that is taken.
pub(crate) fn tokens(data: &[u8], secret: &str, real: &str) {
    let seed = foldhash::fast::FixedState::default();
    let Ok(text) = std::str::from_utf8(data) else { return };
    let keys = Keys::from_secret(secret, false, &seed).expect("a secret");
    let issuers = Issuers::new(vec![Arc::new(Issuer::new(
        TokenOptions::default(),
        KeySource::Fixed(Arc::new(keys)),
        &seed,
    ))]);
    match issuers.check(text, "c", 0) {
        Ok((identity, _)) => {
            assert_eq!(text, real, "only what was signed is taken");
            assert!(identity.user_name.is_some() && identity.lifetime_ms.is_some());
        }
        Err(fault) => assert!(text != real && !fault.why().is_empty()),
    }
    for keys in [Keys::from_jwks(text, true, &seed), Keys::from_pem(text, &seed)] {
        match keys {
            // A set may be empty: its issuer has withdrawn them all.
            Ok(keys) => assert!(keys.list().len() <= 64 && (!keys.list().is_empty() || !keys.warnings.is_empty())),
            Err(problem) => assert!(!problem.is_empty()),
        }
    }
    if let Ok(value) = serde_json::from_str(text) {
        let rules = claims::rules(&value, "fuzz").unwrap_or_default();
        assert!(rules.len() <= 128);
        if let serde_json::Value::Object(object) = &value {
            assert!(claims::values(object).values().all(|value| !value.is_empty()));
        }
    }
}

/// Reads the bytes as each of mosquitto's files: every line of a configuration is somewhere, what is kept of users and rules can be read by the
/// broker, and JSON is what others take for it.
#[allow(dead_code, reason = "some wrappers run one target only")]
pub(crate) fn mosquitto_files(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let lines = text.lines().count() as u32;
    let conf = MosquittoConf::parse("conf", text, &|_| Ok(vec![("more".into(), text.to_owned())]));
    let sections = [&conf.broker]
        .into_iter()
        .chain(&conf.listeners)
        .chain(&conf.bridges)
        .chain(&conf.plugins);
    let all = sections
        .flat_map(|section| section.head.iter().chain(&section.options))
        .chain(&conf.unknown);
    for line in all {
        assert!((1..=lines).contains(&line.place.line) && !line.name.is_empty() && !line.name.contains([' ', '\n']));
        assert!(line.value.trim() == line.value);
    }
    let mut out = Outcome::default();
    let users = access_files::passwords("users", text, &mut out);
    let seed = foldhash::fast::FixedState::default();
    let read = PasswordFile::parse(&users, &seed).expect("what is kept of a password file can be read");
    assert!(access_files::names(&users).iter().all(|name| read.get(name).is_some()));
    let rules = access_files::rules("acl", text, &access_files::names(&users), &mut out);
    assert!(AclFile::parse("acl", &rules).is_ok(), "{rules:?}");
    if let Ok(read) = DynamicSecurity::parse("json", text, &mut out) {
        PasswordFile::parse(&read.passwords(), &seed).expect("what is written can be read");
        assert!(
            read.clients
                .iter()
                .flat_map(|client| &client.roles)
                .all(|role| *role < read.roles.len())
        );
    }
    toml::from_str::<toml::Table>(&out.configuration("all of them")).expect("what is written is TOML");
    let ours = Json::parse(text);
    let theirs: Result<serde_json::Value, _> = serde_json::from_str(text.strip_prefix('\u{feff}').unwrap_or(text));
    match (&ours, &theirs) {
        (Ok(ours), Ok(theirs)) => same_json(ours, theirs, lines),
        (Err(_), Err(_)) => {}
        // They do not go as deep as serde_json; and numbers that no f64 holds are none in both, in other words.
        (Err(error), Ok(_)) => assert!(error.message.contains("levels"), "{error:?}"),
        (Ok(_), Err(error)) => panic!("{error}: {text:?}"),
    }
}

/// Reads the bytes as what a proxy sends first: not a byte of what follows is read, and what is read depends on nothing that follows.
#[allow(dead_code, reason = "some wrappers run one target only")]
pub(crate) fn proxy(data: &[u8]) {
    let read = |mut data: &[u8]| {
        let header = at_once(read_header(&mut data));
        (header, data.len())
    };
    let (header, left) = read(data);
    let Ok(header) = header else { return };
    let (own, behind) = data.split_at(data.len() - left);
    assert!(own.len() <= 16 + 2048 && (own.starts_with(b"PROXY ") || own.starts_with(b"\r\n\r\n\0\r\nQUIT\n")));
    assert!(!own.starts_with(b"PROXY ") || (own.len() <= 107 && own.ends_with(b"\r\n")));
    let (again, left) = read(own);
    assert_eq!((again.expect("a header"), left), (header.clone(), 0));
    let more = [own, behind, b"more"].concat();
    assert_eq!(read(&more).0.expect("a header"), header);
    for part in 0..own.len() {
        assert!(read(&own[..part]).0.is_err(), "a part of a header is no header");
    }
}

/// What a future that never waits comes to.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("bytes in memory are there"),
    }
}

/// Reads the bytes as a configuration: each mistake has a place in it, and what is none has everything that a broker needs to start.
#[allow(dead_code, reason = "some wrappers run one target only")]
pub(crate) fn configuration(data: &[u8]) {
    let lines = data.split(|byte| *byte == b'\n').count();
    as_file("toml", data, |file| {
        match config::load(&Layers::new(Some(file.to_owned()), Vec::new())) {
            Ok(loaded) => {
                let listeners = &loaded.config.listeners;
                assert!(
                    !listeners.is_empty()
                        && listeners
                            .iter()
                            .all(|one| one.name.is_some() && !one.address.is_empty())
                );
            }
            Err(problems) => {
                assert!(problems.iter().any(|problem| problem.severity == Severity::Error));
                for problem in problems {
                    assert!(!problem.message.is_empty(), "{problem:?}");
                    let place = problem.place.strip_prefix(&format!("{}:", file.display()));
                    let Some((line, column)) = place.and_then(|place| place.split_once(':')) else {
                        continue;
                    };
                    let (line, column): (usize, usize) =
                        (line.parse().expect("a line"), column.parse().expect("a column"));
                    assert!((1..=lines).contains(&line) && column > 0, "{problem:?}");
                }
            }
        }
    });
}

/// Reads the bytes as each of the files of TLS: what is wrong is told in one line.
#[allow(dead_code, reason = "some wrappers run one target only")]
pub(crate) fn certificates(data: &[u8]) {
    as_file("pem", data, |file| {
        let pair = CertificateFiles {
            chain: file.to_owned(),
            key: file.to_owned(),
        };
        let options = TlsOptions {
            certificates: vec![pair],
            client_ca: Some(file.to_owned()),
            client_crl: Some(file.to_owned()),
            ..TlsOptions::default()
        };
        for error in tls::check(&options) {
            let text = error.to_string();
            assert!(!text.is_empty() && !text.contains('\n'), "{text}");
        }
        if let Ok(revocations) = tls::Revocations::read(file) {
            assert!(revocations.revoked.len() <= data.len());
        }
    });
}

/// Has something read the bytes as a file, which is gone afterwards.
fn as_file(kind: &str, data: &[u8], read: impl FnOnce(&Path)) {
    let folder = std::env::temp_dir().join(format!("sundew-fuzz-{}-{kind}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let file = folder.join("file");
    std::fs::write(&file, data).expect("a file");
    read(&file);
    std::fs::remove_dir_all(&folder).expect("it was there");
}

/// Reads the bytes as what a program says that is asked, as an address that a client's name is put into, and as the list of bans.
#[allow(dead_code, reason = "some wrappers run one target only")]
pub(crate) fn answers(data: &[u8]) {
    for status in [200, 204, 302, 404, 429, 503] {
        let answer = Answer {
            status,
            body: Some(data.to_vec()),
        };
        match says::read(&answer, false, "fuzz") {
            Ok(Says::Yes(_)) => assert!((200..300).contains(&status)),
            Ok(Says::No) => assert!((200..300).contains(&status) || status == 404),
            Err(_) => assert_ne!(status, 404),
        }
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    let values = Values {
        user_name: text,
        client_id: text,
        ..Values::default()
    };
    let template = Template::parse("http://h/${username}/x?y=${clientid}").expect("an address");
    if let Some(url) = template.url(&values) {
        let (name, query) = url["http://h/".len()..]
            .split_once("/x?y=")
            .expect("what stands between");
        assert!(!["", ".", ".."].contains(&name) && name == query, "{url}");
        assert!(
            name.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-._~%".contains(&byte)),
            "{url}"
        );
    }
    if let Ok(own) = Template::parse(text) {
        let _ = own.url(&values); // whatever an operator writes
    }
    if let Ok(bans) = serde_json::from_str::<Vec<BanLine>>(text) {
        let written = serde_json::to_string(&bans).expect("what was read can be written");
        assert_eq!(serde_json::from_str::<Vec<BanLine>>(&written).expect("and read"), bans);
        for ban in bans {
            if let Err(problem) = ban.kind.subject(&ban.value) {
                assert!(!problem.is_empty());
            }
        }
    }
}

fn same_json(ours: &Json, theirs: &serde_json::Value, lines: u32) {
    use serde_json::Value as Their;
    assert!((1..=lines.max(1)).contains(&ours.line));
    match (&ours.value, theirs) {
        (Value::Null, Their::Null) => {}
        (Value::Bool(one), Their::Bool(other)) => assert_eq!(one, other),
        (Value::Number(one), Their::Number(other)) => {
            let other = other.as_f64().unwrap_or(f64::NAN);
            assert!((one - other).abs() <= one.abs() * 1e-12, "{one} {other}");
        }
        (Value::Text(one), Their::String(other)) => assert_eq!(one, other),
        (Value::List(one), Their::Array(other)) => {
            assert_eq!(one.len(), other.len());
            one.iter()
                .zip(other)
                .for_each(|(one, other)| same_json(one, other, lines));
        }
        // Of a name that comes twice, serde_json keeps the last.
        (Value::Object(one), Their::Object(other)) => {
            for (name, theirs) in other {
                let last = one
                    .iter()
                    .rev()
                    .find(|(key, _)| key == name)
                    .expect("a name that they have");
                same_json(&last.1, theirs, lines);
            }
        }
        (one, other) => panic!("{one:?} and {other:?}"),
    }
}

fn decode_as(data: &[u8], version: Option<Version>, role: Role, options: &DecodeOptions) {
    match read(data, version, role, options) {
        Ok(None) => {
            assert!(frame_length(data, PACKET_BYTES_MAX).is_ok_and(|length| length.is_none_or(|l| l > data.len())))
        }
        Err(error) => {
            assert!(error.offset <= data.len());
            assert!(!error.to_string().is_empty() && error.reason().is_error());
        }
        Ok(Some((packet, consumed))) => {
            assert_eq!(frame_length(data, PACKET_BYTES_MAX), Ok(Some(consumed)));
            assert_eq!(
                read(&data[..consumed - 1], version, role, options),
                Ok(None),
                "a part of a packet is no packet"
            );
            check_parsed(&packet);
            let of = match (&packet, version) {
                (Packet::Connect(connect), _) => connect.version,
                (_, Some(version)) => version,
                (_, None) => panic!("{packet:?} before CONNECT"),
            };
            let mut out = Vec::with_capacity(consumed);
            let written = encode(&packet, of, &mut out).expect("what was read can be written");
            assert!(written <= consumed, "the shortest form is not longer");
            assert_eq!(read(&out, version, role, options), Ok(Some((packet, written))));
        }
    }
}

/// Behind the codec nothing is checked again, so it has to hold: topics are topics, and every byte of a block is a property.
fn check_parsed(packet: &Packet<'_>) {
    let is_whole = |properties: Properties<'_>| {
        let mut iter = properties.iter();
        iter.by_ref().for_each(drop);
        iter.rest().is_empty()
    };
    match packet {
        Packet::Connect(connect) => {
            assert!(is_whole(connect.properties));
            if let Some(will) = &connect.will {
                assert!(is_whole(will.properties) && TopicName::parse(will.topic.as_str()).is_ok());
            }
        }
        Packet::Publish(publish) => {
            assert!(is_whole(publish.properties));
            assert_eq!(publish.packet_id.is_some(), publish.qos.is_acknowledged());
            match publish.topic {
                Some(topic) => assert!(TopicName::parse(topic.as_str()).is_ok()),
                None => assert!(
                    publish
                        .properties
                        .u16(PropertyId::TopicAlias)
                        .is_some_and(|alias| alias > 0)
                ),
            }
        }
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            assert!(is_whole(ack.properties));
        }
        Packet::Subscribe(subscribe) => assert!(is_whole(subscribe.properties) && !subscribe.filters.is_empty()),
        Packet::Unsubscribe(unsubscribe) => {
            assert!(is_whole(unsubscribe.properties) && !unsubscribe.filters.is_empty())
        }
        _ => {}
    }
}

/// A text that parses as a topic name or filter is one; matching never panics, and a name matches itself and `#`.
pub(crate) fn topic(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (left, right) = text.split_once('\n').unwrap_or((&text, &text));
    if let Ok(name) = TopicName::parse(left) {
        assert!(matches(left, left) && !left.contains(['+', '#', '\0']));
        assert_eq!(matches("#", left), !name.as_str().starts_with('$'));
        assert!(TopicFilter::parse(left).is_ok() || left == "$share" || left.starts_with("$share/"));
    }
    if let Ok(filter) = TopicFilter::parse(right) {
        assert!(!filter.filter().is_empty() && filter.as_str() == right);
        matches(filter.filter(), left);
    }
}

/// A property block that nobody checked is read without a panic, and what is read of it can be copied.
pub(crate) fn properties(data: &[u8]) {
    let block = Properties::from_checked(data);
    let mut copy = PropertiesBuf::new();
    for (id, value) in block.iter() {
        copy.push(id, value);
    }
    assert!(copy.view().iter().eq(block.iter()));
}

/// Reads the bytes as what is asked through the control socket, and as what is answered: what is taken can be said again, and whom a ban is about is
/// told or refused in words.
#[allow(dead_code, reason = "some wrappers run one target only")]
pub(crate) fn control(data: &[u8]) {
    if let Ok(request) = serde_json::from_slice::<Request>(data) {
        let written = serde_json::to_vec(&request).expect("it can be written");
        assert_eq!(serde_json::from_slice::<Request>(&written).expect("and read"), request);
        if let Request::AddBan { kind, value, .. } | Request::LiftBan { kind, value } = request
            && let Err(message) = kind.subject(&value)
        {
            assert!(!message.is_empty());
        }
    }
    if let Ok(response) = serde_json::from_slice::<Response>(data) {
        let written = serde_json::to_vec(&response).expect("it can be written");
        assert_eq!(
            serde_json::from_slice::<Response>(&written).expect("and read"),
            response
        );
    }
}

/// Whatever bytes a store takes for records: what is read of them can be written, and read again as the same; they add up to a state
/// without a panic, with little memory too, and the report counts what is there.
#[allow(dead_code, reason = "some wrappers run one target only")]
pub(crate) fn records(data: &[u8]) {
    for record in framed(data) {
        if let Ok(read) = Record::decode(record) {
            let mut written = Vec::new();
            read.encode(&mut written);
            let again = framed(&written).next().expect("one record");
            assert_eq!(Record::decode(again).as_ref(), Ok(&read));
        }
    }
    for memory_bytes_max in [usize::MAX, 300, 0] {
        let mut image = Image::new(ImageOptions { memory_bytes_max });
        framed(data).for_each(|record| image.apply(record));
        let restored = image.finish(Time(5));
        let report = &restored.report;
        let sum = |count: fn(&sundew::storage::image::RestoredSession) -> usize| -> usize {
            restored.sessions.iter().map(count).sum()
        };
        assert_eq!(report.queued, sum(|session| session.queued.len()));
        assert_eq!(report.in_flight, sum(|session| session.in_flight.len()));
        assert_eq!(report.subscriptions, sum(|session| session.subscriptions.len()));
        assert_eq!(report.received, sum(|session| session.received.len()));
        assert_eq!(report.retained, restored.retained.len());
        assert!(restored.retained.iter().all(|message| !message.payload().is_empty()));
        assert!(
            restored
                .sessions
                .iter()
                .all(|session| session.number.0.get() <= restored.last_session)
        );
        restored.encode(&mut |part| {
            framed(&part.bytes).for_each(|record| assert!(Record::decode(record).is_ok()));
        });
    }
}

/// A log that a broker could have written: all of it is read, and the state that it adds up to, told again, is the same state.
#[allow(dead_code, reason = "some wrappers run one target only")]
pub(crate) fn log(data: &[u8]) {
    let state = |log: &[u8]| {
        let mut image = Image::new(ImageOptions::default());
        framed(log).for_each(|record| image.apply(record));
        let restored = image.finish(Time(5));
        assert!(restored.report.lost.is_empty(), "{:?}", restored.report.lost);
        restored
    };
    let lines = |restored: &Restored| {
        let mut lines: Vec<_> = restored.retained.iter().map(|message| format!("{message:?}")).collect();
        lines.sort();
        lines.extend(restored.sessions.iter().map(|session| format!("{session:?}")));
        lines
    };
    let once = state(data);
    let mut told = Vec::new();
    once.encode(&mut |part| told.extend_from_slice(&part.bytes));
    assert_eq!(lines(&state(&told)), lines(&once));
}
