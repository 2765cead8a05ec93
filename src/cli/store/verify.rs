//! `sundew store verify`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use super::{Exit, output};
use crate::storage::disk::backup::{BackupError, Source};
use crate::storage::disk::recover::{self, Gap, Report};
use crate::storage::record::Record;

/// What is known of a file that was read.
#[derive(Debug, Default)]
struct Read {
    blocks: u64,
    records: u64,
    /// Where the last block began.
    last: Option<u64>,
    damage: Vec<String>,
}

#[derive(Debug, Default)]
struct Files(BTreeMap<String, Read>);

impl Files {
    fn of(&mut self, name: &str) -> &mut Read {
        if !self.0.contains_key(name) {
            self.0.insert(name.to_owned(), Read::default());
        }
        self.0.entry(name.to_owned()).or_default()
    }
}

impl recover::Visitor for Files {
    fn record(&mut self, record: &[u8], place: &recover::Place<'_>) {
        let file = self.of(place.file);
        file.records += 1;
        if file.last != Some(place.offset) {
            file.last = Some(place.offset);
            file.blocks += 1;
        }
        let damage = match Record::decode(record) {
            Ok(Record::Message(message)) => message.deliveries.iter().find_map(Result::err),
            Ok(_) => None,
            Err(error) => Some(error),
        };
        if let Some(error) = damage {
            file.damage.push(format!(
                "at byte {}: a record of block {} cannot be read: {error}",
                place.offset, place.block
            ));
        }
    }

    fn gap(&mut self, gap: &Gap) {
        let what = match (gap.bytes, gap.blocks) {
            (0, 0) => "it ends too early".to_owned(),
            (0, blocks) => format!("{} missing before this", count(blocks, "block")),
            (bytes, 0) => format!("{} that cannot be read", count(bytes, "byte")),
            (bytes, blocks) => format!(
                "{} that cannot be read, {} missing",
                count(bytes, "byte"),
                count(blocks, "block")
            ),
        };
        self.of(&gap.file)
            .damage
            .push(format!("at byte {}: {what}", gap.offset));
    }
}

pub(super) fn run(directory: &Path) -> Result<Exit, BackupError> {
    let source = Source::open(directory)?;
    let mut files = Files::default();
    let recovered = source.read(&mut files)?;
    let report = &recovered.report;
    for name in &report.damaged {
        let file = files.of(name);
        if file.damage.is_empty() {
            file.damage
                .push("at byte 0: its header is damaged, or of another store".to_owned());
        }
    }
    let mut text = lines(&files, report);
    for name in source.files()? {
        let is_read = files.0.contains_key(&name);
        if !is_read && (name.ends_with(".log") || name.ends_with(".snap")) {
            let _ = writeln!(text, "{name}: empty, or older than what is needed"); // a String takes everything
        }
    }
    let is_sound = files.0.values().all(|file| file.damage.is_empty());
    let end = match (is_sound, report.is_clean) {
        (false, _) => {
            "damaged: a broker starts with what can be read and says what is lost; `sundew store import` restores a backup"
        }
        (true, true) => "sound, and closed in order",
        (true, false) => "sound",
    };
    let _ = writeln!(text, "{}: {end}", source.name());
    Ok(match output::print(text.as_bytes()) {
        Exit::Done if !is_sound => Exit::Failed,
        exit => exit,
    })
}

fn count(number: u64, what: &str) -> String {
    let end = if number == 1 { "" } else { "s" };
    format!("{number} {what}{end}")
}

fn lines(files: &Files, report: &Report) -> String {
    let mut text = String::new();
    for (name, file) in &files.0 {
        let state = if file.damage.is_empty() { "sound" } else { "damaged" };
        let _ = writeln!(
            text,
            "{name}: {}, {}: {state}",
            count(file.blocks, "block"),
            count(file.records, "record")
        );
        for damage in &file.damage {
            let _ = writeln!(text, "{name}: {damage}");
        }
    }
    for file in &report.unmade {
        let _ = writeln!(
            text,
            "{file}: nothing in it: being made when the broker stopped, or damaged"
        );
    }
    if let Some(torn) = &report.torn {
        let _ = writeln!(
            text,
            "{}: at byte {}: {} not yet on the device when the broker stopped, or being written: no damage, nothing of it was promised",
            torn.file,
            torn.offset,
            count(torn.bytes, "byte")
        );
    }
    text
}
