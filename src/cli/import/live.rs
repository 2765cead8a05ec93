//! `sundew import mosquitto --live`: retained messages of a broker that is at work.

use std::num::NonZeroU64;
use std::path::PathBuf;

use clap::Args;

use super::Fault;
use super::retained::{Broker, Retained, passed_on};
use crate::cli::client::{Server, server_at};
use crate::cli::{Exit, output, password_prompt};
use crate::protocol::ids::MessageNumber;
use crate::protocol::property::PropertyId;
use crate::protocol::qos::QoS;
use crate::protocol::time::Time;
use crate::protocol::topic::{TopicFilter, TopicName};
use crate::storage::Record;
use crate::storage::disk::backup;
use crate::storage::image::{Image, ImageOptions};
use crate::storage::record::{Content, Deliveries, MessageRecord};
use crate::transport::client_driver::ClientError;

/// Which broker, and where to.
#[derive(Debug, Args)]
#[command(next_help_heading = "Retained messages")]
pub(super) struct Live {
    /// Copy the retained messages of a broker that is at work: mqtt[s]://[USER@]HOST[:PORT]
    ///
    /// Any broker that speaks MQTT 5 or 3.1.1. The password of USER is asked for, or is in SUNDEW_LIVE_PASSWORD; it may stand
    /// in the URL, too: USER:PASSWORD@. Nothing is changed there.
    #[arg(long, value_name = "URL")]
    live: Option<String>,
    /// Into this broker, for example mqtt://localhost:1884; topics that are there already stay as they are, but for --force
    ///
    /// The password is asked for, or is in SUNDEW_TO_PASSWORD.
    #[arg(long, value_name = "URL", requires = "live")]
    to: Option<String>,
    /// Into a new file, for `sundew store import`
    #[arg(long, value_name = "FILE", requires = "live")]
    backup: Option<PathBuf>,
    /// Only these topics; may be repeated
    #[arg(long, value_name = "FILTER", requires = "live", default_value = "#")]
    topic: Vec<String>,
    /// Authorities to trust, for mqtts://
    #[arg(long, value_name = "FILE", requires = "live")]
    cafile: Option<PathBuf>,
    /// Trust any certificate
    #[arg(long, requires = "live")]
    insecure: bool,
}

impl Live {
    pub(super) const fn is_asked_for(&self) -> bool {
        self.live.is_some()
    }

