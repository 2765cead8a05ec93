//! A shared group none of whose members may receive.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sundew::auth::{Access, Answer, Authorizer};
use sundew::protocol::ids::Token;
use sundew::protocol::qos::QoS;
use sundew::protocol::topic::{TopicFilter, TopicName};

use crate::broker::{BOTH, Broker};
use crate::wire::Publish;

/// Lets nobody receive anything, and counts how often it is asked.
#[derive(Default)]
struct Counting(AtomicUsize);

impl Authorizer for Counting {
    fn publish(&self, _: &Access<'_>, _: TopicName<'_>, _: QoS, _: bool, _: Token) -> Answer<bool> {
        Answer::Ready(true)
    }

    fn subscribe(&self, _: &Access<'_>, _: TopicFilter<'_>, _: Token) -> Answer<bool> {
        Answer::Ready(true)
    }

    fn watches(&self, _: &Access<'_>, _: TopicFilter<'_>) -> bool {
        true
    }

    fn receive(&self, _: &Access<'_>, _: TopicName<'_>) -> bool {
        self.0.fetch_add(1, Ordering::AcqRel);
        false
    }
}

/// Each member is asked about a message once, and it goes to each worker once, not back and forth for each member.
#[test]
fn a_message_that_no_member_may_have_costs_one_question_for_each() {
    const MEMBERS: usize = 40;
    const MESSAGES: usize = 5;
    for version in BOTH {
        for workers in [1, 4] {
            let counting = Arc::new(Counting::default());
            let broker = Broker::start(workers, |_, parts| parts.authorizer = Arc::clone(&counting) as _);
            let mut members: Vec<_> = (0..MEMBERS)
                .map(|number| broker.client(&format!("m{number}"), *version))
                .collect();
            for member in &mut members {
                assert_eq!(member.subscribe("$share/g/t", 1), 1);
            }
            let mut publisher = broker.client("p", *version);
            let letters = || broker.server.broker().metrics.sum().mailbox_mails as usize;
            let before = letters();
            for number in 0..MESSAGES {
                publisher.publish(Publish::new("t", number.to_string(), 1));
            }
            let since = Instant::now();
            while counting.0.load(Ordering::Acquire) < MEMBERS * MESSAGES && since.elapsed() < Duration::from_secs(10) {
                std::thread::yield_now();
            }
            for member in &mut members {
                member.expect_ping_answered();
            }
            assert_eq!(counting.0.load(Ordering::Acquire), MEMBERS * MESSAGES);
            let letters = letters() - before;
            assert!(letters <= MESSAGES * (workers + 2), "{letters} letters");
        }
    }
}
