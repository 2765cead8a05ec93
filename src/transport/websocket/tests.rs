//! Frames made by hand, against a server's WebSocket.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;

const BINARY: u8 = 0x82;
const TEXT: u8 = 0x81;
const CONTINUATION: u8 = 0x80;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8A;
/// Without FIN: more frames of the message follow.
const FIRST_BINARY: u8 = 0x02;

/// A frame as clients send it. The mask is zero, which is a mask.
fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = payload.len();
    let header = match length {
        0..=125 => vec![kind, 0x80 | u8::try_from(length).unwrap()],
        _ => [&[kind, 0x80 | 127][..], &u64::try_from(length).unwrap().to_be_bytes()].concat(),
    };
    [&header, &[0; 4][..], payload].concat()
}

fn pair() -> (DuplexStream, WebSocket<DuplexStream>) {
    pair_with(&WebSocketOptions::default())
}

fn pair_with(options: &WebSocketOptions) -> (DuplexStream, WebSocket<DuplexStream>) {
    let (client, server) = tokio::io::duplex(4 << 20);
    (client, WebSocket::server(server, options))
}

async fn write(websocket: &mut WebSocket<DuplexStream>, bytes: &[u8]) -> usize {
    let bufs = [io::IoSlice::new(bytes)];
    std::future::poll_fn(|cx| websocket.poll_write(cx, &bufs))
        .await
        .unwrap()
}

async fn read(websocket: &mut WebSocket<DuplexStream>) -> io::Result<Vec<u8>> {
    let mut buf = [0; 16];
    let length = std::future::poll_fn(|cx| websocket.poll_read(cx, &mut buf)).await?;
    Ok(buf[..length].to_vec())
}

async fn read_all(websocket: &mut WebSocket<DuplexStream>, size: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < size {
        bytes.extend(read(websocket).await.unwrap());
    }
    bytes
}

async fn shut_down(websocket: &mut WebSocket<DuplexStream>) {
    std::future::poll_fn(|cx| websocket.poll_shutdown(cx)).await.unwrap();
}

fn run<T>(story: impl Future<Output = T>) -> T {
    let story = async {
        tokio::time::timeout(Duration::from_secs(20), story)
            .await
            .expect("the story hangs")
    };
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(story)
}

#[test]
fn packets_are_split_and_joined_over_frames_and_messages() {
    run(async {
        let (mut client, mut server) = pair();
        let bytes = [
            frame(FIRST_BINARY, b"\x30"),
            frame(PING, b"are you there"), // in the middle of a message
            frame(0x00, b"\x05\x00"),
            frame(CONTINUATION, b"\x01ahi"),
            frame(BINARY, b""),
            frame(BINARY, b"\xC0"),
            frame(BINARY, b"\x00\xC0\x00"),
        ]
        .concat();
        for byte in bytes {
            client.write_all(&[byte]).await.unwrap(); // TCP splits as it likes
        }
        assert_eq!(read_all(&mut server, 11).await, b"\x30\x05\x00\x01ahi\xC0\x00\xC0\x00");
        // A read after the ping sent the pong.
        client.write_all(&frame(BINARY, b"x")).await.unwrap();
        assert_eq!(read(&mut server).await.unwrap(), b"x");
        let mut pong = [0; 15];
        client.read_exact(&mut pong).await.unwrap();
        assert_eq!(pong, *b"\x8A\x0Dare you there");
        assert_eq!(pong[0], PONG);
    });
}

#[test]
fn what_mqtt_does_not_allow_ends_with_a_close_frame_that_says_so() {
    let cases: [(Vec<u8>, u16, &str); 5] = [
        (frame(TEXT, b"hello"), 1003, "binary"),
        (vec![BINARY, 1, b'x'], 1002, ""), // not masked [RFC 6455 5.1]
        (frame(CONTINUATION, b"x"), 1002, ""),
        (frame(0xC2, b"x"), 1002, ""), // a reserved bit
        (frame(BINARY, &vec![0; (1 << 20) + 1])[..14].to_vec(), 1009, "exceeds"),
    ];
    for (bytes, code, word) in cases {
        run(async {
            let (mut client, mut server) = pair();
            client.write_all(&bytes).await.unwrap();
            let error = read(&mut server).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{bytes:x?}");
            assert!(error.to_string().contains(word), "{error}");
            shut_down(&mut server).await;
            drop(server);
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            assert_eq!(answer[0], CLOSE, "{bytes:x?}");
            assert_eq!(u16::from_be_bytes([answer[2], answer[3]]), code, "{bytes:x?}");
        });
    }
}

