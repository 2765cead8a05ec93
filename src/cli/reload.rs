//! `sundew reload`: the running broker reads its files of users and rules again.

use std::fs::{File, TryLockError};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;
use rustix::process::{Pid, Signal, kill_process};

use super::Exit;
use crate::config::{self, Layers};

/// Have the running broker read users and rules again
///
/// Those of the files that auth.password_file and auth.acl_file name it reads by itself within a second of a change; this is for
/// auth.rules in the configuration, and for where auth.watch_interval is "0s". All of it is looked at before: where there is a mistake the
/// broker is left alone, and it is told here. The broker logs what has changed. Other options count at its next start.
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
    let pid = match arguments.pid {
        Some(pid) => Ok(pid),
        None => match loaded.config.storage_options(std::env::var_os("STATE_DIRECTORY")) {
            Some(storage) => pid_of(&storage.directory),
            None => Err("nothing is kept on disk, so the broker cannot be found; name its process with --pid".into()),
        },
    };
    let told = pid.and_then(|pid| {
        let process = Pid::from_raw(pid).ok_or("no process has this number")?;
        kill_process(process, Signal::HUP).map_err(|error| format!("cannot signal process {pid}: {error}"))
    });
    match told {
        Ok(()) => Exit::Done,
        Err(message) => {
            eprintln!("{message}");
            Exit::Unavailable
        }
    }
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
