//! Who is at the other end of a network connection, as far as the network tells.

use core::net::IpAddr;
use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};

use crate::protocol::version::Version;

/// The remote end of a connection, for logs, limits and authentication.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Address and port as text: `192.168.1.7:53122`, or the path of a Unix socket.
    pub address: Box<str>,
    /// The IP address, after PROXY protocol; `None` on a Unix socket.
    pub ip: Option<IpAddr>,
    /// True where the transport is encrypted.
    pub is_secure: bool,
    /// The client's certificate, where TLS asked for one and it was verified.
    pub certificate: Option<Arc<PeerCertificate>>,
    /// The rules of the listener that accepted it.
    pub rules: Arc<ListenerRules>,
}

impl Peer {
    /// True for a program of this machine: over loopback, a Unix socket, or within the process.
    pub fn is_local(&self) -> bool {
        self.ip.is_none_or(|ip| ip.to_canonical().is_loopback())
    }
}

/// What a verified client certificate says about its holder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerCertificate {
    /// Common name of the subject.
    pub common_name: Option<String>,
    /// Subject as text.
    pub subject: String,
    /// DNS names, e-mail addresses, URIs and IP addresses of the subject alternative name, in its order.
    pub alternative_names: Vec<String>,
    /// What it is revoked by; `None` where a proxy has seen it, not we.
    pub id: Option<CertificateId>,
}

/// A certificate among all others: made of its issuer and its serial number (RFC 5280 section 4.1.2.2).
pub type CertificateId = [u8; 16];

/// Certificates of clients that are not good any more, of those that connected before that was known: new ones the handshake refuses.
#[derive(Debug, Default)]
pub struct Revoked(RwLock<HashSet<CertificateId>>);

/// By what they are.
impl PartialEq for Revoked {
    fn eq(&self, other: &Self) -> bool {
        let same = |known: &HashSet<_>| *known == *other.0.read().unwrap_or_else(PoisonError::into_inner);
        core::ptr::eq(self, other) || same(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Eq for Revoked {}

impl Revoked {
    /// Whether a certificate is one of them.
    pub fn has(&self, certificate: &PeerCertificate) -> bool {
        let is_there = |id| self.0.read().unwrap_or_else(PoisonError::into_inner).contains(&id);
        certificate.id.is_some_and(is_there)
    }

    /// These are revoked now, and no others; true where one is new among them.
    pub fn replace(&self, revoked: HashSet<CertificateId>) -> bool {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let has_new = revoked.iter().any(|id| !known.contains(id));
        *known = revoked;
        has_new
    }
}

/// The MQTT rules of one listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerRules {
    /// The listener's name in logs: `tcp:1883`.
    pub name: String,
    /// Protocol versions that are let in; default all.
    pub allowed_versions: Vec<Version>,
    /// Quirk: a 3.1.1 client with an empty client id and clean session 0 gets an assigned id and a clean session instead of a
    /// refusal with code 2 [MQTT-3.1.3-8]. Default off.
    pub accept_empty_client_id_persistent: bool,
    /// The highest QoS that clients of this listener may use; `None`: the broker's.
    pub maximum_qos: Option<crate::protocol::qos::QoS>,
    /// Certificates of its clients that have been revoked since it began.
    pub revoked: Arc<Revoked>,
    /// How fast each of them may publish; `None`: as fast as it can.
    pub publish_rate: Option<PublishRate>,
}

impl Default for ListenerRules {
    fn default() -> Self {
        Self {
            name: "tcp".into(),
            allowed_versions: Version::ALL.to_vec(),
            accept_empty_client_id_persistent: false,
            maximum_qos: None,
            revoked: Arc::default(),
            publish_rate: None,
        }
    }
}

/// How fast a client may publish, with a second's worth at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishRate {
    /// PUBLISH packets a second; `None`: any number.
    pub messages: Option<u64>,
    /// Bytes of their topics, properties and payloads a second; `None`: any number.
    pub bytes: Option<u64>,
    /// What becomes of a client that is faster.
    pub policy: RatePolicy,
}

/// See [`PublishRate::policy`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RatePolicy {
    /// It is not read for a while; its keep alive stands still.
    #[default]
    Delay,
    /// What is too much is dropped at QoS 0 and refused at QoS 1 and 2 (0x97); before MQTT 5, which cannot be told, it is not read for a
    /// while then.
    Drop,
    /// It is disconnected (0x96).
    Disconnect,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Somebody on this machine.
    pub(crate) fn peer() -> Peer {
        Peer {
            address: "127.0.0.1:1".into(),
            ip: None,
            is_secure: false,
            certificate: None,
            rules: Arc::new(ListenerRules::default()),
        }
    }
}