#[test]
fn large_messages_are_for_clients_that_were_answered() {
    run(async {
        let options = WebSocketOptions {
            message_size_max: 3 << 20,
            ..WebSocketOptions::default()
        };
        let (mut client, mut server) = pair_with(&options);
        write(&mut server, b"CONNACK").await;
        client.write_all(&frame(BINARY, &vec![7; 2 << 20])).await.unwrap();
        assert_eq!(read_all(&mut server, 2 << 20).await.len(), 2 << 20);
        client.write_all(&frame(FIRST_BINARY, &vec![7; 2 << 20])).await.unwrap();
        client.write_all(&frame(CONTINUATION, &vec![7; 3 << 19])).await.unwrap(); // bounded as a whole, too
        assert!(read(&mut server).await.unwrap_err().to_string().contains("exceeds"));
    });
}

#[test]
fn what_a_stranger_sends_at_once_is_bounded_until_it_has_entered() {
    let options = WebSocketOptions {
        first_message_size_max: WebSocketOptions::first_message_size(1 << 16),
        ..WebSocketOptions::default()
    };
    assert_eq!(WebSocketOptions::first_message_size(usize::MAX), (1 << 20) + 5);
    for answers in [&[][..], &[b"\xF0\x00"], &[b"\xF0\x00", b"\xF0\x00"]] {
        run(async {
            let (mut client, mut server) = pair_with(&options);
            client.write_all(&frame(BINARY, &[7; (1 << 16) + 5])).await.unwrap();
            assert_eq!(read_all(&mut server, (1 << 16) + 5).await.len(), (1 << 16) + 5);
            for answer in answers {
                write(&mut server, *answer).await;
            }
            client.write_all(&frame(BINARY, &[7; (1 << 16) + 6])).await.unwrap();
            assert!(read(&mut server).await.unwrap_err().to_string().contains("exceeds"));
        });
    }
}

#[test]
fn a_server_that_has_nothing_to_say_pings() {
    run(async {
        let ping_interval = Some(Duration::from_millis(40));
        let (mut client, mut server) = pair_with(&WebSocketOptions {
            ping_interval,
            ..WebSocketOptions::default()
        });
        let started = Instant::now();
        let reading = async {
            let error = read(&mut server).await;
            panic!("nothing was sent, and yet {error:?}");
        };
        let mut ping = [0; 2];
        tokio::select! {
            () = reading => {}
            result = client.read_exact(&mut ping) => drop(result.unwrap()),
        }
        assert_eq!(ping, [PING, 0]);
        assert!(started.elapsed() >= Duration::from_millis(40));
    });
}

#[test]
fn a_close_frame_is_the_end_and_is_answered_once() {
    run(async {
        let (mut client, mut server) = pair();
        client.write_all(&frame(CLOSE, &1000_u16.to_be_bytes())).await.unwrap();
        assert_eq!(read(&mut server).await.unwrap(), b"");
        shut_down(&mut server).await;
        drop(server);
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"\x88\x02\x03\xE8");
    });
}

#[test]
fn output_is_one_binary_message_a_write() {
    run(async {
        let (mut client, mut server) = pair();
        let bufs = [
            io::IoSlice::new(b"\xD0"),
            io::IoSlice::new(b""),
            io::IoSlice::new(b"\x00"),
        ];
        assert_eq!(
            std::future::poll_fn(|cx| server.poll_write(cx, &bufs)).await.unwrap(),
            2
        );
        let mut message = [0; 4];
        client.read_exact(&mut message).await.unwrap();
        assert_eq!(message, *b"\x82\x02\xD0\x00");
        let long = vec![7; MESSAGE_SIZE_MAX + 1];
        assert_eq!(write(&mut server, &long).await, MESSAGE_SIZE_MAX);
    });
}
