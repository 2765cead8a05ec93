//! What is sent: an address and fields with `${…}` in them, filled in for one question.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

/// What can be filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    /// `${username}`, empty where there is none.
    UserName,
    /// `${password}`; one that is no text, in base64.
    Password,
    /// `${clientid}`
    ClientId,
    /// `${peerhost}`: the address without its port; empty for a Unix socket.
    PeerHost,
    /// `${listener}`
    Listener,
    /// `${cert_common_name}`, of a verified certificate.
    CommonName,
    /// `${topic}`: the topic, or the topic filter without `$share/GROUP/`.
    Topic,
    /// `${action}`: `publish` or `subscribe`.
    Action,
    /// `${access}`: the same as a number of mosquitto's: 2 or 4.
    Access,
    /// `${qos}`: a number.
    QoS,
    /// `${retain}`: a truth value.
    Retain,
}

const NAMES: [(&str, Field); 11] = [
    ("username", Field::UserName),
    ("password", Field::Password),
    ("clientid", Field::ClientId),
    ("peerhost", Field::PeerHost),
    ("listener", Field::Listener),
    ("cert_common_name", Field::CommonName),
    ("topic", Field::Topic),
    ("action", Field::Action),
    ("access", Field::Access),
    ("qos", Field::QoS),
    ("retain", Field::Retain),
];

/// A text with fields in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Part {
    Text(String),
    Field(Field),
}

/// What is filled in for one question.
#[derive(Clone, Copy, Debug, Default)]
pub struct Values<'a> {
    /// See [`Field`].
    pub user_name: &'a str,
    /// See [`Field`].
    pub password: &'a [u8],
    /// See [`Field`].
    pub client_id: &'a str,
    /// See [`Field`].
    pub peer_host: &'a str,
    /// See [`Field`].
    pub listener: &'a str,
    /// See [`Field`].
    pub common_name: &'a str,
    /// See [`Field`].
    pub topic: &'a str,
    /// True for a subscription.
    pub is_subscribe: bool,
    /// See [`Field`].
    pub qos: u8,
    /// See [`Field`].
    pub retain: bool,
}

impl Values<'_> {
    fn of(&self, field: Field) -> Value {
        Value::from(match field {
            Field::UserName => self.user_name,
            Field::Password => {
                return Value::from(match simdutf8::basic::from_utf8(self.password) {
                    Ok(text) => text.to_owned(),
                    Err(_) => STANDARD.encode(self.password),
                });
            }
            Field::ClientId => self.client_id,
            Field::PeerHost => self.peer_host,
            Field::Listener => self.listener,
            Field::CommonName => self.common_name,
            Field::Topic => self.topic,
            Field::Action => {
                if self.is_subscribe {
                    "subscribe"
                } else {
                    "publish"
                }
            }
            Field::Access => return Value::from(if self.is_subscribe { 4 } else { 2 }),
            Field::QoS => return Value::from(self.qos),
            Field::Retain => return Value::from(self.retain),
        })
    }

    fn text(&self, field: Field) -> String {
        match self.of(field) {
            Value::String(text) => text,
            other => other.to_string(),
        }
    }
}

impl Template {
    /// Reads a text.
    ///
    /// # Errors
    /// The name in it that is none, without `${` and `}`, or everything behind a `${` that has no end.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, from)) = rest.split_once("${") {
            let (name, behind) = from.split_once('}').ok_or(from)?;
            let found = NAMES.iter().find(|(known, _)| *known == name);
            let (_, field) = found.ok_or(name)?;
            if !before.is_empty() {
                parts.push(Part::Text(before.into()));
            }
            parts.push(Part::Field(*field));
            rest = behind;
        }
        if !rest.is_empty() || parts.is_empty() {
            parts.push(Part::Text(rest.into()));
        }
        Ok(Self(parts))
    }

    /// The names that there are.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMES.iter().map(|(name, _)| *name)
    }

    fn render(&self, values: &Values<'_>) -> String {
        let parts = self.0.iter().map(|part| match part {
            Part::Text(text) => text.clone(),
            Part::Field(field) => values.text(*field),
        });
        parts.collect()
    }

    /// Filled in as an address: a name in it is one word, whatever it is. `None` where it would lead to another place: to many servers `%2E` and
    /// `%2F` are points and slashes (RFC 3986 section 6.2.2.2), so a path can have no `.`, `..` and `/` from outside; and what is
    /// empty in it many leave out, so that `/users//auth` is another place, too.
    pub fn url(&self, values: &Values<'_>) -> Option<String> {
        let mut url = String::new();
        let mut is_path = true;
        for part in &self.0 {
            match part {
                Part::Text(text) => {
                    is_path = is_path && !text.contains('?');
                    url.push_str(text);
                }
                Part::Field(field) => {
                    let text = values.text(*field);
                    if is_path && (["", ".", ".."].contains(&text.as_str()) || text.contains(['/', '\\'])) {
                        return None;
                    }
                    url.push_str(&escape(&text));
                }
            }
        }
        Some(url)
    }

    /// Whether a topic is filled in before the query.
    pub fn has_topic_in_path(&self) -> bool {
        let is_path = |part: &&Part| !matches!(part, Part::Text(text) if text.contains('?'));
        self.0
            .iter()
            .take_while(is_path)
            .any(|part| *part == Part::Field(Field::Topic))
    }

    /// Filled in as a value of JSON: a field alone is of its kind.
    fn value(&self, values: &Values<'_>) -> Value {
        match self.0.as_slice() {
            [Part::Field(field)] => values.of(*field),
            _ => Value::from(self.render(values)),
        }
    }
}

