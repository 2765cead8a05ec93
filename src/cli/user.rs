//! `sundew user`: who may enter, and with what password.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};

use super::{Exit, output, password_prompt};
use crate::auth::password::{Entry, PasswordFile, wrong_with_name};
use crate::backends::hashing::{hash_password, scram_credential};
use crate::backends::user_file::{Edit, Edited, edit_user};
use crate::config::{self, Layers};
use crate::scram::{ITERATIONS_MAX, ITERATIONS_MIN, Mechanism, is_plain};

/// Add users, set their passwords, remove them
///
/// A password file holds a line for each user, with an argon2id hash of the password, and, with --scram, what SCRAM-SHA-256 and
/// SCRAM-SHA-512 need to know of it. Files of mosquitto_passwd are read and changed as
/// they are. A running broker knows of every change within a second; who is removed, or has another password, is disconnected.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sundew user add alice                                 asks for the password
  sundew user add bob --stdin --file users < secret     the first line of a file
  sundew user passwd alice
  sundew user passwd alice --scram                      he may prove it without showing it, too
  sundew user rm bob
  sundew user list")]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Add a user
    Add {
        /// Its name
        name: String,
        #[command(flatten)]
        password: Password,
        #[command(flatten)]
        place: Place,
    },
    /// Set the password of a user; where nothing is said of SCRAM, it is kept in the ways it was
    Passwd {
        /// Its name
        name: String,
        #[command(flatten)]
        password: Password,
        #[command(flatten)]
        place: Place,
    },
    /// Remove a user
    Rm {
        /// Its name
        name: String,
        #[command(flatten)]
        place: Place,
    },
    /// Print the users, each with how its password is kept
    List {
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, Args)]
struct Password {
    /// Read the password from the first line of standard input, instead of asking for it
    #[arg(long)]
    stdin: bool,
    /// Let the user prove the password by SCRAM (MQTT 5), too, which never shows it to anybody
    #[arg(long)]
    scram: bool,
    /// By SCRAM and by nothing else
    #[arg(long)]
    scram_only: bool,
    /// Rounds that a client stretches the password with, from 4,096 for small devices; fewer are easier to break if the file is stolen
    /// [default: 600,000 for SCRAM-SHA-256, 210,000 for SCRAM-SHA-512]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(i64::from(ITERATIONS_MIN)..=i64::from(ITERATIONS_MAX)))]
    iterations: Option<u32>,
}

impl Password {
    /// What is kept of it; where nothing is said of SCRAM, what was kept `before`.
    fn entry(&self, password: &[u8], before: Option<&Entry>) -> Result<Entry, Fault> {
        let is_said = self.scram || self.scram_only;
        if self.iterations.is_some() && !is_said {
            return Err((Exit::Usage, "--iterations is for --scram and --scram-only".into()));
        }
        let known = |mechanism| Some(before?.scram(mechanism)?.iterations);
        let wanted: Vec<_> = Mechanism::ALL
            .into_iter()
            .filter_map(|mechanism| match is_said {
                true => Some((mechanism, self.iterations.unwrap_or(mechanism.iterations_default()))),
                false => Some((mechanism, known(mechanism)?)),
            })
            .collect();
        if !wanted.is_empty() && !str::from_utf8(password).is_ok_and(is_plain) {
            let message = "SCRAM takes a password that is a text in UTF-8 without control characters";
            return Err((Exit::Usage, message.into()));
        }
        let had_none = before.is_some_and(|before| before.hash.is_none());
        let failed = |error: std::io::Error| (Exit::Software, error.to_string());
        let mut entry = Entry::default();
        if !(self.scram_only || (!is_said && had_none)) {
            entry.hash = Some(Arc::new(hash_password(password).map_err(failed)?));
        }
        for (mechanism, iterations) in wanted {
            let credential = scram_credential(mechanism, password, iterations).map_err(failed)?;
            entry.scram.push(Arc::new(credential));
        }
        Ok(entry)
    }
}

/// What a file has of a user. One that cannot be read is told about when it is changed.
fn known(path: &Path, name: &str) -> Option<Entry> {
    let text = std::fs::read_to_string(path).ok()?;
    let file = PasswordFile::parse(&text, &foldhash::fast::RandomState::default()).ok()?;
    Some(file.get(name)?.entry.clone())
}

