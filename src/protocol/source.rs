//! Who published a message, as far as it matters later whether he still may: kept with retained messages and with wills.

use core::net::IpAddr;

/// Who published a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source<'a> {
    /// User name; `None` for an anonymous client.
    pub user_name: Option<&'a str>,
    /// That user was in a list of users, and is looked for there again.
    pub is_listed: bool,
    /// It brought claims or rights of its own, of which no more is known.
    pub has_grants: bool,
    /// The client.
    pub client_id: &'a str,
    /// The listener it came by.
    pub listener: &'a str,
    /// Its address; `None` on a Unix socket.
    pub ip: Option<IpAddr>,
}

/// A [`Source`] that is kept. Costs about 60 bytes and its names; share it behind an `Arc`, one for all messages of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SourceBuf {
    /// User name, client id and listener, one after the other.
    names: Box<str>,
    user_bytes: Option<u32>,
    client_bytes: u32,
    is_listed: bool,
    has_grants: bool,
    ip: Option<IpAddr>,
}

impl SourceBuf {
    /// Keeps it. Names are those of MQTT, and far below 4 GiB.
    pub fn new(source: &Source<'_>) -> Self {
        Self {
            names: [source.user_name.unwrap_or_default(), source.client_id, source.listener]
                .concat()
                .into(),
            user_bytes: source.user_name.map(|name| name.len() as u32),
            client_bytes: source.client_id.len() as u32,
            is_listed: source.is_listed,
            has_grants: source.has_grants,
            ip: source.ip,
        }
    }

    /// As it was given.
    pub fn view(&self) -> Source<'_> {
        let (user_name, rest) = self.names.split_at(self.user_bytes.unwrap_or(0) as usize);
        let (client_id, listener) = rest.split_at(self.client_bytes as usize);
        Source {
            user_name: self.user_bytes.map(|_| user_name),
            is_listed: self.is_listed,
            has_grants: self.has_grants,
            client_id,
            listener,
            ip: self.ip,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_source_is_what_was_given() {
        for (user_name, client_id, ip) in [
            (Some("anna"), "c", Some(IpAddr::from([10, 0, 0, 7]))),
            (Some(""), "ü", Some(IpAddr::from([0xFE80, 0, 0, 0, 0, 0, 0, 1]))),
            (None, "annac", None),
            (None, "", None),
        ] {
            let source = Source {
                user_name,
                is_listed: user_name.is_some(),
                has_grants: ip.is_none(),
                client_id,
                listener: "tcp:1883",
                ip,
            };
            assert_eq!(SourceBuf::new(&source).view(), source);
        }
    }
}
