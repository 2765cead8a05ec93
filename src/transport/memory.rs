//! How much memory this process uses, and how much there is: from the kernel, which decides who is killed when there is none left.

use std::cell::{Cell, RefCell};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes from the network after which memory is looked at out of turn: that much may have been added to it.
const LOOK_AFTER_BYTES: usize = 16 << 20;

/// Looks at this process's memory now and then.
#[derive(Debug)]
pub(super) struct MemoryWatch {
    status: Option<File>,
    buffer: RefCell<Vec<u8>>,
    received: Cell<usize>,
}

impl MemoryWatch {
    /// A watch for a worker; one that sees nothing where there is no budget, or the system does not tell.
    pub(super) fn new(has_budget: bool) -> Self {
        let open = || {
            let opened = File::open("/proc/self/status");
            let warn = |error: &io::Error| tracing::warn!(%error, "memory cannot be measured here: limits.memory_max has no effect");
            opened.inspect_err(warn).ok()
        };
        Self {
            status: has_budget.then(open).flatten(),
            buffer: RefCell::default(),
            received: Cell::new(0),
        }
    }

    /// So many bytes were read from a connection. True when memory should be looked at.
    #[inline]
    pub(super) fn has_come(&self, bytes: usize) -> bool {
        let received = self.received.get() + bytes;
        self.received.set(received);
        received >= LOOK_AFTER_BYTES && self.status.is_some()
    }

    /// What this process uses beside files, bytes, in memory or swapped out.
    pub(super) fn used(&self) -> Option<u64> {
        let status = self.status.as_ref()?;
        self.received.set(0);
        let mut buffer = self.buffer.borrow_mut();
        buffer.resize(4096, 0);
        let count = status.read_at(&mut buffer, 0).ok()?;
        used_of(std::str::from_utf8(&buffer[..count]).ok()?)
    }
}

/// The sum of RssAnon, RssShmem and VmSwap.
fn used_of(status: &str) -> Option<u64> {
    let kib = |name| number_after(status, name);
    Some((kib("RssAnon:")? + kib("RssShmem:").unwrap_or(0) + kib("VmSwap:").unwrap_or(0)) * 1024)
}

fn number_after(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Bytes of memory that this process may hope for: the machine's, or less where its cgroup, or one above, has a limit. `None`
/// where the system does not tell.
pub fn available() -> Option<u64> {
    let machine = number_after(&fs::read_to_string("/proc/meminfo").ok()?, "MemTotal:")? * 1024;
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = groups
        .lines()
        .filter_map(|line| limit_of(line, Path::new("/sys/fs/cgroup")));
    Some(limits.fold(machine, u64::min))
}

/// The least limit of a cgroup and those above it, from its line in `/proc/self/cgroup`: of version 2, or of version 1's memory controller.
fn limit_of(line: &str, root: &Path) -> Option<u64> {
    let mut parts = line.splitn(3, ':');
    let (_, controllers, group) = (parts.next()?, parts.next()?, parts.next()?);
    let (root, name) = match controllers {
        "" => (root.to_owned(), "memory.max"),
        "memory" => (root.join("memory"), "memory.limit_in_bytes"),
        _ => return None,
    };
    // Within a container the group's own path may not be there, but its root is.
    let groups = Path::new(group.trim_start_matches('/')).ancestors();
    let limit = |group| {
        fs::read_to_string(root.join(group).join(name))
            .ok()?
            .trim()
            .parse()
            .ok()
    };
    groups.filter_map(limit).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_process_uses_grows_with_what_it_takes() {
        let watch = MemoryWatch::new(true);
        let before = watch.used().unwrap();
        let taken = std::hint::black_box(vec![1u8; 128 << 20]);
        let after = watch.used().unwrap();
        assert!(
            after > before + (100 << 20),
            "{before} and {after} with {} more",
            taken.len()
        );
        assert!(!watch.has_come(LOOK_AFTER_BYTES - 1) && watch.has_come(1));
        assert_eq!(MemoryWatch::new(false).used(), None);
        assert_eq!(
            used_of("VmSwap:\t3 kB\nRssAnon:\t 10 kB\nRssFile:\t5 kB\n"),
            Some(13 << 10)
        );
    }

    #[test]
    fn the_least_limit_of_a_cgroup_and_those_above_it_counts() {
        let root = tempfile::tempdir().unwrap();
        let write = |group: &str, name: &str, limit: &str| {
            let folder = root.path().join(group);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(name), limit).unwrap();
        };
        write("a", "memory.max", "5000\n");
        write("a/b", "memory.max", "max\n");
        write("memory", "memory.limit_in_bytes", "7000\n");
        assert_eq!(limit_of("0::/a/b", root.path()), Some(5000));
        assert_eq!(limit_of("0::/elsewhere", root.path()), None);
        assert_eq!(limit_of("4:memory:/docker/1", root.path()), Some(7000));
        assert_eq!(limit_of("5:cpu:/a", root.path()), None);
        assert!(available().unwrap() > 1 << 20);
    }
}
