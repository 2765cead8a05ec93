//! The HTTP request that opens a WebSocket, and its answer (RFC 6455 §4), for both sides. Bytes in, bytes out.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::options::{Network, WebSocketOptions};
use super::peer::HttpPeer;

/// The subprotocols of MQTT, in the words of its clients [MQTT-6.0.0-3]. The version is in the CONNECT all the same.
const SUBPROTOCOLS: [&str; 3] = ["mqtt", "mqttv3.1.1", "mqttv3.1"];
/// RFC 6455 §1.3.
const KEY_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// More headers than any browser and proxy send together.
const HEADERS_MAX: usize = 64;

/// A request that becomes a WebSocket.
#[derive(Debug)]
pub(super) struct Upgrade {
    /// The answer, 101.
    pub(super) answer: Vec<u8>,
    /// What the request told.
    pub(super) peer: HttpPeer,
    /// Addresses that proxies added, the nearest last; only to be believed from a trusted one.
    pub(super) forwarded_for: Vec<String>,
}

/// A request that does not become a WebSocket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("HTTP request answered with {status}: {reason}")]
pub struct Rejection {
    /// The status code of the answer.
    pub status: u16,
    /// Why, for the log and for the body of the answer.
    pub reason: &'static str,
}

impl Rejection {
    pub(super) const TOO_LARGE: Self = Self {
        status: 431,
        reason: "the request head is too large",
    };

    const fn bad(reason: &'static str) -> Self {
        Self { status: 400, reason }
    }

    /// The whole answer.
    pub(super) fn answer(&self) -> Vec<u8> {
        let (phrase, headers) = match self.status {
            403 => ("Forbidden", ""),
            404 => ("Not Found", ""),
            426 => (
                "Upgrade Required",
                "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
            ),
            431 => ("Request Header Fields Too Large", ""),
            _ => ("Bad Request", ""),
        };
        let connection = if self.status == 426 { "Upgrade, close" } else { "close" };
        let body = format!("{}\r\nThis port speaks MQTT over WebSocket.\r\n", self.reason);
        format!(
            "HTTP/1.1 {} {phrase}\r\n{headers}Connection: {connection}\r\nContent-Type: text/plain\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.status,
            body.len()
        )
        .into_bytes()
    }
}

/// Where the head of a request or answer ends, if it does.
pub(super) fn head_end(bytes: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, b"\r\n\r\n").map(|start| start + 4)
}

/// Reads the head of a client's request and makes the answer.
///
/// # Errors
/// [`Rejection`], whose answer is to be sent.
pub(super) fn accept(head: &[u8], options: &WebSocketOptions) -> Result<Upgrade, Rejection> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Err(httparse::Error::TooManyHeaders) => return Err(Rejection::TOO_LARGE),
        Ok(httparse::Status::Partial) | Err(_) => return Err(Rejection::bad("not an HTTP request")),
    }
    let headers = Headers(request.headers);
    let path = request.path.unwrap_or("/");
    if request.method != Some("GET") || !headers.has_token("upgrade", "websocket") {
        return Err(Rejection {
            status: 426,
            reason: "not a WebSocket request",
        });
    }
    if request.version != Some(1) || !headers.has_token("connection", "upgrade") {
        return Err(Rejection::bad(
            "a WebSocket request needs HTTP/1.1 and Connection: Upgrade; is a proxy in between?",
        ));
    }
    if headers.first("sec-websocket-version") != Some("13") {
        return Err(Rejection {
            status: 426,
            reason: "only WebSocket version 13 is spoken",
        });
    }
    check_path_and_origin(path, &headers, options)?;
    let key = headers
        .first("sec-websocket-key")
        .filter(|key| BASE64.decode(key).is_ok_and(|key| key.len() == 16));
    let key = key.ok_or(Rejection::bad("Sec-WebSocket-Key is missing or not 16 bytes in base64"))?;
    let subprotocol = choose_subprotocol(&headers)?;
    let owned = |name| headers.first(name).map(str::to_owned);
    let peer = HttpPeer {
        path: path.to_owned(),
        host: owned("host"),
        origin: owned("origin"),
        user_agent: owned("user-agent"),
        authorization: owned("authorization"),
        cookie: owned("cookie"),
        subprotocol,
    };
    Ok(Upgrade {
        answer: switching_protocols(key, subprotocol),
        peer,
        forwarded_for: headers.forwarded_for(),
    })
}

