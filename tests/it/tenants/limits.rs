//! What a tenant may have of subscriptions and of the retained store.

use sundew::auth::tenants::TenantLimits;
use sundew::backends::access::AccessOptions;
use sundew::broker::Parts;
use sundew::server::ServerOptions;

use super::{client, lasting, options, three, with};
use crate::broker::{BOTH, Broker, V5, story_with};
use crate::wire::Publish;

fn bounded() -> AccessOptions {
    let mut options = options();
    options.tenants[0].limits = TenantLimits {
        subscriptions_max: 3,
        retained_messages_max: 2,
        retained_bytes_max: 5_000,
        ..TenantLimits::UNLIMITED
    };
    options
}

#[test]
fn a_tenant_has_no_more_subscriptions_than_it_may() {
    story_with(with(&bounded()), BOTH, |broker, version| {
        let full = if version.has_properties() { 0x97 } else { 0x80 };
        let [mut a, mut b, mut house] = three(broker, version);
        let mut second = broker.connect(version, &lasting("a", "second", version)).0;
        assert_eq!(
            (
                a.subscribe("x", 1),
                a.subscribe("$share/g/x", 1),
                second.subscribe("y", 1)
            ),
            (1, 1, 1)
        );
        assert_eq!((second.subscribe("z", 1), a.subscribe("z", 1)), (full, full));
        assert_eq!(a.subscribe("x", 0), 0, "in the place of one that is there");
        for client in [&mut b, &mut house] {
            for number in 0..5 {
                assert_eq!(client.subscribe(&format!("f/{number}"), 1), 1);
            }
        }
        a.unsubscribe(&["x"]);
        assert_eq!((second.subscribe("z", 1), a.subscribe("x", 1)), (1, full));
        // Those of a session that is kept count, those of one that is over do not.
        second.disconnect();
        assert_eq!(a.subscribe("x", 1), full);
        client(broker, version, "a", "second").expect_ping_answered();
        assert_eq!((a.subscribe("x", 1), a.subscribe("y", 1)), (1, 1));
        assert_eq!(broker.server.broker().metrics.sum().limit_tenants, 4);
    });
}

#[test]
fn no_more_is_retained_of_a_tenant_than_it_may_have() {
    story_with(with(&bounded()), V5, |broker, version| {
        let [mut a, mut b, mut house] = three(broker, version);
        for (topic, text) in [("1", "x"), ("$2", "x"), ("1", "again")] {
            a.publish(Publish::new(topic, text, 1).retained());
        }
        assert_eq!(a.try_publish(Publish::new("3", "x", 1).retained()), 0x97);
        assert_eq!(house.try_publish(Publish::new("a/3", "x", 1).retained()), 0x97);
        for number in 0..5 {
            b.publish(Publish::new(&format!("f/{number}"), "x".repeat(10_000), 1).retained());
            house.publish(Publish::new(&format!("f/{number}"), "x", 1).retained());
        }
        let large = "x".repeat(10_000);
        assert_eq!(a.try_publish(Publish::new("1", &large, 1).retained()), 0x97);
        a.publish(Publish::new("1", "", 1).retained());
        assert_eq!(a.try_publish(Publish::new("3", &large, 1).retained()), 0x97);
        a.publish(Publish::new("3", "x", 1).retained());
        let mut late = client(broker, version, "a", "late");
        late.subscribe("#", 1);
        late.expect_text("3", "x");
        late.expect_ping_answered();
        assert_eq!(broker.server.broker().metrics.sum().limit_tenants, 4);
        // Other bounds count at a reload, with what is there.
        let mut wider = bounded();
        wider.tenants[0].limits.retained_messages_max = 3;
        assert!(broker.server.reload_access(Some(wider)));
        while a.try_publish(Publish::new("4", "x", 1).retained()) == 0x97 {}
        assert_eq!(a.try_publish(Publish::new("5", "x", 1).retained()), 0x97);
    });
}

/// What was there before counts after it.
#[test]
fn a_restart_forgets_nothing_of_what_a_tenant_has() {
    let version = V5[0];
    let folder = tempfile::tempdir().unwrap();
    let set = |options: &mut ServerOptions| with(&bounded())(options, &mut Parts::default());
    let broker = Broker::keeping(folder.path(), set);
    let mut a = broker.connect(version, &lasting("a", "c", version)).0;
    for name in ["1", "2"] {
        a.publish(Publish::new(name, "x", 1).retained());
        assert_eq!(a.subscribe(name, 1), 1);
        a.expect_text(name, "x");
    }
    a.disconnect();
    assert!(broker.server.stop());
    let broker = Broker::keeping(folder.path(), set);
    let mut other = client(&broker, version, "a", "other");
    assert_eq!(other.try_publish(Publish::new("3", "x", 1).retained()), 0x97);
    assert_eq!((other.subscribe("3", 1), other.subscribe("4", 1)), (1, 0x97));
    assert!(broker.server.stop());
}
