//! More than the broker can take: what happens is what the options say, and who has nothing to do with it does not notice.

use std::time::Instant;

use sundew::protocol::version::Version;

use crate::abuse::{bound, median_round_trip, resident_kib};
use crate::client::{Client, PATIENCE};
use crate::command_line::{self, free_port, sundew};
use crate::wire::{Connect, Publish};

const KIB: usize = 1024;

/// A publisher that would fill a machine is refused at the budget, everything that was acknowledged arrives, and then there is room again.
#[test]
fn memory_is_bounded_by_its_budget_and_what_was_acknowledged_arrives() {
    const BUDGET_KIB: usize = 96 * KIB;
    const PAYLOAD_BYTES: usize = 32 * KIB;
    let port = free_port();
    let mut command = sundew(&["-p", &port]);
    command
        .env("SUNDEW__LIMITS__MEMORY_MAX", "96MiB")
        .env("SUNDEW__QUEUE__UNSTORED_BYTES_MAX", "1GiB");
    let mut broker = command_line::Broker::start(&mut command);
    let port: u16 = port.parse().unwrap();
    let enter = |connect: &Connect<'_>| {
        let mut client = Client::open(port, Version::V5);
        client.connect(connect);
        client
    };
    let mut canary = enter(&Connect {
        client_id: "canary",
        ..Connect::default()
    });
    canary.subscribe("canary", 0);
    let calm = median_round_trip(&mut canary);
    let mut away = enter(&Connect::lasting("away", Version::V5));
    away.subscribe("t", 1);
    away.disconnect();
    let mut publisher = enter(&Connect {
        client_id: "publisher",
        ..Connect::default()
    });
    let message = |number: usize| {
        let mut payload = format!("{number} ");
        payload.extend(std::iter::repeat_n('x', PAYLOAD_BYTES));
        Publish::new("t", payload, 1)
    };
    let mut kept = 0;
    while publisher.try_publish(message(kept)) == 0 {
        kept += 1;
        assert!(kept * PAYLOAD_BYTES < 2 * BUDGET_KIB * KIB, "nothing is refused");
    }
    assert!(kept * PAYLOAD_BYTES > BUDGET_KIB * KIB / 2, "{kept} were taken");
    broker.wait_for("memory is used up");
    let used = resident_kib(broker.id());
    assert!(used < BUDGET_KIB + 48 * KIB, "{used} KiB of {BUDGET_KIB}");
    assert_eq!(publisher.try_publish(message(0)), 0x97);
    assert_eq!(publisher.try_publish(Publish::new("r", "kept", 1).retained()), 0x97);
    let busy = median_round_trip(&mut canary);
    assert!(busy <= bound(calm), "{calm:?} in calm, {busy:?} with memory used up");

    let mut away = enter(&Connect::lasting("away", Version::V5));
    for number in 0..kept {
        let got = away.expect_message();
        let text = got.text();
        assert!(
            text.starts_with(&format!("{number} ")),
            "{number}, but there came {}",
            &text[..9]
        );
    }
    away.disconnect();
    broker.wait_for("enough memory again");
    let begin = Instant::now();
    while publisher.try_publish(message(0)) != 0 {
        assert!(begin.elapsed() < PATIENCE, "there is room again");
    }
}
