//! How commands end, in the numbers of sysexits.h, so that a service manager and a script can tell why.

use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// As asked.
    Done = 0,
    /// `sundew pub` and `sundew sub`: it did not work. The number that mosquitto's tools have.
    Failed = 1,
    /// `sundew sub -W`: the time is over. The number that mosquitto's tools have.
    TimedOut = 27,
    /// The command line is wrong (EX_USAGE).
    Usage = 64,
    /// An address is in use or not there, or the other side does not answer (EX_UNAVAILABLE).
    Unavailable = 69,
    /// A fault of our own (EX_SOFTWARE).
    Software = 70,
    /// A file or socket cannot be made (EX_CANTCREAT).
    CannotCreate = 73,
    /// The system does not allow it (EX_NOPERM).
    NotAllowed = 77,
    /// The configuration is wrong (EX_CONFIG).
    Config = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
