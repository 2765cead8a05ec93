//! Bans of administrators outlive the broker: a small file in the data directory.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::auth::bans::{About, Ban, Subject};
use crate::protocol::time::Time;

/// What a ban is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An address, or a block of them.
    Address,
    /// A user.
    User,
    /// A client id.
    Client,
}

impl Kind {
    /// Who is meant.
    ///
    /// # Errors
    /// What is wrong with an address.
    pub fn subject(self, value: &str) -> Result<Subject, String> {
        Ok(match self {
            Self::Address => Subject::Network(value.parse().map_err(|error| format!("{error}"))?),
            Self::User => Subject::User(value.into()),
            Self::Client => Subject::Client(value.into()),
        })
    }
}

/// A ban as the list and the file show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanLine {
    /// Of what.
    pub kind: Kind,
    /// Address, block of addresses, user name or client id.
    pub value: String,
    /// From which address only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// Seconds since 1970; until it is lifted, where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
    /// What brought it: wrong passwords, or connections; 0 where an administrator did.
    #[serde(default)]
    pub count: u32,
    /// What the administrator noted.
    #[serde(default)]
    pub note: String,
}

impl BanLine {
    /// Of a ban, now.
    pub fn of(ban: &Ban, now: Time) -> Self {
        let (kind, value, at) = match &ban.about {
            About::Order(Subject::Network(network)) => (Kind::Address, network.to_string(), None),
            About::Order(Subject::User(user)) => (Kind::User, user.to_string(), None),
            About::Order(Subject::Client(client)) => (Kind::Client, client.to_string(), None),
            About::Address(ip) => (Kind::Address, About::source(*ip), None),
            About::Login(ip, user) => (Kind::User, user.to_string(), Some(About::source(*ip))),
            About::Client(ip, client) => (Kind::Client, client.to_string(), Some(About::source(*ip))),
        };
        let until = (ban.until != Time::NEVER).then(|| wall_seconds() + now.secs_until(ban.until));
        Self {
            kind,
            value,
            at,
            until,
            count: ban.count,
            note: ban.note.to_string(),
        }
    }
}

/// The file.
#[derive(Debug)]
pub(super) struct BanFile(PathBuf);

impl BanFile {
    pub(super) fn new(directory: &Path) -> Self {
        Self(directory.join("bans.json"))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// The bans that are not over; none where there is no file. One that cannot be read is put aside.
    pub(super) fn read(&self, now: Time) -> Result<Vec<(Subject, Time, String)>, String> {
        let shown = self.0.display();
        let text = match fs::read_to_string(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(format!("nobody is banned: cannot read {shown}: {error}")),
            Ok(text) => text,
        };
        let lines = serde_json::from_str::<Vec<BanLine>>(&text).map_err(|error| error.to_string());
        let read = |line: BanLine| Ok((line.kind.subject(&line.value)?, line.until, line.note));
        let read: Result<Vec<_>, String> = lines.and_then(|lines| lines.into_iter().map(read).collect());
        let bans = read.map_err(|error| {
            let aside = self.0.with_extension("json.damaged");
            let moved = fs::rename(&self.0, &aside);
            let moved = moved.map_or_else(|error| error.to_string(), |()| format!("it is {} now", aside.display()));
            format!("nobody is banned: {shown} is damaged: {error}; {moved}")
        })?;
        let wall = wall_seconds();
        let until = |until: Option<u64>| until.map_or(Time::NEVER, |until| now.plus_secs(until.saturating_sub(wall)));
        let bans = bans.into_iter().map(|(subject, end, note)| (subject, until(end), note));
        Ok(bans.filter(|(_, until, _)| *until > now).collect())
    }

    /// Puts these in the place of what is there, all or none: under another name first.
    pub(super) fn write(&self, bans: &[Ban], now: Time) -> io::Result<()> {
        let lines: Vec<_> = bans.iter().map(|ban| BanLine::of(ban, now)).collect();
        let temporary = self.0.with_extension("json.new");
        let mut options = fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(&serde_json::to_vec_pretty(&lines)?)?;
        file.sync_all()?;
        fs::rename(&temporary, &self.0)?;
        // The new name is on the device when the folder is.
        self.0
            .parent()
            .map_or(Ok(()), |folder| fs::File::open(folder)?.sync_all())
    }
}

fn wall_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
