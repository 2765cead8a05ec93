//! Printing that survives `| head`.

use std::io::{self, Write};

use super::Exit;

/// Writes `text` to standard output. A reader that left is no fault.
pub(super) fn print(text: &[u8]) -> Exit {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Ok(()) => Exit::Done,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
        Err(error) => {
            eprintln!("cannot write to standard output: {error}");
            Exit::CannotCreate
        }
    }
}
