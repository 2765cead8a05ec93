//! `sundew` without a subcommand: reads the configuration, starts the log, runs the broker.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use clap::Args;

use super::{Exit, descriptors::Connections, signals::Signals};
use crate::{
    backends::access::{AccessError, LiveAccess},
    broker::Parts,
    config::{self, Config, Layers, Listen, Loaded, Problem, schema},
    logging::{self, LogGuard},
    server::{Server, ServerOptions, StartError, reload::OnReload},
    storage::disk::OpenError,
    transport::{listener::ListenError, memory},
};

mod reloading;

use reloading::Reloading;

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
    let layers = arguments.layers(environment());
    let loaded = match config::load(&layers) {
        Ok(loaded) => loaded,
        Err(problems) => {
            print_problems(&problems);
            return Exit::Config;
        }
    };
    let log = match logging::start(&loaded.config.log_options()) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("{error}");
            return Exit::CannotCreate;
        }
    };
    let exit = serve(loaded, &layers);
    drop::<LogGuard>(log); // writes what still waits
    exit
}

fn serve(loaded: Loaded, layers: &Layers) -> Exit {
    for warning in &loaded.warnings {
        tracing::warn!(at = %warning.place, "{}", warning.message);
    }
    for file in &loaded.files {
        tracing::info!(file = %file.display(), "configuration read");
    }
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => {
            tracing::error!(%error, "cannot wait for signals");
            return Exit::Software;
        }
    };
    let config = &loaded.config;
    let on_reload = on_reload(Reloading::new(layers.clone(), &loaded));
    let access = match LiveAccess::start(config.access_options(), &config.hashing_options()) {
        Ok(access) => Arc::new(access),
        Err(error) => {
            tracing::error!("{error}");
            return match error {
                AccessError::Files(_) => Exit::Config,
                AccessError::Thread(_) | AccessError::Random => Exit::Software,
            };
        }
    };
    let connections = Connections::allowed(config.limits.connections_max.to_usize());
    let mut broker = config.broker_options();
    broker.memory_bytes_max = config.limits.memory_max.bytes_max(memory::available());
    let options = ServerOptions {
        listeners: config.listener_options(),
        broker,
        workers: config.worker_count(),
        placement: config.placement(),
        connections_max: connections.max,
        drain: config.shutdown.deadline,
        storage: config.storage_options(std::env::var_os("STATE_DIRECTORY")),
        access: Some(access),
        on_reload: Some(on_reload.clone()),
        watch_interval: Some(config.auth.watch_interval).filter(|interval| !interval.is_zero()),
        ..ServerOptions::default()
    };
    let server = match Server::start(options, Parts::default()) {
        Ok(server) => server,
        Err(error) => {
            tracing::error!("{error}");
            return exit_of(&error);
        }
    };
    for (listener, addresses) in server.addresses() {
        for address in addresses {
            tracing::info!(listener, %address, "listening");
        }
    }
    for listener in &config.listeners {
        let is_unix = |address: &&config::value::Address| matches!(address, config::value::Address::Unix(_));
        for address in listener.address.iter().filter(is_unix) {
            tracing::info!(listener = listener.name.as_deref(), %address, "listening");
        }
    }
    connections.report();
    if let Some(warning) = local_only_warning(&loaded) {
        tracing::warn!("{warning}");
    }
    for warning in open_to_everybody(config) {
        tracing::warn!("{warning}");
    }
    let signal = reload_until_stop(&mut signals, &server, &on_reload);
    stop(signals, server, signal, config.shutdown.deadline)
}

/// At SIGHUP and for `sundew reload`, one after the other.
fn on_reload(reloading: Reloading) -> OnReload {
    let reloading = Mutex::new(reloading);
    OnReload(Arc::new(move |reloader| {
        let mut reloading = reloading.lock().unwrap_or_else(PoisonError::into_inner);
        reloading.read_again(reloader)
    }))
}

/// Reads again what counts at once, at SIGHUP. Returns the signal that asks to stop.
fn reload_until_stop(signals: &mut Signals, server: &Server, on_reload: &OnReload) -> &'static str {
    loop {
        match signals.wait() {
            Signals::RELOAD => drop(on_reload.0(server.reloader())), // the log tells
            signal => return signal,
        }
    }
}

fn stop(mut signals: Signals, server: Server, signal: &'static str, drain: Duration) -> Exit {
    tracing::info!(signal, deadline = ?drain, "stopping; once more stops at once");
    // Draining waits in a thread of its own, so that a second signal is heard.
    let (stopped, is_stopped) = std::sync::mpsc::sync_channel(1);
    let draining = std::thread::Builder::new().name("drain".to_owned()).spawn(move || {
        let _ = stopped.send(server.stop()); // nobody listens after a second signal
    });
    if let Err(error) = draining {
        tracing::warn!(%error, "cannot drain, stopping at once");
        return Exit::Done;
    }
    match signals.wait_or(&is_stopped) {
        Some(true) => tracing::info!("stopped"),
        Some(false) => tracing::warn!(deadline = ?drain, "stopped; some clients did not go in time"),
        None => tracing::warn!("stopped at once"),
    }
    Exit::Done
}

/// What the operator can do about it decides the exit code.
fn exit_of(error: &StartError) -> Exit {
    let error = match error {
        StartError::Listen(error) => error,
        StartError::Store(OpenError::Directory { .. }) => return Exit::CannotCreate,
        StartError::Store(OpenError::Lock { .. }) => return Exit::Unavailable,
        StartError::Store(OpenError::Recover { .. }) => return Exit::Data,
        StartError::Thread(_) => return Exit::Software,
    };
    match error {
        ListenError::NotAllowed { .. } => Exit::NotAllowed,
        ListenError::Path { .. } => Exit::CannotCreate,
        ListenError::NoAddress { .. } => Exit::Config,
        _ => Exit::Unavailable,
    }
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
    // The command opens what was listed, on all addresses: nothing is lost by following it.
    let open: Vec<_> = listeners
        .iter()
        .filter_map(|listener| {
            let port = listener.address.iter().find_map(|address| match address {
                config::value::Address::Tcp(address) => Some(address.port()),
                _ => None,
            })?;
            let scheme = if listener.protocol == schema::Protocol::WebSocket {
                "ws://"
            } else {
                ""
            };
            Some(format!("--listen {scheme}0.0.0.0:{port}"))
        })
        .collect();
    let open = open.join(" ");
    Some(format!(
        "listening on {list} only, other machines are refused; to open: sundew {open} --anonymous"
    ))
}

/// Listeners where whoever reaches them reads and writes everything.
pub(super) fn open_to_everybody(config: &Config) -> impl Iterator<Item = String> + '_ {
    let asks_certificate = |listener: &schema::Listener| {
        let tls = listener.tls.as_ref();
        tls.is_some_and(|tls| tls.client_certificate == schema::ClientCertificate::Required)
    };
    let is_open = move |listener: &&schema::Listener| {
        let is_ruled = !config.auth.rules.is_empty() || config.auth.acl_file.is_some() || listener.acl_file.is_some();
        listener.lets_everyone_in(&config.auth) && !listener.is_local() && !asks_certificate(listener) && !is_ruled
    };
    config.listeners.iter().filter(is_open).map(|listener| {
        let addresses: Vec<_> = listener.address.iter().map(ToString::to_string).collect();
        format!(
            "whoever reaches {} reads and writes everything; to close: auth.allow_anonymous = false, or certificates for clients",
            addresses.join(" or ")
        )
    })
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