/// Fields by name, as JSON.
pub fn json(fields: &[(String, Template)], values: &Values<'_>) -> String {
    let pairs = fields
        .iter()
        .map(|(name, template)| (name.clone(), template.value(values)));
    Value::Object(pairs.collect::<Map<_, _>>()).to_string()
}

/// Fields by name, as a form, or as the query of an address.
pub fn form(fields: &[(String, Template)], values: &Values<'_>) -> String {
    let pairs = fields.iter().map(|(name, template)| {
        let value = template.render(values);
        format!("{}={}", escape(name), escape(&value))
    });
    pairs.collect::<Vec<_>>().join("&")
}

/// RFC 3986: everything but what is unreserved.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte.into()),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: Values<'_> = Values {
        user_name: "al&ice\"",
        password: b"p w/\xC3\xA9",
        client_id: "c/../admin?x=1#y",
        peer_host: "192.0.2.1",
        listener: "mqtt",
        common_name: "",
        topic: "home/+/#",
        is_subscribe: true,
        qos: 1,
        retain: false,
    };

    fn fields(list: &[(&str, &str)]) -> Vec<(String, Template)> {
        let field = |(name, text): &(&str, &str)| ((*name).to_owned(), Template::parse(text).unwrap());
        list.iter().map(field).collect()
    }

    #[test]
    fn whatever_a_client_says_stays_one_value() {
        let url = |text, client_id| {
            let values = Values { client_id, ..VALUES };
            Template::parse(text).unwrap().url(&values)
        };
        let filled = |text: &str| Some(text.to_owned());
        assert_eq!(
            url("http://h/users/${clientid}?q=${username}", "x?x=1#y"),
            filled("http://h/users/x%3Fx%3D1%23y?q=al%26ice%22")
        );
        for elsewhere in ["", ".", "..", "../x", "a/b", "/", "..\\x"] {
            assert_eq!(url("http://h/${clientid}/x", elsewhere), None, "{elsewhere}");
            assert!(url("http://h/x?q=${clientid}", elsewhere).is_some(), "{elsewhere}");
        }
        assert_eq!(url("http://h/${clientid}", "a..b"), filled("http://h/a..b"));
        let list = fields(&[
            ("username", "${username}"),
            ("acc", "${access}"),
            ("qos", "${qos}"),
            ("retain", "${retain}"),
            ("both", "${action}:${topic}"),
            ("plain", "$x{y}"),
        ]);
        assert_eq!(
            json(&list, &VALUES),
            r#"{"acc":4,"both":"subscribe:home/+/#","plain":"$x{y}","qos":1,"retain":false,"username":"al&ice\""}"#
        );
        let list = fields(&[("user name", "${username}"), ("password", "${password}")]);
        assert_eq!(form(&list, &VALUES), "user%20name=al%26ice%22&password=p%20w%2F%C3%A9");
        let binary = Values {
            password: &[0xFF, 0],
            ..VALUES
        };
        assert_eq!(form(&fields(&[("p", "${password}")]), &binary), "p=%2FwA%3D");
    }

    #[test]
    fn a_name_that_is_none_is_told() {
        assert_eq!(Template::parse("a ${user} b").unwrap_err(), "user");
        assert_eq!(Template::parse("a ${username").unwrap_err(), "username");
        assert_eq!(Template::parse("").unwrap(), Template(vec![Part::Text(String::new())]));
    }
}
