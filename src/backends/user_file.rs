//! Changes to a password file: the new one takes the place of the old one whole, or not at all.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

use crate::auth::password::{Entry, with_user};

/// Permissions of a new file: hashes are nobody's business.
const MODE: u32 = 0o640;
/// Links that lead to each other at most, as Linux has it.
const LINKS_MAX: usize = 40;

/// What is to become of a user.
#[derive(Clone, Copy, Debug)]
pub enum Edit<'a> {
    /// A new one.
    Add(&'a Entry),
    /// Another password for one that is there.
    Change(&'a Entry),
    /// Gone.
    Remove,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edited {
    /// What was asked for.
    Done,
    /// Nothing: there is one of that name.
    AlreadyThere,
    /// Nothing: there is none of that name.
    NotThere,
}

/// Changes one user. The file is made where it is missing. A symbolic link stays one, and owner and permissions of the file stay as
/// they are, as far as the system lets us.
///
/// # Errors
/// The file cannot be read, or the new one not be written; the old one is as it was then.
pub fn edit_user(path: &Path, name: &str, edit: Edit<'_>) -> io::Result<Edited> {
    // What is replaced is what the link points to.
    if geteuid().is_root() {
        check_links(path)?;
    }
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let _lock = lock(&path)?;
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    let line = match edit {
        Edit::Add(entry) | Edit::Change(entry) => Some(format!("{name}:{entry}")),
        Edit::Remove => None,
    };
    let (new, was_there) = with_user(&text, name, line.as_deref());
    match (edit, was_there) {
        (Edit::Add(_), true) => return Ok(Edited::AlreadyThere),
        (Edit::Change(_) | Edit::Remove, false) => return Ok(Edited::NotThere),
        _ => {}
    }
    replace(&path, &new)?;
    Ok(Edited::Done)
}

/// Root writes wherever a link leads, so it follows its own only: in the folder of a user that serves, that user may have laid one to any file.
fn check_links(path: &Path) -> io::Result<()> {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        match fs::symlink_metadata(&path) {
            Ok(link) if link.is_symlink() && link.uid() != 0 => {
                let whose = link.uid();
                let message = format!(
                    "{} is a link that user {whose} has laid, which root does not follow; name the file itself",
                    path.display()
                );
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
            }
            Ok(link) if link.is_symlink() => path = folder_of(&path).join(fs::read_link(&path)?),
            _ => return Ok(()),
        }
    }
    Err(io::Error::other("too many links"))
}

/// Two at once would each write what the other does not have. The folder is locked, since the file is replaced.
fn lock(path: &Path) -> io::Result<File> {
    let folder = File::open(folder_of(path))?;
    folder.lock()?;
    Ok(folder)
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = path.with_file_name(name);
    let written = write(&new, path, text).and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        let _ = fs::remove_file(&new); // what went wrong is told already
    }
    written?;
    File::open(folder_of(path))?.sync_all()
}

fn write(new: &Path, old: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(new)?;
    // A new file belongs to whom its folder belongs to: root makes it, and another user serves.
    let like = fs::metadata(old).map(|before| (before, true));
    if let Ok((before, is_file)) = like.or_else(|_| fs::metadata(folder_of(old)).map(|folder| (folder, false))) {
        if is_file {
            file.set_permissions(Permissions::from_mode(before.mode() & 0o7777))?;
        }
        // Only root may give a file away; whoever else writes it owns it, mostly already.
        let _ = std::os::unix::fs::fchown(&file, Some(before.uid()), Some(before.gid()));
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use crate::auth::password::{PasswordHash, Scheme};

    fn hash(byte: u8) -> Entry {
        let hash = PasswordHash {
            scheme: Scheme::Sha512,
            salt: [byte; 12].into(),
            hash: [byte; 64].into(),
        };
        Entry {
            hash: Some(Arc::new(hash)),
            ..Entry::default()
        }
    }

    #[test]
    fn users_come_change_and_go_and_the_rest_of_the_file_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        assert_eq!(edit_user(&path, "a", Edit::Remove).unwrap(), Edited::NotThere);
        assert_eq!(edit_user(&path, "a", Edit::Change(&hash(1))).unwrap(), Edited::NotThere);
        assert!(!path.exists());
        assert_eq!(edit_user(&path, "a", Edit::Add(&hash(1))).unwrap(), Edited::Done);
        assert_eq!(
            edit_user(&path, "a", Edit::Add(&hash(9))).unwrap(),
            Edited::AlreadyThere
        );
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, MODE);
        fs::write(&path, format!("# ours\n{}", fs::read_to_string(&path).unwrap())).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o604)).unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(edit_user(&link, "b", Edit::Add(&hash(2))).unwrap(), Edited::Done);
        assert_eq!(edit_user(&link, "a", Edit::Change(&hash(3))).unwrap(), Edited::Done);
        assert_eq!(edit_user(&link, "b", Edit::Remove).unwrap(), Edited::Done);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("# ours\na:{}\n", hash(3)));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o604);
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            2,
            "nothing else is left behind"
        );
    }

    /// Whoever runs the tests as root sees it; others could not lay such a link.
    #[test]
    fn root_follows_no_link_of_another_user() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link, outer) = {
            let path = |name| folder.path().join(name);
            (path("file"), path("link"), path("outer"))
        };
        fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink("file", &link).unwrap();
        std::os::unix::fs::symlink("link", &outer).unwrap();
        assert_eq!(edit_user(&outer, "a", Edit::Add(&hash(1))).unwrap(), Edited::Done);
        if std::os::unix::fs::lchown(&link, Some(12345), None).is_err() || !geteuid().is_root() {
            return;
        }
        for path in [&link, &outer] {
            let error = edit_user(path, "b", Edit::Add(&hash(1))).unwrap_err();
            assert!(error.to_string().contains("user 12345"), "{error}");
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), format!("a:{}\n", hash(1)));
    }
}
