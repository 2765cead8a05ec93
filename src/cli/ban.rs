//! `sundew ban`: who is kept out of the running broker.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Exit, output, store};
use crate::server::control::{Request, Response, ask};
use crate::server::{BanLine, Kind};

/// Show who is banned from the running broker, ban, lift bans
///
/// Wrong passwords ban an address, or a user name there, for a while; the section [bans] of the configuration says when. Bans made here
/// hold from everywhere, until they are lifted or their time is over, and outlive the broker; whoever is connected is told to go. The
/// broker is found by its data directory.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sundew ban list
  sundew ban add --address 203.0.113.0/24 --note \"scans us\"
  sundew ban add --client noisy-sensor --for 1h
  sundew ban lift --address 192.168.1.20          every ban there, earned ones too
  sundew ban lift --user alice")]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print every ban, one a line
    List {
        /// As JSON, for programs
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Ban somebody; who is banned already is so for the time that is said now
    Add {
        #[command(flatten)]
        subject: Subject,
        /// How long, such as 30m or 7days [default: until it is lifted]
        #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
        time: Option<Duration>,
        /// Why, for who reads the list
        #[arg(long, value_name = "TEXT", default_value = "")]
        note: String,
        #[command(flatten)]
        place: Place,
    },
    /// Lift every ban of an address, user or client; exit code 1 where there is none
    Lift {
        #[command(flatten)]
        subject: Subject,
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Subject {
    /// An address, or a block of them such as 10.0.0.0/8
    #[arg(short, long, value_name = "ADDRESS")]
    address: Option<String>,
    /// A user name
    #[arg(short, long, value_name = "NAME")]
    user: Option<String>,
    /// A client id
    #[arg(long, value_name = "ID")]
    client: Option<String>,
}

impl Subject {
    /// One of them is there, the group sees to it.
    fn parts(&self) -> (Kind, String) {
        match (&self.address, &self.user, &self.client) {
            (Some(address), ..) => (Kind::Address, address.clone()),
            (_, Some(user), _) => (Kind::User, user.clone()),
            (.., client) => (Kind::Client, client.clone().unwrap_or_default()),
        }
    }
}

#[derive(Debug, Args)]
struct Place {
    /// The broker's data directory [default: what the configuration says, else ./data]
    #[arg(short, long, value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
    /// The configuration that the broker runs with
    #[arg(short, long, value_name = "FILE", env = "SUNDEW_CONFIG")]
    config: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Exit {
    let (Action::List { place, .. } | Action::Add { place, .. } | Action::Lift { place, .. }) = &arguments.action;
    let directory = match store::data_directory(place.directory.as_ref(), place.config.as_ref()) {
        Ok(directory) => directory,
        Err(exit) => return exit,
    };
    let request = match &arguments.action {
        Action::List { .. } => Request::ListBans,
        Action::Add {
            subject, time, note, ..
        } => {
            let (kind, value) = subject.parts();
            Request::AddBan {
                kind,
                value,
                seconds: time.map(|time| time.as_secs().max(1)),
                note: note.clone(),
            }
        }
        Action::Lift { subject, .. } => {
            let (kind, value) = subject.parts();
            Request::LiftBan { kind, value }
        }
    };
    match (ask(&directory, &request), &arguments.action) {
        (Err(error), _) => {
            eprintln!("{error}");
            Exit::Unavailable
        }
        (Ok(Response::Failed(message)), _) => {
            eprintln!("{message}");
            Exit::Failed
        }
        (Ok(Response::Bans(bans)), Action::List { json, .. }) => print(&bans, *json),
        (Ok(Response::Done(0)), Action::Lift { .. }) => {
            eprintln!("nobody like that is banned; `sundew ban list` shows who is");
            Exit::Failed
        }
        (Ok(_), _) => Exit::Done,
    }
}

fn print(bans: &[BanLine], is_json: bool) -> Exit {
    let mut text = String::new();
    for ban in bans {
        if is_json {
            text.push_str(&serde_json::to_string(ban).unwrap_or_default());
        } else {
            text.push_str(&line(ban));
        }
        text.push('\n');
    }
    output::print(text.as_bytes())
}

/// `user "alice" at 10.0.0.7   until 2026-11-22T00:05:00Z   10 wrong passwords`
fn line(ban: &BanLine) -> String {
    let mut line = match ban.kind {
        Kind::Address => format!("address {}", ban.value),
        Kind::User => format!("user {:?}", ban.value),
        Kind::Client => format!("client {:?}", ban.value),
    };
    if let Some(at) = &ban.at {
        let _ = write!(line, " at {at}");
    }
    let end = ban
        .until
        .and_then(|until| OffsetDateTime::from_unix_timestamp(until as i64).ok());
    match end.and_then(|end| end.format(&Rfc3339).ok()) {
        Some(end) => {
            let _ = write!(line, "   until {end}");
        }
        None => line.push_str("   until it is lifted"),
    }
    let _ = match (ban.kind, ban.count) {
        (_, 0) if ban.note.is_empty() => Ok(()),
        (_, 0) => write!(line, "   {:?}", ban.note),
        (Kind::Client, count) => write!(line, "   {count} connections"),
        (_, count) => write!(line, "   {count} wrong passwords"),
    };
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ban_is_a_line_that_says_whom_where_how_long_and_why() {
        let ban = |kind, at: Option<&str>, until, count, note: &str| {
            let at = at.map(str::to_owned);
            let (value, note) = ("x".to_owned(), note.to_owned());
            line(&BanLine {
                kind,
                value,
                at,
                until,
                count,
                note,
            })
        };
        assert_eq!(
            ban(Kind::User, Some("10.0.0.7"), Some(1_795_305_900), 10, ""),
            "user \"x\" at 10.0.0.7   until 2026-11-22T00:05:00Z   10 wrong passwords"
        );
        assert_eq!(
            ban(Kind::Address, None, None, 0, "scans"),
            "address x   until it is lifted   \"scans\""
        );
        assert_eq!(
            ban(Kind::Client, Some("::/64"), None, 16, ""),
            "client \"x\" at ::/64   until it is lifted   16 connections"
        );
    }
}
