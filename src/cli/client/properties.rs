//! `-D COMMAND PROPERTY VALUE`: MQTT 5 properties by name.

use crate::protocol::property::{PropertiesBuf, PropertyId, PropertyKind, PropertyOwner};

/// The properties of each packet that a client sends.
#[derive(Debug, Default)]
pub(in crate::cli) struct PacketProperties {
    pub(in crate::cli) connect: PropertiesBuf,
    pub(in crate::cli) publish: PropertiesBuf,
    pub(in crate::cli) subscribe: PropertiesBuf,
    pub(in crate::cli) unsubscribe: PropertiesBuf,
    pub(in crate::cli) disconnect: PropertiesBuf,
    pub(in crate::cli) will: PropertiesBuf,
}

impl PacketProperties {
    /// Reads all `-D` of a command line, one word after the other. A user property has two values, all others one.
    pub(in crate::cli) fn parse(words: &[String]) -> Result<Self, String> {
        let mut all = Self::default();
        let mut words = words.iter().map(String::as_str);
        while let Some(command) = words.next() {
            let (name, value) = words.next().zip(words.next()).ok_or(INCOMPLETE)?;
            let (block, owner) = all.block(command)?;
            let id = find(name, owner).ok_or_else(|| unknown(command, name, owner))?;
            if id.kind() == PropertyKind::Pair {
                block.push_user_property(value, words.next().ok_or(INCOMPLETE)?);
            } else {
                push(block, id, value)?;
            }
        }
        Ok(all)
    }

    fn block(&mut self, command: &str) -> Result<(&mut PropertiesBuf, PropertyOwner), String> {
        Ok(match command.to_ascii_lowercase().as_str() {
            "connect" => (&mut self.connect, PropertyOwner::Connect),
            "publish" => (&mut self.publish, PropertyOwner::Publish),
            "subscribe" => (&mut self.subscribe, PropertyOwner::Subscribe),
            "unsubscribe" => (&mut self.unsubscribe, PropertyOwner::Unsubscribe),
            "disconnect" => (&mut self.disconnect, PropertyOwner::Disconnect),
            "will" => (&mut self.will, PropertyOwner::Will),
            _ => {
                return Err(format!(
                    "-D {command}: give one of connect, publish, subscribe, unsubscribe, disconnect, will"
                ));
            }
        })
    }
}

const INCOMPLETE: &str = "-D needs a command, a property and its value (a user property: name and value): \
                          -D publish content-type text/plain, -D publish user-property unit metre";

fn option_name(id: PropertyId) -> String {
    id.name().replace(' ', "-").to_ascii_lowercase()
}

fn find(name: &str, owner: PropertyOwner) -> Option<PropertyId> {
    let is_it = |id: &&PropertyId| id.is_allowed_in(owner) && option_name(**id) == name.to_ascii_lowercase();
    // The client sees to aliases itself.
    let is_ours = |id: &&PropertyId| !(**id == PropertyId::TopicAlias || is_servers(**id, owner));
    PropertyId::ALL.iter().filter(is_ours).find(is_it).copied()
}

/// A client must not send it [MQTT-3.3.4-6].
fn is_servers(id: PropertyId, owner: PropertyOwner) -> bool {
    owner == PropertyOwner::Publish && id == PropertyId::SubscriptionIdentifier
}

fn unknown(command: &str, name: &str, owner: PropertyOwner) -> String {
    let all = PropertyId::ALL.iter().copied();
    let names: Vec<_> = all
        .filter(|id| id.is_allowed_in(owner) && *id != PropertyId::TopicAlias && !is_servers(*id, owner))
        .map(option_name)
        .collect();
    format!(
        "-D {command} {name}: {command} has no such property; it has {}",
        names.join(", ")
    )
}

fn push(block: &mut PropertiesBuf, id: PropertyId, value: &str) -> Result<(), String> {
    let number = |max: u32| {
        let number = value.parse().ok().filter(|number| *number <= max);
        number.ok_or_else(|| format!("{}: {value:?} is not a number from 0 to {max}", option_name(id)))
    };
    match id.kind() {
        PropertyKind::Byte => block.push_byte(id, number(255)? as u8),
        PropertyKind::U16 => block.push_u16(id, number(65_535)? as u16),
        PropertyKind::U32 => block.push_u32(id, number(u32::MAX)?),
        PropertyKind::VarInt => block.push_varint(id, number(268_435_455)?),
        PropertyKind::Binary => block.push_binary(id, value.as_bytes()),
        PropertyKind::Text | PropertyKind::Pair => block.push_text(id, value),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<PacketProperties, String> {
        PacketProperties::parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn properties_go_to_their_packets() {
        let all =
            parse("publish message-expiry-interval 60 connect user-property a 1 publish content-type text").unwrap();
        assert_eq!(all.publish.view().u32(PropertyId::MessageExpiryInterval), Some(60));
        assert_eq!(all.publish.view().text(PropertyId::ContentType), Some("text"));
        assert_eq!(all.connect.view().user_properties().collect::<Vec<_>>(), [("a", "1")]);
        let all = parse("subscribe subscription-identifier 5").unwrap();
        assert_eq!(all.subscribe.view().subscription_identifiers().collect::<Vec<_>>(), [5]);
    }

    #[test]
    fn mistakes_are_answered_with_what_is_right() {
        for (line, said) in [
            ("publish", "needs a command"),
            ("publish user-property a", "name and value"),
            ("ping content-type a", "connect, publish"),
            ("publish receive-maximum 1", "message-expiry-interval"),
            ("publish subscription-identifier 1", "no such property"),
            ("connect receive-maximum 65536", "0 to 65535"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(said), "{line}: {error}");
        }
    }
}
