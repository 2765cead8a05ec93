//! `sundew sub`: prints messages. The options are those of `mosquitto_sub`.

use std::io::{self, Write};
use std::time::Duration;

use clap::{ArgAction, Args};
use tokio::signal::unix::{SignalKind, signal};

use super::Exit;
use super::client::{ConnectArguments, Connecting, parse_qos, run_client};
use super::message_format::MessageFormat;
use crate::client::{Event, Outgoing, Received};
use crate::protocol::packet::{RetainHandling, SubscriptionOptions};
use crate::protocol::qos::QoS;
use crate::protocol::reason::ReasonCode;
use crate::protocol::topic::{TopicFilter, matches};
use crate::transport::client_driver::{ClientDriver, ClientError, Reconnect};

/// Subscribe and print messages
#[derive(Debug, Args)]
#[command(disable_help_flag = true, args_override_self = true, after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// What to subscribe to; may be repeated
    #[arg(short, long, value_name = "FILTER", allow_hyphen_values = true)]
    topic: Vec<String>,
    /// Do not print messages of these topics; may be repeated
    #[arg(short = 'T', long, value_name = "FILTER", allow_hyphen_values = true)]
    filter_out: Vec<String>,
    /// Unsubscribe from this first, with -c; may be repeated
    #[arg(short = 'U', long, value_name = "FILTER", allow_hyphen_values = true)]
    unsubscribe: Vec<String>,
    /// QoS 0, 1 or 2
    #[arg(short, long, value_name = "QOS", default_value = "0", value_parser = parse_qos)]
    qos: QoS,
    /// Print the topic before the message
    #[arg(short, long)]
    verbose: bool,
    /// End after so many messages
    #[arg(short = 'C', long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after so many seconds, with exit code 27
    #[arg(short = 'W', long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    timeout: Option<u64>,
    /// What to print for a message
    ///
    /// %t topic, %p payload, %x %X payload in hexadecimal, %l its length, %q QoS, %r retained, %d sent before, %m packet id, %j all
    /// as JSON, %J the same with a payload that is JSON itself, %I %U the time (ISO 8601, seconds since 1970), %C content type,
    /// %D correlation data, %E expiry interval, %F payload format, %P user properties, %R response topic, %S subscription
    /// identifiers, %% a per cent sign; @Y @m @d @H @M @S @N and so on: the time as strftime has it; \n \t \0 \e and so on.
    /// Between % and the letter: width, .precision, - for the left, 0 for zeros.
    #[arg(short = 'F', long, value_name = "FORMAT", allow_hyphen_values = true)]
    format: Option<String>,
    /// No newline after a message
    #[arg(short = 'N', long)]
    no_newline: bool,
    /// Do not print retained messages
    #[arg(short = 'R', long = "no-retained", conflicts_with = "retained_only")]
    no_stale: bool,
    /// Print retained messages only, and end with the first that is not
    #[arg(long)]
    retained_only: bool,
    /// Remove every retained message that comes, except those of -T
    #[arg(long)]
    remove_retained: bool,
    /// End once the broker has answered the subscription
    #[arg(short = 'E', long)]
    exit_after_subscribe: bool,
    /// Do not send us what we publish ourselves (MQTT 5)
    #[arg(long)]
    no_local: bool,
    /// Leave the retain flag as the publisher set it (MQTT 5)
    #[arg(long)]
    retain_as_published: bool,
    /// Retained messages: always, new (a new subscription only) or never (MQTT 5)
    #[arg(long, value_name = "WHEN", value_parser = parse_retain_handling, action = ArgAction::Set)]
    retain_handling: Option<RetainHandling>,
    #[command(flatten)]
    connect: ConnectArguments,
}

const EXAMPLES: &str = "\
Examples:
  sundew sub -t 'home/#' -v
  sundew sub -t home/lamp -C 1 -W 5                      the next message, or exit code 27 after 5 s
  sundew sub -t '#' -F '%I %t %p'
  sundew sub -t 'orders/#' -q 1 -c -i printer            misses nothing while it is away
  sundew sub -t 'home/#' --retained-only --remove-retained -W 2";

