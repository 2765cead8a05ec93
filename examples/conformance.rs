//! The broker as the outside conformance suites want it: strict about characters, keep alive capped at 60 s, Receive Maximum 20,
//! subscriptions to `test/nosubscribe` refused. `cargo run --example conformance -- 1883 1884`

#![allow(clippy::print_stdout)] // an example speaks to the one who runs it

use std::sync::Arc;

use sundew::auth::{Access, Answer, Authorizer};
use sundew::broker::Parts;
use sundew::protocol::{ids::Token, qos::QoS, reason::ReasonCode, topic::TopicFilter, topic::TopicName};
use sundew::server::{Server, ServerOptions};
use sundew::transport::options::{ListenAddress, ListenerOptions};

struct NoSubscribe;

impl Authorizer for NoSubscribe {
    fn publish(&self, _: &Access<'_>, _: TopicName<'_>, _: QoS, _: bool, _: Token) -> Answer<bool> {
        Answer::Ready(true)
    }

    fn subscribe(&self, _: &Access<'_>, filter: TopicFilter<'_>, _: Token) -> Answer<bool> {
        Answer::Ready(filter.as_str() != "test/nosubscribe")
    }

    fn subscribe_refusal(&self) -> ReasonCode {
        ReasonCode::UnspecifiedError // what these suites wait for
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut options = ServerOptions::default();
    options.listeners.clear();
    for port in std::env::args().skip(1) {
        let addresses = vec![ListenAddress::Tcp(format!("127.0.0.1:{port}").parse()?)];
        options.listeners.push((
            ListenerOptions {
                addresses,
                ..ListenerOptions::default()
            },
            Default::default(),
        ));
    }
    options.broker.decode.strict_utf8 = true;
    options.broker.keep_alive_max = 60;
    options.broker.receive_maximum = 20;
    options.broker.delivery.in_flight_max = 20;
    let parts = Parts {
        authorizer: Arc::new(NoSubscribe),
        ..Parts::default()
    };
    let server = Server::start(options, parts)?;
    println!("listening on {:?}", server.addresses());
    std::thread::park();
    drop(server);
    Ok(())
}
