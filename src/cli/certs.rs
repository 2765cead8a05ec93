//! `sundew certs`: an authority and certificates for development.

use std::path::PathBuf;

use clap::Args;

use super::{Exit, output};
use crate::transport::certificates::{self, CertificatesError, CertificatesOptions};

/// Make certificates for development: an authority, a server, a client
///
/// The authority's key stays beside its certificate, so that another client can be made later, with --client. For a broker that others rely on, take certificates of a real authority.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sundew certs                               certificates for localhost, into the folder certs
  sundew certs --name broker.lan --name 192.168.1.20
  sundew certs --client device-7             another client of the same authority: certs/device-7.pem and .key
  sundew -c config/tls.toml                  serve with them
  mosquitto_sub --cafile certs/ca.pem -p 8883 -t '#'")]
pub(super) struct Arguments {
    /// The folder, made if it is missing
    #[arg(default_value = "certs")]
    folder: PathBuf,
    /// A host name or IP address that clients connect to, besides localhost; may be repeated
    #[arg(short, long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// The name in the client's certificate, and of its files [default: client]; where there is an authority, only this client is made
    #[arg(long, value_name = "NAME")]
    client: Option<String>,
    /// Days until the certificates end
    #[arg(long, value_name = "NUMBER", default_value_t = 825)]
    days: u32,
    /// RSA keys instead of ECDSA, for small devices that know nothing else
    #[arg(long)]
    rsa: bool,
    /// Replace files that exist
    #[arg(short, long)]
    force: bool,
}

pub(super) fn run(arguments: Arguments) -> Exit {
    let is_another = arguments.client.is_some() && !arguments.force && certificates::has_authority(&arguments.folder);
    let options = CertificatesOptions {
        folder: arguments.folder,
        names: arguments.names,
        client_name: arguments.client.unwrap_or_else(|| "client".to_owned()),
        days: arguments.days,
        rsa: arguments.rsa,
        force: arguments.force,
    };
    let made = if is_another {
        certificates::make_client(&options)
    } else {
        certificates::make(&options)
    };
    match made {
        Ok(files) => {
            let lines: String = files.iter().map(|file| format!("{}\n", file.display())).collect();
            output::print(lines.as_bytes())
        }
        Err(error) => {
            eprintln!("{error}");
            match error {
                CertificatesError::Make(_) | CertificatesError::ClientName(_) => Exit::Usage,
                CertificatesError::Exists(_)
                | CertificatesError::Write { .. }
                | CertificatesError::Read { .. }
                | CertificatesError::Authority(_) => Exit::CannotCreate,
            }
        }
    }
}
