//! `sundew completions`: what a shell needs to complete our command line.

use clap::Args;

use super::{Exit, output};

/// Print completions for a shell
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sundew completions bash > /etc/bash_completion.d/sundew
  sundew completions zsh > ~/.zfunc/_sundew
  sundew completions fish > ~/.config/fish/completions/sundew.fish")]
pub(super) struct Arguments {
    /// The shell
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

pub(super) fn run(arguments: &Arguments, command: &mut clap::Command) -> Exit {
    let mut text = Vec::new();
    clap_complete::generate(arguments.shell, command, "sundew", &mut text);
    output::print(&text)
}
