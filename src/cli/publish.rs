//! `sundew pub`: publishes messages. The options are those of `mosquitto_pub`.

use std::io::{self, BufRead, Read};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::{ArgGroup, Args};
use tokio::sync::mpsc;

use super::Exit;
use super::client::{ConnectArguments, Connecting, parse_qos, run_client};
use crate::client::{Event, Outgoing, RequestError};
use crate::protocol::qos::QoS;
use crate::protocol::reason::ReasonCode;
use crate::transport::client_driver::{ClientDriver, ClientError};

/// Publish messages
#[derive(Debug, Args)]
#[command(disable_help_flag = true, args_override_self = true, after_help = EXAMPLES)]
#[command(group = ArgGroup::new("payload").required(true))]
pub(super) struct Arguments {
    /// Where to publish
    #[arg(short, long, value_name = "TOPIC", allow_hyphen_values = true)]
    topic: Option<String>,
    /// The message
    #[arg(short, long, value_name = "TEXT", group = "payload", allow_hyphen_values = true)]
    message: Option<String>,
    /// The message is what is in the file
    #[arg(short, long, value_name = "FILE", group = "payload")]
    file: Option<PathBuf>,
    /// Every line of standard input is a message
    #[arg(short = 'l', long, group = "payload")]
    stdin_line: bool,
    /// The whole of standard input is the message
    #[arg(short = 's', long, group = "payload")]
    stdin_file: bool,
    /// The message is empty; with -r it removes what is retained
    #[arg(short = 'n', long, group = "payload")]
    null_message: bool,
    /// QoS 0, 1 or 2
    #[arg(short, long, value_name = "QOS", default_value = "0", value_parser = parse_qos)]
    qos: QoS,
    /// The broker keeps it for later subscribers
    #[arg(short, long)]
    retain: bool,
    /// Publish it so many times
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    repeat: u64,
    /// Wait between them
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0)]
    repeat_delay: f64,
    /// Messages of QoS 1 and 2 that are on their way at the same time, at most
    #[arg(short = 'M', long, value_name = "NUMBER", default_value_t = 20)]
    max_inflight: u16,
    #[command(flatten)]
    connect: ConnectArguments,
}

const EXAMPLES: &str = "\
Examples:
  sundew pub -t home/lamp -m on
  sundew pub -t home/lamp -m on -q 1 -r -h broker.example --cafile ca.pem
  tail -f log | sundew pub -t logs -l
  sundew pub -L mqtt://user:password@broker.example/lamp -n -r";

/// Lines that were read and not yet published.
const LINES_MAX: usize = 64;

pub(super) fn run(arguments: &Arguments) -> Exit {
    let connecting = arguments.connect.resolve().and_then(|connecting| {
        let topic = arguments.topic.clone().or_else(|| connecting.topic.clone());
        let topic = topic.ok_or("where to? give a topic with -t")?;
        let delay = Duration::try_from_secs_f64(arguments.repeat_delay);
        let delay = delay.map_err(|_| "--repeat-delay is not a time")?;
        Ok((connecting, topic, delay))
    });
    match connecting {
        Ok((connecting, topic, delay)) => {
            let connect = &arguments.connect;
            let version = connecting.client.version;
            run_client(connect, async {
                match publish(arguments, connecting, topic, delay).await {
                    Ok(exit) => exit,
                    Err(Failure::Client(error)) => connect.ended(&error, version),
                    Err(Failure::Request(error)) => connect.failed(error),
                    Err(Failure::Input(error)) => connect.failed(error),
                }
            })
        }
        Err(error) => arguments.connect.failed(error),
    }
}

enum Failure {
    Client(ClientError),
    Request(RequestError),
    Input(String),
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Self {
        Self::Request(error)
    }
}