    /// Copies. `force`: what is there already is replaced.
    pub(super) fn run(&self, force: bool) -> Result<Exit, Fault> {
        let Some(live) = &self.live else { return Ok(Exit::Done) };
        if self.to.is_none() && self.backup.is_none() {
            let message = "where to? name a broker with --to URL, or a file with --backup FILE";
            return Err((Exit::Usage, message.into()));
        }
        for filter in &self.topic {
            TopicFilter::parse(filter)
                .map_err(|error| (Exit::Usage, format!("the topic filter {filter:?} {error}")))?;
        }
        let from = self.server(live, "SUNDEW_LIVE_PASSWORD")?;
        let to = self
            .to
            .as_ref()
            .map(|url| self.server(url, "SUNDEW_TO_PASSWORD"))
            .transpose()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| (Exit::Failed, format!("cannot start: {error}")))?;
        let (found, count) = runtime.block_on(read(&from, live, &self.topic))?;
        let mut exit = self.account(live, &found, count);
        if let Some(file) = &self.backup {
            if force && file.is_file() {
                std::fs::remove_file(file)
                    .map_err(|error| (Exit::CannotCreate, format!("{}: {error}", file.display())))?;
            }
            let (report, bytes) = write(&found, file).map_err(|error| (Exit::CannotCreate, error.to_string()))?;
            let line = format!(
                "{}: retained={}, {bytes} bytes; sundew store import {} -d DIRECTORY\n",
                file.display(),
                report.retained,
                file.display()
            );
            output::print(line.as_bytes());
        }
        if let (Some(server), Some(url)) = (&to, &self.to)
            && !runtime.block_on(self.publish(server, url, found, force))?
        {
            exit = Exit::NotAllCarried;
        }
        runtime.shutdown_background();
        Ok(exit)
    }

    fn server(&self, url: &str, variable: &str) -> Result<Server, Fault> {
        let mut server = server_at(url, self.cafile.as_ref(), self.insecure).map_err(|error| (Exit::Usage, error))?;
        if let (Some(user), None) = (&server.user_name, &server.password) {
            let password = match std::env::var(variable) {
                Ok(password) => Ok(password.into_bytes()),
                Err(_) => password_prompt::ask_known(user, &without_password(url)),
            };
            server.password = Some(password.map_err(|error| (Exit::Failed, format!("{error}: {variable}")))?);
        }
        Ok(server)
    }

    /// Says how many there are, and whether that is all.
    fn account(&self, url: &str, found: &Retained, count: Option<u64>) -> Exit {
        let url = without_password(url);
        output::print(format!("{url}: {} retained messages\n", found.len()).as_bytes());
        // The broker counts those of $SYS, too, some dozens; and those that the user may not read.
        match count {
            Some(count) if self.topic == ["#"] && count > found.len() as u64 + OF_SYS_MAX => {
                eprintln!(
                    "{url}: not carried: the broker counts {count} retained messages, its own included; a user who may read everything gets all of them"
                );
                Exit::NotAllCarried
            }
            _ => Exit::Done,
        }
    }

    /// Publishes what is not there; true where all of it was taken.
    async fn publish(&self, server: &Server, url: &str, mut found: Retained, force: bool) -> Result<bool, Fault> {
        let shown = without_password(url);
        let fault = |error: String| (Exit::Failed, format!("{shown}: {error}"));
        let mut broker = connect(server, url).await?;
        let all = found.len();
        if !force {
            let (there, _) = broker.look(&self.topic).await.map_err(fault)?;
            found.retain(|topic, _| !there.contains_key(topic));
        }
        let wanted = found.len();
        let unanswered: Vec<_> = found
            .values()
            .filter(|message| message.qos == QoS::AtMostOnce)
            .cloned()
            .collect();
        let mut refused = broker.publish(found.into_values()).await.map_err(fault)?;
        if !unanswered.is_empty() {
            // Nobody is told whether a message at QoS 0 is taken: so it is looked for.
            let (there, _) = connect(server, url).await?.look(&self.topic).await.map_err(fault)?;
            let missing = unanswered
                .into_iter()
                .filter(|message| !there.contains_key(&message.topic));
            refused.extend(missing.map(|message| (message.topic, "it is not there now".to_owned())));
        }
        for (topic, why) in &refused {
            eprintln!("{shown}: not carried: {topic}: {why}");
        }
        let stay = match all - wanted {
            0 => String::new(),
            stay => format!(", {stay} were there already and stay (--force replaces them)"),
        };
        let line = format!("{shown}: {} published{stay}\n", wanted - refused.len());
        output::print(line.as_bytes());
        Ok(refused.is_empty())
    }
}

/// Retained messages of mosquitto's own under `$SYS`, at most.
const OF_SYS_MAX: u64 = 100;

async fn connect(server: &Server, url: &str) -> Result<Broker, Fault> {
    Broker::connect(server).await.map_err(|error| {
        let exit = if matches!(error, ClientError::Connect(_)) {
            Exit::Unavailable
        } else {
            Exit::Failed
        };
        (exit, format!("{}: {error}", without_password(url)))
    })
}

async fn read(server: &Server, url: &str, filters: &[String]) -> Result<(Retained, Option<u64>), Fault> {
    let mut broker = connect(server, url).await?;
    let read = broker.read(filters).await;
    read.map_err(|error| (Exit::Failed, format!("{}: {error}", without_password(url))))
}

/// A URL that may be shown.
fn without_password(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let shown = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    format!("{scheme}://{shown}")
}

/// As a store of its own.
fn write(
    found: &Retained,
    file: &std::path::Path,
) -> Result<(crate::storage::image::Report, u64), backup::BackupError> {
    let mut image = Image::new(ImageOptions::default());
    for (order, message) in (1_u64..).zip(found.values()) {
        let (Some(number), Ok(topic)) = (NonZeroU64::new(order), TopicName::parse(&message.topic)) else {
            continue;
        };
        let expiry = message.properties.view().u32(PropertyId::MessageExpiryInterval);
        let properties = passed_on(message.properties.view(), false);
        image.apply_decoded(&Record::Message(MessageRecord {
            number: MessageNumber(number),
            expires_at: expiry.map_or(Time::NEVER, |seconds| Time(u64::from(seconds) * 1000)),
            retained: Some(order),
            received: None,
            content: Content {
                topic,
                properties: properties.view(),
                payload: &message.payload,
                qos: message.qos,
                retain: true,
                source: None,
            },
            deliveries: Deliveries::default(),
        }));
    }
    backup::create(image, file)
}