pub(super) fn run(arguments: &Arguments) -> Exit {
    let resolved = arguments.connect.resolve().and_then(|connecting| {
        let mut filters = arguments.topic.clone();
        filters.extend(connecting.topic.clone());
        if filters.is_empty() && arguments.unsubscribe.is_empty() {
            return Err("to what? give a topic filter with -t, for example -t '#' for everything".to_owned());
        }
        for filter in filters
            .iter()
            .chain(&arguments.filter_out)
            .chain(&arguments.unsubscribe)
        {
            TopicFilter::parse(filter).map_err(|error| format!("the topic filter {filter:?} {error}"))?;
        }
        let format = arguments.format.as_deref().map(MessageFormat::parse).transpose()?;
        Ok((connecting, filters, format))
    });
    match resolved {
        Ok((connecting, filters, format)) => {
            run_client(&arguments.connect, subscribe(arguments, &connecting, filters, format))
        }
        Err(error) => arguments.connect.failed(error),
    }
}

async fn subscribe(
    arguments: &Arguments,
    connecting: &Connecting,
    filters: Vec<String>,
    format: Option<MessageFormat>,
) -> Exit {
    let mut subscriber = Subscriber {
        arguments,
        connecting,
        filters,
        format,
        driver: connecting.driver(),
        left: arguments.count,
    };
    // Time counts from the start, so that a broker that is not there is given up too.
    let timeout = async {
        match arguments.timeout {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    };
    let exit = tokio::select! {
        exit = subscriber.serve() => exit,
        () = timeout => Exit::TimedOut,
        () = asked_to_stop() => Exit::Done,
    };
    subscriber.leave().await;
    exit
}

/// Ctrl-C, or SIGTERM.
async fn asked_to_stop() {
    match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
        (Ok(mut interrupt), Ok(mut terminate)) => tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        },
        // Then the system ends us in its own way.
        _ => std::future::pending().await,
    }
}

struct Subscriber<'a> {
    arguments: &'a Arguments,
    connecting: &'a Connecting,
    filters: Vec<String>,
    format: Option<MessageFormat>,
    driver: ClientDriver,
    left: Option<u64>,
}

