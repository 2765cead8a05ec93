//! TLS of a listener. Certificates and keys stay where they are, so that they are renewed where they are.

use std::fs;
use std::path::{Path, PathBuf};

use super::files::{self, Folder};
use super::grammar::{Line, Section};
use super::listeners::Listener;
use super::outcome::{Outcome, Table, Weight};

/// Adds `[listeners.tls]`, where mosquitto encrypts.
pub(super) fn carry(listener: &mut Listener<'_>, folder: &Folder, out: &mut Outcome) {
    let section = listener.section;
    let (Some(certificate), Some(key)) = (section.get("certfile"), section.get("keyfile")) else {
        let alone = ["certfile", "keyfile", "cafile", "capath", "crlfile", "tls_version"];
        for line in section
            .options
            .iter()
            .filter(|line| alone.contains(&line.name.as_str()))
        {
            out.left_out(line, "without certfile and keyfile mosquitto does not encrypt");
        }
        return;
    };
    let mut table = Table::new("[listeners.tls]", "");
    let authorities = section.get("cafile").and_then(|line| folder.file(line, out));
    let (own, own_key) = pair(certificate, key, folder, out);
    let (own, from) = chain(&own, authorities.as_deref(), certificate, section, out);
    table.text("certificate", &own.display().to_string(), from);
    table.text("key", &own_key.display().to_string(), &key.place);
    clients(listener, &mut table, authorities.as_deref(), folder, out);
    if let Some(line) = section.get("tls_version") {
        match line.word() {
            "tlsv1.3" => table.text("version_min", "1.3", &line.place),
            "tlsv1.2" => out.left_out(line, "it is the oldest that Sundew speaks"),
            _ => out.not_carried(line, "Sundew speaks TLS 1.2 and 1.3: older ones are not safe"),
        }
    }
    listener.tables.push(table);
}

/// The certificate and its key, both where they are said to be or both found elsewhere: a key that lies somewhere else is another one's.
fn pair(certificate: &Line, key: &Line, folder: &Folder, out: &mut Outcome) -> (PathBuf, PathBuf) {
    let mut unsaid = Outcome::default();
    let is_as_said = |line: &Line, path: &Path| {
        let bare = line
            .value
            .split_once(" #")
            .map_or(&*line.value, |(bare, _)| bare.trim_end());
        std::path::absolute(bare).is_ok_and(|said| said == path)
    };
    let [first, second] = [certificate, key].map(|line| {
        let path = folder.file(line, &mut unsaid)?;
        Some((is_as_said(line, &path), path))
    });
    match (first, second) {
        (Some((first, own)), Some((second, own_key))) if first == second => {
            out.remarks.append(&mut unsaid.remarks);
            return (own, own_key);
        }
        (Some((first, own)), Some((_, own_key))) => {
            let (line, path) = if first { (key, own_key) } else { (certificate, own) };
            let path = path.display();
            out.not_carried(
                line,
                format!("it is not there; {path} is, but a certificate and its key are taken together or not at all"),
            );
        }
        _ => {
            let missing = unsaid
                .remarks
                .into_iter()
                .filter(|remark| remark.weight == Weight::NotCarried);
            out.remarks.extend(missing);
        }
    }
    (said(certificate), said(key))
}

/// The path of a file that is not there: the broker does not start until it is.
fn said(line: &Line) -> PathBuf {
    std::path::absolute(&line.value).unwrap_or_else(|_| format!("{}-is-missing", line.name).into())
}

