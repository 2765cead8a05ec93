//! What the claims of a token, or the answer of a program that was asked, grant: rules, and values for patterns.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::auth::rule::{Action, Actions, Effect, Rule, TopicPattern};
use crate::protocol::qos::QoS;

/// Claims of a token by name.
pub type Claims = Map<String, Value>;

/// Rules that one client may bring with it; more are refused.
const RULES_MAX: usize = 128;
/// Claims inside of claims are kept to this depth.
const DEPTH_MAX: usize = 4;

/// A claim by its name, or, where there is none, by its way through others: `realm_access.mqtt`.
pub fn find<'a>(claims: &'a Claims, name: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(name) {
        return Some(value);
    }
    let (outer, inner) = name.split_once('.')?;
    find(claims.get(outer)?.as_object()?, inner)
}

/// A claim as a text: texts that are not empty, whole numbers, truth values.
pub fn text(value: &Value) -> Option<Box<str>> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.as_str().into()),
        Value::Number(number) if !number.is_f64() => Some(number.to_string().into()),
        Value::Bool(is_true) => Some(is_true.to_string().into()),
        _ => None,
    }
}

/// A moment as tokens tell it (RFC 7519, NumericDate), in milliseconds since 1970. `None` for what is no number.
pub fn moment_ms(value: &Value) -> Option<u64> {
    let seconds = value.as_f64().filter(|seconds| seconds.is_finite())?;
    Some((seconds * 1000.0) as u64) // before 1970 is 1970, after the last one is the last one
}

/// What `%{claim}` can stand for.
pub fn values(claims: &Claims) -> BTreeMap<Box<str>, Box<str>> {
    let mut all = BTreeMap::new();
    collect("", claims, DEPTH_MAX, &mut all);
    all
}

fn collect(path: &str, claims: &Claims, depth: usize, all: &mut BTreeMap<Box<str>, Box<str>>) {
    for (name, value) in claims {
        let name = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        match value {
            Value::Object(inner) if depth > 0 => collect(&name, inner, depth - 1, all),
            value => all.extend(text(value).map(|value| (name.into(), value))),
        }
    }
}

/// The rules of an ACL claim, in one of two forms that EMQX has, too:
/// `{"pub": ["a/%u"], "sub": ["b/#"], "all": []}` (also `publish`, `subscribe`, `receive`), or a list of
/// `{"permission": "allow", "action": "publish", "topic": "a", "qos": [0, 1], "retain": false}`. `None`: it is neither.
pub fn rules(acl: &Value, place: &str) -> Option<Vec<Rule>> {
    let mut rules = Vec::new();
    match acl {
        Value::Object(lists) => {
            for (name, topics) in lists {
                let actions = actions(name)?;
                for topic in strings(topics)? {
                    rules.push(Rule::new(Effect::Allow, actions, pattern(topic)?, place));
                }
            }
        }
        Value::Array(list) => {
            for rule in list {
                rules.extend(listed(rule, place)?);
            }
        }
        _ => return None,
    }
    (rules.len() <= RULES_MAX).then_some(rules)
}

/// What a rule of a list may have in it. EMQX has more that make a rule narrower, and without them it would be too wide.
const OF_RULE: [&str; 6] = ["permission", "action", "topic", "topics", "qos", "retain"];

fn listed(rule: &Value, place: &str) -> Option<Vec<Rule>> {
    if rule.as_object()?.keys().any(|key| !OF_RULE.contains(&key.as_str())) {
        return None;
    }
    let effect = match rule.get("permission")?.as_str()? {
        "allow" => Effect::Allow,
        "deny" => Effect::Deny,
        _ => return None,
    };
    let actions = rule
        .get("action")
        .map_or(Some(Actions::ALL), |action| actions(action.as_str()?))?;
    let topics = match (rule.get("topic"), rule.get("topics")) {
        (Some(topics), None) | (None, Some(topics)) => topics,
        _ => return None,
    };
    let qos_max = match rule.get("qos") {
        None => QoS::ExactlyOnce,
        Some(Value::Array(list)) => {
            let numbers: Vec<_> = list.iter().map(Value::as_u64).collect::<Option<_>>()?;
            let max = *numbers.iter().max()?;
            // Rules here have a highest one: a list that leaves out a lower one says something else.
            qos(max).filter(|_| (0..max).all(|lower| numbers.contains(&lower)))?
        }
        Some(one) => qos(one.as_u64()?)?,
    };
    let retain = rule.get("retain").map_or(Some(true), Value::as_bool)?;
    let one = |topic| {
        let mut one = Rule::new(effect, actions, pattern(topic)?, place);
        if effect == Effect::Allow {
            (one.qos_max, one.retain) = (qos_max, retain);
        }
        Some(one)
    };
    strings(topics)?.into_iter().map(one).collect()
}

fn actions(name: &str) -> Option<Actions> {
    Some(match name {
        "pub" | "publish" => Actions::default().with(Action::Publish),
        "sub" | "subscribe" => Actions::default().with(Action::Subscribe),
        "receive" => Actions::default().with(Action::Receive),
        "all" => Actions::ALL,
        _ => return None,
    })
}

fn qos(number: u64) -> Option<QoS> {
    QoS::from_bits(u8::try_from(number).ok()?)
}

/// One text, or a list of them.
fn strings(value: &Value) -> Option<Vec<&str>> {
    match value {
        Value::String(one) => Some(vec![one]),
        Value::Array(list) => list.iter().map(Value::as_str).collect(),
        _ => None,
    }
}

/// A pattern as we write it, or with the placeholders of EMQX. Its `eq FILTER`, which means the filter itself, is nothing that we have.
fn pattern(text: &str) -> Option<TopicPattern> {
    if text.starts_with("eq ") {
        return None;
    }
    let text = text.replace("${username}", "%u").replace("${clientid}", "%c");
    TopicPattern::parse(&text).ok()
}
