//! From what the operator wrote to the ways in that are decided elsewhere: tokens, and programs that are asked.

use core::time::Duration;
use std::{collections::BTreeMap, path::Path};

use super::{
    access::check_names,
    problem::Problems,
    schema::{Config, Http, HttpAnswer, HttpFormat, HttpMethod, Jwt, OnFailure, TokenIn},
    suggest,
    tenants::tenants,
    value::Placed,
};
use crate::backends::{
    http::{
        Call, HttpOptions,
        client::{ClientOptions, check_header, check_url, is_open, without_query},
        template::Template,
    },
    jwks::JwksOptions,
    token::TokenOptions,
    ways::{HttpAsked, KeysFrom, TokenIssuer},
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
            tenant_claim: jwt.tenant_claim.as_deref().map(Into::into),
            wants_expiry: jwt.require_expiry,
            is_user_name: jwt.token_in == TokenIn::UserName,
            token_bytes_max: jwt.token_bytes_max.0 as usize,
        },
    })
}

/// Largest answer of a program that is asked.
const ANSWER_BYTES_MAX: u64 = 64 << 10;
/// What is sent where the configuration says nothing: what EMQX and mosquitto-go-auth send, under the same names.
const CONNECT_FIELDS: &[(&str, &str)] = &[
    ("username", "${username}"),
    ("password", "${password}"),
    ("clientid", "${clientid}"),
    ("peerhost", "${peerhost}"),
];
const ACL_FIELDS: &[(&str, &str)] = &[
    ("username", "${username}"),
    ("clientid", "${clientid}"),
    ("peerhost", "${peerhost}"),
    ("topic", "${topic}"),
    ("action", "${action}"),
    ("acc", "${access}"),
    ("qos", "${qos}"),
    ("retain", "${retain}"),
];

/// For [`crate::backends::access`].
pub(super) fn programs(config: &Config) -> Vec<HttpAsked> {
    config.auth.http.iter().map(program).collect()
}

/// What is wrong in it is an error of the configuration, and left out here.
fn program(written: &Placed<Http>) -> HttpAsked {
    let http = &written.value;
    let call = |url: &Option<String>, fields: &BTreeMap<String, String>, usual: &[(&str, &str)]| {
        let url = url.as_ref()?;
        let field = |(name, text): (&str, &str)| Some((name.to_owned(), Template::parse(text).ok()?));
        let own = fields.iter().map(|(name, text)| (name.as_str(), text.as_str()));
        let fields = if fields.is_empty() {
            usual.iter().copied().filter_map(field).collect()
        } else {
            own.filter_map(field).collect()
        };
        Some(Call {
            name: without_query(url),
            url: Template::parse(url).ok()?,
            is_get: http.method == HttpMethod::Get,
            is_form: http.format == HttpFormat::Form,
            fields,
            headers: http.headers.clone().into_iter().collect(),
        })
    };
    HttpAsked {
        listeners: http.listeners.iter().map(|name| name.as_str().into()).collect(),
        options: HttpOptions {
            place: written.place.as_str().into(),
            connect: call(&http.connect_url, &http.connect_fields, CONNECT_FIELDS),
            acl: call(&http.acl_url, &http.acl_fields, ACL_FIELDS),
            client: ClientOptions {
                ca_file: http.ca_file.clone(),
                timeout: http.timeout,
                connections_max: http.connections as usize,
                answer_bytes_max: ANSWER_BYTES_MAX,
            },
            waiting_max: http.waiting_max as usize,
            cache_lifetime: http.cache_time,
            cache_max: http.cache_max as usize,
            allows_on_failure: http.on_failure == OnFailure::Allow,
            is_status_all: http.answer == HttpAnswer::Status,
        },
    }
}

