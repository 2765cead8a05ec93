//! `sundew import`: what another broker's files say, in Sundew's words.
//!
//! [`grammar`] reads `mosquitto.conf`, `listeners`, `tls`, `broker`, `plugins` and `entrance` carry its options over, [`access_files`] its
//! files of users and rules, `dynamic_security` and `roles` the file of that plug-in, and [`outcome`] holds what comes of it. `live` copies
//! retained messages of a broker that is at work.

pub mod access_files;
mod broker;
mod client_ids;
pub mod dynamic_security;
mod entrance;
mod files;
pub mod grammar;
pub mod json;
mod listeners;
mod live;
pub mod outcome;
mod plugins;
mod retained;
mod roles;
mod tls;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::{Exit, output};
use dynamic_security::DynamicSecurity;
use files::Folder;
use grammar::MosquittoConf;
use live::Live;
use outcome::{CONFIGURATION, Outcome, Table, Weight};

/// Move to Sundew from another broker
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    from: From,
}

#[derive(Debug, Subcommand)]
enum From {
    Mosquitto(Mosquitto),
}

/// Turn mosquitto's files into a configuration of Sundew
///
/// Reads mosquitto.conf with what it includes and names (include_dir, password_file, acl_file, dynamic security), or files of
/// users and rules alone. Makes a configuration that says what differs from Sundew's defaults, each line with the place it comes from, and
/// says what it could not carry. What cannot be carried closes; it never opens.
///
/// Certificates and keys stay where they are. mosquitto is left alone and may be running.
///
/// Exit code 0: everything is carried. 2: something is not, and is listed. Others as everywhere.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
struct Mosquitto {
    /// mosquitto.conf; or a file of passwords, of rules, or of dynamic security
    #[arg(required_unless_present = "live")]
    files: Vec<PathBuf>,
    /// Write sundew.toml and the files of users and rules there; without it nothing is written, and the configuration is printed
    #[arg(short, long, value_name = "DIRECTORY")]
    output: Option<PathBuf>,
    /// Replace what is there already
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    live: Live,
}

const EXAMPLES: &str = "\
Examples:
  sundew import mosquitto mosquitto.conf                       look at what would come of it
  sundew import mosquitto mosquitto.conf -o /etc/sundew        write it
  sundew check /etc/sundew/sundew.toml
  sundew import mosquitto passwd acl -o .                      users and rules alone
  sundew import mosquitto --live mqtt://ann@old --to mqtt://new      retained messages, from broker to broker
  sundew import mosquitto --live mqtt://old --backup r.snap          the same, into a file
  sundew store import r.snap -d /var/lib/sundew";

pub(super) fn run(arguments: &Arguments) -> Exit {
    let From::Mosquitto(arguments) = &arguments.from;
    match mosquitto(arguments) {
        Ok(exit) => exit,
        Err((exit, message)) => {
            eprintln!("{message}");
            exit
        }
    }
}

type Fault = (Exit, String);

fn mosquitto(arguments: &Mosquitto) -> Result<Exit, Fault> {
    let of_files = if arguments.files.is_empty() {
        Exit::Done
    } else {
        of_files(arguments)?
    };
    if !arguments.live.is_asked_for() || !matches!(of_files, Exit::Done | Exit::NotAllCarried) {
        return Ok(of_files);
    }
    let of_messages = arguments.live.run(arguments.force)?;
    Ok(if of_messages == Exit::Done {
        of_files
    } else {
        of_messages
    })
}

fn of_files(arguments: &Mosquitto) -> Result<Exit, Fault> {
    let mut inputs = Vec::new();
    for path in &arguments.files {
        let text = files::read(path).map_err(|error| (Exit::Failed, error))?;
        inputs.push((kind_of(&text), path.as_path(), text));
    }
    if inputs.iter().filter(|(kind, ..)| *kind == Kind::Configuration).count() > 1 {
        let message = "one mosquitto.conf at a time; those that it includes are read with it";
        return Err((Exit::Usage, message.into()));
    }
    let mut out = Outcome::default();
    match inputs.iter().find(|(kind, ..)| *kind == Kind::Configuration) {
        Some((_, path, text)) => {
            configuration(path, text, &mut out);
            for (_, path, _) in inputs.iter().filter(|(kind, ..)| *kind != Kind::Configuration) {
                let text = format!("{}: the configuration says which files count", path.display());
                out.remark(Weight::LeftOut, None, text);
            }
        }
        None => alone(&inputs, &mut out)?,
    }
    let shown: Vec<_> = arguments.files.iter().map(|path| path.display().to_string()).collect();
    told(arguments, out, &shown.join(", "))
}

