//! `-F FORMAT` of `sundew sub`: one message as text. The letters are those of `mosquitto_sub`.

mod json;

use std::fmt::Write as _;

use time::OffsetDateTime;

use crate::client::Received;
use crate::protocol::property::PropertyId;

/// A format that has been read.
#[derive(Debug)]
pub(super) struct MessageFormat(Vec<Piece>);

#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Bytes(Vec<u8>),
    /// Of the message.
    Field(Field),
    /// Of the time.
    Time(char),
}

/// `%-08.3x`: where and how wide.
#[derive(Debug, Default, PartialEq, Eq)]
struct Field {
    letter: char,
    is_left: bool,
    is_zero: bool,
    width: usize,
    precision: Option<usize>,
}

const FIELDS: &str = "ACDEFIjJlmpPqrRStUxXd";
const TIMES: &str = "aAbBdDeFHIjklmMnNpRsStTuwyYzZ";
/// Wider is a mistake, and an easy way to fill a disk.
const WIDTH_MAX: usize = 10_000;

impl MessageFormat {
    /// Reads a format; an error says what is wrong.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text.chars().peekable();
        while let Some(c) = rest.next() {
            let piece = match c {
                '%' => parse_field(&mut rest)?,
                '@' => match rest.next() {
                    Some('@') => Piece::Bytes(vec![b'@']),
                    Some(letter) if TIMES.contains(letter) => Piece::Time(letter),
                    _ => return Err(format!("-F: after @ comes one of {TIMES}, or @@ for the sign itself")),
                },
                '\\' => Piece::Bytes(vec![match rest.next() {
                    Some('\\') => b'\\',
                    Some('0') => 0,
                    Some('a') => 7,
                    Some('e') => 27,
                    Some('n') => b'\n',
                    Some('r') => b'\r',
                    Some('t') => b'\t',
                    Some('v') => 11,
                    _ => return Err("-F: after \\ comes one of \\ 0 a e n r t v".to_owned()),
                }]),
                c => Piece::Bytes(c.to_string().into_bytes()),
            };
            match (pieces.last_mut(), piece) {
                (Some(Piece::Bytes(before)), Piece::Bytes(more)) => before.extend(more),
                (_, piece) => pieces.push(piece),
            }
        }
        Ok(Self(pieces))
    }

    /// Appends a message to `out`.
    ///
    /// # Errors
    /// `%J` and a payload that is not JSON.
    pub(super) fn write(&self, message: &Received, out: &mut Vec<u8>) -> Result<(), String> {
        let now = OffsetDateTime::now_local().unwrap_or_else(|_| OffsetDateTime::now_utc());
        for piece in &self.0 {
            match piece {
                Piece::Bytes(bytes) => out.extend_from_slice(bytes),
                Piece::Time(letter) => write_time(*letter, now, out),
                Piece::Field(field) => field.write(message, now, out)?,
            }
        }
        Ok(())
    }
}

