//! Passwords from people and from programs; never from the command line, where everybody on the machine reads them.

use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader, Write as _};

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use crate::backends::hashing::PASSWORD_BYTES_MAX;

/// The first line of standard input, without its end.
pub(super) fn read_stdin() -> Result<Vec<u8>, String> {
    first_line(io::stdin().lock())
}

fn first_line(input: impl BufRead) -> Result<Vec<u8>, String> {
    let mut line = Vec::new();
    let limit = PASSWORD_BYTES_MAX as u64 + 2;
    let read = input.take(limit).read_until(b'\n', &mut line);
    read.map_err(|error| format!("cannot read the password from standard input: {error}"))?;
    if line.ends_with(b"\n") {
        line.pop();
    }
    if line.ends_with(b"\r") {
        line.pop();
    }
    check(line)
}

/// Asks for a new password, twice, on the terminal, without showing it.
pub(super) fn ask_new(user: &str) -> Result<Vec<u8>, String> {
    let password = ask(&format!("Password for {user}: "))?;
    if ask("The same again: ")? != password {
        return Err("these were two different passwords; nothing was changed".into());
    }
    Ok(password)
}

/// Asks for a password that is there, once.
pub(super) fn ask_known(user: &str, of: &str) -> Result<Vec<u8>, String> {
    ask(&format!("Password of {user} at {of}: "))
}

fn ask(question: &str) -> Result<Vec<u8>, String> {
    let fault = |error: io::Error| {
        format!(
            "there is no terminal to ask for the password ({error}); give it with --stdin, or in the environment where the help says so"
        )
    };
    let mut terminal = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/tty")
        .map_err(fault)?;
    terminal.write_all(question.as_bytes()).map_err(fault)?;
    let shown = tcgetattr(&terminal).map_err(|error| fault(error.into()))?;
    let mut hidden = shown.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&terminal, OptionalActions::Flush, &hidden).map_err(|error| fault(error.into()))?;
    let password = first_line(BufReader::new(&terminal));
    let restored = tcsetattr(&terminal, OptionalActions::Flush, &shown);
    let _ = terminal.write_all(b"\n"); // a line that is missing harms nobody
    restored.map_err(|error| fault(error.into()))?;
    password
}

fn check(password: Vec<u8>) -> Result<Vec<u8>, String> {
    if password.is_empty() {
        return Err("the password is empty; nothing was changed".into());
    }
    if password.len() > PASSWORD_BYTES_MAX {
        return Err(format!(
            "the password is longer than {PASSWORD_BYTES_MAX} bytes; MQTT cannot carry it"
        ));
    }
    Ok(password)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_the_first_line_whatever_it_ends_with() {
        for text in ["se cret", "se cret\n", "se cret\r\n", "se cret\nmore\n"] {
            assert_eq!(first_line(text.as_bytes()).unwrap(), b"se cret");
        }
        assert!(first_line(&b"\n"[..]).is_err());
        assert!(first_line(&vec![b'x'; PASSWORD_BYTES_MAX + 1][..]).is_err());
    }
}
