//! Certificates for a first try and for tests: an authority, a server's and clients' certificates (`sundew certs`).

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, RsaKeySize,
};
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// What to make.
#[derive(Clone, Debug)]
pub struct CertificatesOptions {
    /// The folder, made if it is missing. Default: `certs`.
    pub folder: PathBuf,
    /// Host names and IP addresses that clients connect to, besides `localhost`, `127.0.0.1` and `::1`. Default: none.
    pub names: Vec<String>,
    /// The common name in the client's certificate, and the name of its files. Default: `client`.
    pub client_name: String,
    /// Days until the certificates end. Default: 825, the longest that Apple's systems accept.
    pub days: u32,
    /// RSA keys of 2048 bits instead of ECDSA P-256. Default: no. Some small devices know RSA only; a handshake then
    /// costs about ten times the CPU.
    pub rsa: bool,
    /// Replaces files that exist. Default: no.
    pub force: bool,
}

impl Default for CertificatesOptions {
    fn default() -> Self {
        Self {
            folder: PathBuf::from("certs"),
            names: Vec::new(),
            client_name: "client".to_owned(),
            days: 825,
            rsa: false,
            force: false,
        }
    }
}

/// Why the files were not made.
#[derive(Debug, thiserror::Error)]
pub enum CertificatesError {
    /// A file is there already; nothing was written.
    #[error("{0:?} exists already; remove it, choose another folder, or replace it with --force")]
    Exists(PathBuf),
    /// A file or the folder cannot be written.
    #[error("cannot write {file:?}: {source}")]
    Write {
        /// The file or folder.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// There is an authority's certificate, and a key that is not its own.
    #[error("{0:?} is not the certificate of the authority's key beside it; make all anew with --force")]
    Authority(PathBuf),
    /// A file cannot be read.
    #[error("cannot read {file:?}: {reason}; make all anew with --force")]
    Read {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A client cannot have a file of this name.
    #[error(
        "{0:?} is no name for the files of a client: it has a / in it, begins with a dot, or is that of other files here"
    )]
    ClientName(String),
    /// The certificates cannot be made.
    #[error("cannot make the certificates: {0}; are all names host names or IP addresses?")]
    Make(#[from] rcgen::Error),
}

/// Makes `ca.pem`, `ca.key`, `server.pem`, `server.key`, and `client.pem` and `client.key`, or whatever the client is called, and says where they
/// are. Keys are readable by their owner only.
///
/// # Errors
/// [`CertificatesError`]; without `force` no file that exists is touched.
pub fn make(options: &CertificatesOptions) -> Result<Vec<PathBuf>, CertificatesError> {
    check_client(&options.client_name)?;
    let key = key(options)?;
    let authority = CertifiedIssuer::self_signed(authority(&key, options), key)?;
    let local = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let names: Vec<String> = local.into_iter().chain(options.names.iter().cloned()).collect();
    let usage = ExtendedKeyUsagePurpose::ServerAuth;
    let (server, server_key) = leaf("Sundew", names, usage, &authority, options)?;
    let mut files = vec![
        ("ca.pem".to_owned(), authority.pem()),
        ("ca.key".to_owned(), authority.key().serialize_pem()),
        ("server.pem".to_owned(), server),
        ("server.key".to_owned(), server_key),
    ];
    files.extend(client(&authority, options)?);
    write_all(files, options)
}

/// True where `make` has been: there is an authority that can make more.
pub fn has_authority(folder: &Path) -> bool {
    folder.join(AUTHORITY_KEY).exists()
}

/// Makes the certificate and key of another client of the authority that is there, and says where they are.
///
/// # Errors
/// [`CertificatesError`]; without `force` no file that exists is touched.
pub fn make_client(options: &CertificatesOptions) -> Result<Vec<PathBuf>, CertificatesError> {
    check_client(&options.client_name)?;
    let file = options.folder.join(AUTHORITY_KEY);
    let error = |reason: String| CertificatesError::Read {
        file: file.clone(),
        reason,
    };
    let pem = std::fs::read_to_string(&file).map_err(|found| error(found.to_string()))?;
    let key = KeyPair::from_pem(&pem).map_err(|found| error(found.to_string()))?;
    let known = options.folder.join("ca.pem");
    let certificates = super::tls::read_certificates(&known).map_err(|found| CertificatesError::Read {
        file: known.clone(),
        reason: found.to_string(),
    })?;
    let is_its_own = certificates.first().is_some_and(|der| {
        let parsed = X509Certificate::from_der(der);
        parsed.is_ok_and(|(_, parsed)| *parsed.public_key().subject_public_key.data == *key.public_key_raw())
    });
    if !is_its_own {
        return Err(CertificatesError::Authority(known));
    }
    let authority = Issuer::new(authority(&key, options), key);
    write_all(client(&authority, options)?.into(), options)
}

/// Who has it makes clients of this authority.
const AUTHORITY_KEY: &str = "ca.key";

fn check_client(name: &str) -> Result<(), CertificatesError> {
    let is_none = name.is_empty() || name.contains(['/', '\0']) || name.starts_with('.');
    if is_none || ["ca", "server"].contains(&name) {
        return Err(CertificatesError::ClientName(name.to_owned()));
    }
    Ok(())
}

fn write_all(files: Vec<(String, String)>, options: &CertificatesOptions) -> Result<Vec<PathBuf>, CertificatesError> {
    let named = |(name, pem)| (options.folder.join::<String>(name), pem);
    let files: Vec<(PathBuf, String)> = files.into_iter().map(named).collect();
    if let Some((file, _)) = files.iter().find(|(file, _)| !options.force && file.exists()) {
        return Err(CertificatesError::Exists(file.clone()));
    }
    let error = |file: &Path, source| CertificatesError::Write {
        file: file.to_owned(),
        source,
    };
    std::fs::create_dir_all(&options.folder).map_err(|source| error(&options.folder, source))?;
    for (file, pem) in &files {
        write(file, pem, options.force).map_err(|source| error(file, source))?;
    }
    Ok(files.into_iter().map(|(file, _)| file).collect())
}

/// What an authority says of itself; the same whenever it is asked with the same key.
fn authority(key: &KeyPair, options: &CertificatesOptions) -> CertificateParams {
    // A name of its own: verifiers look the authority up by name, and would find the last one's beside its leftovers.
    let unique: String = key.public_key_raw()[16..20]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let mut params = params(&format!("Sundew development authority {unique}"), options);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// The names and contents of a client's files.
fn client(
    authority: &Issuer<'_, KeyPair>,
    options: &CertificatesOptions,
) -> Result<[(String, String); 2], rcgen::Error> {
    let name = &options.client_name;
    let (certificate, key) = leaf(
        name,
        Vec::new(),
        ExtendedKeyUsagePurpose::ClientAuth,
        authority,
        options,
    )?;
    Ok([(format!("{name}.pem"), certificate), (format!("{name}.key"), key)])
}

fn leaf(
    common_name: &str,
    names: Vec<String>,
    usage: ExtendedKeyUsagePurpose,
    authority: &Issuer<'_, KeyPair>,
    options: &CertificatesOptions,
) -> Result<(String, String), rcgen::Error> {
    let key = key(options)?;
    let mut params = params(common_name, options);
    params.subject_alt_names = CertificateParams::new(names)?.subject_alt_names;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, authority)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn params(common_name: &str, options: &CertificatesOptions) -> CertificateParams {
    let now = OffsetDateTime::now_utc();
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = now - Duration::DAY; // clocks of small devices are late
    params.not_after = now + Duration::days(options.days.into());
    params
}

fn key(options: &CertificatesOptions) -> Result<KeyPair, rcgen::Error> {
    if options.rsa {
        KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048)
    } else {
        KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
    }
}

fn write(file: &Path, pem: &str, force: bool) -> io::Result<()> {
    if force && file.exists() {
        std::fs::remove_file(file)?; // its mode would stay
    }
    let mode = if file.extension().is_some_and(|extension| extension == "key") {
        0o600
    } else {
        0o644
    };
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(file)?
        .write_all(pem.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::Arc;

    use super::*;

    #[test]
    fn makes_six_files_and_keeps_them() {
        let folder = tempfile::tempdir().unwrap();
        let options = CertificatesOptions {
            folder: folder.path().join("certs"),
            ..CertificatesOptions::default()
        };
        let files = make(&options).unwrap();
        let mut names: Vec<_> = std::fs::read_dir(&options.folder)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(
            names,
            [
                "ca.key",
                "ca.pem",
                "client.key",
                "client.pem",
                "server.key",
                "server.pem"
            ]
        );
        for file in files.iter().filter(|file| file.extension().unwrap() == "key") {
            assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let before = std::fs::read(&files[2]).unwrap();
        std::fs::remove_file(&files[0]).unwrap();
        assert!(matches!(make(&options), Err(CertificatesError::Exists(file)) if file == files[1]));
        assert_eq!(std::fs::read(&files[2]).unwrap(), before);
        assert!(!files[0].exists());
        make(&CertificatesOptions {
            force: true,
            rsa: true,
            ..options
        })
        .unwrap();
        assert_ne!(std::fs::read(&files[2]).unwrap(), before);
        assert_eq!(
            std::fs::metadata(&files[3]).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }

    #[test]
    fn the_authority_makes_more_clients() {
        let folder = tempfile::tempdir().unwrap();
        let mut options = CertificatesOptions {
            folder: folder.path().to_owned(),
            ..CertificatesOptions::default()
        };
        assert!(!has_authority(folder.path()));
        make(&options).unwrap();
        assert!(has_authority(folder.path()));
        let authority = std::fs::read(folder.path().join("ca.pem")).unwrap();
        options.client_name = "device-7".to_owned();
        let files = make_client(&options).unwrap();
        assert_eq!(
            files,
            [folder.path().join("device-7.pem"), folder.path().join("device-7.key")]
        );
        assert_eq!(std::fs::read(folder.path().join("ca.pem")).unwrap(), authority);
        let [ca, client] = ["ca.pem", "device-7.pem"].map(|name| {
            let mut read = crate::transport::tls::read_certificates(&folder.path().join(name)).unwrap();
            read.remove(0)
        });
        let mut roots = rustls::RootCertStore::empty();
        roots.add(ca).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let verifier = verifier.build().unwrap();
        let now = rustls::pki_types::UnixTime::now();
        verifier.verify_client_cert(&client, &[], now).unwrap();
        assert!(matches!(make_client(&options), Err(CertificatesError::Exists(_))));
        for name in ["", "server", "../x", ".x"] {
            options.client_name = name.to_owned();
            assert!(
                matches!(make_client(&options), Err(CertificatesError::ClientName(_))),
                "{name:?}"
            );
        }
        // Another authority's certificate beside the key.
        let other = tempfile::tempdir().unwrap();
        options.client_name = "client".to_owned();
        make(&CertificatesOptions {
            folder: other.path().to_owned(),
            ..options.clone()
        })
        .unwrap();
        std::fs::copy(other.path().join("ca.pem"), folder.path().join("ca.pem")).unwrap();
        assert!(matches!(make_client(&options), Err(CertificatesError::Authority(_))));
    }

    #[test]
    fn names_that_are_none_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let names = vec!["brökér".to_owned()];
        let options = CertificatesOptions {
            folder: folder.path().to_owned(),
            names,
            ..CertificatesOptions::default()
        };
        assert!(matches!(make(&options), Err(CertificatesError::Make(_))));
    }
}
