//! From what the operator wrote to the ways in that are decided elsewhere: tokens.

use super::{
    access::check_names,
    problem::Problems,
    schema::{Config, Jwt, TokenIn},
    value::Placed,
};
use crate::backends::{
    token::TokenOptions,
    ways::{KeysFrom, TokenIssuer},
};

/// For [`crate::backends::access`].
pub(super) fn tokens(config: &Config) -> Vec<TokenIssuer> {
    config.auth.jwt.iter().filter_map(token_issuer).collect()
}

/// `None` for one without keys, which is an error of the configuration.
fn token_issuer(written: &Placed<Jwt>) -> Option<TokenIssuer> {
    let jwt = &written.value;
    let boxed = |list: &[String]| list.iter().map(|text| text.as_str().into()).collect();
    let keys = match (&jwt.key_file, &jwt.secret_file, &jwt.jwks_file) {
        (Some(file), ..) => KeysFrom::PublicKeys(file.clone()),
        (_, Some(file), _) => KeysFrom::Secret {
            file: file.clone(),
            is_base64: jwt.secret_base64,
        },
        (.., Some(file)) => KeysFrom::Jwks(file.clone()),
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

/// The options with a file of each issuer.
pub(super) const KEY_FILES: [&str; 3] = ["key_file", "secret_file", "jwks_file"];

/// Mistakes in them, but for those in their files.
pub(super) fn check(config: &Config, problems: &mut Problems) {
    for (index, written) in config.auth.jwt.iter().enumerate() {
        check_jwt(&written.value, &format!("auth.jwt[{index}]"), config, problems);
    }
}

fn check_jwt(jwt: &Jwt, path: &str, config: &Config, problems: &mut Problems) {
    let files = [&jwt.key_file, &jwt.secret_file, &jwt.jwks_file];
    let mut set = KEY_FILES.into_iter().zip(files).filter(|(_, file)| file.is_some());
    match (set.next(), set.next()) {
        (None, _) if KEY_FILES.iter().all(|name| !problems.is_set(&format!("{path}.{name}"))) => problems.error(
            path,
            "it has no keys, add key_file = \"FILE\" with the public key of the issuer, secret_file or jwks_file",
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
    let is_public = jwt.key_file.is_some() || jwt.jwks_file.is_some();
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
