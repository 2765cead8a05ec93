//! Where to connect: host and port, Unix socket or URL.

use super::ServerArguments;
use crate::transport::client_stream::Endpoint;

/// A server, and what else a URL says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) endpoint: Endpoint,
    pub(super) is_tls: bool,
    pub(super) websocket_path: Option<String>,
    pub(super) user_name: Option<String>,
    pub(super) password: Option<String>,
    pub(super) topic: Option<String>,
}

const PORT: u16 = 1883;
const PORT_TLS: u16 = 8883;
const PORT_WS: u16 = 9001;

impl Target {
    pub(super) fn of(arguments: &ServerArguments, url: Option<&str>) -> Result<Self, String> {
        let mut target = match url {
            Some(url) => Self::parse(url)?,
            None => Self {
                endpoint: Endpoint::Tcp {
                    host: arguments.host.clone(),
                    port: 0,
                },
                is_tls: arguments.port == Some(PORT_TLS),
                websocket_path: None,
                user_name: None,
                password: None,
                topic: None,
            },
        };
        target.is_tls |= arguments.tls.is_given();
        if arguments.ws && target.websocket_path.is_none() {
            target.websocket_path = Some(arguments.ws_path.clone());
        }
        if let Endpoint::Tcp { port, .. } = &mut target.endpoint
            && *port == 0
        {
            *port = arguments.port.unwrap_or(match (&target.websocket_path, target.is_tls) {
                (Some(_), _) => PORT_WS,
                (None, true) => PORT_TLS,
                (None, false) => PORT,
            });
        }
        if let Some(path) = &arguments.unix {
            target.endpoint = Endpoint::Unix(path.clone());
        }
        Ok(target)
    }

    /// A port that is not said is 0.
    fn parse(url: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("{url}: {why}; write it like mqtt://user:password@host:1883/topic");
        let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("no mqtt:// in front"))?;
        let (is_tls, is_ws) = match scheme {
            "mqtt" => (false, false),
            "mqtts" => (true, false),
            "ws" => (false, true),
            "wss" => (true, true),
            _ => return Err(wrong("it begins with none of mqtt://, mqtts://, ws://, wss://")),
        };
        let (authority, path) = match rest.split_once('/') {
            Some((authority, path)) => (authority, Some(path)),
            None => (rest, None),
        };
        let (user, address) = match authority.rsplit_once('@') {
            Some((user, address)) => (Some(user), address),
            None => (None, authority),
        };
        let (user_name, password) = match user.map(|user| user.split_once(':').unwrap_or((user, ""))) {
            None => (None, None),
            Some((name, password)) => (
                Some(unescape(name)),
                user.is_some_and(|user| user.contains(':')).then(|| unescape(password)),
            ),
        };
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (
                host,
                port.parse()
                    .map_err(|_| wrong("the port is not a number from 1 to 65535"))?,
            ),
            _ => (address, 0),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(wrong("there is no host in it"));
        }
        let path = path.filter(|path| !path.is_empty());
        Ok(Self {
            endpoint: Endpoint::Tcp { host, port },
            is_tls,
            websocket_path: is_ws.then(|| path.map_or_else(|| "/mqtt".to_owned(), |path| format!("/{path}"))),
            user_name,
            password,
            topic: path.filter(|_| !is_ws).map(str::to_owned),
        })
    }
}

/// `%41` is `A`; anything else stays.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let byte = tail
            .get(..2)
            .filter(|_| *first == b'%')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_say_where_and_as_whom() {
        let target = Target::parse("mqtts://ann:s%40%2Fe:x@broker.example:8884/a/b").unwrap();
        assert_eq!(target.endpoint.to_string(), "broker.example:8884");
        assert!(target.is_tls);
        assert_eq!(target.user_name.as_deref(), Some("ann"));
        assert_eq!(target.password.as_deref(), Some("s@/e:x"));
        assert_eq!(target.topic.as_deref(), Some("a/b"));
        let target = Target::parse("ws://[::1]/app").unwrap();
        assert_eq!(target.endpoint.to_string(), "[::1]:0");
        assert_eq!(target.websocket_path.as_deref(), Some("/app"));
        assert_eq!((target.topic, target.user_name), (None, None));
        for bad in ["broker", "http://a", "mqtt://", "mqtt://a:b", "mqtt://a:99999"] {
            assert!(Target::parse(bad).unwrap_err().contains("write it like"), "{bad}");
        }
    }
}
