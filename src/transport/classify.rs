//! What a peer speaks that does not speak what the listener expects. Wrong ports are the commonest fault of a first
//! connection, so each has its own sentence in the log.

/// What the first bytes of a connection are, if they are not MQTT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NotMqtt {
    /// A TLS ClientHello.
    #[error("a TLS client hit a plaintext port; use the listener with TLS, or turn TLS off in the client")]
    Tls,
    /// An HTTP request, perhaps of a WebSocket client.
    #[error("HTTP request on an MQTT port; WebSocket clients need the WebSocket listener")]
    Http,
    /// A PROXY protocol header, version 1 or 2.
    #[error("a PROXY protocol header on a listener without proxy_protocol; set it, or turn it off in the proxy")]
    ProxyHeader,
    /// An SSH banner, which port scanners send.
    #[error("an SSH client hit an MQTT port")]
    Ssh,
}

impl NotMqtt {
    /// What the peer will understand before the connection is closed; most understand nothing.
    pub fn answer(self) -> Option<&'static [u8]> {
        match self {
            Self::Http => Some(
                b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 34\r\nConnection: close\r\n\r\n\
                  This port speaks MQTT, not HTTP.\r\n",
            ),
            Self::Tls | Self::ProxyHeader | Self::Ssh => None,
        }
    }
}

/// Says what `first_bytes` are, when decoding them as CONNECT failed. `None`: nothing known, the decoder's words stand.
pub fn classify(first_bytes: &[u8]) -> Option<NotMqtt> {
    const METHODS: [&[u8]; 7] = [
        b"GET ",
        b"HEAD ",
        b"POST ",
        b"PUT ",
        b"OPTIONS ",
        b"CONNECT ",
        b"PRI * HTTP/2",
    ];
    if first_bytes.starts_with(&[0x16, 0x03]) {
        Some(NotMqtt::Tls) // record type handshake, version 3.x
    } else if METHODS.iter().any(|method| first_bytes.starts_with(method)) {
        Some(NotMqtt::Http)
    } else if first_bytes.starts_with(b"PROXY ") || first_bytes.starts_with(b"\r\n\r\n\0\r\nQUIT\n") {
        Some(NotMqtt::ProxyHeader)
    } else if first_bytes.starts_with(b"SSH-") {
        Some(NotMqtt::Ssh)
    } else {
        None
    }
}

/// Whether `first_bytes` begin like an MQTT CONNECT.
pub(super) fn is_connect(first_bytes: &[u8]) -> bool {
    first_bytes.first() == Some(&0x10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_it_knows_and_nothing_else() {
        assert_eq!(classify(b"\x16\x03\x01\x02\x00\x01"), Some(NotMqtt::Tls));
        assert_eq!(classify(b"GET /mqtt HTTP/1.1\r\n"), Some(NotMqtt::Http));
        assert_eq!(classify(b"HEAD / HTTP/1.0\r\n"), Some(NotMqtt::Http));
        assert_eq!(
            classify(b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n"),
            Some(NotMqtt::ProxyHeader)
        );
        assert_eq!(classify(b"\r\n\r\n\0\r\nQUIT\n\x21\x11"), Some(NotMqtt::ProxyHeader));
        assert_eq!(classify(b"SSH-2.0-OpenSSH_9.9\r\n"), Some(NotMqtt::Ssh));
        assert_eq!(classify(b"\x10\x0c\x00\x04MQTT"), None);
        assert_eq!(classify(b"\x16"), None);
        assert_eq!(classify(b""), None);
        assert!(is_connect(b"\x10\x0c"));
    }

    #[test]
    fn the_answer_to_http_has_the_length_it_says() {
        let answer = std::str::from_utf8(NotMqtt::Http.answer().unwrap()).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{answer}");
    }
}
