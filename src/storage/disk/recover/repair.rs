//! What recovery puts in order before the log goes on.

use std::io;

use super::super::block::{BLOCKS_START, FileKind, FileName};
use super::super::files::Files;
use super::{Found, Recovery};

impl Recovery<'_> {
    /// Cuts the torn tail, removes files that never came to be, and sees to it that what was read is on the device.
    ///
    /// # Errors
    /// Of the file system, with the file's name; what comes behind it is not done. What was read is right all the same, but nothing may be
    /// written behind it before a snapshot has taken its place.
    pub(super) fn repair(&mut self, files: &dyn Files, segments: &[Found]) -> io::Result<()> {
        let mut is_changed = false;
        let end = self.torn.map_or(segments.len(), |(at, _)| at + 1);
        // The last one first: whatever is done of it when the power goes, the rest is a torn tail again.
        for found in segments[end..].iter().rev() {
            named(&found.text, files.remove(&found.text))?;
            self.recovered.present.remove(&found.name);
            is_changed = true;
        }
        if let Some((at, offset)) = self.torn {
            let found = &segments[at];
            named(&found.text, files.cut(&found.text, offset))?;
            self.recovered.present.insert(found.name, offset);
        }
        for found in &segments[..end] {
            named(&found.text, found.file.sync())?;
        }
        let damaged = &self.recovered.report.damaged;
        let is_empty = |name: &FileName, length: u64| {
            length <= BLOCKS_START && name.kind == FileKind::Segment && !damaged.contains(&name.text())
        };
        let present = self.recovered.present.iter();
        let empty: Vec<_> = present
            .filter(|file| is_empty(file.0, *file.1))
            .map(|file| *file.0)
            .collect();
        for name in empty {
            named(&name.text(), files.remove(&name.text()))?;
            self.recovered.present.remove(&name);
            is_changed = true;
        }
        for text in named("", files.list())? {
            if text.starts_with("snapshot-") && text.ends_with(".tmp") {
                named(&text, files.remove(&text))?;
                is_changed = true;
            }
        }
        if is_changed {
            named("", files.sync_directory(""))?;
        }
        Ok(())
    }
}

/// An error with the name of its file.
fn named<T>(file: &str, result: io::Result<T>) -> io::Result<T> {
    result.map_err(|error| io::Error::new(error.kind(), format!("{file}: {error}")))
}
