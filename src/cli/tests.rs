//! What the command line makes of flags.

use clap::{CommandFactory, Parser};

use super::{Cli, serve};
use crate::config::{Config, load, schema};

fn config(line: &str) -> Result<Config, String> {
    let cli = Cli::try_parse_from(line.split(' ')).map_err(|error| error.to_string())?;
    let loaded = load(&cli.serve.layers(Vec::new()));
    loaded
        .map(|loaded| loaded.config)
        .map_err(|problems| problems[0].to_string())
}

fn addresses(config: &Config) -> Vec<String> {
    let of = |listener: &schema::Listener| -> Vec<_> { listener.address.iter().map(ToString::to_string).collect() };
    config.listeners.iter().flat_map(of).collect()
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn without_a_flag_this_machine_is_served() {
    let config = config("sundew").unwrap();
    assert_eq!(
        addresses(&config),
        ["127.0.0.1:1883", "[::1]:1883", "127.0.0.1:9001", "[::1]:9001"]
    );
    assert_eq!(config.auth.allow_anonymous, schema::Anonymous::Auto);
}

#[test]
fn the_letters_of_mosquitto_work() {
    let config = config("sundew -v -p 1884").unwrap();
    assert_eq!(addresses(&config), ["127.0.0.1:1884", "[::1]:1884"]);
    assert_eq!(config.log.level.0, "debug");
}

#[test]
fn listen_replaces_the_listeners_and_may_be_repeated() {
    let config =
        config("sundew --listen 0.0.0.0:1883 --listen ws://0.0.0.0:9001 --anonymous --workers 2 --log-format json")
            .unwrap();
    assert_eq!(addresses(&config), ["0.0.0.0:1883", "0.0.0.0:9001"]);
    assert_eq!(config.listeners[1].protocol, schema::Protocol::WebSocket);
    assert_eq!(config.listeners[1].name.as_deref(), Some("ws"));
    assert_eq!(config.auth.allow_anonymous, schema::Anonymous::Everywhere);
    assert_eq!(config.log.format, schema::LogFormat::Json);
}

#[test]
fn a_wrong_flag_is_named() {
    assert_eq!(
        config("sundew --listen localhost").unwrap_err(),
        "flag --listen: error: listeners[0].address[0]: expected an address with a port such as \"0.0.0.0:1883\" or \
         \"[::]:1883\", or \"unix:/path\", found \"localhost\""
    );
    assert_eq!(
        config("sundew --workers 0").unwrap_err(),
        "flag --workers: error: workers.count: 0 is out of range, expected 1 to 1024"
    );
}

#[test]
fn the_one_warning_without_a_configuration_has_the_command_that_opens_it() {
    let loaded = load(&serve::Arguments::default().layers(Vec::new())).unwrap();
    assert_eq!(
        serve::local_only_warning(&loaded).unwrap(),
        "listening on 127.0.0.1:1883, [::1]:1883, 127.0.0.1:9001 and [::1]:9001 only, other machines are refused; \
         to open: sundew --listen 0.0.0.0:1883 --listen ws://0.0.0.0:9001 --anonymous"
    );
}

#[test]
fn a_listener_that_is_open_to_everybody_is_said_to_be() {
    let open = config("sundew --listen 0.0.0.0:1883 --listen ws://127.0.0.1:9001 --anonymous").unwrap();
    assert_eq!(
        serve::open_to_everybody(&open).collect::<Vec<_>>(),
        [
            "whoever reaches 0.0.0.0:1883 reads and writes everything; to close: auth.allow_anonymous = false, or certificates \
          for clients"
        ]
    );
    assert_eq!(serve::open_to_everybody(&config("sundew").unwrap()).count(), 0);
}

/// -1 would be every process of the user.
#[test]
fn a_process_is_named_by_a_number_above_zero() {
    let parse = |pid: &str| Cli::try_parse_from(["sundew", "reload", pid]).is_ok();
    assert!(parse("--pid=1"));
    assert!(!parse("--pid=-1") && !parse("--pid=0"));
}