/// The client behind trusted proxies: the last address of `chain` that is not one of them. `None` where `nearest`, who
/// sent the request, is not trusted, or where there is no such address.
pub(super) fn client_address(nearest: Option<IpAddr>, chain: &[String], trusted: &[Network]) -> Option<IpAddr> {
    let is_trusted = |ip: IpAddr| trusted.iter().any(|network| network.contains(ip));
    if !nearest.is_some_and(is_trusted) {
        return None;
    }
    let mut client = None;
    for hop in chain.iter().rev() {
        let ip = parse_hop(hop)?; // "unknown" or an obfuscated name ends what can be known
        client = Some(ip);
        if !is_trusted(ip) {
            break;
        }
    }
    client
}

/// A client's request for `path` at `host` (with the port if it is not the scheme's).
pub(super) fn request(host: &str, path: &str, key: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
    )
    .into_bytes()
}

/// The key of a request, from 16 random bytes.
pub(super) fn request_key(random: [u8; 16]) -> String {
    BASE64.encode(random)
}

/// Reads the head of a server's answer to the request with `key`.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn check_answer(head: &[u8], key: &str) -> Result<(), String> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut answer = httparse::Response::new(&mut headers);
    if !matches!(answer.parse(head), Ok(httparse::Status::Complete(_))) {
        return Err("the answer is not HTTP; is it the WebSocket port?".to_owned());
    }
    if answer.code != Some(101) {
        let reason = answer.reason.unwrap_or_default();
        return Err(format!(
            "the server answered {} {reason} instead of opening a WebSocket",
            answer.code.unwrap_or(0)
        ));
    }
    let headers = Headers(answer.headers);
    if headers.first("sec-websocket-accept") != Some(&accept_key(key)) {
        return Err("the server's Sec-WebSocket-Accept is not for our key".to_owned());
    }
    // A server that names none is tolerated: some brokers do not.
    match headers.first("sec-websocket-protocol") {
        None | Some("mqtt") => Ok(()),
        Some(other) => Err(format!("the server speaks {other:?} instead of mqtt")),
    }
}

fn check_path_and_origin(path: &str, headers: &Headers<'_, '_>, options: &WebSocketOptions) -> Result<(), Rejection> {
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    if options.path.as_ref().is_some_and(|expected| expected != path) {
        return Err(Rejection {
            status: 404,
            reason: "no WebSocket at this path",
        });
    }
    match (&options.origins, headers.first("origin")) {
        (Some(allowed), Some(origin)) if !allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin)) => {
            Err(Rejection {
                status: 403,
                reason: "the page's origin is not allowed",
            })
        }
        _ => Ok(()),
    }
}

/// The first of the client's that we know, and exactly that one is echoed; `None` if it offers none.
fn choose_subprotocol(headers: &Headers<'_, '_>) -> Result<Option<&'static str>, Rejection> {
    let mut offered = headers.list("sec-websocket-protocol").peekable();
    if offered.peek().is_none() {
        return Ok(None);
    }
    let known = offered.find_map(|offer| SUBPROTOCOLS.into_iter().find(|known| *known == offer));
    known.map(Some).ok_or(Rejection::bad(
        "none of the subprotocols offered is mqtt, mqttv3.1.1 or mqttv3.1",
    ))
}

fn switching_protocols(key: &str, subprotocol: Option<&str>) -> Vec<u8> {
    let accept = accept_key(key);
    let protocol = subprotocol
        .map(|name| format!("Sec-WebSocket-Protocol: {name}\r\n"))
        .unwrap_or_default();
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{protocol}\r\n"
    )
    .into_bytes()
}

