//! `sundew auth explain` of clients that belong to a tenant.

use super::users::{folder, user};
use super::*;

/// Rules are about full names, and a client of a tenant does not know them.
#[test]
fn explain_says_whose_a_client_is() {
    let more = "[[auth.rules]]\neffect = \"allow\"\ntopics = [\"site-a/home/#\"]\n\
                [[tenants]]\nname = \"site-a\"\nusers = [\"alice\"]\n";
    let (folder, config) = folder(more);
    for name in ["alice", "bob"] {
        assert_eq!(user("add", name, &folder.path().join("users"), "secret").0, 0);
    }
    let path = config.to_str().unwrap();
    let explain = |arguments: &[&str]| sundew(&[&["auth", "explain", "-C", path][..], arguments].concat());
    let (code, out, _) = explain(&["--user", "alice", "--topic", "home/lamp"]);
    assert!(
        code == 0 && out.contains("it belongs to the tenant site-a: its topics have site-a/ in front"),
        "{out}"
    );
    let (code, out, _) = explain(&["--user", "bob", "--topic", "home/lamp"]);
    assert!(code == 1 && !out.contains("tenant"), "{out}");
    let (code, out, _) = explain(&["--user", "alice", "--action", "subscribe", "--topic", "$share/g/home/#"]);
    assert!(code == 0, "{out}");
    let (code, out, _) = explain(&["--user", "alice", "--action", "subscribe", "--topic", "#"]);
    assert!(code == 1 && out.contains("it is wider than that"), "{out}");
}
