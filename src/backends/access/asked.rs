//! The ways of each listener that are asked: by whose keys tokens are checked, and which program.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use super::{AccessOptions, AccessProblem, Reading};
use crate::auth::way::{Rights, Way};
use crate::backends::http::client::without_query;
use crate::backends::http::{HttpRights, HttpWay};
use crate::backends::token::keys::Keys;
use crate::backends::token::{Issuer, Issuers, KeySource, TokenWay};
use crate::backends::ways::{Backends, KeysFrom, TokenIssuer, is_for};

const PEM_HINT: &str = "the issuer of tokens has its public key: `openssl pkey -in KEY -pubout`";
const SECRET_HINT: &str = "`openssl rand -base64 48 > FILE` makes one";

/// What is asked about clients of one listener.
#[derive(Debug, Default)]
pub(super) struct Ways {
    pub(super) issuers: Arc<Issuers>,
    pub(super) tokens: Option<Arc<dyn Way>>,
    pub(super) elsewhere: Option<Arc<dyn Way>>,
    pub(super) rights: Option<Arc<dyn Rights>>,
}

impl Reading<'_> {
    /// Those of every listener, in their order.
    pub(super) fn ways(&mut self, options: &AccessOptions, backends: &Backends) -> Vec<Ways> {
        let tokens = options.tokens.iter();
        let issuers: Vec<_> = tokens.map(|tokens| self.issuer(tokens, backends)).collect();
        let mut programs = Vec::new();
        for asked in &options.http {
            match backends.http(&asked.options, self.seed) {
                Ok(program) => programs.push((&asked.listeners, program)),
                Err(message) => {
                    let file = asked.options.client.ca_file.as_deref();
                    self.strange(file.unwrap_or(Path::new(&*asked.options.place)), message);
                }
            }
        }
        let ways = options.listeners.iter().map(|listener| {
            let here = options.tokens.iter().zip(&issuers);
            let here = here.filter(|(tokens, _)| is_for(&tokens.listeners, &listener.name));
            let here = Arc::new(Issuers::new(here.filter_map(|(_, issuer)| issuer.clone()).collect()));
            let way = || Arc::new(TokenWay::new(Arc::clone(&here), Arc::clone(&backends.tokens))) as _;
            let mut programs = programs.iter();
            let program = programs.find(|(listeners, _)| is_for(listeners, &listener.name));
            let program = program.map(|(_, program)| program);
            let way_of = |program| Arc::new(HttpWay(Arc::clone(program))) as _;
            let rights_of = |program| Arc::new(HttpRights(Arc::clone(program))) as _;
            Ways {
                tokens: (!here.is_empty()).then(way),
                elsewhere: program
                    .filter(|program| program.options().connect.is_some())
                    .map(way_of),
                rights: program.filter(|program| program.options().acl.is_some()).map(rights_of),
                issuers: here,
            }
        });
        ways.collect()
    }

    fn issuer(&mut self, tokens: &TokenIssuer, backends: &Backends) -> Option<Arc<Issuer>> {
        let keys = match &tokens.keys {
            KeysFrom::Url(options) => {
                let name = without_query(&options.url);
                let ca_file = options.client.ca_file.as_deref().unwrap_or(Path::new(&name));
                let url = backends.jwks(options, self.seed);
                KeySource::Url(url.map_err(|message| self.strange(ca_file, message)).ok()?)
            }
            KeysFrom::PublicKeys(path) => {
                let text = self.text(path, PEM_HINT)?;
                self.fixed(path, Keys::from_pem(&text, self.seed))?
            }
            KeysFrom::Secret { file, is_base64 } => {
                let text = self.text(file, SECRET_HINT)?;
                if std::fs::metadata(file).is_ok_and(|file| file.mode() & 0o004 != 0) {
                    let message = "everybody on this machine can read it, and make tokens; `chmod 640`".to_owned();
                    self.warnings.push(AccessProblem {
                        file: file.clone(),
                        line: None,
                        message,
                        is_passing: false,
                    });
                }
                self.fixed(file, Keys::from_secret(&text, *is_base64, self.seed))?
            }
            KeysFrom::Jwks(path) => {
                let text = self.text(path, "check the path")?;
                self.fixed(path, Keys::from_jwks(&text, true, self.seed))?
            }
        };
        Some(Arc::new(Issuer::new(tokens.options.clone(), keys, self.seed)))
    }

    fn fixed(&mut self, path: &Path, keys: Result<Keys, String>) -> Option<KeySource> {
        let keys = keys.map_err(|message| self.strange(path, message)).ok()?;
        self.warnings.extend(keys.warnings.iter().map(|message| AccessProblem {
            file: path.to_owned(),
            line: None,
            message: message.clone(),
            is_passing: false,
        }));
        Some(KeySource::Fixed(Arc::new(keys)))
    }

    fn strange(&mut self, path: &Path, message: String) {
        self.problems.push(AccessProblem {
            file: path.to_owned(),
            line: None,
            message,
            is_passing: false,
        });
    }
}
