//! The files that a configuration names: found, read, and written.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::grammar::{Line, in_mosquittos_order};
use super::outcome::{CONFIGURATION, NewFile, Outcome};

/// Largest file that is read, bytes.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Reads a text. What is not UTF-8 in it becomes a sign for that, so that the rest of the file counts.
pub(super) fn read(path: &Path) -> Result<String, String> {
    let fault = |error: io::Error| format!("cannot read {}: {error}", path.display());
    let size = fs::metadata(path).map_err(fault)?.len();
    if size > FILE_BYTES_MAX {
        return Err(format!("{} is larger than {FILE_BYTES_MAX} bytes", path.display()));
    }
    let bytes = fs::read(path).map_err(fault)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Where the files of a configuration are.
#[derive(Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Of a `mosquitto.conf`.
    pub(super) fn of(configuration: &Path) -> Self {
        let absolute = std::path::absolute(configuration).unwrap_or_else(|_| configuration.to_owned());
        Self(absolute.parent().map(Path::to_owned).unwrap_or_default())
    }

    /// Where a file is: as it is said, or, for a configuration that was written for a container, below the folder of the configuration;
    /// `None` where it is nowhere. Not above it: what lies there is somebody else's.
    fn find(&self, said: &Path) -> Option<PathBuf> {
        let said_at = std::path::absolute(said).ok()?;
        if said_at.exists() {
            return Some(said_at);
        }
        let parts: Vec<_> = said.components().filter(|part| part.as_os_str() != "/").collect();
        let mut candidates = (0..parts.len()).map(|start| self.0.join(parts[start..].iter().collect::<PathBuf>()));
        candidates.find(|candidate| candidate.exists())
    }

    /// The file that an option names. One that is elsewhere than said is noted, one that is not there is not carried.
    pub(super) fn file(&self, line: &Line, out: &mut Outcome) -> Option<PathBuf> {
        // mosquitto knows no comments behind a value, and people write them.
        let bare = line.value.split_once(" #").map_or("", |(bare, _)| bare.trim_end());
        let said = [line.value.as_str(), bare].into_iter().filter(|text| !text.is_empty());
        let found = said.clone().find_map(|text| self.find(Path::new(text)));
        match &found {
            None => out.not_carried(line, "there is no such file; mosquitto does not start without it"),
            Some(path) if Some(path.as_path()) != std::path::absolute(&line.value).ok().as_deref() => {
                out.note(line, format!("it is not there, {} was taken", path.display()));
            }
            Some(_) => {}
        }
        found
    }

    /// The `*.conf` of a directory, in mosquitto's order.
    pub(super) fn configurations(&self, said: &Path) -> Result<Vec<(PathBuf, String)>, String> {
        let Some(directory) = self.find(said) else {
            return Err("there is no such directory; mosquitto does not start without it".into());
        };
        let entries = fs::read_dir(&directory).map_err(|error| format!("cannot read it: {error}"))?;
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let mut paths: Vec<_> = paths
            .filter(|path| path.extension().is_some_and(|extension| extension == "conf"))
            .collect();
        in_mosquittos_order(&mut paths);
        paths
            .into_iter()
            .map(|path| read(&path).map(|text| (path, text)))
            .collect()
    }
}

/// Writes the configuration and what belongs to it. Without `force` nothing is replaced, and where something would be, nothing is
/// written at all.
pub(super) fn write(directory: &Path, configuration: String, files: &[NewFile], force: bool) -> Result<(), String> {
    let fault = |path: &Path, error: io::Error| format!("cannot write {}: {error}", path.display());
    fs::create_dir_all(directory).map_err(|error| fault(directory, error))?;
    let own = NewFile {
        name: CONFIGURATION.into(),
        text: configuration,
        from: None,
        is_secret: false,
        made_for: None,
    };
    let all: Vec<_> = files.iter().chain([&own]).collect();
    let is_its_own = |file: &NewFile| {
        let there = fs::canonicalize(directory.join(&file.name));
        file.from
            .as_ref()
            .is_some_and(|from| there.ok() == fs::canonicalize(from).ok())
    };
    for file in &all {
        let path = directory.join(&file.name);
        if is_its_own(file) {
            return Err(format!(
                "{} is mosquitto's own: choose another directory with --output",
                path.display()
            ));
        }
        if path.symlink_metadata().is_ok() && !force {
            return Err(format!("{} is there already; --force replaces it", path.display()));
        }
    }
    for file in all {
        let path = directory.join(&file.name);
        write_one(&path, file).map_err(|error| fault(&path, error))?;
    }
    Ok(())
}

/// Under another name first, so that nobody ever sees half a file.
fn write_one(path: &Path, file: &NewFile) -> io::Result<()> {
    // As readable as what it was made of: the broker runs as some other user, mostly.
    let of_source = file.from.as_ref().and_then(|from| fs::metadata(from).ok());
    let of_source = of_source.map(|metadata| metadata.permissions().mode() & 0o644);
    let mode = of_source.unwrap_or(if file.is_secret { 0o600 } else { 0o644 });
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    let _ = fs::remove_file(&temporary); // of an import that was killed
    let mut options = fs::OpenOptions::new();
    let mut new = options.write(true).create_new(true).mode(mode).open(&temporary)?;
    new.write_all(file.text.as_bytes())?;
    new.sync_all()?;
    fs::rename(&temporary, path)
}