fn parse_field(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Piece, String> {
    let mut field = Field::default();
    while let Some(flag) = rest.next_if(|c| matches!(c, '-' | '0')) {
        field.is_left |= flag == '-';
        field.is_zero |= flag == '0';
    }
    field.width = parse_number(rest).unwrap_or(0);
    if rest.next_if_eq(&'.').is_some() {
        field.precision = Some(parse_number(rest).unwrap_or(0));
    }
    match rest.next() {
        Some('%') => Ok(Piece::Bytes(vec![b'%'])),
        Some(_) if field.width > WIDTH_MAX => Err(format!("-F: a width over {WIDTH_MAX}")),
        Some(letter) if FIELDS.contains(letter) => Ok(Piece::Field(Field { letter, ..field })),
        _ => Err(format!("-F: after % comes one of {FIELDS}, or %% for the sign itself")),
    }
}

fn parse_number(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<usize> {
    let mut number = None;
    while let Some(digit) = rest.peek().and_then(|c| c.to_digit(10)) {
        rest.next();
        number = Some(
            number
                .unwrap_or(0usize)
                .saturating_mul(10)
                .saturating_add(digit as usize),
        );
    }
    number
}

impl Field {
    fn write(&self, message: &Received, now: OffsetDateTime, out: &mut Vec<u8>) -> Result<(), String> {
        let value = self.value(message, now)?;
        let shown = match (self.letter, self.precision) {
            ('p' | 't' | 'C' | 'R', Some(precision)) => &value[..precision.min(value.len())],
            ('x' | 'X', Some(precision)) => &value[..(2 * precision).min(value.len())],
            _ => &value[..],
        };
        let padding = self.width.saturating_sub(shown.len());
        if self.is_left {
            out.extend_from_slice(shown);
            out.resize(out.len() + padding, b' ');
        } else {
            out.resize(out.len() + padding, if self.is_zero { b'0' } else { b' ' });
            out.extend_from_slice(shown);
        }
        Ok(())
    }

    fn value(&self, message: &Received, now: OffsetDateTime) -> Result<Vec<u8>, String> {
        let properties = message.properties.view();
        let text = |id| properties.text(id).unwrap_or_default().as_bytes().to_vec();
        let number = |number: Option<u32>| number.map_or_else(Vec::new, |number| number.to_string().into_bytes());
        Ok(match self.letter {
            't' => message.topic.clone().into_bytes(),
            'p' => message.payload.to_vec(),
            'x' => hexadecimal(&message.payload, false),
            'X' => hexadecimal(&message.payload, true),
            'l' => message.payload.len().to_string().into_bytes(),
            'q' => message.qos.bits().to_string().into_bytes(),
            'r' => u8::from(message.retain).to_string().into_bytes(),
            'd' => u8::from(message.dup).to_string().into_bytes(),
            'm' => message.packet_id.map_or(0, |id| id.get()).to_string().into_bytes(),
            'j' => json::message(message, now, false)?.into_bytes(),
            'J' => json::message(message, now, true)?.into_bytes(),
            'I' => iso_8601(now).into_bytes(),
            'U' => format!("{}.{:09}", now.unix_timestamp(), now.nanosecond()).into_bytes(),
            'A' => number(properties.u16(PropertyId::TopicAlias).map(u32::from)),
            'C' => text(PropertyId::ContentType),
            'D' => properties
                .binary(PropertyId::CorrelationData)
                .unwrap_or_default()
                .to_vec(),
            'E' => number(properties.u32(PropertyId::MessageExpiryInterval)),
            'F' => number(properties.byte(PropertyId::PayloadFormatIndicator).map(u32::from)),
            'R' => text(PropertyId::ResponseTopic),
            'P' => {
                let pairs: Vec<_> = properties
                    .user_properties()
                    .map(|(name, value)| format!("{name}:{value}"))
                    .collect();
                pairs.join(" ").into_bytes()
            }
            'S' => {
                let ids: Vec<_> = properties.subscription_identifiers().map(|id| id.to_string()).collect();
                ids.join(":").into_bytes()
            }
            // The reader lets no other letter in.
            _ => Vec::new(),
        })
    }
}

fn hexadecimal(bytes: &[u8], is_upper: bool) -> Vec<u8> {
    let digits: &[u8; 16] = if is_upper {
        b"0123456789ABCDEF"
    } else {
        b"0123456789abcdef"
    };
    let both = |byte: &u8| [digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]];
    bytes.iter().flat_map(both).collect()
}

/// `2026-11-21T12:30:45+0100`.
fn iso_8601(now: OffsetDateTime) -> String {
    let mut out = Vec::new();
    for letter in ['F', 'T', 'z'] {
        write_time(letter, now, &mut out);
        if letter == 'F' {
            out.push(b'T');
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn write_time(letter: char, now: OffsetDateTime, out: &mut Vec<u8>) {
    let (date, clock, offset) = (now.date(), now.time(), now.offset());
    let month = now.month().to_string();
    let weekday = now.weekday().to_string();
    let hour_12 = (clock.hour() + 11) % 12 + 1;
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = match letter {
        'a' => write!(text, "{}", &weekday[..3]),
        'A' => write!(text, "{weekday}"),
        'b' => write!(text, "{}", &month[..3]),
        'B' => write!(text, "{month}"),
        'd' => write!(text, "{:02}", date.day()),
        'D' => write!(
            text,
            "{:02}/{:02}/{:02}",
            date.month() as u8,
            date.day(),
            date.year() % 100
        ),
        'e' => write!(text, "{:2}", date.day()),
        'F' => write!(text, "{}-{:02}-{:02}", date.year(), date.month() as u8, date.day()),
        'H' => write!(text, "{:02}", clock.hour()),
        'I' => write!(text, "{hour_12:02}"),
        'j' => write!(text, "{:03}", date.ordinal()),
        'k' => write!(text, "{:2}", clock.hour()),
        'l' => write!(text, "{hour_12:2}"),
        'm' => write!(text, "{:02}", date.month() as u8),
        'M' => write!(text, "{:02}", clock.minute()),
        'n' => writeln!(text),
        'N' => write!(text, "{:09}", clock.nanosecond()),
        'p' => write!(text, "{}", if clock.hour() < 12 { "AM" } else { "PM" }),
        'R' => write!(text, "{:02}:{:02}", clock.hour(), clock.minute()),
        's' => write!(text, "{}", now.unix_timestamp()),
        'S' => write!(text, "{:02}", clock.second()),
        't' => write!(text, "\t"),
        'T' => write!(text, "{:02}:{:02}:{:02}", clock.hour(), clock.minute(), clock.second()),
        'u' => write!(text, "{}", date.weekday().number_from_monday()),
        'w' => write!(text, "{}", date.weekday().number_days_from_sunday()),
        'y' => write!(text, "{:02}", date.year() % 100),
        'Y' => write!(text, "{}", date.year()),
        'Z' if offset.is_utc() => write!(text, "UTC"),
        _ => {
            let (hours, minutes, _) = offset.as_hms();
            let sign = if offset.is_negative() { '-' } else { '+' };
            write!(text, "{sign}{:02}{:02}", hours.abs(), minutes.abs())
        }
    };
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests;
