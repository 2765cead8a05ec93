//! The messages, RFC 5802 section 7: attributes with commas between them. What is read is bounded, borrowed, and of the form that the
//! section gives; nothing behind it looks at form again.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::is_plain;

/// Largest message that is read: a user name of some length, nonces, and a salt.
pub const MESSAGE_BYTES_MAX: usize = 4096;
/// Longest nonce of the other side, characters.
const NONCE_CHARS_MAX: usize = 1024;

/// What is wrong with a message, or with what it proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Not of the form of RFC 5802 section 7, or too long.
    #[error("a message of SCRAM that cannot be read")]
    Malformed,
    /// A mandatory extension (`m=`), of which there are none.
    #[error("an extension of SCRAM that is not known")]
    Extension,
    /// Binding to a TLS channel is wanted (`p=`), or what was said of it differs from what was said before.
    #[error("channel binding is not supported")]
    ChannelBinding,
    /// Not the nonce of this exchange.
    #[error("a nonce of another exchange")]
    Nonce,
    /// Too few or too many iterations.
    #[error("the server wants {0} iterations, which is too few or too many")]
    Iterations(u32),
    /// The other side does not know the password.
    #[error("wrong proof")]
    Proof,
    /// A user name or password with control characters, or empty.
    #[error("a user name and a password must be there and have no control characters")]
    Text,
    /// A message more than there are.
    #[error("the exchange is over")]
    Over,
}

/// Attributes from the left.
struct Attributes<'a>(Option<&'a str>);

impl<'a> Attributes<'a> {
    fn of(message: &'a [u8]) -> Result<Self, Fault> {
        if message.len() > MESSAGE_BYTES_MAX {
            return Err(Fault::Malformed);
        }
        let text = str::from_utf8(message).map_err(|_| Fault::Malformed)?;
        if text.contains('\0') {
            return Err(Fault::Malformed);
        }
        Ok(Self(Some(text)))
    }

    fn part(&mut self) -> Result<&'a str, Fault> {
        let text = self.0.ok_or(Fault::Malformed)?;
        let (part, rest) = match text.split_once(',') {
            Some((part, rest)) => (part, Some(rest)),
            None => (text, None),
        };
        self.0 = rest;
        Ok(part)
    }

    /// The next attribute, which must have this name. Its value is not empty.
    fn value(&mut self, name: char) -> Result<&'a str, Fault> {
        let part = self.part()?;
        if part.starts_with("m=") && name != 'm' {
            return Err(Fault::Extension);
        }
        let value = part.strip_prefix(name).and_then(|rest| rest.strip_prefix('='));
        value.filter(|value| !value.is_empty()).ok_or(Fault::Malformed)
    }

    /// Optional extensions, of which none is known: they are passed over.
    fn extensions(mut self) -> Result<(), Fault> {
        while self.0.is_some() {
            extension(self.part()?)?;
        }
        Ok(())
    }
}

fn extension(part: &str) -> Result<(), Fault> {
    let (name, value) = part.split_once('=').ok_or(Fault::Malformed)?;
    let is_name = name.len() == 1 && name.as_bytes()[0].is_ascii_alphabetic();
    if is_name && !value.is_empty() {
        Ok(())
    } else {
        Err(Fault::Malformed)
    }
}

fn nonce(value: &str) -> Result<&str, Fault> {
    let is_nonce = value.len() <= NONCE_CHARS_MAX && value.bytes().all(|byte| byte.is_ascii_graphic()); // a comma ends it before
    if is_nonce { Ok(value) } else { Err(Fault::Malformed) }
}

fn base64(value: &str) -> Result<Box<[u8]>, Fault> {
    match STANDARD.decode(value) {
        Ok(bytes) if !bytes.is_empty() => Ok(bytes.into()),
        _ => Err(Fault::Malformed),
    }
}

/// `saslname`: a comma is `=2C`, an equals sign `=3D`, and there is no other `=`.
fn name(value: &str) -> Result<Box<str>, Fault> {
    let mut parts = value.split('=');
    let mut name = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (sign, rest) = part.split_at_checked(2).ok_or(Fault::Malformed)?;
        name.push(match sign {
            "2C" => ',',
            "3D" => '=',
            _ => return Err(Fault::Malformed),
        });
        name.push_str(rest);
    }
    if is_plain(&name) {
        Ok(name.into())
    } else {
        Err(Fault::Text)
    }
}

