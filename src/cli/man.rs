//! `sundew man`: manual pages made from the same declarations as `--help`.

use std::path::PathBuf;

use clap::Args;

use super::{Exit, output};

/// Print the manual page, or write the pages of all commands into a folder
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sundew man | man -l -
  sundew man /usr/local/share/man/man1")]
pub(super) struct Arguments {
    /// The folder; without one, the page of `sundew` itself is printed
    folder: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments, command: clap::Command) -> Exit {
    let written = match &arguments.folder {
        Some(folder) => clap_mangen::generate_to(command, folder)
            .map_err(|error| format!("cannot write into {}: {error}", folder.display())),
        None => {
            let mut text = Vec::new();
            match clap_mangen::Man::new(command).render(&mut text) {
                Ok(()) => return output::print(&text),
                Err(error) => Err(format!("cannot make the page: {error}")),
            }
        }
    };
    match written {
        Ok(()) => Exit::Done,
        Err(message) => {
            eprintln!("{message}");
            Exit::CannotCreate
        }
    }
}
