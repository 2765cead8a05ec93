//! `sundew` without a subcommand: reads the configuration, starts the log, runs the broker.

use std::path::PathBuf;

use clap::Args;

use super::Exit;
use crate::{
    config::{self, Layers, Listen, Loaded, Problem, schema},
    logging::{self, LogFormat, LogGuard, LogOptions, LogTarget},
};

#[derive(Debug, Default, Args)]
pub(super) struct Arguments {
    /// Read this configuration file, and the drop-ins conf.d/*.toml beside it
    #[arg(short, long, value_name = "FILE", env = "SUNDEW_CONFIG")]
    config: Option<PathBuf>,
    /// Serve this machine on PORT, instead of the configured listeners
    #[arg(short, long, value_name = "PORT")]
    port: Option<u16>,
    /// Listen on ADDRESS instead of the configured listeners; may be repeated
    ///
    /// ADDRESS is IP:PORT, ws://IP:PORT for WebSocket, or unix:PATH. 0.0.0.0 is every IPv4 address of this machine, [::] every
    /// IPv6 one.
    #[arg(short, long, value_name = "ADDRESS")]
    listen: Vec<String>,
    /// Let clients in without user name and password, wherever they come from
    #[arg(short, long)]
    anonymous: bool,
    /// Say more about what happens: log.level = "debug"
    #[arg(short, long)]
    verbose: bool,
    /// Log lines as text for people or as JSON for machines
    #[arg(long, value_name = "text|json")]
    log_format: Option<String>,
    /// Threads that carry connections [default: one a core]
    #[arg(short, long, value_name = "NUMBER")]
    workers: Option<String>,
    /// Not there: a service manager runs Sundew in the background
    #[arg(short, long, hide = true)]
    daemon: bool,
}

/// Answer to `-d`, which mosquitto has.
const NO_DAEMON: &str = "sundew stays in the foreground, leave -d out; to run it as a service, give systemd a unit with \
                         ExecStart=/usr/bin/sundew -c /etc/sundew/sundew.toml";

pub(super) fn run(arguments: Arguments) -> Exit {
    if arguments.daemon {
        eprintln!("{NO_DAEMON}");
        return Exit::Usage;
    }
    let loaded = match config::load(&arguments.layers(environment())) {
        Ok(loaded) => loaded,
        Err(problems) => {
            print_problems(&problems);
            return Exit::Config;
        }
    };
    let log = match logging::start(&log_options(&loaded.config.log)) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("{error}");
            return Exit::CannotCreate;
        }
    };
    let exit = serve(loaded);
    drop::<LogGuard>(log); // writes what still waits
    exit
}

fn serve(loaded: Loaded) -> Exit {
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    for file in &loaded.files {
        tracing::info!(file = %file.display(), "configuration read");
    }
    if let Some(warning) = local_only_warning(&loaded) {
        tracing::warn!("{warning}");
    }
    tracing::error!("this build has no broker in it yet");
    Exit::Unavailable
}

/// The environment of this process, names and values that are not UTF-8 left out: no option is.
pub(super) fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

fn print_problems(problems: &[Problem]) {
    for problem in problems {
        eprintln!("{problem}");
    }
}

/// Without a configuration nobody but this machine is served: say so, with the command that changes it.
pub(super) fn local_only_warning(loaded: &Loaded) -> Option<String> {
    let listeners = &loaded.config.listeners;
    if !loaded.files.is_empty() || !listeners.iter().all(schema::Listener::is_local) {
        return None;
    }
    let addresses: Vec<_> = listeners
        .iter()
        .flat_map(|listener| &listener.address)
        .map(ToString::to_string)
        .collect();
    let (last, others) = addresses.split_last()?;
    let list = if others.is_empty() {
        last.clone()
    } else {
        format!("{} and {last}", others.join(", "))
    };
    Some(format!(
        "listening on {list} only, other machines are refused; to open: sundew --listen 0.0.0.0:1883 --anonymous"
    ))
}

fn log_options(log: &schema::Log) -> LogOptions {
    LogOptions {
        filter: log.level.0.clone(),
        format: match log.format {
            schema::LogFormat::Text => LogFormat::Text,
            schema::LogFormat::Json => LogFormat::Json,
        },
        target: match (log.target, &log.file) {
            (schema::LogTarget::File, Some(file)) => LogTarget::File(file.clone()),
            (schema::LogTarget::Stdout, _) => LogTarget::Stdout,
            _ => LogTarget::Stderr,
        },
        lines_max: log.lines_max as usize,
    }
}

impl Arguments {
    /// These flags over `environment` over the file they name.
    pub(super) fn layers(&self, environment: Vec<(String, String)>) -> Layers {
        let mut layers = Layers::new(self.config.clone(), environment);
        let mut listen = Vec::new();
        if let Some(port) = self.port {
            listen.push(Listen::mqtt("-p", format!("127.0.0.1:{port},[::1]:{port}")));
        }
        listen.extend(self.listen.iter().map(|address| match address.strip_prefix("ws://") {
            Some(address) => Listen::websocket("--listen", address.trim_end_matches('/')),
            None => Listen::mqtt("--listen", address.strip_prefix("mqtt://").unwrap_or(address)),
        }));
        layers.listen(&listen);
        if self.anonymous {
            layers.set("--anonymous", "auth.allow_anonymous", "true");
        }
        if self.verbose {
            layers.set("-v", "log.level", "debug");
        }
        if let Some(format) = &self.log_format {
            layers.set("--log-format", "log.format", format);
        }
        if let Some(workers) = &self.workers {
            layers.set("--workers", "workers.count", workers);
        }
        layers
    }
}