fn check_http(http: &Http, path: &str, config: &Config, problems: &mut Problems) {
    let urls = [("connect_url", &http.connect_url), ("acl_url", &http.acl_url)];
    if urls
        .iter()
        .all(|(name, url)| url.is_none() && !problems.is_set(&format!("{path}.{name}")))
    {
        problems.error(path, "it is asked nothing, add connect_url = \"https://…\" or acl_url");
    }
    for (name, url) in urls {
        let Some(url) = url else { continue };
        let path = format!("{path}.{name}");
        check_template(&path, url, problems);
        // What is filled in changes nothing of where it leads, or the place is the client's to say.
        let (place, _) = url.split_once("${").unwrap_or((url, ""));
        let has_path = place
            .split_once("://")
            .is_some_and(|(_, rest)| rest.contains(['/', '?']));
        match check_url(&url.replace("${", "").replace('}', "")) {
            Err(wrong) => problems.error(&path, format!("{:?}: {wrong}", shown(url))),
            Ok(()) if place.len() < url.len() && !has_path => {
                problems.error(
                    &path,
                    "what clients say may stand behind the host only, in the path or the query",
                );
            }
            Ok(()) if Template::parse(url).is_ok_and(|url| url.has_topic_in_path()) => {
                problems.warning(
                    &path,
                    "a topic with / in it is denied and not asked about: put ${topic} behind ?, or in acl_fields",
                );
            }
            Ok(()) if is_open(url) => {
                problems.warning(
                    &path,
                    "whoever is on the way reads passwords and says who may enter; take https://",
                );
            }
            Ok(()) => {}
        }
    }
    for (name, fields) in [
        ("connect_fields", &http.connect_fields),
        ("acl_fields", &http.acl_fields),
    ] {
        for (field, text) in fields {
            check_template(&format!("{path}.{name}.{field}"), text, problems);
        }
    }
    for (name, value) in &http.headers {
        if let Err(wrong) = check_header(name, value) {
            problems.error(&format!("{path}.headers.{name}"), wrong);
        }
    }
    if http.listeners.is_empty() && problems.is_set(&format!("{path}.listeners")) {
        problems.error(
            &format!("{path}.listeners"),
            "it is empty; leave it out for all of them",
        );
    }
    check_listeners(path, &http.listeners, config, problems);
    check_failure(http, path, config, problems);
}

/// A program that does not answer does not say whose tenant a client is of either, and one of none sees the topics of all.
fn check_failure(http: &Http, path: &str, config: &Config, problems: &mut Problems) {
    let by_token = config.auth.jwt.iter().any(|jwt| jwt.value.tenant_claim.is_some());
    let has_tenants = by_token || !tenants(config).is_empty();
    if has_tenants && http.connect_url.is_some() && http.on_failure == OnFailure::Allow {
        problems.error(
            &format!("{path}.on_failure"),
            "with \"allow\", whoever comes while the program fails may belong to no tenant and see the topics of all; \
             there are tenants, so it has to be \"deny\"",
        );
    }
}

/// An address without a name, a password and a key in it.
fn shown(url: &str) -> String {
    let url = without_query(url);
    match url.rsplit_once('@') {
        Some((_, rest)) => rest.to_owned(),
        None => url,
    }
}

fn check_template(path: &str, text: &str, problems: &mut Problems) {
    if let Err(name) = Template::parse(text) {
        let names: Vec<_> = Template::names().collect();
        let hint =
            suggest::nearest(&name, &names).map_or_else(String::new, |near| format!(" (did you mean ${{{near}}}?)"));
        problems.error(
            path,
            format!("there is no ${{{name}}}{hint}; there are {}", names.join(", ")),
        );
    }
}

fn check_listeners(path: &str, written: &[String], config: &Config, problems: &mut Problems) {
    let known = config.listeners.iter().filter_map(|listener| listener.name.as_deref());
    check_names(
        &format!("{path}.listeners"),
        written,
        &known.collect::<Vec<_>>(),
        problems,
    );
}

/// The options that say where the keys of an issuer are.
const KEYS: [&str; 4] = ["key_file", "secret_file", "jwks_file", "jwks_url"];

/// The option that names a file.
pub(super) fn option_of(file: &Path, config: &Config) -> Option<String> {
    let mut programs = config.auth.http.iter();
    if let Some(index) = programs.position(|http| http.value.ca_file.as_deref() == Some(file)) {
        return Some(format!("auth.http[{index}].ca_file"));
    }
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
    for (index, written) in config.auth.http.iter().enumerate() {
        check_http(&written.value, &format!("auth.http[{index}]"), config, problems);
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
            Err(wrong) => problems.error(&path, format!("{:?}: {wrong}", shown(url))),
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
    check_listeners(path, &jwt.listeners, config, problems);
}