#[derive(Debug, Args)]
struct Place {
    /// The password file; otherwise what the configuration names: auth.password_file
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The configuration
    #[arg(short, long, value_name = "FILE", env = "SUNDEW_CONFIG")]
    config: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Exit {
    let done = match &arguments.action {
        Action::Add { name, password, place } => set(name, password, place, true),
        Action::Passwd { name, password, place } => set(name, password, place, false),
        Action::Rm { name, place } => remove(name, place),
        Action::List { place } => list(place),
    };
    done.unwrap_or_else(|(exit, message)| {
        eprintln!("{message}");
        exit
    })
}

type Fault = (Exit, String);

impl Place {
    fn path(&self) -> Result<PathBuf, Fault> {
        if let Some(file) = &self.file {
            return Ok(file.clone());
        }
        // The file may be missing still: that is why somebody calls this.
        let loaded = config::read_layers(&Layers::new(self.config.clone(), super::serve::environment()));
        let is_unread = self.config.as_ref().is_some_and(|file| !loaded.files.contains(file));
        if is_unread {
            let lines: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
            return Err((Exit::Config, lines.join("\n")));
        }
        let config = loaded.config;
        let own = config
            .listeners
            .iter()
            .filter_map(|listener| listener.password_file.as_ref());
        let mut named: Vec<_> = config.auth.password_file.iter().chain(own).collect();
        named.sort_unstable();
        named.dedup();
        match named.as_slice() {
            [one] => Ok((*one).clone()),
            [] => Err((
                Exit::Usage,
                "which password file? name it with --file FILE, and for the broker: auth.password_file = \"FILE\""
                    .into(),
            )),
            _ => Err((
                Exit::Usage,
                "the configuration names several password files, choose one with --file FILE".into(),
            )),
        }
    }
}

fn set(name: &str, password: &Password, place: &Place, is_new: bool) -> Result<Exit, Fault> {
    if let Some(wrong) = wrong_with_name(name) {
        return Err((Exit::Usage, wrong.into()));
    }
    let path = place.path()?;
    let asked = if password.stdin {
        password_prompt::read_stdin()
    } else {
        password_prompt::ask_new(name)
    };
    let before = known(&path, name).filter(|_| !is_new);
    let entry = password.entry(&asked.map_err(|message| (Exit::Failed, message))?, before.as_ref())?;
    let change = if is_new {
        Edit::Add(&entry)
    } else {
        Edit::Change(&entry)
    };
    edit(&path, name, change)
}

fn remove(name: &str, place: &Place) -> Result<Exit, Fault> {
    edit(&place.path()?, name, Edit::Remove)
}

fn edit(path: &Path, name: &str, edit: Edit<'_>) -> Result<Exit, Fault> {
    let shown = path.display();
    match edit_user(path, name, edit) {
        Ok(Edited::Done) => Ok(Exit::Done),
        Ok(Edited::AlreadyThere) => Err((
            Exit::Failed,
            format!("there is a user {name:?} in {shown} already; to change the password: sundew user passwd"),
        )),
        Ok(Edited::NotThere) => Err((Exit::Failed, format!("there is no user {name:?} in {shown}"))),
        Err(error) => Err((Exit::CannotCreate, format!("cannot change {shown}: {error}"))),
    }
}

fn list(place: &Place) -> Result<Exit, Fault> {
    let path = place.path()?;
    let shown = path.display();
    let text =
        std::fs::read_to_string(&path).map_err(|error| (Exit::Failed, format!("cannot read {shown}: {error}")))?;
    let file = PasswordFile::parse(&text, &foldhash::fast::RandomState::default()).map_err(|problems| {
        let lines: Vec<_> = problems
            .iter()
            .map(|problem| format!("{shown}:{}: error: {}", problem.line, problem.message))
            .collect();
        (Exit::Config, lines.join("\n"))
    })?;
    let mut users: Vec<_> = file.users().collect();
    users.sort_by_key(|(_, user)| user.line);
    let mut out = String::new();
    for (name, user) in users {
        let _ = writeln!(out, "{name}\t{}", user.entry.kinds()); // a String takes everything
    }
    Ok(output::print(out.as_bytes()))
}