async fn publish(
    arguments: &Arguments,
    mut connecting: Connecting,
    topic: String,
    delay: Duration,
) -> Result<Exit, Failure> {
    connecting.client.in_flight_max = arguments.max_inflight;
    let payload = arguments.payload().map_err(Failure::Input)?;
    let message = |payload: Bytes| Outgoing {
        topic: topic.clone(),
        payload,
        qos: arguments.qos,
        retain: arguments.retain,
        properties: connecting.properties.publish.clone(),
    };
    let mut publisher = Publisher {
        arguments,
        driver: connecting.driver(),
        exit: Exit::Done,
    };
    publisher.driver.connected().await?;
    if let Some(payload) = payload {
        for number in 0..arguments.repeat {
            if number > 0 && !delay.is_zero() {
                publisher.wait(delay).await?;
            }
            publisher.publish(message(payload.clone())).await?;
        }
    } else {
        let mut lines = read_lines();
        while let Some(line) = publisher.next_line(&mut lines).await? {
            let line = line.map_err(|error| Failure::Input(format!("cannot read standard input: {error}")))?;
            publisher.publish(message(line.into())).await?;
        }
    }
    while !publisher.driver.client().is_idle() {
        publisher.take_event().await?;
    }
    // What the server said of the last message may be waiting.
    while publisher.driver.client().has_events() {
        publisher.take_event().await?;
    }
    let disconnect = &connecting.properties.disconnect;
    publisher.driver.disconnect(ReasonCode::Success, disconnect.view());
    while publisher.driver.next_event().await.is_ok() {}
    Ok(publisher.exit)
}

struct Publisher<'a> {
    arguments: &'a Arguments,
    driver: ClientDriver,
    exit: Exit,
}

impl Publisher<'_> {
    async fn publish(&mut self, message: Outgoing) -> Result<(), Failure> {
        while !self.driver.client().can_publish() {
            self.take_event().await?;
        }
        self.driver.publish(message)?;
        Ok(())
    }

    async fn take_event(&mut self) -> Result<(), Failure> {
        let event = self.driver.next_event().await?;
        self.see(&event);
        Ok(())
    }

    fn see(&mut self, event: &Event) {
        let connect = &self.arguments.connect;
        connect.explain_event(event);
        match event {
            Event::Published(_, Ok(reason)) if reason.is_error() => {
                self.exit = connect.failed(format!("the server did not take the message: {}", reason.name()));
            }
            Event::Published(_, Err(error)) => self.exit = connect.failed(format!("not published: {error}")),
            _ => {}
        }
    }

    /// Serves the connection for a while.
    async fn wait(&mut self, time: Duration) -> Result<(), Failure> {
        let until = tokio::time::Instant::now() + time;
        while let Ok(event) = tokio::time::timeout_at(until, self.driver.next_event()).await {
            self.see(&event?);
        }
        Ok(())
    }

    /// The next line, while the connection is served.
    async fn next_line(
        &mut self,
        lines: &mut mpsc::Receiver<io::Result<Vec<u8>>>,
    ) -> Result<Option<io::Result<Vec<u8>>>, Failure> {
        loop {
            tokio::select! {
                biased;
                event = self.driver.next_event() => self.see(&event?),
                line = lines.recv() => return Ok(line),
            }
        }
    }
}

impl Arguments {
    /// The one message; `None` where the lines of standard input are the messages.
    fn payload(&self) -> Result<Option<Bytes>, String> {
        if let Some(text) = &self.message {
            return Ok(Some(text.clone().into()));
        }
        if let Some(file) = &self.file {
            let read = std::fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()));
            return read.map(|bytes| Some(bytes.into()));
        }
        if self.stdin_file {
            let mut bytes = Vec::new();
            let read = io::stdin().lock().read_to_end(&mut bytes);
            return match read {
                Ok(_) => Ok(Some(bytes.into())),
                Err(error) => Err(format!("cannot read standard input: {error}")),
            };
        }
        Ok(self.null_message.then(Bytes::new))
    }
}

/// Reads standard input in a thread of its own: it may wait for ever, the connection must not.
fn read_lines() -> mpsc::Receiver<io::Result<Vec<u8>>> {
    let (sender, lines) = mpsc::channel(LINES_MAX);
    std::thread::spawn(move || {
        let mut input = io::stdin().lock();
        loop {
            let mut line = Vec::new();
            let read = match input.read_until(b'\n', &mut line) {
                Ok(0) => return,
                Ok(_) => {
                    if line.last() == Some(&b'\n') {
                        line.pop();
                    }
                    Ok(line)
                }
                Err(error) => Err(error),
            };
            if sender.blocking_send(read).is_err() {
                return; // the client has ended
            }
        }
    });
    lines
}
