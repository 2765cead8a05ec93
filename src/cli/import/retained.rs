//! Retained messages of a broker that is at work: all of them read, and published somewhere else.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

use crate::cli::client::Server;
use crate::client::{ClientOptions, Event, Fault, Outgoing, Received, RequestError};
use crate::protocol::packet::{RetainHandling, SubscriptionOptions};
use crate::protocol::property::{Properties, PropertiesBuf, PropertyId};
use crate::protocol::qos::QoS;
use crate::protocol::reason::ReasonCode;
use crate::protocol::topic::matches;
use crate::protocol::version::Version;
use crate::transport::client_driver::{ClientDriver, ClientError, Dialer};

/// Messages by topic.
pub(super) type Retained = BTreeMap<String, Received>;

/// When so long no topic came that was not there already, all have come.
const QUIET: Duration = Duration::from_secs(2);
/// Topics that are asked for at once. mosquitto drops what does not fit into its queue, which has 1,000 messages mostly.
const BATCH: usize = 100;
/// What brokers say of how many there are.
const COUNT: &str = "$SYS/broker/retained messages/count";

/// A broker, and the version that it speaks.
pub(super) struct Broker {
    driver: ClientDriver,
    version: Version,
}

impl Broker {
    /// Connects with MQTT 5, or else 3.1.1.
    pub(super) async fn connect(server: &Server) -> Result<Self, ClientError> {
        let mut driver = ClientDriver::new(
            Dialer::network(server.connect.clone()),
            options(server, Version::V5),
            None,
        );
        let error = match driver.connected().await {
            Ok(_) => {
                return Ok(Self {
                    driver,
                    version: Version::V5,
                });
            }
            Err(error) => error,
        };
        // Those that do not know it refuse it, or close without a word.
        let is_unknown = match &error {
            ClientError::Fault(Fault::Refused(reason, _)) => {
                matches!(
                    reason,
                    ReasonCode::UnsupportedProtocolVersion | ReasonCode::ProtocolError | ReasonCode::UnspecifiedError
                )
            }
            ClientError::Fault(_) => true,
            _ => false,
        };
        if !is_unknown {
            return Err(error);
        }
        let mut driver = ClientDriver::new(
            Dialer::network(server.connect.clone()),
            options(server, Version::V311),
            None,
        );
        driver.connected().await.map_err(|_| error)?;
        Ok(Self {
            driver,
            version: Version::V311,
        })
    }

    /// Reads everything that is retained under some filters, at the QoS that it has, with the number that the broker says it has altogether,
    /// where it says so.
    pub(super) async fn read(&mut self, filters: &[String]) -> Result<(Retained, Option<u64>), String> {
        // At QoS 0 first: messages at others wait for each other, and those that wait too long are dropped.
        let (mut found, count) = self.look(filters).await?;
        let topics: Vec<_> = found.keys().cloned().collect();
        for batch in topics.chunks(BATCH) {
            let batch: Vec<_> = batch.iter().map(String::as_str).collect();
            self.ask(&batch, QoS::ExactlyOnce, &mut found, Some(batch.len()))
                .await?;
        }
        found.retain(|_, message| !message.payload.is_empty());
        Ok((found, count))
    }

    /// The same, everything at QoS 0: for what is there at all.
    pub(super) async fn look(&mut self, filters: &[String]) -> Result<(Retained, Option<u64>), String> {
        let mut found = Retained::new();
        let wanted: Vec<&str> = filters.iter().map(String::as_str).chain([COUNT]).collect();
        self.ask(&wanted, QoS::AtMostOnce, &mut found, None).await?;
        let count = found.remove(COUNT);
        let count = count.and_then(|message| std::str::from_utf8(&message.payload).ok()?.parse().ok());
        let is_wanted = |topic: &String| filters.iter().any(|filter| matches(filter, topic));
        found.retain(|topic, message| is_wanted(topic) && !message.payload.is_empty());
        Ok((found, count))
    }