/// Prints or writes what came of it.
fn told(arguments: &Mosquitto, mut out: Outcome, of: &str) -> Result<Exit, Fault> {
    let configuration = out.configuration(of);
    let mut said = String::new();
    if let Some(directory) = &arguments.output {
        files::write(directory, configuration.clone(), &out.files, arguments.force)
            .map_err(|error| (Exit::CannotCreate, error))?;
        for file in &out.files {
            let hint = if file.is_secret {
                ": let the user that runs sundew read it"
            } else {
                ""
            };
            said.push_str(&format!("wrote {}{hint}\n", directory.join(&file.name).display()));
        }
        said.push_str(&format!("wrote {}\n", directory.join(CONFIGURATION).display()));
    } else {
        for file in &out.files {
            said.push_str(&format!("would write {}, with --output DIRECTORY\n", file.name));
        }
    }
    out.remarks.sort_by_key(|remark| remark.weight);
    for remark in &out.remarks {
        said.push_str(&format!("{remark}\n"));
    }
    let carried = if out.is_whole() {
        Exit::Done
    } else {
        Exit::NotAllCarried
    };
    let printed = if arguments.output.is_some() {
        output::print(said.as_bytes())
    } else {
        eprint!("{said}");
        output::print(configuration.as_bytes())
    };
    Ok(if printed == Exit::Done { carried } else { printed })
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Configuration,
    Passwords,
    Rules,
    DynamicSecurity,
}

/// Tells files apart by what is in them.
fn kind_of(text: &str) -> Kind {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = || {
        text.lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
    };
    let is_password = |line: &str| {
        line.split_once(':')
            .is_some_and(|(name, hash)| !name.contains(' ') && hash.contains('$'))
    };
    let is_rule = |line: &str| {
        ["user ", "topic ", "pattern "]
            .iter()
            .any(|word| line.starts_with(word))
    };
    if lines().next().is_none() {
        Kind::Configuration
    } else if text.trim_start().starts_with('{') {
        Kind::DynamicSecurity
    } else if lines().all(is_password) {
        Kind::Passwords
    } else if lines().all(is_rule) {
        Kind::Rules
    } else {
        Kind::Configuration
    }
}

fn configuration(path: &Path, text: &str, out: &mut Outcome) {
    let folder = Folder::of(path);
    let conf = MosquittoConf::parse(&path.display().to_string(), text, &|directory| {
        folder.configurations(directory)
    });
    let mut listeners = listeners::carry(&conf, &folder, out);
    let common = entrance::carry(&conf, &mut listeners, &folder, out);
    let mut auth = common.auth;
    let nobody = if listeners.is_empty() {
        let mut closed = Table::new("[[listeners]]", "");
        closed.text("address", "127.0.0.1:1883", "no listener was carried; nobody gets in");
        auth = Table::new("[auth]", "");
        auth.set("allow_anonymous", false, "no listener was carried");
        vec![closed]
    } else {
        Vec::new()
    };
    out.tables = listeners
        .into_iter()
        .flat_map(|listener| listener.tables)
        .chain(nobody)
        .collect();
    out.tables.push(auth);
    out.tables.extend(common.rules);
    broker::carry(&conf, &common.mqtt, common.is_sys_public, out);
}

/// Files of users and rules without a configuration.
fn alone(inputs: &[(Kind, &Path, String)], out: &mut Outcome) -> Result<(), Fault> {
    let mut auth = Table::new("[auth]", "");
    let mut tables = Vec::new();
    let mut users = String::new();
    for (kind, path, text) in inputs {
        let shown = path.display().to_string();
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        if *kind == Kind::DynamicSecurity {
            dynamic_security(&shown, text, &mut auth, &mut tables, out)?;
            continue;
        }
        let key = match kind {
            Kind::Passwords => "password_file",
            _ => "acl_file",
        };
        if auth.has(key) {
            let text = format!("{shown}: the configuration has one {key}, and options of its own for listeners");
            out.remark(Weight::NotCarried, None, text);
            continue;
        }
        let kept = if *kind == Kind::Passwords {
            users = access_files::passwords(&shown, text, out);
            users.clone()
        } else {
            access_files::rules(&shown, text, &access_files::names(&users), out)
        };
        let made = out.add_file(&name, kept, Some(path), *kind == Kind::Passwords);
        auth.text(key, &made, shown.as_str());
        if key == "acl_file" {
            let from = format!("{shown}: mosquitto grants every subscription, and looks when it delivers");
            auth.text("wide_subscriptions", "grant", from);
        }
    }
    out.tables.push(auth);
    out.tables.extend(tables);
    Ok(())
}

fn dynamic_security(
    file: &str,
    text: &str,
    auth: &mut Table,
    tables: &mut Vec<Table>,
    out: &mut Outcome,
) -> Result<(), Fault> {
    let read = DynamicSecurity::parse(file, text, out).map_err(|error| (Exit::Failed, error))?;
    if auth.has("password_file") || !tables.is_empty() {
        let text = format!("{file}: the configuration has one password_file, and it is there already");
        out.remark(Weight::NotCarried, None, text);
        return Ok(());
    }
    let users = out.add_file("users", read.passwords(), None, true);
    auth.text("password_file", &users, file);
    let rules = roles::carry(&read, &[], false, out);
    if let Some((wide, from)) = rules.wide {
        auth.text("wide_subscriptions", wide, from);
    }
    tables.extend(rules.tables);
    Ok(())
}

#[cfg(test)]
mod tests;
