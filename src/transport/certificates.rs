//! Certificates for a first try and for tests: an authority, a server's and a client's certificate (`sundew certs`).

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, RsaKeySize,
};
use time::{Duration, OffsetDateTime};

/// What to make.
#[derive(Clone, Debug)]
pub struct CertificatesOptions {
    /// The folder, made if it is missing. Default: `certs`.
    pub folder: PathBuf,
    /// Host names and IP addresses that clients connect to, besides `localhost`, `127.0.0.1` and `::1`. Default: none.
    pub names: Vec<String>,
    /// The common name in the client's certificate. Default: `client`.
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
    /// The certificates cannot be made.
    #[error("cannot make the certificates: {0}; are all names host names or IP addresses?")]
    Make(#[from] rcgen::Error),
}

/// Makes `ca.pem`, `server.pem`, `server.key`, `client.pem` and `client.key` and says where they are. Keys are readable
/// by their owner only. The authority's key is not kept: nobody can sign anything else with it, and to make another
/// certificate all are made anew.
///
/// # Errors
/// [`CertificatesError`]; without `force` no file that exists is touched.
pub fn make(options: &CertificatesOptions) -> Result<Vec<PathBuf>, CertificatesError> {
    let files = generate(options)?;
    let files = files.map(|(name, pem)| (options.folder.join(name), pem));
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
    Ok(files.map(|(file, _)| file).into())
}

/// The names and contents of the files.
fn generate(options: &CertificatesOptions) -> Result<[(&'static str, String); 5], rcgen::Error> {
    let key = key(options)?;
    // A name of its own: verifiers look the authority up by name, and would find the last one's beside its leftovers.
    let unique: String = key.public_key_raw()[16..20]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let mut params = params(&format!("Sundew development authority {unique}"), options);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority = CertifiedIssuer::self_signed(params, key)?;

    let local = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let names: Vec<String> = local.into_iter().chain(options.names.iter().cloned()).collect();
    let usage = ExtendedKeyUsagePurpose::ServerAuth;
    let (server, server_key) = leaf("Sundew", names, usage, &authority, options)?;
    let usage = ExtendedKeyUsagePurpose::ClientAuth;
    let (client, client_key) = leaf(&options.client_name, Vec::new(), usage, &authority, options)?;
    Ok([
        ("ca.pem", authority.pem()),
        ("server.pem", server),
        ("server.key", server_key),
        ("client.pem", client),
        ("client.key", client_key),
    ])
}

fn leaf(
    common_name: &str,
    names: Vec<String>,
    usage: ExtendedKeyUsagePurpose,
    authority: &CertifiedIssuer<'_, KeyPair>,
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

    use super::*;

    #[test]
    fn makes_five_files_and_keeps_them() {
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
            ["ca.pem", "client.key", "client.pem", "server.key", "server.pem"]
        );
        for file in files.iter().filter(|file| file.extension().unwrap() == "key") {
            assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let before = std::fs::read(&files[1]).unwrap();
        std::fs::remove_file(&files[0]).unwrap();
        assert!(matches!(make(&options), Err(CertificatesError::Exists(file)) if file == files[1]));
        assert_eq!(std::fs::read(&files[1]).unwrap(), before);
        assert!(!files[0].exists());
        make(&CertificatesOptions {
            force: true,
            rsa: true,
            ..options
        })
        .unwrap();
        assert_ne!(std::fs::read(&files[1]).unwrap(), before);
        assert_eq!(
            std::fs::metadata(&files[2]).unwrap().permissions().mode() & 0o777,
            0o600
        );
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
