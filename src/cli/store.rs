//! `sundew store`: what is in a data directory, whether it is sound, and copies of it.

mod inspect;
mod object;
mod verify;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};

use super::{Exit, output};
use crate::config::{self, Layers};
use crate::storage::disk::backup::{self, BackupError, Copied};
use crate::storage::disk::offline;
use crate::storage::disk::store::OpenError;
use crate::storage::image::{ImageOptions, Report};

/// Look into what a broker keeps, check it, copy it, restore it
///
/// A broker keeps sessions, subscriptions, retained messages, wills and waiting messages in its data directory
/// (`storage.directory`): a log, and from time to time a snapshot that takes the log's place.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sundew store verify                         is everything sound? exit code 0: yes, 1: no
  sundew store inspect | jq .client_id        what is kept, as JSON lines
  sundew store inspect --what log | tail      the last records, with file and offset
  sundew store export backup.snap             a backup, also while the broker is at work
  sundew store import backup.snap -d new      a data directory made of it
  sundew -c /etc/sundew/sundew.toml           serves with the directory that the file says")]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print what is kept, one JSON object a line
    ///
    /// Only reads; a broker may be at work. A payload that is text is `payload`, any other `payload_base64`. Moments are UTC; a
    /// session without `expires_at` never expires, or its client was connected.
    Inspect {
        #[command(flatten)]
        place: Place,
        /// What to print
        #[arg(short, long, value_enum, default_value_t, value_name = "WHAT")]
        what: inspect::What,
    },
    /// Read every byte and say where something is damaged
    ///
    /// Only reads; a broker may be at work. Exit code 0: sound. 1: damaged, with a line for each place. The end of the log that was not yet on
    /// the device when the power went is no damage: it is told, and nothing that was promised is in it.
    Verify {
        #[command(flatten)]
        place: Place,
    },
    /// Write a backup: everything that is kept, in one new file
    ///
    /// Only reads the data directory; the broker may be at work: what it has acknowledged when this begins is in the backup. The
    /// file is complete and on the device when it has its name. Takes memory for all retained
    /// messages, for 256 MiB of messages that wait, and a little for each of the others.
    Export {
        /// The file; one that is there is not replaced
        file: PathBuf,
        #[command(flatten)]
        place: Place,
    },
    /// Make a data directory of a backup
    ///
    /// The directory has to be empty or not there. A backup that is damaged is refused. What has expired since it was made is
    /// left out by the broker that starts with it; sessions go on from the moment of the backup. Takes memory like export.
    Import {
        /// The backup
        file: PathBuf,
        #[command(flatten)]
        place: Place,
    },
    /// Replace the log by a snapshot, and put aside what is damaged
    ///
    /// For a data directory without a broker: the next start has nothing to replay, and the directory is small to copy. A broker
    /// does this by itself, also when it stops.
    Compact {
        #[command(flatten)]
        place: Place,
    },
}

/// Where a store is.
#[derive(Debug, Args)]
struct Place {
    /// The data directory, or for inspect and verify a backup [default: what the configuration says, else ./data]
    #[arg(short, long, value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
    /// Take the data directory that this configuration file says
    #[arg(short, long, value_name = "FILE", env = "SUNDEW_CONFIG")]
    config: Option<PathBuf>,
}

impl Place {
    /// Whether nobody said where it is.
    fn is_guessed(&self) -> bool {
        self.directory.is_none() && self.config.is_none()
    }

    fn directory(&self) -> Result<PathBuf, Exit> {
        data_directory(self.directory.as_ref(), self.config.as_ref())
    }
}

/// The data directory that is named, or that a configuration says. What is wrong is told.
pub(super) fn data_directory(named: Option<&PathBuf>, config: Option<&PathBuf>) -> Result<PathBuf, Exit> {
    if let Some(directory) = named {
        return Ok(directory.clone());
    }
    let loaded = config::load(&Layers::new(config.cloned(), super::serve::environment()));
    let loaded = loaded.map_err(|problems| {
        problems.iter().for_each(|problem| eprintln!("{problem}"));
        Exit::Config
    })?;
    match loaded.config.storage_options(std::env::var_os("STATE_DIRECTORY")) {
        Some(options) => Ok(options.directory),
        None => {
            eprintln!("storage.enabled is false, so there is no data directory: name one with --directory");
            Err(Exit::Usage)
        }
    }
}

