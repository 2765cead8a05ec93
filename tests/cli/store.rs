//! `sundew store` beside a broker that is at work, and on what it leaves.

use std::path::Path;

use sundew::storage::disk::StorageOptions;

use super::*;

/// A broker that keeps its state in a directory.
fn keeping_broker(directory: &Path) -> (Server, String) {
    let listener = ListenerOptions {
        addresses: vec![ListenAddress::Tcp("127.0.0.1:0".parse().unwrap())],
        ..ListenerOptions::default()
    };
    let options = ServerOptions {
        listeners: vec![(listener, ListenerRules::default())],
        workers: 2,
        storage: Some(StorageOptions::in_directory(directory)),
        ..ServerOptions::default()
    };
    let server = Server::start(options, Parts::default()).unwrap();
    let port = server.addresses()[0].1.first().map_or(0, |address| address.port());
    (server, port.to_string())
}

/// A session with a subscription that is away, a message that waits for it, and a retained one with bytes that are no text.
fn leave_something(port: &str) {
    let session = [
        "-p", port, "-V", "5", "-c", "-i", "ann", "-q", "1", "-t", "home/#", "-x", "3600",
    ];
    Subscriber::start(&[&session[..], &["-E"]].concat()).end();
    let publish = |arguments: &[&str]| {
        let (code, _, error) = sundew(&[&["pub", "-p", port, "-q", "1", "-V", "5"][..], arguments].concat());
        assert_eq!(code, 0, "{error}");
    };
    publish(&[
        "-t",
        "home/lamp",
        "-m",
        "on",
        "-D",
        "publish",
        "content-type",
        "text/plain",
    ]);
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, [0xFF, 0x00]).unwrap();
    publish(&["-t", "home/image", "-r", "-f", file.path().to_str().unwrap()]);
}

pub(crate) fn store(arguments: &[&str]) -> (i32, String, String) {
    sundew(&[&["store"], arguments].concat())
}

pub(crate) fn lines(text: &str) -> Vec<serde_json::Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_backup_of_a_broker_at_work_is_a_broker_with_the_same_state() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (data, backup, copy) = (path("data"), path("backup.snap"), path("copy"));
    let (server, port) = keeping_broker(data.as_ref());
    leave_something(&port);
    let (code, before, _) = store(&["inspect", "-d", &data]);
    assert_eq!(code, 0);
    assert_eq!(lines(&before).len(), 4, "{before}");

    let (code, told, _) = store(&["export", &backup, "-d", &data]);
    assert_eq!(code, 0);
    assert!(
        told.contains("retained=1 sessions=1 subscriptions=1 queued=2 inflight=0 wills=0"),
        "{told}"
    );
    let (code, _, error) = store(&["export", &backup, "-d", &data]);
    assert!(code == 73 && error.contains("is not replaced"), "{error}");
    assert_eq!(store(&["verify", "-d", &backup]).0, 0);
    assert_eq!(store(&["inspect", "-d", &backup]).1, before);
    let (code, _, error) = store(&["import", &backup, "-d", &data]);
    assert!(code == 73 && error.contains("empty directory only"), "{error}");
    assert_eq!(store(&["import", &backup, "-d", &copy]).0, 0);
    assert_eq!(store(&["inspect", "-d", &copy]).1, before);

    // The other one gives out what waited.
    let (_copy, port) = keeping_broker(copy.as_ref());
    let session = [
        "sub", "-p", &port, "-V", "5", "-c", "-i", "ann", "-q", "1", "-t", "home/#", "-x", "3600",
    ];
    let (code, out, error) = sundew(&[&session[..], &["-C", "2", "-W", "20", "-F", "%t %l %r"]].concat());
    assert_eq!((code, &*out), (0, "home/lamp 2 0\nhome/image 2 0\n"), "{error}");
    server.stop();
}

#[test]
fn what_is_kept_is_printed_as_json_lines() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let (server, port) = keeping_broker(folder.path());
    leave_something(&port);
    let inspect = |what| lines(&store(&["inspect", "-d", data, "--what", what]).1);
    let [session] = &inspect("sessions")[..] else {
        panic!("one session");
    };
    assert_eq!((&session["client_id"], &session["queued"]), (&"ann".into(), &2.into()));
    assert_eq!(session["subscriptions"][0]["filter"], "home/#");
    assert!(session["expires_at"].as_str().unwrap().ends_with('Z'));
    assert_eq!(inspect("retained")[0]["payload_base64"], "/wA=");
    let queued = inspect("queues");
    assert_eq!(
        (&queued[0]["payload"], &queued[0]["state"]),
        (&"on".into(), &"queued".into())
    );
    assert_eq!(queued[0]["properties"]["content-type"], "text/plain");
    let log = inspect("log");
    let kinds: Vec<_> = log.iter().filter_map(|line| line["record"].as_str()).collect();
    for kind in ["session", "subscription", "message"] {
        assert!(kinds.contains(&kind), "{kind} in {kinds:?}");
    }
    assert!(log[0]["file"].as_str().unwrap().starts_with("segment-") && log[0]["offset"] == 128);
    server.stop();
}