/// Whether clients show certificates, and what comes of them.
fn clients(
    listener: &mut Listener<'_>,
    table: &mut Table,
    authorities: Option<&Path>,
    folder: &Folder,
    out: &mut Outcome,
) {
    let section = listener.section;
    let required = section.is_set("require_certificate");
    let named = [
        ("use_identity_as_username", "common_name"),
        ("use_subject_as_username", "subject"),
    ];
    let named = named
        .into_iter()
        .find_map(|(name, part)| Some((section.is_set(name)?, part)));
    if required.is_none() && named.is_none() {
        if let Some(line) = section.get("crlfile") {
            out.left_out(line, "nobody is asked for a certificate");
        }
        if let Some(line) = section.get("cafile").or(section.get("capath")) {
            out.left_out(line, "nobody is asked for a certificate");
        }
        return;
    }
    let in_folder = section.get("capath").filter(|_| authorities.is_none());
    if let (Some(line), Some(path)) = (section.get("cafile"), authorities) {
        table.text("client_ca", &path.display().to_string(), &line.place);
    } else if let Some(line) = in_folder {
        if let Some(name) = joined(line, folder, out) {
            table.text("client_ca", &name, &line.place);
        }
    } else if let Some(line) = section.get("cafile") {
        table.text("client_ca", &said(line).display().to_string(), &line.place);
    } else if let Some(line) = required {
        out.not_carried(
            line,
            "no cafile says which certificates are good; nobody gets in until client_ca is there",
        );
    }
    let from = required
        .or(named.map(|(line, _)| line))
        .map(|line| line.place.to_string());
    table.text("client_certificate", "required", from.unwrap_or_default());
    if let Some((line, part)) = named {
        table.text("user_name", part, &line.place);
        listener.is_certified = true;
        if required.is_none() {
            out.note(
                line,
                "mosquitto refuses everybody here, as it asks for no certificate; Sundew asks for one",
            );
        }
        if part == "subject" {
            out.note(line, "subjects are written \"C=GB, O=Example, CN=name\" here, CN=name,O=Example,C=GB in mosquitto: see to `user` lines of rules");
        }
    }
    if let Some(line) = section.get("crlfile").filter(|_| table.has("client_ca")) {
        let path = folder.file(line, out).unwrap_or_else(|| said(line));
        table.text("client_crl", &path.display().to_string(), &line.place);
    }
}

/// The authorities of a directory in one file: those with a name that OpenSSL looks for. What else lies there mosquitto does not trust.
fn joined(line: &Line, folder: &Folder, out: &mut Outcome) -> Option<String> {
    let directory = folder.file(line, out)?;
    let entries = fs::read_dir(&directory)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()));
    let hashed = entries.filter(|path| path.file_name().is_some_and(|name| is_hashed(&name.to_string_lossy())));
    let mut paths: Vec<_> = hashed.filter_map(|path| fs::canonicalize(path).ok()).collect();
    paths.sort();
    paths.dedup();
    let texts: Vec<_> = paths.iter().filter_map(|path| files::read(path).ok()).collect();
    if texts.is_empty() {
        out.not_carried(
            line,
            "nothing in it has a name such as 1a2b3c4d.0, so mosquitto trusts none of it: `openssl rehash`, or client_ca",
        );
        return None;
    }
    out.note(
        line,
        "its certificates are in one file now; a new one is to be added there",
    );
    Some(out.add_file("client-ca.pem", texts.join("\n"), Some(&directory), false))
}

/// Whether OpenSSL looks for a name: the hash of a subject, and a number.
fn is_hashed(name: &str) -> bool {
    let is_hash = |hash: &str| hash.len() == 8 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_number = |number: &str| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    name.split_once('.')
        .is_some_and(|(hash, number)| is_hash(hash) && is_number(number))
}

/// The file with the certificate and those between it and its authority. mosquitto finds them in `cafile`, too (OpenSSL looks there for
/// what a chain lacks); Sundew sends what is in one file.
fn chain(
    own: &Path,
    authorities: Option<&Path>,
    line: &Line,
    section: &Section,
    out: &mut Outcome,
) -> (PathBuf, String) {
    let as_it_is = (own.to_owned(), line.place.to_string());
    let (Ok(text), Some(authorities)) = (fs::read_to_string(own), authorities) else {
        return as_it_is;
    };
    let Ok(more) = fs::read_to_string(authorities) else {
        return as_it_is;
    };
    let missing = intermediates(&text, &more);
    if missing.is_empty() {
        return as_it_is;
    }
    // As certbot has it: the whole chain beside the certificate, renewed together with it.
    let whole = own.with_file_name("fullchain.pem");
    let is_same = |whole: &str| certificates(whole).first() == certificates(&text).first();
    if fs::read_to_string(&whole).is_ok_and(|text| is_same(&text)) {
        out.note(
            line,
            format!(
                "mosquitto takes the rest of the chain from cafile; {} has all of it",
                whole.display()
            ),
        );
        return (whole, line.place.to_string());
    }
    let joined = format!("{}\n{}\n", text.trim_end(), missing.join("\n"));
    let name = own
        .file_name()
        .map_or_else(|| "chain.pem".into(), |name| name.to_string_lossy().into_owned());
    let name = out.add_file(&format!("chain-{name}"), joined, None, false);
    out.note(
        line,
        format!(
            "mosquitto takes the rest of the chain from cafile; {name} has all of it, renew it with the certificate"
        ),
    );
    let cafile = section
        .get("cafile")
        .map_or_else(String::new, |line| format!(", {}", line.place));
    (PathBuf::from(name), format!("{}{cafile}", line.place))
}

