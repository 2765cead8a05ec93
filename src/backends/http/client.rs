//! Our own questions over HTTP: what leaves, what comes back, and how long and how large that may be.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use ureq::http::{HeaderName, HeaderValue, Method, Request, Uri};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Error};

/// Where systems keep the authorities that they trust.
const SYSTEM_AUTHORITIES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// How a program is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientOptions {
    /// Certificates of the authorities that it is trusted by, in PEM; `None`: those of the system.
    pub ca_file: Option<PathBuf>,
    /// How long all of an exchange may take, from the name's address to the last byte.
    pub timeout: Duration,
    /// Connections that are kept open.
    pub connections_max: usize,
    /// Largest answer, bytes.
    pub answer_bytes_max: u64,
}

/// Asks. Follows no redirection and uses no proxy of the environment.
#[derive(Clone, Debug)]
pub struct Client {
    agent: Agent,
    answer_bytes_max: u64,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its status code.
    pub status: u16,
    /// What it says; `None` where that is larger than is read.
    pub body: Option<Vec<u8>>,
}

impl Client {
    /// Reads the authorities.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn new(options: &ClientOptions) -> Result<Self, String> {
        let authorities = match &options.ca_file {
            Some(file) => read_authorities(file)?,
            // Without any, every certificate is refused: that is told when one comes.
            None => SYSTEM_AUTHORITIES
                .iter()
                .find_map(|file| read_authorities(Path::new(file)).ok())
                .unwrap_or_default(),
        };
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::new_with_certs(&authorities))
            .unversioned_rustls_crypto_provider(Arc::new(aws_lc_rs::default_provider()))
            .build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .timeout_global(Some(options.timeout))
            .max_redirects(0)
            .http_status_as_error(false)
            .proxy(None)
            .user_agent(concat!("sundew/", env!("CARGO_PKG_VERSION")))
            .max_response_header_size(16 << 10)
            .max_idle_connections(options.connections_max)
            .max_idle_connections_per_host(options.connections_max)
            .build();
        Ok(Self {
            agent: Agent::new_with_config(config),
            answer_bytes_max: options.answer_bytes_max,
        })
    }

    /// Sends a request, with a body or without one, and waits for the whole answer. What ends before its answer came is sent once more: the
    /// other side may close a connection that it is tired of in the moment in which it is used again, and nothing that is asked here changes
    /// anything there.
    ///
    /// # Errors
    /// There is none, in one line: no connection, no time left.
    pub fn send(
        &self,
        method: &Method,
        url: &str,
        headers: &[(String, String)],
        body: Option<&[u8]>,
    ) -> Result<Answer, String> {
        match self.try_once(method, url, headers, body) {
            Err(Error::Io(error)) if error.kind() == ErrorKind::TimedOut => Err(Error::Io(error)),
            Err(Error::Io(_) | Error::Protocol(_)) => self.try_once(method, url, headers, body),
            once => once,
        }
        .map_err(|error| error.to_string())
    }

    fn try_once(
        &self,
        method: &Method,
        url: &str,
        headers: &[(String, String)],
        body: Option<&[u8]>,
    ) -> Result<Answer, Error> {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let mut answer = match body {
            Some(body) => self.agent.run(request.body(body)?)?,
            None => self.agent.run(request.body(())?)?,
        };
        let status = answer.status().as_u16();
        let body = answer.body_mut().with_config().limit(self.answer_bytes_max);
        let body = match body.read_to_vec() {
            Ok(body) => Some(body),
            Err(Error::BodyExceedsLimit(_)) => None,
            Err(error) => return Err(error),
        };
        Ok(Answer { status, body })
    }
}

/// Whether it can be asked at all: it may be too long.
pub fn is_address(url: &str) -> bool {
    url.parse::<Uri>().is_ok()
}

/// An address as it may stand in a log: without its query, in which keys are.
pub fn without_query(url: &str) -> String {
    match url.split_once('?') {
        Some((place, _)) => format!("{place}?…"),
        None => url.to_owned(),
    }
}

/// What is wrong with an address that is to be asked, if something is.
pub fn check_url(url: &str) -> Result<(), &'static str> {
    let uri: Uri = url
        .parse()
        .map_err(|_| "it is no address such as https://auth.example/mqtt")?;
    if uri
        .authority()
        .is_some_and(|authority| authority.as_str().contains('@'))
    {
        return Err("a name or password in an address is in logs, too; send it in a header");
    }
    match (uri.scheme_str(), uri.host()) {
        (Some("http" | "https"), Some(host)) if !host.is_empty() => Ok(()),
        (Some("http" | "https"), _) => Err("it has no host"),
        _ => Err("it begins with neither http:// nor https://"),
    }
}

/// What is wrong with a header that is to be sent, if something is.
pub fn check_header(name: &str, value: &str) -> Result<(), &'static str> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| "this is no name of a header")?;
    HeaderValue::from_str(value).map_err(|_| "this is no value of a header")?;
    Ok(())
}

/// Whether what is sent there can be read by others on the way.
pub fn is_open(url: &str) -> bool {
    let Ok(uri) = url.parse::<Uri>() else { return false };
    let host = uri.host().unwrap_or_default();
    let is_here = host == "localhost" || host.starts_with("127.") || host == "[::1]";
    uri.scheme_str() == Some("http") && !is_here
}

fn read_authorities(file: &Path) -> Result<Vec<Certificate<'static>>, String> {
    let pem = std::fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    let items = parse_pem(&pem).filter_map(Result::ok);
    let certificates: Vec<_> = items
        .filter_map(|item| match item {
            PemItem::Certificate(certificate) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        return Err(format!(
            "there is no certificate in {}; PEM begins with -----BEGIN CERTIFICATE-----",
            file.display()
        ));
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_in_a_query_is_in_no_log() {
        assert_eq!(without_query("https://h/x?key=secret&b=${topic}"), "https://h/x?…");
        assert_eq!(without_query("https://h/x"), "https://h/x");
    }

    #[test]
    fn an_address_has_no_password_in_it() {
        assert!(check_url("http://user:secret@h/x").is_err());
        assert!(check_url("https://key@h").is_err());
        assert_eq!(check_url("https://h/users/a@b?mail=a@b"), Ok(()));
    }
}
