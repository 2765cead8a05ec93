//! Subscriptions that come and go while messages flow: what a broker keeps of matching is of no use again and again.

use std::convert::Infallible;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use super::connection::{Local, Part, connect};
use super::link::{Failure, Link};
use super::shared::add;
use crate::protocol::ids::PacketId;
use crate::protocol::packet::{Packet, Subscribe, SubscriptionOptions, Unsubscribe};
use crate::protocol::property::Properties;
use crate::protocol::topic::TopicFilter;

/// Filters that are subscribed and unsubscribed in turn.
const FILTERS: u64 = 1000;
/// Requests that are not answered, at most.
const UNANSWERED_MAX: u64 = 10_000;
/// How often requests are written.
const PAUSE: Duration = Duration::from_millis(1);

/// Subscribes and unsubscribes, `rate` requests a second in all, until something fails.
pub(super) async fn churn(local: &Local, rate: f64) -> Failure {
    match churn_on(local, rate).await {
        Err(failure) => failure,
        Ok(never) => match never {},
    }
}

async fn churn_on(local: &Local, rate: f64) -> Result<Infallible, Failure> {
    let (mut link, _) = connect(Part::Churner(0), local, true).await?;
    let began = local.shared.now();
    let mut turns = tokio::time::interval(PAUSE);
    let (mut requests, mut answers) = (0_u64, 0_u64);
    loop {
        turns.tick().await;
        let due = ((local.shared.now() - began) as f64 * rate / 1e9) as u64;
        while requests < due && requests - answers < UNANSWERED_MAX {
            put(&mut link, local.shared.run, requests)?;
            requests += 1;
        }
        let answered = answers;
        poll_fn(|cx| {
            if let Poll::Ready(Err(error)) = link.poll_write(cx) {
                return Poll::Ready(Err(Failure::from(error)));
            }
            let mut scratch = local.scratch.borrow_mut();
            while let Poll::Ready(read) = link.poll_read(cx, &mut scratch, |packet, _| match packet {
                Packet::SubAck(_) | Packet::UnsubAck(_) => {
                    answers += 1;
                    Ok(())
                }
                other => Err(Failure::Unexpected(other.packet_type().name())),
            }) {
                if read.is_err() {
                    return Poll::Ready(read);
                }
            }
            Poll::Ready(Ok(()))
        })
        .await?;
        add(&local.counters().churned, answers - answered);
    }
}

/// Appends a SUBSCRIBE, or behind it the UNSUBSCRIBE of the same filter, which no message of ours matches.
fn put(link: &mut Link, run: u32, number: u64) -> Result<(), Failure> {
    let text = format!("bench/{run:08x}-churn/{}/+", number / 2 % FILTERS);
    let id = PacketId::new((number % 0xFFFF) as u16 + 1);
    let (Ok(filter), Some(packet_id)) = (TopicFilter::parse(&text), id) else {
        return Ok(()); // it is one, and not 0
    };
    let packet = if number.is_multiple_of(2) {
        Packet::Subscribe(Subscribe {
            packet_id,
            properties: Properties::EMPTY,
            filters: vec![(filter, SubscriptionOptions::default())],
        })
    } else {
        Packet::Unsubscribe(Unsubscribe {
            packet_id,
            properties: Properties::EMPTY,
            filters: vec![filter],
        })
    };
    link.put(&packet)?;
    Ok(())
}