/// Those of `more` that stand between the last certificate of `text` and its authority.
fn intermediates(text: &str, more: &str) -> Vec<String> {
    let mut found = Vec::new();
    let Some(mut last) = certificates(text).pop() else {
        return found;
    };
    let more = certificates(more);
    while found.len() < more.len() {
        let next = more
            .iter()
            .find(|one| one.subject == last.issuer && one.subject != one.issuer && **one != last);
        match next {
            Some(next) if !found.contains(&next.text) => {
                found.push(next.text.clone());
                last = next.clone();
            }
            _ => break,
        }
    }
    found
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Certificate {
    text: String,
    subject: Vec<u8>,
    issuer: Vec<u8>,
}

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

fn certificates(pem: &str) -> Vec<Certificate> {
    let parts = pem.split(BEGIN).skip(1).filter_map(|part| part.split_once(END));
    let read = |(body, _): (&str, _)| {
        use base64::Engine as _;
        let base64: String = body.split_whitespace().collect();
        let der = base64::engine::general_purpose::STANDARD.decode(base64).ok()?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).ok()?;
        Some(Certificate {
            text: format!("{BEGIN}\n{}\n{END}", body.trim()),
            subject: parsed.subject().as_raw().to_vec(),
            issuer: parsed.issuer().as_raw().to_vec(),
        })
    };
    parts.filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::import::tests::import;

    /// A key that lies above the configuration is a stranger's, and one beside it belongs to another certificate.
    #[test]
    fn a_certificate_and_its_key_are_taken_together_or_not_at_all() {
        let tls = |names: &[&str]| {
            let conf = "listener 8883\ncertfile /mosquitto/certs/server.crt\nkeyfile /mosquitto/certs/server.key\n";
            let mut files = vec![("a/b/mosquitto.conf", conf)];
            files.extend(names.iter().map(|name| (*name, "-")));
            let folder = tempfile::tempdir().unwrap();
            for (name, text) in files {
                let path = folder.path().join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            let mut out = Outcome::default();
            crate::cli::import::configuration(&folder.path().join("a/b/mosquitto.conf"), conf, &mut out);
            let short = |text: &str| text.replace(&folder.path().display().to_string(), "@");
            (short(&out.configuration("")), out.is_whole())
        };
        let (configuration, is_whole) = tls(&["a/b/certs/server.crt", "certs/server.key", "a/certs/server.key"]);
        assert!(
            configuration.contains("certificate = \"/mosquitto/certs/server.crt\"")
                && configuration.contains("key = \"/mosquitto/certs/server.key\"")
                && !is_whole,
            "{configuration}"
        );
        let (configuration, is_whole) = tls(&["a/b/certs/server.crt", "a/b/certs/server.key"]);
        assert!(
            configuration.contains("key = \"@/a/b/certs/server.key\"") && is_whole,
            "{configuration}"
        );
    }

    #[test]
    fn of_a_directory_of_authorities_only_what_openssl_looks_for_is_trusted() {
        let conf =
            "listener 8883\ncertfile @/server.crt\nkeyfile @/server.key\ncapath @/ca\nrequire_certificate true\n";
        let mut files = vec![
            ("mosquitto.conf", conf),
            ("server.crt", "-"),
            ("server.key", "-"),
            ("ca/old.pem", "OLD"),
            ("ca/server.crt", "SERVER"),
            ("ca/1a2b3c4d.r0", "LIST"),
        ];
        let (configuration, remarks, out) = import(&files);
        assert!(!configuration.contains("client_ca"), "{configuration}");
        assert!(
            remarks.iter().any(|remark| remark.contains("openssl rehash")),
            "{remarks:?}"
        );
        assert!(out.files.is_empty());
        files.push(("ca/1A2b3c4d.0", "GOOD"));
        files.push(("ca/1a2b3c4d.1", "GOOD, TOO"));
        let (configuration, _, out) = import(&files);
        assert!(
            configuration.contains("client_ca = \"client-ca.pem\""),
            "{configuration}"
        );
        assert_eq!(out.files[0].text, "GOOD\nGOOD, TOO");
        for (name, expected) in [
            ("1a2b3c4d.0", true),
            ("1a2b3c4d.12", true),
            ("a.0", false),
            ("1a2b3c4d.", false),
            ("ca.pem", false),
        ] {
            assert_eq!(is_hashed(name), expected, "{name}");
        }
    }
}
