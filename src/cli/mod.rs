//! Layer 9: the command line, one file per subcommand. It reads flags, prints for people, and decides nothing about MQTT.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "printing is what a command line is for"
)]

mod auth;
mod ban;
mod bench;
mod certs;
mod check;
mod client;
mod completions;
mod descriptors;
mod exit;
pub mod import;
mod man;
mod message_format;
mod output;
mod password_prompt;
mod publish;
mod reload;
mod serve;
mod signals;
mod store;
mod subscribe;
mod user;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

pub use exit::Exit;

/// An MQTT broker for versions 3.1, 3.1.1 and 5.0, over TCP, TLS and WebSocket.
///
/// Without a subcommand it serves. Without a configuration it serves programs of this machine only: MQTT on port 1883,
/// WebSocket on port 9001.
#[derive(Debug, Parser)]
#[command(name = "sundew", version, after_long_help = EXAMPLES, after_help = SHORT_EXAMPLES)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(flatten)]
    serve: serve::Arguments,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Auth(auth::Arguments),
    Ban(ban::Arguments),
    Bench(Box<bench::Arguments>),
    Certs(certs::Arguments),
    Check(check::Arguments),
    Completions(completions::Arguments),
    Import(import::Arguments),
    Man(man::Arguments),
    #[command(name = "pub")]
    Publish(Box<publish::Arguments>),
    Reload(reload::Arguments),
    Store(store::Arguments),
    #[command(name = "sub")]
    Subscribe(Box<subscribe::Arguments>),
    User(user::Arguments),
}

const SHORT_EXAMPLES: &str = "\
Examples:
  sundew                                     serve this machine
  sundew --listen 0.0.0.0:1883 --anonymous   serve everybody who reaches port 1883
  sundew -c /etc/sundew/sundew.toml          serve as the file says; `sundew check FILE` looks for mistakes in it
  sundew sub -t 'home/#' -v                  print messages
  sundew pub -t home/lamp -m on              publish one

--help says more.";

const EXAMPLES: &str = "\
Examples:
  sundew                                     serve this machine
  sundew -v                                  the same, and say more about what happens
  sundew -p 1884                             serve this machine on another port
  sundew --listen 0.0.0.0:1883 --anonymous   serve everybody who reaches port 1883
  sundew --listen 0.0.0.0:1883 --listen ws://0.0.0.0:9001 --anonymous
                                             the same, and browsers
  sundew -c /etc/sundew/sundew.toml          serve as the file says
  sundew check /etc/sundew/sundew.toml       show every mistake in the file, start nothing
  sundew check --reference                   show every option with its default and its cost
  sundew sub -t 'home/#' -v                  print messages; options as mosquitto_sub has them
  sundew pub -t home/lamp -m on              publish one; options as mosquitto_pub has them
  sundew user add alice                      a user with a password; see `sundew user --help`
  sundew auth explain --user alice           why may she, or may she not? see `sundew auth explain --help`
  sundew ban list                            who is kept out? see `sundew ban --help`
  sundew import mosquitto mosquitto.conf     moving from mosquitto; see `sundew import mosquitto --help`
  sundew store verify                        is what the broker keeps sound? see `sundew store --help`
  sundew bench pairs                         how fast is a broker, any broker? see `sundew bench --help`

Configuration:
  Options come from the file, the drop-ins conf.d/*.toml beside it, the environment and the flags; the later win.
  An option of the file is SUNDEW__SECTION__NAME in the environment: SUNDEW__LIMITS__PACKET_BYTES_MAX=64MiB.

Signals:
  SIGHUP             read users, rules and certificates again, as `sundew reload`
  SIGTERM, Ctrl-C    stop accepting, send what waits, tell clients, end within shutdown.deadline; a second one: at once

Exit codes:
   0  ended as asked
   1  it did not work, is damaged, or is denied; pub, sub: other numbers: the broker's refusal, as mosquitto's tools have it
   2  import: not everything could be carried; what could not is listed
   3  auth explain: not known, since a program that is not asked here decides
  27  sub -W: the time is over
  64  the command line is wrong
  65  files of the store are damaged and storage.on_corruption refuses that, or they are of a newer version
  69  an address or the storage directory is in use, or not there
  70  a fault of Sundew's own
  73  a file or socket cannot be made
  77  the system does not allow it, such as a port below 1024
  78  the configuration is wrong";

/// Reads the command line of this process and does what it says.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Asking for help or the version is no mistake.
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Done };
            let _ = error.print(); // nobody is left to tell when standard error is closed
            return exit.into();
        }
    };
    run(cli).into()
}

fn run(cli: Cli) -> Exit {
    match cli.command {
        None => serve::run(cli.serve),
        Some(Command::Bench(arguments)) => bench::run(&arguments),
        Some(Command::Auth(arguments)) => auth::run(&arguments),
        Some(Command::Ban(arguments)) => ban::run(&arguments),
        Some(Command::Certs(arguments)) => certs::run(arguments),
        Some(Command::Check(arguments)) => check::run(&arguments),
        Some(Command::Completions(arguments)) => completions::run(&arguments, &mut Cli::command()),
        Some(Command::Import(arguments)) => import::run(&arguments),
        Some(Command::Man(arguments)) => man::run(&arguments, Cli::command()),
        Some(Command::Publish(arguments)) => publish::run(&arguments),
        Some(Command::Reload(arguments)) => reload::run(&arguments),
        Some(Command::Store(arguments)) => store::run(&arguments),
        Some(Command::Subscribe(arguments)) => subscribe::run(&arguments),
        Some(Command::User(arguments)) => user::run(&arguments),
    }
}

#[cfg(test)]
mod tests;
