//! From what the operator wrote to the ways in that are decided elsewhere: tokens.

use core::time::Duration;
use std::path::Path;

use super::{
    access::check_names,
    problem::Problems,
    schema::{Config, Jwt, TokenIn},
    value::Placed,
};
use crate::backends::{
    http::client::{ClientOptions, check_url, is_open},
    jwks::JwksOptions,
    token::TokenOptions,
    ways::{KeysFrom, TokenIssuer},
};

/// How long it may take to fetch keys.
const JWKS_TIMEOUT: Duration = Duration::from_secs(10);
/// How often keys are fetched at most.
const JWKS_PAUSE: Duration = Duration::from_secs(10);
/// Largest set of keys that is fetched.
const JWKS_BYTES_MAX: u64 = 256 << 10;

/// For [`crate::backends::access`].
pub(super) fn tokens(config: &Config) -> Vec<TokenIssuer> {
    config.auth.jwt.iter().filter_map(token_issuer).collect()
}

/// `None` for one without keys, which is an error of the configuration.
fn token_issuer(written: &Placed<Jwt>) -> Option<TokenIssuer> {
    let jwt = &written.value;
    let boxed = |list: &[String]| list.iter().map(|text| text.as_str().into()).collect();
    let keys = match (&jwt.key_file, &jwt.secret_file, &jwt.jwks_file, &jwt.jwks_url) {
        (Some(file), ..) => KeysFrom::PublicKeys(file.clone()),
        (_, Some(file), ..) => KeysFrom::Secret {
            file: file.clone(),
            is_base64: jwt.secret_base64,
        },
        (_, _, Some(file), _) => KeysFrom::Jwks(file.clone()),
        (.., Some(url)) => KeysFrom::Url(JwksOptions {
            url: url.clone(),
            client: ClientOptions {
                ca_file: jwt.ca_file.clone(),
                timeout: JWKS_TIMEOUT,
                connections_max: 1,
                answer_bytes_max: JWKS_BYTES_MAX,
            },
            refresh: jwt.jwks_refresh,
            pause: JWKS_PAUSE,
            keep: jwt.jwks_keep,
        }),
        _ => return None,
    };
    Some(TokenIssuer {
        listeners: boxed(&jwt.listeners),
        keys,
        options: TokenOptions {
            place: written.place.as_str().into(),
            issuer: jwt.issuer.as_deref().map(Into::into),
            audiences: boxed(&jwt.audience),
            leeway_ms: jwt.leeway.as_millis() as u64, // ten minutes at most
            user_claim: jwt.user_claim.as_str().into(),
            client_id_claim: jwt.client_id_claim.as_deref().map(Into::into),
            acl_claim: jwt.acl_claim.as_deref().map(Into::into),
            wants_expiry: jwt.require_expiry,
            is_user_name: jwt.token_in == TokenIn::UserName,
            token_bytes_max: jwt.token_bytes_max.0 as usize,
        },
    })
}

/// The options that say where the keys of an issuer are.
const KEYS: [&str; 4] = ["key_file", "secret_file", "jwks_file", "jwks_url"];

/// The option that names a file.
pub(super) fn option_of(file: &Path, config: &Config) -> Option<String> {
    let mut all = config.auth.jwt.iter().enumerate();
    all.find_map(|(index, written)| {
        let jwt = &written.value;
        let files = [&jwt.key_file, &jwt.secret_file, &jwt.jwks_file, &jwt.ca_file];
        let mut named = ["key_file", "secret_file", "jwks_file", "ca_file"].iter().zip(files);
        let (name, _) = named.find(|(_, path)| path.as_deref() == Some(file))?;
        Some(format!("auth.jwt[{index}].{name}"))
    })
}

/// Mistakes in them, but for those in their files.
pub(super) fn check(config: &Config, problems: &mut Problems) {
    for (index, written) in config.auth.jwt.iter().enumerate() {
        check_jwt(&written.value, &format!("auth.jwt[{index}]"), config, problems);
    }
}

fn check_jwt(jwt: &Jwt, path: &str, config: &Config, problems: &mut Problems) {
    let given = [&jwt.key_file, &jwt.secret_file, &jwt.jwks_file].map(Option::is_some);
    let given = given.into_iter().chain([jwt.jwks_url.is_some()]);
    let mut set = KEYS.into_iter().zip(given).filter(|(_, is_given)| *is_given);
    match (set.next(), set.next()) {
        (None, _) if KEYS.iter().all(|name| !problems.is_set(&format!("{path}.{name}"))) => problems.error(
            path,
            "it has no keys, add key_file = \"FILE\" with the public key of the issuer, secret_file, jwks_file or jwks_url",
        ),
        (Some((first, _)), Some((second, _))) => problems.error(
            &format!("{path}.{second}"),
            format!("there is {first} already; take one of them, or another [[auth.jwt]]"),
        ),
        _ => {}
    }
    if jwt.secret_base64 && jwt.secret_file.is_none() {
        problems.error(
            &format!("{path}.secret_base64"),
            "it is about secret_file, which is not there",
        );
    }
    if let Some(url) = &jwt.jwks_url {
        let path = format!("{path}.jwks_url");
        match check_url(url) {
            Err(wrong) => problems.error(&path, format!("{url:?}: {wrong}")),
            Ok(()) if is_open(url) => problems.warning(
                &path,
                "whoever is on the way can put in keys of his own, and then enter as anybody; take https://",
            ),
            Ok(()) => {}
        }
    }
    if jwt.ca_file.is_some() && jwt.jwks_url.is_none() {
        problems.error(&format!("{path}.ca_file"), "it is about jwks_url, which is not there");
    }
    let is_public = jwt.key_file.is_some() || jwt.jwks_file.is_some() || jwt.jwks_url.is_some();
    if is_public && jwt.issuer.is_none() && jwt.audience.is_empty() {
        problems.warning(
            path,
            "every token that these keys have signed lets its bearer in, whatever it was made for; add issuer = \"…\" or audience = [\"…\"]",
        );
    }
    for name in ["audience", "listeners"] {
        let path = format!("{path}.{name}");
        let is_empty = if name == "audience" {
            jwt.audience.is_empty()
        } else {
            jwt.listeners.is_empty()
        };
        if is_empty && problems.is_set(&path) {
            problems.error(&path, "it is empty; leave it out to ask for nothing in particular");
        }
    }
    let listeners = config.listeners.iter().filter_map(|listener| listener.name.as_deref());
    check_names(
        &format!("{path}.listeners"),
        &jwt.listeners,
        &listeners.collect::<Vec<_>>(),
        problems,
    );
}
