//! `sundew reload`: the running broker reads its files of users and rules, and certificates, again.

use std::fs::{File, TryLockError};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;
use rustix::process::{Pid, Signal, kill_process};

use super::{Exit, output};
use crate::config::{self, Layers};
use crate::server::control::{self, ControlError, Request, Response};

/// Have the running broker read users, rules and certificates again
///
/// Files of users, rules, keys and certificates it reads by itself within a second of a change; this is for
/// auth.rules in the configuration, and for where auth.watch_interval is "0s". All of it is looked at before: where there is a mistake the
/// broker is left alone, and it is told here. Then the broker says what counts now, what does not and why (exit code 1), and which options have changed and
/// wait for its next start. With --pid it is sent SIGHUP, and only its log says what became of it.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The configuration that the broker runs with
    #[arg(short, long, value_name = "FILE", env = "SUNDEW_CONFIG")]
    config: Option<PathBuf>,
    /// The broker's process, where it keeps nothing in a data directory to be found by
    #[arg(short, long, value_name = "NUMBER", value_parser = clap::value_parser!(i32).range(1..))]
    pid: Option<i32>,
}

pub(super) fn run(arguments: &Arguments) -> Exit {
    let layers = Layers::new(arguments.config.clone(), super::serve::environment());
    let loaded = match config::load(&layers) {
        Ok(loaded) => loaded,
        Err(problems) => {
            problems.iter().for_each(|problem| eprintln!("{problem}"));
            return Exit::Config;
        }
    };
    let storage = loaded.config.storage_options(std::env::var_os("STATE_DIRECTORY"));
    let pid = match (arguments.pid, storage) {
        (Some(pid), _) => Ok(pid),
        (None, None) => {
            Err("nothing is kept on disk, so the broker cannot be found; name its process with --pid".into())
        }
        (None, Some(storage)) => match control::ask(&storage.directory, &Request::Reload) {
            Ok(response) => return tell(response),
            Err(error @ ControlError::NoAnswer { .. }) => Err(error.to_string()),
            // It may have no socket: its path can be too long for one.
            Err(ControlError::NoBroker { .. }) => {
                pid_of(&storage.directory).map_err(|message| match arguments.config {
                    Some(_) => message,
                    None => format!(
                        "{message}; name the broker's configuration with -c FILE, or its process with --pid NUMBER"
                    ),
                })
            }
        },
    };
    let told = pid.and_then(|pid| {
        let process = Pid::from_raw(pid).ok_or("no process has this number")?;
        kill_process(process, Signal::HUP).map_err(|error| format!("cannot signal process {pid}: {error}"))
    });
    match told {
        Ok(()) => output::print(b"the broker was told; its log says what became of it\n"),
        Err(message) => {
            eprintln!("{message}");
            Exit::Unavailable
        }
    }
}

/// Prints what the broker says.
fn tell(response: Response) -> Exit {
    let reloaded = match response {
        Response::Reloaded(reloaded) => reloaded,
        Response::Failed(message) => {
            eprintln!("{message}");
            return Exit::Failed;
        }
        Response::Bans(_) | Response::Done(_) => {
            eprintln!("the broker's answer is not understood; is it of another version?");
            return Exit::Failed;
        }
    };
    let waiting = reloaded
        .waiting
        .iter()
        .map(|option| format!("{option} has changed: it waits for a restart"));
    let lines: String = reloaded
        .taken
        .iter()
        .cloned()
        .chain(waiting)
        .map(|line| line + "\n")
        .collect();
    let printed = output::print(lines.as_bytes());
    if reloaded.refused.is_empty() {
        return printed;
    }
    reloaded.refused.iter().for_each(|line| eprintln!("{line}"));
    Exit::Failed
}

/// The process that holds the lock of a data directory.
fn pid_of(directory: &Path) -> Result<i32, String> {
    let path = directory.join("lock");
    let shown = path.display();
    let mut file = File::open(&path).map_err(|error| format!("no broker is at work here: {shown}: {error}"))?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => {}
        Ok(()) => return Err(format!("no broker is at work here: nobody holds {shown}")),
        Err(TryLockError::Error(error)) => return Err(format!("cannot look at {shown}: {error}")),
    }
    let mut text = String::new();
    let read = file.by_ref().take(32).read_to_string(&mut text);
    // A number below one is a group of processes, or all there are.
    read.ok()
        .and_then(|_| text.trim().parse().ok())
        .filter(|pid| *pid > 0)
        .ok_or_else(|| format!("{shown} does not say whose it is; name the process with --pid"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_names_one_process() {
        let folder = tempfile::tempdir().unwrap();
        let lock = folder.path().join("lock");
        for (text, expected) in [("17\n", Ok(17)), ("-1", Err(())), ("0", Err(())), ("", Err(()))] {
            std::fs::write(&lock, text).unwrap();
            let held = File::open(&lock).unwrap();
            held.lock().unwrap();
            assert_eq!(pid_of(folder.path()).map_err(|_| ()), expected, "{text:?}");
        }
    }
}