/// Compacting is given up after this; what was there is there then.
const COMPACT_PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) fn run(arguments: &Arguments) -> Exit {
    let (Action::Inspect { place, .. }
    | Action::Verify { place }
    | Action::Export { place, .. }
    | Action::Import { place, .. }
    | Action::Compact { place }) = &arguments.action;
    let directory = match place.directory() {
        Ok(directory) => directory,
        Err(exit) => return exit,
    };
    let is_made = matches!(arguments.action, Action::Import { .. });
    if place.is_guessed() && !is_made && !directory.exists() {
        eprintln!(
            "{}: there is no such data directory here: name the broker's configuration with -c FILE, or the directory with -d DIRECTORY",
            directory.display()
        );
        return Exit::Usage;
    }
    let done = match &arguments.action {
        Action::Inspect { what, .. } => inspect::run(&directory, *what),
        Action::Verify { .. } => verify::run(&directory),
        Action::Export { file, .. } => export(&directory, file),
        Action::Import { file, .. } => import(file, &directory),
        Action::Compact { .. } => return compact(&directory),
    };
    done.unwrap_or_else(|error| {
        eprintln!("{error}");
        exit_of(&error)
    })
}

fn exit_of(error: &BackupError) -> Exit {
    match error {
        BackupError::Exists(_) | BackupError::NotEmpty { .. } | BackupError::Io { .. } => Exit::CannotCreate,
        BackupError::Lock { .. } => Exit::Unavailable,
        BackupError::NoStore(_)
        | BackupError::Recover { .. }
        | BackupError::NoBackup { .. }
        | BackupError::Damaged { .. } => Exit::Failed,
    }
}

fn export(directory: &Path, file: &Path) -> Result<Exit, BackupError> {
    let copied = backup::export(&backup::Source::open(directory)?, file, ImageOptions::default())?;
    let exit = told(file, &copied);
    if copied.found.damaged.is_empty() {
        return Ok(exit);
    }
    eprintln!(
        "{}: damaged in {} places: what could be read is in the backup; `sundew store verify` says where",
        directory.display(),
        copied.found.damaged.len()
    );
    Ok(Exit::Failed)
}

fn import(file: &Path, directory: &Path) -> Result<Exit, BackupError> {
    Ok(told(
        directory,
        &backup::import(file, directory, ImageOptions::default())?,
    ))
}

fn told(made: &Path, copied: &Copied) -> Exit {
    let line = format!(
        "{}: {}, {} bytes\n",
        made.display(),
        counts(&copied.restored),
        copied.bytes
    );
    output::print(line.as_bytes())
}

fn compact(directory: &Path) -> Exit {
    if let Err(error) = backup::Source::open(directory) {
        eprintln!("{error}");
        return exit_of(&error);
    }
    match offline::compact(directory, ImageOptions::default(), COMPACT_PATIENCE) {
        Ok(compacted) if !compacted.is_sound => {
            eprintln!(
                "{}: the snapshot could not be written: see to free space; what was there is there",
                directory.display()
            );
            Exit::CannotCreate
        }
        Ok(compacted) => {
            let what = if compacted.is_written {
                counts(&compacted.restored)
            } else {
                "nothing to replay, it is compact already".to_owned()
            };
            output::print(format!("{}: {what}\n", directory.display()).as_bytes())
        }
        Err(error @ OpenError::Lock { .. }) => {
            eprintln!("{error}; a broker that is at work compacts by itself");
            Exit::Unavailable
        }
        Err(error) => {
            eprintln!("{error}");
            Exit::Failed
        }
    }
}

/// As in the broker's first lines.
fn counts(report: &Report) -> String {
    format!(
        "retained={} sessions={} subscriptions={} queued={} inflight={} wills={}",
        report.retained, report.sessions, report.subscriptions, report.queued, report.in_flight, report.wills
    )
}
