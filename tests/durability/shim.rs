//! `disk_shim.c`: built with the C compiler of this machine, put before the broker, and its log read.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::program::Start;

/// What the shim is to do besides keeping its log.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shim {
    /// When the power is cut.
    pub(crate) cut: Option<Cut>,
    /// Syncs do nothing and report success.
    pub(crate) is_lying: bool,
}

/// A moment between two operations.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cut {
    /// Before this one, counted from 1.
    Before(u64),
    /// After so many of a kind, and so many more of any.
    After(Kind, u64, u64),
}

/// Rare operations, as the shim numbers them.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Create = 1,
    SyncDirectory = 5,
    Rename = 6,
    Unlink = 7,
}

/// A fault of the disk, as the shim knows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None = 0,
    Full = 1,
    WriteFails = 2,
    SyncFails = 3,
    ReadOnly = 4,
    ShortWrites = 5,
    SlowSyncs = 6,
}

/// One operation of the log.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Create { inode: u64, name: String },
    Write { inode: u64, offset: usize, bytes: Vec<u8> },
    Truncate { inode: u64, length: usize },
    Sync { inode: u64 },
    SyncDirectory { name: String },
    Rename { inode: u64, from: String, to: String },
    Unlink { name: String },
    Link { inode: u64, to: String },
    MakeDirectory { inode: u64, name: String },
    RemoveDirectory { name: String },
    SyncFailed { inode: u64 },
    SyncSwallowed,
}

/// A switch for faults while the broker runs.
pub(crate) struct Switch {
    file: PathBuf,
}

impl Switch {
    pub(crate) fn new(file: PathBuf) -> Self {
        let switch = Self { file };
        fs::write(&switch.file, [0; 8]).unwrap();
        switch
    }

    /// The disk has this fault from now on, `times` times or, with 0, until it is switched off.
    pub(crate) fn set(&self, fault: Fault, times: u32) {
        use std::os::unix::fs::FileExt;
        let bytes = [times.to_le_bytes(), (fault as u32).to_le_bytes()];
        let file = fs::OpenOptions::new().write(true).open(&self.file).unwrap();
        file.write_all_at(&bytes[0], 4).unwrap();
        file.write_all_at(&bytes[1], 0).unwrap();
    }

    /// Whether the fault has happened as often as was asked.
    pub(crate) fn is_off(&self) -> bool {
        fs::read(&self.file).unwrap()[..4] == [0; 4]
    }

    /// The same start, with faults by this switch.
    pub(crate) fn before(&self, start: &Start) -> Start {
        let mut start = start.clone();
        let file = self.file.to_str().unwrap().to_owned();
        start.variables.push(("SUNDEW_SHIM_CONTROL".to_owned(), file));
        start
    }
}

impl Shim {
    /// The same start, with the shim before the program. Its log is begun anew.
    pub(crate) fn before(self, start: &Start, log: &Path) -> Start {
        let _ = fs::remove_file(log); // there is none the first time
        let mut start = start.clone();
        let directory = fs::canonicalize(start.directory.as_ref().unwrap()).unwrap();
        let mut set = |name: &str, value: String| start.variables.push((name.to_owned(), value));
        set("LD_PRELOAD", library().to_str().unwrap().to_owned());
        set("SUNDEW_SHIM_DIRECTORY", directory.to_str().unwrap().to_owned());
        set("SUNDEW_SHIM_LOG", log.to_str().unwrap().to_owned());
        match self.cut {
            Some(Cut::Before(number)) => set("SUNDEW_SHIM_CUT", number.to_string()),
            Some(Cut::After(kind, number, more)) => {
                set("SUNDEW_SHIM_CUT", number.to_string());
                set("SUNDEW_SHIM_CUT_KIND", (kind as u32).to_string());
                set("SUNDEW_SHIM_CUT_MORE", more.to_string());
            }
            None => {}
        }
        if self.is_lying {
            set("SUNDEW_SHIM_LIE", "1".to_owned());
        }
        start.directory = Some(directory);
        start
    }
}

/// The shim, built once.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/durability/disk_shim.c");
        let built = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("disk_shim-{}.so", std::process::id()));
        let status = Command::new("cc")
            .args([
                "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-pthread", "-o",
            ])
            .arg(&built)
            .arg(&source)
            .status()
            .expect("a C compiler, `cc`");
        assert!(status.success(), "{} does not compile", source.display());
        built
    })
}

const MAGIC: u32 = 0x6d69_6873;

/// The operations of a log. The last one is left out where the cut has torn it: nothing followed from it.
pub(crate) fn read_log(log: &Path) -> Vec<Operation> {
    let bytes = fs::read(log).unwrap_or_default();
    let mut rest = bytes.as_slice();
    let mut operations = Vec::new();
    while let Some((operation, after)) = record(rest, operations.len() as u64 + 1) {
        operations.push(operation);
        rest = after;
    }
    operations
}

fn record(bytes: &[u8], expected: u64) -> Option<(Operation, &[u8])> {
    let (head, rest) = bytes.split_at_checked(48)?;
    let u32_at = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().unwrap());
    let u64_at = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().unwrap());
    assert_eq!(
        (u32_at(0), u64_at(8)),
        (MAGIC, expected),
        "the log of the shim is broken"
    );
    let (kind, inode, offset, length) = (u32_at(4), u64_at(16), u64_at(24) as usize, u64_at(32) as usize);
    let (name, rest) = rest.split_at_checked(u32_at(40) as usize)?;
    let (other, rest) = rest.split_at_checked(u32_at(44) as usize)?;
    let (content, rest) = rest.split_at_checked(if kind == 2 { length } else { 0 })?;
    let name = String::from_utf8(name.to_vec()).unwrap();
    let to = String::from_utf8(other.to_vec()).unwrap();
    let bytes = content.to_vec();
    let operation = match kind {
        1 => Operation::Create { inode, name },
        2 => Operation::Write { inode, offset, bytes },
        3 => Operation::Truncate { inode, length },
        4 => Operation::Sync { inode },
        5 => Operation::SyncDirectory { name },
        6 => Operation::Rename { inode, from: name, to },
        7 => Operation::Unlink { name },
        8 => Operation::Link { inode, to },
        9 => Operation::MakeDirectory { inode, name },
        10 => Operation::RemoveDirectory { name },
        11 => Operation::SyncFailed { inode },
        12 => Operation::SyncSwallowed,
        _ => panic!("the broker does with its files what the shim does not understand: {name}"),
    };
    Some((operation, rest))
}
