//! What is changed in a moment in which the broker cannot read it, or has not come so far.

use std::fs::File;
use std::thread;

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use super::users::{Serving, folder, user};
use super::*;

/// The file does not change again when the broker has descriptors again.
#[test]
fn a_file_that_cannot_be_read_for_a_moment_is_read_when_it_can() {
    let (folder, config) = folder("");
    let file = folder.path().join("users");
    assert_eq!(user("add", "alice", &file, "secret").0, 0);
    let mut serving = Serving::start(&config);
    let port = serving.2.clone();
    let publish = |name| sundew(&["pub", "-p", &port, "-u", name, "-P", "secret", "-t", "a", "-m", "x"]);
    assert_eq!(publish("alice").0, 0, "all its threads are there");
    let process = Pid::from_child(&serving.0);
    let limit = |current| Rlimit {
        current: Some(current),
        maximum: Some(1024),
    };
    prlimit(Some(process), Resource::Nofile, limit(3)).unwrap();
    assert_eq!(user("add", "bob", &file, "secret").0, 0);
    let told = serving.line("users and rules stay as they were");
    assert!(told.contains("Too many open files"), "{told}");
    prlimit(Some(process), Resource::Nofile, limit(1024)).unwrap();
    let added = serving.line("user added");
    assert!(added.contains("user=\"bob\""), "{added}");
    let (code, _, error) = publish("bob");
    assert_eq!(code, 0, "{error}");
}

/// Its configuration is edited while it starts: a pipe in the place of its certificate holds it back where it has read the one and serves
/// nobody yet.
#[test]
fn a_configuration_that_is_edited_while_the_broker_starts_counts_at_the_next_reload() {
    let folder = tempfile::tempdir().unwrap();
    let certs = folder.path().join("certs");
    certificates_in(&certs);
    let (pipe, real) = (certs.join("server.pem"), certs.join("real.pem"));
    fs::rename(&pipe, &real).unwrap();
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let config = folder.path().join("sundew.toml");
    let text = "[[listeners]]\naddress = \"127.0.0.1:0\"\n[listeners.tls]\ncertificate = \"certs/server.pem\"\nkey = \"certs/server.key\"\n\
         [storage]\ndirectory = \"data\"\n[auth]\nallow_anonymous = true\n";
    fs::write(&config, text).unwrap();
    let edited = format!("{text}[[auth.rules]]\neffect = \"deny\"\ntopics = [\"a\"]\n");
    let (path, pipe_path) = (config.clone(), pipe.clone());
    let editing = thread::spawn(move || {
        let mut writes = File::options().write(true).open(&pipe_path).unwrap(); // when the broker reads
        fs::write(path, edited).unwrap();
        let certificate = fs::read(&real).unwrap();
        fs::rename(real, pipe_path).unwrap();
        let _ = writes.write_all(&certificate); // it may only have looked whether it may read, and reads the file that is there now
    });
    let _serving = Serving::start(&config);
    editing.join().unwrap();
    let (code, said, error) = sundew(&["reload", "-c", config.to_str().unwrap()]);
    assert!(
        code == 0 && said.contains("users and rules read again: 1 rules"),
        "{said}{error}"
    );
}
