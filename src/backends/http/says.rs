//! What an answer means: as servers for EMQX and for mosquitto-go-auth answer.
//!
//! | status | body | means |
//! | --- | --- | --- |
//! | 2xx | none, `ok`, `allow`, `true` | yes |
//! | 2xx | `deny`, `ignore`, `false`, `{"result": "deny"}`, `{"result": "ignore"}`, `{"ok": false}` | no |
//! | 2xx | `{"result": "allow"}`, `{"ok": true}`, with `is_superuser` and `acl` | yes |
//! | 2xx | anything else | nothing, and no: whatever answers there is not what was to be asked |
//! | | `"tenant": "NAME"` beside a yes | and belongs to this tenant |
//! | 4xx but 408 and 429 | | no |
//! | 1xx, 3xx | | nothing, and no |
//! | 408, 429, 5xx | | nothing |

use serde_json::Value;

use super::client::Answer;
use crate::auth::grants::Grants;
use crate::auth::rule::{Actions, Effect, Rule, TopicPattern};
use crate::backends::token::claims;

/// What was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Says {
    /// Yes; and of a client that wants to enter, what else it may do.
    Yes(Option<Grants>),
    /// No.
    No,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// It cannot be asked, or says that it cannot answer: what `on_failure` is about.
    Failed(String),
    /// Something else answers there. That allows nothing, whatever `on_failure` says.
    Odd(String),
}

/// What an answer means; with `is_status_all`, whatever its body says.
///
/// # Errors
/// It means nothing, and why.
pub fn read(answer: &Answer, is_status_all: bool, place: &str) -> Result<Says, NoAnswer> {
    let status = format!("the status is {}", answer.status);
    match (answer.status, &answer.body) {
        (200..=299, _) if is_status_all => Ok(Says::Yes(None)),
        (200..=299, Some(text)) => body(text, place).map_err(NoAnswer::Odd),
        (200..=299, None) => Err(NoAnswer::Odd("the answer is too large".into())),
        (408 | 429, _) => Err(NoAnswer::Failed(status)),
        (400..=499, _) => Ok(Says::No),
        (500.., _) => Err(NoAnswer::Failed(status)),
        _ => Err(NoAnswer::Odd(status)),
    }
}

fn body(body: &[u8], place: &str) -> Result<Says, String> {
    let text = body.trim_ascii();
    match text {
        b"" | b"ok" | b"allow" | b"true" => return Ok(Says::Yes(None)),
        b"deny" | b"ignore" | b"false" => return Ok(Says::No),
        _ => {}
    }
    let says: Value = serde_json::from_slice(text).map_err(|_| "the body is neither empty nor an answer")?;
    match (says.get("result"), says.get("ok")) {
        (Some(Value::String(result)), _) => match result.as_str() {
            "allow" => Ok(Says::Yes(grants(&says, place)?)),
            "deny" | "ignore" => Ok(Says::No),
            other => Err(format!("its result is {other:?}")),
        },
        (None, Some(Value::Bool(true))) => Ok(Says::Yes(grants(&says, place)?)),
        (None, Some(Value::Bool(false))) => Ok(Says::No),
        _ => Err("the body has neither a result nor an ok".into()),
    }
}