    /// Subscribes, takes what is retained, and unsubscribes. `expected`: as many topics are known to come, each once more.
    async fn ask(
        &mut self,
        filters: &[&str],
        qos: QoS,
        found: &mut Retained,
        expected: Option<usize>,
    ) -> Result<(), String> {
        let options = SubscriptionOptions {
            qos,
            no_local: false,
            // What is set meanwhile is known to be retained, too.
            retain_as_published: true,
            retain_handling: RetainHandling::Send,
        };
        let with_options: Vec<_> = filters.iter().map(|filter| (*filter, options)).collect();
        let asked = self.driver.subscribe(&with_options, Properties::EMPTY).map_err(text)?;
        let mut is_answered = false;
        let mut seen: std::collections::HashSet<String> = std::collections::HashSet::new();
        let mut until = Instant::now() + QUIET * 5;
        while !(is_answered && expected.is_some_and(|expected| seen.len() >= expected)) {
            let Some(event) = by(until, self.driver.next_event()).await else {
                break;
            };
            match event.map_err(text)? {
                Event::Message(message) if message.retain => {
                    if seen.insert(message.topic.clone()) {
                        until = Instant::now() + QUIET;
                    }
                    found.insert(message.topic.clone(), message);
                }
                Event::Subscribed(request, reasons) if request == asked => {
                    let refused = filters
                        .iter()
                        .zip(&reasons)
                        .find(|(filter, reason)| **filter != COUNT && reason.is_error());
                    if let Some((filter, reason)) = refused {
                        return Err(format!("the subscription to {filter:?} is refused: {}", reason.name()));
                    }
                    is_answered = true;
                    until = Instant::now() + QUIET;
                }
                _ => {}
            }
        }
        if !is_answered {
            return Err("the broker does not answer a subscription".into());
        }
        self.driver.unsubscribe(filters, Properties::EMPTY).map_err(text)?;
        Ok(())
    }

    /// Publishes all of them, and waits for their acknowledgements. The topics that were refused, each with why; at QoS 0 nobody is told.
    pub(super) async fn publish(
        mut self,
        messages: impl Iterator<Item = Received>,
    ) -> Result<Vec<(String, String)>, String> {
        let mut under_way: BTreeMap<_, String> = BTreeMap::new();
        let mut refused = Vec::new();
        for message in messages {
            let topic = message.topic.clone();
            let message = self.outgoing(message);
            while !self.driver.client().can_publish() {
                self.settle(&mut under_way, &mut refused).await?;
            }
            match self.driver.publish(message) {
                Ok(request) => drop(under_way.insert(request, topic)),
                Err(error @ RequestError::NotConnected) => return Err(text(error)),
                Err(error) => refused.push((topic, text(error))),
            }
        }
        while !under_way.is_empty() {
            self.settle(&mut under_way, &mut refused).await?;
        }
        self.driver.finish().await.map_err(text)?;
        Ok(refused)
    }

    async fn settle(
        &mut self,
        under_way: &mut BTreeMap<crate::client::RequestId, String>,
        refused: &mut Vec<(String, String)>,
    ) -> Result<(), String> {
        if let Event::Published(request, result) = self.driver.next_event().await.map_err(text)? {
            let topic = under_way.remove(&request).unwrap_or_default();
            match result {
                Ok(reason) if reason.is_error() => refused.push((topic, reason.name().to_owned())),
                Ok(_) => {}
                Err(error) => refused.push((topic, text(error))),
            }
        }
        Ok(())
    }

    fn outgoing(&self, message: Received) -> Outgoing {
        let qos = message.qos;
        let mut outgoing = Outgoing::new(message.topic, message.payload).qos(qos).retained();
        if self.version == Version::V5 {
            outgoing.properties = passed_on(message.properties.view(), true);
        }
        outgoing
    }
}

/// Properties that belong to a message wherever it goes.
pub(super) fn passed_on(properties: Properties<'_>, with_expiry: bool) -> PropertiesBuf {
    use PropertyId as P;
    let mut kept = PropertiesBuf::new();
    for (id, value) in properties.iter() {
        let is_kept = match id {
            P::MessageExpiryInterval => with_expiry,
            id => matches!(
                id,
                P::PayloadFormatIndicator | P::ContentType | P::ResponseTopic | P::CorrelationData | P::UserProperty
            ),
        };
        if is_kept {
            kept.push(id, value);
        }
    }
    kept
}

fn options(server: &Server, version: Version) -> ClientOptions {
    ClientOptions {
        version,
        user_name: server.user_name.clone(),
        password: server.password.clone(),
        ..ClientOptions::default()
    }
}

async fn by<T>(until: Instant, event: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout_at(until, event).await.ok()
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
