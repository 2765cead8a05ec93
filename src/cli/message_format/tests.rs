//! Messages as text.

use time::macros::datetime;

use super::*;
use crate::protocol::ids::PacketId;
use crate::protocol::property::PropertiesBuf;
use crate::protocol::qos::QoS;

fn message() -> Received {
    let mut properties = PropertiesBuf::new();
    properties
        .push_text(PropertyId::ContentType, "text/plain")
        .push_user_property("unit", "°C")
        .push_user_property("unit", "K")
        .push_varint(PropertyId::SubscriptionIdentifier, 7);
    Received {
        topic: "home/lamp".to_owned(),
        payload: bytes::Bytes::from_static(b"\x0aOn\""),
        qos: QoS::AtLeastOnce,
        retain: true,
        dup: false,
        packet_id: PacketId::new(9),
        properties,
    }
}

fn shown(format: &str) -> String {
    let mut out = Vec::new();
    MessageFormat::parse(format)
        .unwrap()
        .write(&message(), &mut out)
        .unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn letters_stand_for_parts_of_the_message() {
    assert_eq!(shown("%t %q %r %l %m %d"), "home/lamp 1 1 4 9 0");
    assert_eq!(shown("%p|%x|%X"), "\nOn\"|0a4f6e22|0A4F6E22");
    assert_eq!(shown("%C %P %S %R."), "text/plain unit:°C unit:K 7 .");
    assert_eq!(shown(r"100 %%\t@@\\"), "100 %\t@\\");
}

#[test]
fn width_and_precision() {
    assert_eq!(
        shown("[%12t][%-12t][%.4t][%05l][%.1x]"),
        "[   home/lamp][home/lamp   ][home][00004][0a]"
    );
}

#[test]
fn times_are_as_strftime_has_them() {
    let moment = datetime!(2026-11-01 00:05:09.000_000_042 +1);
    let mut out = Vec::new();
    for letter in TIMES.chars() {
        write_time(letter, moment, &mut out);
        out.push(b'|');
    }
    let expected = "Sun|Sunday|Nov|November|01|11/01/26| 1|2026-11-01|00|12|305| 0|12|11|05|\n|000000042|AM|00:05|1793487909|09|\t|\
                    00:05:09|7|0|26|2026|+0100|+0100|";
    assert_eq!(String::from_utf8(out).unwrap(), expected);
    assert_eq!(iso_8601(moment), "2026-11-01T00:05:09+0100");
}

#[test]
fn json_is_json() {
    let text = shown("%j");
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["topic"], "home/lamp");
    assert_eq!(value["payload"], "\nOn\"");
    assert_eq!(value["payloadlen"], 4);
    assert_eq!(value["mid"], 9);
    assert_eq!(value["properties"]["content-type"], "text/plain");
    assert_eq!(value["properties"]["subscription-identifier"], 7);
    assert!(text.contains(r#""user-properties":{"unit":"°C","unit":"K"}"#), "{text}");
    let with_json = Received {
        payload: bytes::Bytes::from_static(b" {\"a\":1.50}"),
        ..message()
    };
    let mut out = Vec::new();
    let format = MessageFormat::parse("%J").unwrap();
    format.write(&with_json, &mut out).unwrap();
    assert!(String::from_utf8(out).unwrap().ends_with(",\"payload\":{\"a\":1.50}}"));
    assert!(
        format
            .write(&message(), &mut Vec::new())
            .unwrap_err()
            .contains("not JSON")
    );
}

#[test]
fn mistakes_in_a_format_are_answered() {
    for bad in ["%", "%y", "@", "@Q", "\\", "\\q", "%99999p"] {
        assert!(MessageFormat::parse(bad).unwrap_err().starts_with("-F: "), "{bad}");
    }
}