#[test]
fn what_a_broker_left_is_compacted_but_not_while_it_is_at_work() {
    let folder = tempfile::tempdir().unwrap();
    let (data, left) = (folder.path().join("data"), folder.path().join("left"));
    let (server, port) = keeping_broker(&data);
    leave_something(&port);
    let (code, _, error) = store(&["compact", "-d", data.to_str().unwrap()]);
    assert!(code == 69 && error.contains("compacts by itself"), "{error}");

    // As if it had been killed now.
    copy_directory(&data, &left);
    let left = left.to_str().unwrap();
    let before = store(&["inspect", "-d", left]).1;
    let (code, told, error) = store(&["compact", "-d", left]);
    assert!(code == 0 && told.contains("retained=1 sessions=1"), "{told}{error}");
    let names = || -> Vec<_> {
        let entries = fs::read_dir(left).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    };
    assert!(names().iter().any(|name| name.ends_with(".snap")), "{:?}", names());
    // The moment at which a session expires may move by a millisecond: the two clocks are not read in one instant.
    let state = |text: &str| {
        let mut state = lines(text);
        state[0].as_object_mut().unwrap().remove("expires_at");
        state
    };
    assert_eq!(state(&store(&["inspect", "-d", left]).1), state(&before));
    let (code, told, _) = store(&["compact", "-d", left]);
    assert!(code == 0 && told.contains("compact already"), "{told}");
    server.stop();
}

#[test]
fn damage_is_told_with_file_and_offset_and_an_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let (data, left) = (folder.path().join("data"), folder.path().join("left"));
    let (server, port) = keeping_broker(&data);
    leave_something(&port);
    copy_directory(&data, &left);
    server.stop();
    let text = left.to_str().unwrap();
    let (code, told, _) = store(&["verify", "-d", text]);
    assert!(code == 0 && told.ends_with(": sound\n"), "{told}");
    let mut names = fs::read_dir(&left).unwrap().map(|entry| entry.unwrap().path());
    let segment = names
        .find(|name| name.extension().is_some_and(|end| end == "log"))
        .unwrap();
    let whole = fs::read(&segment).unwrap();

    fs::write(&segment, &whole[..whole.len() - 3]).unwrap();
    let (code, told, _) = store(&["verify", "-d", text]);
    assert!(code == 0 && told.contains("not yet on the device"), "{told}");

    // A snapshot has no torn end.
    let backup = folder.path().join("backup.snap");
    fs::write(&segment, &whole).unwrap();
    assert_eq!(store(&["export", backup.to_str().unwrap(), "-d", text]).0, 0);
    let mut bytes = fs::read(&backup).unwrap();
    bytes[200] ^= 1;
    fs::write(&backup, bytes).unwrap();
    let (code, told, _) = store(&["verify", "-d", backup.to_str().unwrap()]);
    assert!(
        code == 1 && told.contains("at byte 128: ") && told.contains("damaged"),
        "{told}"
    );
    let (code, _, error) = store(&[
        "import",
        backup.to_str().unwrap(),
        "-d",
        folder.path().join("new").to_str().unwrap(),
    ]);
    assert!(code == 1 && error.contains("is damaged at byte 128"), "{error}");
}

#[test]
fn a_place_without_a_store_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().to_str().unwrap();
    for action in ["inspect", "verify", "compact"] {
        let (code, _, error) = store(&[action, "-d", empty]);
        assert!(
            code == 1 && error.contains("there is no store in it"),
            "{action}: {error}"
        );
        let (code, _, error) = store(&[action, "-d", "/nowhere/at/all"]);
        assert!(code == 73 && error.contains("/nowhere/at/all"), "{action}: {error}");
    }
    let file = folder.path().join("file");
    fs::write(&file, "no backup").unwrap();
    let (code, _, error) = store(&["import", file.to_str().unwrap(), "-d", empty]);
    assert!(code == 1 && error.contains("header is damaged"), "{error}");
}

pub(crate) fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        // Not the socket on which the broker is told what to do.
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[test]
fn without_a_place_a_command_says_how_to_name_one() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [&["store", "verify"][..], &["store", "inspect"], &["reload"]] {
        let (code, _, error) = ended(command(SUNDEW, arguments).current_dir(&folder).output().unwrap());
        assert!(
            code != 0 && error.contains("with -c FILE"),
            "{arguments:?}: {code} {error}"
        );
    }
}
