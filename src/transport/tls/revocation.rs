//! Lists of revoked certificates. They are read by what reads them in a handshake, so that whatever counts there counts here.

use std::collections::HashSet;
use std::path::Path;

use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest as _, Sha256};
use webpki::{BorrowedCertRevocationList, CertRevocationList};
use x509_parser::prelude::FromDer;

use super::{TlsError, read};
use crate::session::peer::CertificateId;

/// What a file of revocation lists says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revocations {
    /// The certificates that are revoked.
    pub revoked: HashSet<CertificateId>,
    /// When each list says that the next will have come, seconds since 1970; `None` where that cannot be read.
    pub ends: Vec<Option<i64>>,
}

impl Revocations {
    /// Reads the lists of a PEM file.
    ///
    /// # Errors
    /// [`TlsError`]: exactly where no handshake could be had with it.
    pub fn read(file: &Path) -> Result<Self, TlsError> {
        Self::of(&read_lists(file)?).map_err(|error| TlsError::Unusable {
            file: file.to_owned(),
            reason: format!("not a usable revocation list: {error}"),
        })
    }

    fn of(lists: &[CertificateRevocationListDer<'_>]) -> Result<Self, webpki::Error> {
        let mut revocations = Self::default();
        for der in lists {
            let list = BorrowedCertRevocationList::from_der(der)?;
            let issued = CertRevocationList::from(BorrowedCertRevocationList::from_der(der)?); // which alone tells by whom
            for one in &list {
                revocations.revoked.insert(id_of(issued.issuer(), one?.serial_number));
            }
            revocations.ends.push(end(der));
        }
        Ok(revocations)
    }
}

/// Nothing is checked by it: it is told to people, who may have forgotten to renew a list.
fn end(list: &[u8]) -> Option<i64> {
    let (_, list) = x509_parser::revocation_list::CertificateRevocationList::from_der(list).ok()?;
    list.next_update().map(|end| end.timestamp())
}

/// Reads the revocation lists of a PEM file.
pub(super) fn read_lists(file: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let pem = read(file)?;
    let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&pem).collect();
    let lists = lists.ok().filter(|lists| !lists.is_empty());
    lists.ok_or_else(|| TlsError::Nothing {
        file: file.to_owned(),
        what: "revocation list",
        advice: "it must hold a block that begins with -----BEGIN X509 CRL-----",
    })
}

/// A certificate is named by its issuer, the content of its sequence, and by its serial number.
pub(super) fn id_of(issuer: &[u8], serial: &[u8]) -> CertificateId {
    // Its length goes first, so that no issuer runs into a serial number.
    let digest = Sha256::new()
        .chain_update((issuer.len() as u64).to_be_bytes())
        .chain_update(issuer)
        .chain_update(serial)
        .finalize();
    let mut id = CertificateId::default();
    id.copy_from_slice(&digest[..16]);
    id
}

/// What is in a value in DER, without its tag and its length (X.690 8.1.3).
pub(super) fn content(der: &[u8]) -> &[u8] {
    let length_bytes = match der.get(1) {
        Some(long @ 0x81..=0xFE) => 1 + usize::from(long & 0x7F),
        _ => 1,
    };
    der.get(1 + length_bytes..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rcgen::{
        BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, CrlDistributionPoint,
        CrlIssuingDistributionPoint, CrlScope, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevocationReason,
        RevokedCertParams, SerialNumber,
    };
    use rustls::RootCertStore;
    use rustls::crypto::aws_lc_rs;
    use rustls::server::WebPkiClientVerifier;
    use time::{Duration, OffsetDateTime};

    use super::*;

    /// With every byte of it changed in turn: nobody is kept from renewing certificates by a list that handshakes are had with.
    #[test]
    fn a_list_is_read_here_whenever_it_is_read_in_a_handshake() {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::CrlSign, KeyUsagePurpose::KeyCertSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let now = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(200),
            revocation_time: now,
            reason_code: Some(RevocationReason::KeyCompromise),
            invalidity_date: Some(now),
        };
        let list = CertificateRevocationListParams {
            this_update: now,
            next_update: now + Duration::days(1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: Some(CrlIssuingDistributionPoint {
                distribution_point: CrlDistributionPoint {
                    uris: vec!["http://localhost/list".to_owned()],
                },
                scope: Some(CrlScope::UserCertsOnly),
            }),
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&issuer).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(issuer.der().clone()).unwrap();
        let roots = Arc::new(roots);
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut taken = 0;
        for at in 0..list.der().len() {
            for change in [0, 1, 0x80] {
                let mut der = list.der().to_vec();
                der[at] ^= change;
                let lists = vec![CertificateRevocationListDer::from(der)];
                let read = Revocations::of(&lists);
                let builder = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider));
                let is_taken = builder.with_crls(lists).build().is_ok();
                assert_eq!(read.is_ok(), is_taken, "byte {at} changed by {change}");
                if let Ok(read) = read {
                    assert_eq!((read.revoked.len(), read.ends.len()), (1, 1));
                    taken += 1;
                }
            }
        }
        assert!(taken > 100, "{taken}: the test tests nothing");
    }

    #[test]
    fn what_is_in_a_value_is_found_behind_lengths_of_every_form() {
        assert_eq!(content(b"\x30\x02ab"), b"ab");
        assert_eq!(content(&[b"\x30\x81\x80", &[b'x'; 128][..]].concat()), [b'x'; 128]);
        assert_eq!(content(&[b"\x30\x82\x01\x00", &[b'x'; 256][..]].concat()), [b'x'; 256]);
        for broken in [&b""[..], b"\x30", b"\x30\x82\x01", b"\x30\xFF"] {
            assert_eq!(content(broken), b"", "{broken:02x?}");
        }
    }
}