/// The other way round.
pub(super) fn escaped(name: &str) -> String {
    name.replace('=', "=3D").replace(',', "=2C")
}

/// The first message of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientFirst {
    /// Who it says it is.
    pub user_name: Box<str>,
    /// Whom it wants to act as, if that is said.
    pub authorization: Option<Box<str>>,
    /// What stands before the part that is proved: `n,,`.
    pub(super) header: Box<str>,
    /// That part: `n=user,r=NONCE`.
    pub(super) bare: Box<str>,
    /// The client's nonce.
    pub(super) nonce: Box<str>,
}

impl ClientFirst {
    /// Reads one.
    ///
    /// # Errors
    /// [`Fault::Malformed`], [`Fault::ChannelBinding`] where the client insists on it, [`Fault::Extension`], [`Fault::Text`].
    pub fn parse(message: &[u8]) -> Result<Self, Fault> {
        let mut attributes = Attributes::of(message)?;
        let whole = attributes.0.unwrap_or_default();
        match attributes.part()? {
            // `y`: it could, and believes that we cannot, which is so.
            "n" | "y" => {}
            binding if binding.starts_with("p=") => return Err(Fault::ChannelBinding),
            _ => return Err(Fault::Malformed),
        }
        let authorization = match attributes.part()? {
            "" => None,
            part => Some(name(part.strip_prefix("a=").ok_or(Fault::Malformed)?)?),
        };
        let bare = attributes.0.ok_or(Fault::Malformed)?;
        let user_name = name(attributes.value('n')?)?;
        let nonce = nonce(attributes.value('r')?)?.into();
        attributes.extensions()?;
        Ok(Self {
            user_name,
            authorization,
            header: whole[..whole.len() - bare.len()].into(),
            bare: bare.into(),
            nonce,
        })
    }
}

/// The first message of a server.
pub(super) struct ServerFirst<'a> {
    pub(super) nonce: &'a str,
    pub(super) salt: Box<[u8]>,
    pub(super) iterations: u32,
}

impl<'a> ServerFirst<'a> {
    pub(super) fn parse(message: &'a [u8]) -> Result<Self, Fault> {
        let mut attributes = Attributes::of(message)?;
        let nonce = nonce(attributes.value('r')?)?;
        let salt = base64(attributes.value('s')?)?;
        let iterations = attributes.value('i')?.parse().map_err(|_| Fault::Malformed)?;
        attributes.extensions()?;
        Ok(Self {
            nonce,
            salt,
            iterations,
        })
    }
}

/// The last message of a client.
pub(super) struct ClientFinal<'a> {
    /// The header of its first message, again.
    pub(super) header: Box<[u8]>,
    pub(super) nonce: &'a str,
    /// What is proved: everything but the proof.
    pub(super) without_proof: &'a str,
    pub(super) proof: Box<[u8]>,
}

impl<'a> ClientFinal<'a> {
    pub(super) fn parse(message: &'a [u8]) -> Result<Self, Fault> {
        let mut attributes = Attributes::of(message)?;
        let whole = attributes.0.unwrap_or_default();
        let (without_proof, proof) = whole.rsplit_once(",p=").ok_or(Fault::Malformed)?;
        attributes.0 = Some(without_proof);
        let header = base64(attributes.value('c')?)?;
        let nonce = nonce(attributes.value('r')?)?;
        attributes.extensions()?;
        Ok(Self {
            header,
            nonce,
            without_proof,
            proof: base64(proof)?,
        })
    }
}

/// The signature in the last message of a server.
pub(super) fn server_final(message: &[u8]) -> Result<Box<[u8]>, Fault> {
    let mut attributes = Attributes::of(message)?;
    let first = attributes.part()?;
    if first.starts_with("e=") {
        return Err(Fault::Proof);
    }
    let signature = base64(first.strip_prefix("v=").ok_or(Fault::Malformed)?)?;
    attributes.extensions()?;
    Ok(signature)
}