/// What a client may do that is let in.
fn grants(says: &Value, place: &str) -> Result<Option<Grants>, String> {
    let mut rules = match says.get("acl") {
        None | Some(Value::Null) => None,
        Some(acl) => Some(claims::rules(acl, place).ok_or("its acl is none of the forms that are understood")?),
    };
    if says.get("is_superuser") == Some(&Value::Bool(true)) {
        let everything = ["#", "$SYS/#"]
            .into_iter()
            .filter_map(|topics| TopicPattern::plain(topics).ok());
        let superuser = format!("{place} is_superuser");
        let allow = |topics| Rule::new(Effect::Allow, Actions::ALL, topics, superuser.as_str());
        rules.get_or_insert_default().extend(everything.map(allow));
    }
    let tenant = match says.get("tenant") {
        None | Some(Value::Null) => None,
        Some(Value::String(name)) => Some(name.as_str().into()),
        Some(_) => return Err("its tenant is no text".into()),
    };
    let has_some = rules.is_some() || tenant.is_some();
    Ok(has_some.then(|| Grants {
        rules,
        tenant,
        ..Grants::default()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn say(status: u16, body: &str) -> Option<bool> {
        let answer = Answer {
            status,
            body: Some(body.into()),
        };
        read(&answer, false, "p").ok().map(|says| says != Says::No)
    }

    #[test]
    fn answers_mean_what_they_mean_to_others() {
        for body in [
            "",
            "ok",
            "\nallow\n",
            "true",
            r#"{"result": "allow"}"#,
            r#"{"ok": true, "error": ""}"#,
        ] {
            assert_eq!(say(200, body), Some(true), "{body}");
            assert_eq!(say(204, body), Some(true), "{body}");
            assert_eq!(say(401, body), Some(false), "{body}");
            assert_eq!(say(500, body), None, "{body}");
        }
        for body in [
            "deny",
            "false",
            "ignore",
            r#"{"result": "deny"}"#,
            r#"{"result": "ignore"}"#,
            r#"{"ok": false}"#,
        ] {
            assert_eq!(say(200, body), Some(false), "{body}");
        }
        // A captive portal, another program, half an answer.
        for body in [
            "<html>Welcome</html>",
            "{}",
            "[]",
            r#"{"result": true}"#,
            r#"{"result": "alow"}"#,
            r#"{"ok": 1}"#,
            r#"{"result""#,
        ] {
            assert_eq!(say(200, body), None, "{body}");
        }
        for status in [100, 301, 302, 408, 429, 502, 503, 504] {
            assert_eq!(say(status, ""), None, "{status}");
        }
        let page = Answer {
            status: 200,
            body: Some(b"<html>".into()),
        };
        assert_eq!(
            read(&page, true, "p"),
            Ok(Says::Yes(None)),
            "where only the status counts"
        );
        let large = Answer {
            status: 200,
            body: None,
        };
        assert!(matches!(read(&page, false, "p"), Err(NoAnswer::Odd(_))));
        assert!(matches!(read(&large, false, "p"), Err(NoAnswer::Odd(_))));
        let moved = Answer { status: 302, ..large };
        assert!(matches!(read(&moved, true, "p"), Err(NoAnswer::Odd(_))));
        let broken = Answer { status: 503, ..moved };
        assert!(matches!(read(&broken, false, "p"), Err(NoAnswer::Failed(_))));
    }

    #[test]
    fn who_is_let_in_may_bring_rights() {
        let says = |body: &str| {
            let answer = Answer {
                status: 200,
                body: Some(body.into()),
            };
            match read(&answer, false, "p") {
                Ok(Says::Yes(grants)) => Some(grants.and_then(|grants| grants.rules).map(|rules| rules.len())),
                _ => None,
            }
        };
        assert_eq!(says(r#"{"result": "allow", "is_superuser": false}"#), Some(None));
        assert_eq!(says(r#"{"result": "allow", "is_superuser": true}"#), Some(Some(2)));
        assert_eq!(says(r#"{"result": "allow", "acl": []}"#), Some(Some(0)));
        assert_eq!(
            says(r#"{"result": "allow", "acl": [{"permission": "deny", "action": "all", "topic": "a"}]}"#),
            Some(Some(1))
        );
        assert_eq!(says(r#"{"result": "allow", "acl": "?"}"#), None);
    }

    #[test]
    fn a_client_is_of_the_tenant_that_is_named() {
        let tenant = |body: &str| {
            let answer = Answer {
                status: 200,
                body: Some(body.into()),
            };
            match read(&answer, false, "p") {
                Ok(Says::Yes(grants)) => Ok(grants.and_then(|grants| grants.tenant)),
                _ => Err(()),
            }
        };
        assert_eq!(tenant(r#"{"ok": true, "tenant": "a"}"#), Ok(Some("a".into())));
        for none in [r#"{"ok": true}"#, r#"{"ok": true, "tenant": null}"#, "ok"] {
            assert_eq!(tenant(none), Ok(None), "{none}");
        }
        for wrong in [r#"{"ok": true, "tenant": 7}"#, r#"{"ok": true, "tenant": ["a"]}"#] {
            assert_eq!(tenant(wrong), Err(()), "whose it is cannot be told: {wrong}");
        }
    }
}