fn accept_key(key: &str) -> String {
    let mut digest = sha1_smol::Sha1::from(key);
    digest.update(KEY_SUFFIX);
    BASE64.encode(digest.digest().bytes())
}

/// An address as proxies write it: `1.2.3.4`, `1.2.3.4:5678`, `[::1]:5678`, `::1`.
fn parse_hop(hop: &str) -> Option<IpAddr> {
    let hop = hop.trim_matches('"');
    let socket = || hop.parse::<std::net::SocketAddr>().ok().map(|address| address.ip());
    let bracketed = || hop.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    hop.parse().ok().or_else(socket).or_else(bracketed)
}

/// Looks headers up by their lower-case name.
struct Headers<'a, 'b>(&'a [httparse::Header<'b>]);

impl<'b> Headers<'_, 'b> {
    fn all(&self, name: &'static str) -> impl Iterator<Item = &'b str> {
        let named = self
            .0
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name));
        named
            .filter_map(|header| std::str::from_utf8(header.value).ok())
            .map(str::trim)
    }

    fn first(&self, name: &'static str) -> Option<&'b str> {
        self.all(name).next()
    }

    /// The items of a comma-separated header, which may come in several lines.
    fn list(&self, name: &'static str) -> impl Iterator<Item = &'b str> {
        self.all(name)
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .filter(|item| !item.is_empty())
    }

    fn has_token(&self, name: &'static str, token: &str) -> bool {
        self.list(name).any(|item| item.eq_ignore_ascii_case(token))
    }

    /// The `for` addresses of `Forwarded` (RFC 7239), else `X-Forwarded-For`.
    fn forwarded_for(&self) -> Vec<String> {
        let standard: Vec<String> = self
            .list("forwarded")
            .filter_map(forwarded_address)
            .map(str::to_owned)
            .collect();
        if standard.is_empty() {
            self.list("x-forwarded-for").map(str::to_owned).collect()
        } else {
            standard
        }
    }
}

fn forwarded_address(element: &str) -> Option<&str> {
    let pairs = element.split(';').filter_map(|pair| pair.trim().split_once('='));
    let mut addresses = pairs
        .filter(|(name, _)| name.eq_ignore_ascii_case("for"))
        .map(|(_, value)| value);
    addresses.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ=="; // of RFC 6455 §1.3

    fn head(line: &str, extra: &str) -> Vec<u8> {
        format!(
            "{line}\r\nHost: broker\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{extra}\r\n"
        )
        .into_bytes()
    }

    fn get(extra: &str) -> Result<Upgrade, Rejection> {
        accept(&head("GET /mqtt?x=1 HTTP/1.1", extra), &WebSocketOptions::default())
    }

    #[test]
    fn the_answer_has_the_key_of_the_specification_and_the_offered_subprotocol() {
        let cases = [
            ("", None),
            ("Sec-WebSocket-Protocol: mqtt\r\n", Some("mqtt")),
            ("Sec-WebSocket-Protocol: foo, mqttv3.1, mqtt\r\n", Some("mqttv3.1")),
            (
                "Sec-WebSocket-Protocol: foo\r\nSec-WebSocket-Protocol: mqttv3.1.1\r\n",
                Some("mqttv3.1.1"),
            ),
        ];
        for (extra, subprotocol) in cases {
            let upgrade = get(extra).unwrap();
            let answer = String::from_utf8(upgrade.answer).unwrap();
            assert!(
                answer.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"),
                "{answer}"
            );
            assert_eq!(upgrade.peer.subprotocol, subprotocol);
            assert_eq!(upgrade.peer.path, "/mqtt?x=1");
            let echoed: Vec<_> = answer.matches("Sec-WebSocket-Protocol").collect();
            assert_eq!(echoed.len(), usize::from(subprotocol.is_some()));
            assert_eq!(head_end(answer.as_bytes()), Some(answer.len()));
        }
    }

    #[test]
    fn what_is_no_websocket_gets_an_answer_that_says_so() {
        let rejected = |head: &[u8]| accept(head, &WebSocketOptions::default()).unwrap_err().status;
        assert_eq!(rejected(b"GET / HTTP/1.1\r\nHost: broker\r\n\r\n"), 426);
        assert_eq!(rejected(&head("POST /mqtt HTTP/1.1", "")), 426);
        assert_eq!(rejected(&head("GET /mqtt HTTP/1.0", "")), 400);
        assert_eq!(rejected(b"\0\0\r\n\r\n"), 400);
        assert_eq!(rejected(&head("GET / HTTP/1.1", &"X: y\r\n".repeat(HEADERS_MAX))), 431);
        assert_eq!(get("Sec-WebSocket-Protocol: foo\r\n").unwrap_err().status, 400);
        let text = String::from_utf8(head("GET / HTTP/1.1", "")).unwrap();
        assert_eq!(rejected(text.replace("Version: 13", "Version: 8").as_bytes()), 426);
        assert_eq!(rejected(text.replace(KEY, "c2hvcnQ=").as_bytes()), 400);
        let answer = String::from_utf8(
            Rejection {
                status: 426,
                reason: "x",
            }
            .answer(),
        )
        .unwrap();
        assert!(
            answer.contains("\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"),
            "{answer}"
        );
    }

    #[test]
    fn path_and_origin_can_be_restricted() {
        let origins = Some(vec!["https://app.example.org".to_owned()]);
        let options = WebSocketOptions {
            path: Some("/mqtt".to_owned()),
            origins,
            ..WebSocketOptions::default()
        };
        let status = |line, extra| accept(&head(line, extra), &options).map_or_else(|error| error.status, |_| 101);
        assert_eq!(status("GET /mqtt?token=1 HTTP/1.1", ""), 101);
        assert_eq!(status("GET /other HTTP/1.1", ""), 404);
        assert_eq!(status("GET /mqtt HTTP/1.1", "Origin: https://app.example.org\r\n"), 101);
        assert_eq!(
            status("GET /mqtt HTTP/1.1", "Origin: https://evil.example.org\r\n"),
            403
        );
    }

    #[test]
    fn only_trusted_proxies_say_who_the_client_is() {
        let trusted: Vec<Network> = vec!["10.0.0.0/8".parse().unwrap()];
        let nearest = Some(IpAddr::from([10, 0, 0, 1]));
        let client = |nearest, extra| client_address(nearest, &get(extra).unwrap().forwarded_for, &trusted);
        let ip = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        // What the client itself claimed stands left of what the proxies saw.
        let lied = "X-Forwarded-For: 1.1.1.1, 203.0.113.7, 10.0.0.2\r\n";
        assert_eq!(client(nearest, lied), ip("203.0.113.7"));
        assert_eq!(client(ip("192.0.2.1"), lied), None);
        assert_eq!(client(None, lied), None);
        assert_eq!(client(nearest, ""), None);
        assert_eq!(
            client(nearest, "Forwarded: for=\"[2001:db8::7]:4711\";proto=https\r\n"),
            ip("2001:db8::7")
        );
        assert_eq!(client(nearest, "Forwarded: for=unknown\r\n"), None);
    }

    #[test]
    fn a_client_understands_our_answers() {
        let request = request("broker:9001", "/mqtt", KEY);
        let upgrade = accept(&request, &WebSocketOptions::default()).unwrap();
        assert_eq!(check_answer(&upgrade.answer, KEY), Ok(()));
        assert!(check_answer(&upgrade.answer, &request_key([0; 16])).is_err());
        assert!(
            check_answer(&Rejection::TOO_LARGE.answer(), KEY)
                .unwrap_err()
                .contains("431")
        );
        assert!(check_answer(b"\x20\x02\0\0\r\n\r\n", KEY).is_err());
    }
}
