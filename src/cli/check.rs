//! `sundew check`: every mistake of a configuration, without starting anything.

use std::{fmt::Write, path::PathBuf};

use clap::Args;

use super::{Exit, output};
use crate::config::{self, Layers, Problem, reference::reference};

/// Show every mistake in a configuration, and start nothing
///
/// Prints one line per mistake, as FILE:LINE:COLUMN: error: what is wrong (what to do). The environment is looked at too.
/// Exit code 0: the broker would start with it. 78: it would not.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sundew check /etc/sundew/sundew.toml
  sundew check --reference | less            every option with its default and its cost")]
pub(super) struct Arguments {
    /// The file, with the drop-ins conf.d/*.toml beside it; without one, the defaults and the environment
    #[arg(env = "SUNDEW_CONFIG")]
    file: Option<PathBuf>,
    /// Print every option with its default and its cost, as a file that changes nothing
    #[arg(long)]
    reference: bool,
}

pub(super) fn run(arguments: &Arguments) -> Exit {
    if arguments.reference {
        return output::print(reference().as_bytes());
    }
    let layers = Layers::new(arguments.file.clone(), super::serve::environment()).with_certificates();
    let mut text = String::new();
    let exit = match config::load(&layers) {
        Ok(loaded) => {
            lines(&mut text, &loaded.warnings);
            let listeners = &loaded.config.listeners;
            let addresses: Vec<_> = listeners
                .iter()
                .flat_map(|listener| &listener.address)
                .map(ToString::to_string)
                .collect();
            let _ = writeln!(text, "ok, would listen on {}", addresses.join(", ")); // a String takes everything
            Exit::Done
        }
        Err(problems) => {
            lines(&mut text, &problems);
            Exit::Config
        }
    };
    match output::print(text.as_bytes()) {
        Exit::Done => exit,
        failed => failed,
    }
}

fn lines(text: &mut String, problems: &[Problem]) {
    for problem in problems {
        let _ = writeln!(text, "{problem}"); // a String takes everything
    }
}
