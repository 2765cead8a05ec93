//! The names in a certificate.

use std::net::{Ipv4Addr, Ipv6Addr};

use x509_parser::extensions::GeneralName;
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::prelude::X509Certificate;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// A subject as text: `C=GB, O=Example, CN=device-7`, in the order of the certificate. What has a meaning in it stands behind a backslash where it is
/// part of a value (RFC 4514 section 2.4), so no value reads like another attribute.
pub(super) fn subject(name: &X509Name<'_>) -> String {
    let names = name.iter_rdn().map(|relative| {
        let attributes: Vec<_> = relative.iter().map(attribute).collect();
        attributes.join(" + ")
    });
    names.collect::<Vec<_>>().join(", ")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let kind = attribute.attr_type();
    let known = oid2abbrev(kind, oid_registry());
    let kind = known.map_or_else(|_| kind.to_id_string(), str::to_owned);
    match attribute.as_str() {
        Ok(value) => format!("{kind}={}", escaped(value)),
        Err(_) => {
            let bytes = attribute.as_slice().iter();
            format!(
                "{kind}=#{}",
                bytes.map(|byte| format!("{byte:02x}")).collect::<String>()
            )
        }
    }
}

fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let last = value.chars().count().saturating_sub(1);
    for (at, c) in value.chars().enumerate() {
        match c {
            '"' | '+' | ',' | ';' | '<' | '>' | '=' | '\\' => text.extend(['\\', c]),
            '#' if at == 0 => text.extend(['\\', c]),
            ' ' if at == 0 || at == last => text.extend(['\\', c]),
            c if c.is_control() => {
                let mut bytes = [0; 4];
                let bytes = c.encode_utf8(&mut bytes).bytes();
                bytes.for_each(|byte| text.push_str(&format!("\\{byte:02x}")));
            }
            c => text.push(c),
        }
    }
    text
}

/// The first common name of the subject.
pub(super) fn common_name(certificate: &X509Certificate<'_>) -> Option<String> {
    certificate
        .subject()
        .iter_common_name()
        .next()?
        .as_str()
        .ok()
        .map(str::to_owned)
}

/// The host names a server's certificate is for: DNS names, lower case; the common name only where there is none.
pub(super) fn host_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let dns = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    };
    let names: Vec<String> = general_names(certificate).iter().filter_map(dns).collect();
    if names.is_empty() {
        common_name(certificate)
            .map(|name| name.to_ascii_lowercase())
            .into_iter()
            .collect()
    } else {
        names
    }
}

/// DNS names, e-mail addresses, URIs and IP addresses of the subject alternative name.
pub(super) fn alternative_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) | GeneralName::RFC822Name(name) | GeneralName::URI(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => ip_address(bytes),
        _ => None,
    };
    general_names(certificate).iter().filter_map(text).collect()
}

/// Whether a host name is the pattern, or one label in the place of its leading `*` (RFC 6125).
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix("*.") {
        None => pattern.eq_ignore_ascii_case(name),
        Some(parent) => name
            .split_once('.')
            .is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(parent)),
    }
}

fn general_names<'a>(certificate: &'a X509Certificate<'_>) -> &'a [GeneralName<'a>] {
    match certificate.subject_alternative_name() {
        Ok(Some(extension)) => &extension.value.general_names,
        Ok(None) | Err(_) => &[],
    }
}

fn ip_address(bytes: &[u8]) -> Option<String> {
    let v4 = <[u8; 4]>::try_from(bytes).map(|bytes| Ipv4Addr::from(bytes).to_string());
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(|bytes| Ipv6Addr::from(bytes).to_string()))
        .ok()
}

#[cfg(test)]
mod tests {
    use x509_parser::prelude::FromDer as _;

    use super::*;

    #[test]
    fn no_value_of_a_subject_reads_like_another_attribute() {
        let subject_of = |pairs: &[(rcgen::DnType, &str)]| {
            let mut params = rcgen::CertificateParams::default();
            params.distinguished_name = rcgen::DistinguishedName::new();
            for (kind, value) in pairs {
                params.distinguished_name.push(kind.clone(), *value);
            }
            let key = rcgen::KeyPair::generate().unwrap();
            let made = params.self_signed(&key).unwrap();
            let (_, certificate) = X509Certificate::from_der(made.der()).unwrap();
            subject(certificate.subject())
        };
        use rcgen::DnType::{CommonName, OrganizationName};
        assert_eq!(
            subject_of(&[(OrganizationName, "Example"), (CommonName, "device-7")]),
            "O=Example, CN=device-7"
        );
        assert_eq!(subject_of(&[(CommonName, "x, O=Admin")]), "CN=x\\, O\\=Admin");
        assert_eq!(subject_of(&[(CommonName, " #a+b\\\n ")]), "CN=\\ #a\\+b\\\\\\0a\\ ");
        assert_eq!(subject_of(&[(CommonName, "#a")]), "CN=\\#a");
    }

    #[test]
    fn a_wildcard_stands_for_one_label() {
        assert!(matches("broker.example.org", "Broker.example.org"));
        assert!(matches("*.example.org", "broker.example.org"));
        assert!(!matches("*.example.org", "a.broker.example.org"));
        assert!(!matches("*.example.org", "example.org"));
        assert!(!matches("*.example.org", ".example.org"));
        assert!(!matches("broker.example.org", "example.org"));
    }
}