impl Subscriber<'_> {
    async fn serve(&mut self) -> Exit {
        let connect = &self.arguments.connect;
        loop {
            let event = match self.driver.next_event().await {
                Ok(event) => event,
                Err(error) => return connect.ended(&error, self.connecting.client.version),
            };
            connect.explain_event(&event);
            match event {
                Event::Connected(_) => {
                    // Where we got in once we come back.
                    self.driver.set_reconnect(Some(Reconnect::default()));
                    if let Err(error) = self.ask() {
                        return connect.failed(error);
                    }
                }
                Event::Subscribed(_, reasons) => {
                    if let Some(exit) = self.subscribed(&reasons) {
                        return exit;
                    }
                }
                Event::Unsubscribed(..) if self.filters.is_empty() => return Exit::Done,
                Event::Message(message) => match self.take(&message) {
                    Ok(None) => {}
                    Ok(Some(exit)) => return exit,
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Exit::Done,
                    Err(error) => return connect.failed(format!("cannot write to standard output: {error}")),
                },
                Event::Disconnected(fault) => connect.complain(format!("{fault}; connecting again")),
                _ => {}
            }
        }
    }

    fn ask(&mut self) -> Result<(), crate::client::RequestError> {
        let properties = &self.connecting.properties;
        if !self.arguments.unsubscribe.is_empty() {
            let filters: Vec<_> = self.arguments.unsubscribe.iter().map(String::as_str).collect();
            self.driver.unsubscribe(&filters, properties.unsubscribe.view())?;
        }
        if self.filters.is_empty() {
            return Ok(());
        }
        let options = SubscriptionOptions {
            qos: self.arguments.qos,
            no_local: self.arguments.no_local,
            retain_as_published: self.arguments.retain_as_published,
            retain_handling: self.arguments.retain_handling.unwrap_or_default(),
        };
        let filters: Vec<_> = self.filters.iter().map(|filter| (filter.as_str(), options)).collect();
        self.driver.subscribe(&filters, properties.subscribe.view())?;
        Ok(())
    }

    fn subscribed(&self, reasons: &[ReasonCode]) -> Option<Exit> {
        let connect = &self.arguments.connect;
        for (filter, reason) in self.filters.iter().zip(reasons).filter(|(_, reason)| reason.is_error()) {
            connect.complain(format!(
                "the server refused the subscription to {filter:?}: {}",
                reason.name()
            ));
        }
        if reasons.iter().all(|reason| reason.is_error()) {
            return Some(Exit::Failed);
        }
        self.arguments.exit_after_subscribe.then_some(Exit::Done)
    }

    /// Prints a message; says how to end where it was the last.
    fn take(&mut self, message: &Received) -> io::Result<Option<Exit>> {
        let arguments = self.arguments;
        if arguments.retained_only && !message.retain {
            return Ok(Some(Exit::Done));
        }
        let is_filtered = arguments
            .filter_out
            .iter()
            .any(|filter| matches(filter, &message.topic));
        if is_filtered || (arguments.no_stale && message.retain) {
            return Ok(None);
        }
        if arguments.remove_retained && message.retain {
            let removal = Outgoing::new(message.topic.as_str(), "").retained();
            if let Err(error) = self.driver.publish(removal) {
                arguments.connect.complain(format!("not removed: {error}"));
            }
        }
        self.print(message)?;
        if let Some(left) = &mut self.left {
            *left -= 1;
            if *left == 0 {
                return Ok(Some(Exit::Done));
            }
        }
        Ok(None)
    }

    fn print(&self, message: &Received) -> io::Result<()> {
        let mut line = Vec::with_capacity(message.payload.len() + message.topic.len() + 2);
        if let Some(format) = &self.format {
            if let Err(error) = format.write(message, &mut line) {
                self.arguments.connect.complain(error);
                return Ok(());
            }
        } else if self.arguments.verbose {
            line.extend_from_slice(message.topic.as_bytes());
            line.push(b' ');
            line.extend_from_slice(if message.payload.is_empty() {
                b"(null)"
            } else {
                &message.payload
            });
        } else if message.payload.is_empty() {
            return Ok(());
        } else {
            line.extend_from_slice(&message.payload);
        }
        if !self.arguments.no_newline {
            line.push(b'\n');
        }
        let mut out = io::stdout().lock();
        out.write_all(&line)?;
        out.flush()
    }

    /// Says goodbye, after what is still to be said.
    async fn leave(&mut self) {
        let last = async {
            while self.driver.client().is_connected() && !self.driver.client().is_idle() {
                if self.driver.next_event().await.is_err() {
                    return;
                }
            }
            self.driver
                .disconnect(ReasonCode::Success, self.connecting.properties.disconnect.view());
            loop {
                match self.driver.next_event().await {
                    Ok(_) => {}
                    Err(ClientError::Done | ClientError::Connect(_) | ClientError::Fault(_)) => return,
                }
            }
        };
        let _ = tokio::time::timeout(LEAVE_MAX, last).await; // the network may be gone
    }
}

/// For saying goodbye, at most.
const LEAVE_MAX: Duration = Duration::from_secs(2);

fn parse_retain_handling(text: &str) -> Result<RetainHandling, &'static str> {
    match text {
        "always" | "0" => Ok(RetainHandling::Send),
        "new" | "1" => Ok(RetainHandling::SendIfNew),
        "never" | "2" => Ok(RetainHandling::DoNotSend),
        _ => Err("give always, new or never"),
    }
}
