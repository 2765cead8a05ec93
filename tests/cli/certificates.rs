//! Certificates that are renewed while the broker runs.

use super::users::Serving;
use super::*;

/// A folder with a configuration of one listener with TLS and the certificates of `sundew certs`; its configuration; and the authority that
/// clients knew first.
fn folder(more: &str) -> (tempfile::TempDir, std::path::PathBuf, String) {
    let folder = tempfile::tempdir().unwrap();
    let (authority, _) = certificates_in(&folder.path().join("certs"));
    let old = folder.path().join("old-ca.pem");
    fs::copy(authority, &old).unwrap();
    let config = folder.path().join("sundew.toml");
    let text = format!(
        "[[listeners]]\naddress = \"127.0.0.1:0\"\n[listeners.tls]\ncertificate = \"certs/server.pem\"\nkey = \"certs/server.key\"\n\
         [storage]\ndirectory = \"data\"\n[auth]\nallow_anonymous = true\n{more}"
    );
    fs::write(&config, text).unwrap();
    (folder, config, old.to_str().unwrap().to_owned())
}

fn publish(port: &str, authority: &str) -> i32 {
    sundew(&[
        "pub", "-p", port, "--cafile", authority, "-t", "a", "-m", "x", "-q", "1",
    ])
    .0
}

/// As a stranger does it: `sundew certs --force`, `sundew reload`. Who is connected stays.
#[test]
fn renewed_certificates_are_taken_at_reload_and_clients_stay() {
    let (folder, config, old) = folder("watch_interval = \"0s\"\n");
    let certs = folder.path().join("certs");
    let new = certs.join("ca.pem");
    let (certs, new, path) = (certs.to_str().unwrap(), new.to_str().unwrap(), config.to_str().unwrap());
    let mut serving = Serving::start(&config);
    let port = serving.2.clone();
    let subscriber = Subscriber::start(&["-p", &port, "--cafile", &old, "-t", "a", "-C", "2"]);
    assert_eq!(sundew(&["certs", certs, "--force"]).0, 0);
    assert_eq!(publish(&port, &old), 0);
    assert_ne!(publish(&port, new), 0, "nobody has told the broker");
    let (code, said, _) = sundew(&["reload", "-c", path]);
    assert!(code == 0 && said.contains("server.pem read again: serial "), "{said}");
    let taken = serving.line("certificates read again");
    assert!(taken.contains("server.pem") && taken.contains("serial="), "{taken}");
    assert_ne!(publish(&port, &old), 0);
    assert_eq!(publish(&port, new), 0);
    assert_eq!(
        subscriber.end(),
        (0, "x\nx\n".into()),
        "its connection is that of before"
    );
    // A key that belongs to no certificate here.
    fs::copy(
        folder.path().join("certs/client.key"),
        folder.path().join("certs/server.key"),
    )
    .unwrap();
    let (code, _, error) = sundew(&["reload", "-c", path]);
    assert!(code == 1 && error.contains("certificates stay as they were"), "{error}");
    let kept = serving.line("certificates stay as they were");
    assert!(kept.contains("does not belong to the certificate"), "{kept}");
    assert_eq!(publish(&port, new), 0);
}

#[test]
fn renewed_certificates_are_taken_without_being_asked_for() {
    let (folder, config, _) = folder("");
    let certs = folder.path().join("certs");
    let mut serving = Serving::start(&config);
    assert_eq!(sundew(&["certs", certs.to_str().unwrap(), "--force"]).0, 0);
    serving.line("certificates read again");
    assert_eq!(publish(&serving.2, certs.join("ca.pem").to_str().unwrap()), 0);
}
