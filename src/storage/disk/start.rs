//! Opens the store and turns what is in it into what a broker starts with.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::backup::Applied;
use super::options::{DiskOptions, SyncMode};
use super::recover::RecoverMode;
use super::store::{DiskStore, OpenError};
use crate::broker::Parts;
use crate::protocol::time::Time;
use crate::storage::image::{Image, ImageOptions, Names, Report};

/// Where and how a server keeps what must survive.
#[derive(Clone, Debug)]
pub struct StorageOptions {
    /// The directory; made if it is not there.
    pub directory: PathBuf,
    /// How.
    pub disk: DiskOptions,
    /// Damage keeps the server from starting; default: it is set aside.
    pub refuses_damage: bool,
    /// A directory that cannot be used keeps the server from starting; default: nothing survives then, and a warning says so.
    pub is_required: bool,
    /// Memory for the contents of messages that wait.
    pub image: ImageOptions,
}

impl StorageOptions {
    /// In a directory, with every default.
    pub fn in_directory(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            disk: DiskOptions::default(),
            refuses_damage: false,
            is_required: true,
            image: ImageOptions::default(),
        }
    }
}

/// Opens the store, if there is to be one, and puts it and what it has into `parts`. The broker's time, and since when it is that.
///
/// # Errors
/// [`OpenError`]; nothing has been started then.
pub fn open(options: Option<StorageOptions>, workers: usize, parts: &mut Parts) -> Result<(Time, Instant), OpenError> {
    let begin = Instant::now();
    let Some(options) = options else {
        return Ok((Time::default(), begin));
    };
    let mode = if options.refuses_damage {
        RecoverMode::RefuseDamage
    } else {
        RecoverMode::Repair
    };
    let disk = DiskOptions {
        workers: u16::try_from(workers).unwrap_or(u16::MAX),
        ..options.disk
    };
    let mut image = Image::new(options.image);
    let (store, opened) = match DiskStore::open(&options.directory, disk, mode, &mut Applied(&mut image)) {
        Ok(opened) => opened,
        Err(error @ OpenError::Directory { .. }) if !options.is_required => {
            warn!("persistence is off: retained messages and sessions will be lost on restart; {error}");
            return Ok((Time::default(), begin));
        }
        Err(error) => return Err(error),
    };
    let mut restored = image.finish(opened.time);
    restored.read_in_flight(|messages| store.read(messages));
    tell(&options.directory, options.disk.sync, &restored.report, begin.elapsed());
    parts.store = Arc::new(store);
    parts.restored = restored;
    Ok((opened.time, opened.at))
}

fn tell(directory: &std::path::Path, sync: SyncMode, report: &Report, took: Duration) {
    let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    let sync = match sync {
        SyncMode::Always => "always",
        SyncMode::Interval => "interval",
        SyncMode::Os => "os",
    };
    info!(directory = %directory.display(), sync, "what must survive is kept on disk");
    info!(
        "restored retained={} sessions={} subscriptions={} queued={} inflight={} wills={} in {}ms",
        report.retained,
        report.sessions,
        report.subscriptions,
        report.queued,
        report.in_flight,
        report.wills,
        took.as_millis()
    );
    if report.expired_sessions + report.expired_messages > 0 {
        info!(
            sessions = report.expired_sessions,
            messages = report.expired_messages,
            "expired while the broker was away"
        );
    }
    let lost = &report.lost;
    if !lost.is_empty() {
        warn!(
            gaps = lost.gaps,
            records = lost.unreadable.count,
            sessions = list(&lost.sessions),
            deliveries = lost.deliveries,
            topics = list(&lost.topics),
            "part of what was kept is lost: these sessions and topics miss something"
        );
    }
}

/// The count, and as many names as a line bears.
fn list(names: &Names) -> String {
    const PER_LINE: usize = 10;
    let named: Vec<_> = names.named.iter().take(PER_LINE).map(|name| &**name).collect();
    match names.count {
        0 => "none".to_owned(),
        count if count as usize > named.len() => format!("{count}: {} …", named.join(" ")),
        count => format!("{count}: {}", named.join(" ")),
    }
}
