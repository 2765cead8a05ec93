use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const START: Time = Time(1_000_000);
const MINUTE: u64 = 60;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn bans() -> Bans {
    Bans::new(BanOptions::default())
}

fn fail(bans: &mut Bans, from: &str, user: &str, times: usize, now: Time) -> Vec<Ban> {
    (0..times)
        .flat_map(|_| bans.failed(ip(from), Some(user), || false, now))
        .collect()
}

#[test]
fn a_user_is_banned_where_its_password_was_guessed_and_nowhere_else() {
    let mut bans = bans();
    assert!(fail(&mut bans, "10.0.0.7", "alice", 9, START).is_empty());
    let made = fail(&mut bans, "10.0.0.7", "alice", 1, START);
    assert_eq!(made[0].about.to_string(), "address=10.0.0.7 user=\"alice\"");
    assert_eq!(
        (made.len(), made[0].count, made[0].until),
        (1, 10, START.plus_secs(5 * MINUTE))
    );
    let banned = |from, user| bans.client(Some(ip(from)), user, "c", START).is_some();
    assert!(banned("10.0.0.7", Some("alice")) && banned("::ffff:10.0.0.7", Some("alice")));
    assert!(!banned("10.0.0.8", Some("alice")) && !banned("10.0.0.7", Some("bob")) && !banned("10.0.0.7", None));
    assert_eq!(bans.address(ip("10.0.0.7"), START), None);
    assert_eq!(bans.latest(), made[0].until);
}

#[test]
fn an_address_is_banned_that_tries_many_names_and_an_ipv6_one_with_its_network() {
    let mut bans = bans();
    for number in 0..50 {
        let from = format!("2001:db8:1:2:{number}::1");
        let made = fail(&mut bans, &from, &format!("user-{number}"), 1, START);
        assert_eq!(!made.is_empty(), number == 49, "{number}: {made:?}");
    }
    assert!(bans.address(ip("2001:db8:1:2::7"), START).is_some());
    assert!(bans.client(Some(ip("2001:db8:1:2::7")), None, "c", START).is_some());
    assert_eq!(bans.address(ip("2001:db8:1:3::7"), START), None);
    assert_eq!(bans.list(START)[0].about.to_string(), "address=2001:db8:1:2::/64");
}

#[test]
fn an_address_that_others_use_is_not_banned_and_the_users_there_that_are_guessed_are() {
    let mut bans = bans();
    for number in 0..200 {
        let user = format!("user-{}", number % 12);
        bans.failed(ip("10.0.0.7"), Some(&user), || true, START);
    }
    assert_eq!(bans.address(ip("10.0.0.7"), START), None);
    assert_eq!(bans.list(START).len(), 12, "each of them was guessed ten times");
    for _ in 200..499 {
        assert_eq!(bans.failed(ip("10.0.0.7"), None, || true, START), []);
    }
    let made = bans.failed(ip("10.0.0.7"), None, || true, START);
    assert_eq!(made[0].count, 500, "there is an end to it");
    assert!(bans.address(ip("10.0.0.7"), START).is_some());
}

#[test]
fn each_ban_is_twice_as_long_as_the_last_one_until_there_has_been_none_for_long() {
    let mut bans = bans();
    let mut now = START;
    for minutes in [5, 10, 20, 40, 60, 60] {
        let made = fail(&mut bans, "10.0.0.7", "alice", 10, now);
        assert_eq!(made[0].until, now.plus_secs(minutes * MINUTE));
        now = made[0].until;
        assert_eq!(bans.client(Some(ip("10.0.0.7")), Some("alice"), "c", now), None);
    }
    now = now.plus_secs(60 * MINUTE);
    assert_eq!(
        fail(&mut bans, "10.0.0.7", "alice", 10, now)[0].until,
        now.plus_secs(5 * MINUTE)
    );
}

#[test]
fn failures_far_apart_and_failures_of_this_machine_ban_nobody() {
    let mut bans = bans();
    for second in 0..1000 {
        assert!(fail(&mut bans, "10.0.0.7", "alice", 1, START.plus_secs(second * 7)).is_empty());
    }
    for local in ["127.0.0.1", "127.3.2.1", "::1", "::ffff:127.0.0.1"] {
        assert!(fail(&mut bans, local, "alice", 1000, START).is_empty());
    }
    assert!(bans.list(START).is_empty());
}

#[test]
fn clients_that_come_too_often_are_banned_where_that_is_wanted() {
    let often =
        |bans: &mut Bans, times| (0..times).any(|_| bans.connected(ip("10.0.0.7"), "c", Some("u"), START).is_some());
    assert!(!often(&mut bans(), 1000), "off by default");
    let mut bans = Bans::new(BanOptions {
        connects_max: 15,
        ..BanOptions::default()
    });
    assert!(!often(&mut bans, 15) && often(&mut bans, 1));
    let banned = |from, client, user| bans.client(Some(ip(from)), user, client, START).is_some();
    assert!(banned("10.0.0.7", "c", Some("u")));
    assert!(
        !banned("10.0.0.8", "c", Some("u")) && !banned("10.0.0.7", "c", None) && !banned("10.0.0.7", "d", Some("u"))
    );
}

#[test]
fn an_administrator_bans_and_lifts_whom_he_likes() {
    let mut bans = bans();
    let subjects = [
        Subject::Network("127.0.0.0/8".parse().unwrap()),
        Subject::User("u".into()),
        Subject::Client("c".into()),
    ];
    for subject in &subjects {
        bans.add(subject.clone(), Time::NEVER, "noise".into(), START).unwrap();
        bans.add(subject.clone(), START.plus_secs(9), "noise".into(), START)
            .unwrap();
    }
    assert_eq!(bans.list(START).len(), 3, "said again, it is another time");
    let banned = |bans: &Bans, from, user, client| bans.client(from, user, client, START).is_some();
    assert!(
        bans.address(ip("127.0.0.1"), START).is_some()
            && banned(&bans, None, Some("u"), "x")
            && banned(&bans, None, None, "c")
    );
    assert!(!banned(&bans, None, None, "x"));
    fail(&mut bans, "10.0.0.7", "u", 10, START);
    assert_eq!(bans.lift(&subjects[0], START), 1);
    assert_eq!(
        bans.lift(&subjects[1], START),
        2,
        "the one that he made and the one that was earned"
    );
    assert_eq!(bans.lift(&subjects[1], START), 0);
    assert!(!banned(&bans, Some(ip("10.0.0.7")), Some("u"), "x"));
    assert_eq!(bans.list(START.plus_secs(9)), [], "each has its time");
    for number in 0..ORDERS_MAX {
        bans.add(
            Subject::User(number.to_string().into()),
            Time::NEVER,
            "".into(),
            START.plus_secs(9),
        )
        .unwrap();
    }
    let one_more = bans.add(Subject::User("x".into()), Time::NEVER, "".into(), START.plus_secs(9));
    assert_eq!(one_more, Err(TooManyOrders));
}

#[test]
fn a_flood_of_names_and_addresses_is_bounded_and_somebody_is_forgotten() {
    let mut bans = Bans::new(BanOptions {
        entries_max: 16,
        ..BanOptions::default()
    });
    fail(&mut bans, "10.0.0.7", "alice", 10, START);
    assert_eq!(bans.list(START).len(), 1);
    let long = "x".repeat(60_000);
    for number in 0..100 {
        fail(&mut bans, &format!("10.0.1.{number}"), &long, 10, START);
        assert!(bans.entries.len() <= 16 && bans.ages.len() == bans.entries.len());
    }
    let list = bans.list(START);
    assert!(list.iter().all(|ban| ban.about.to_string().len() < 200) && !list.is_empty());
    assert!(
        bans.client(Some(ip("10.0.1.99")), Some(&long), "c", START).is_some(),
        "however many bans run, there is room for the next one"
    );
    // What is over makes room by itself.
    fail(&mut bans, "10.0.0.9", "bob", 1, START.plus_secs(100 * MINUTE * 60));
    assert_eq!(bans.entries.len(), 2);
}

#[test]
fn nobody_gets_rid_of_his_ban_by_a_flood_of_names() {
    let mut bans = Bans::new(BanOptions {
        entries_max: 16,
        ..BanOptions::default()
    });
    fail(&mut bans, "10.0.0.7", "alice", 10, START);
    for number in 0..100 {
        fail(&mut bans, &format!("10.0.1.{number}"), &number.to_string(), 1, START);
        assert!(bans.entries.len() <= 16 && bans.ages.len() == bans.entries.len());
    }
    assert!(bans.client(Some(ip("10.0.0.7")), Some("alice"), "c", START).is_some());
    // When it is over, it goes like any other.
    let later = START.plus_secs(5 * MINUTE);
    for number in 0..100 {
        fail(&mut bans, &format!("10.0.1.{number}"), &number.to_string(), 1, later);
    }
    let is_alice = |entry: &Entry| entry.source == ip("10.0.0.7");
    assert!(!bans.entries.values().any(is_alice));
}

/// Or every connection would look for ever for a ban that is not there.
#[test]
fn the_latest_end_of_a_ban_goes_with_it() {
    let mut bans = bans();
    let subject = Subject::User("u".into());
    bans.add(subject.clone(), Time::NEVER, "".into(), START).unwrap();
    bans.add(subject.clone(), START.plus_secs(9), "".into(), START).unwrap();
    assert_eq!(bans.latest(), START.plus_secs(9), "said again, it is shorter");
    let made = fail(&mut bans, "10.0.0.7", "alice", 10, START);
    assert_eq!(bans.latest(), made[0].until);
    bans.lift(&Subject::User("alice".into()), START);
    assert_eq!(bans.latest(), START.plus_secs(9));
    bans.lift(&subject, START);
    assert_eq!(bans.latest(), Time(0));
}

/// Failures that count towards the next ban, and bans with begin and end.
type History = (Vec<u64>, Vec<(u64, u64)>);

/// The rules, written down as plainly as can be: everything is remembered.
#[derive(Default)]
struct Naive {
    /// Of each address, and each user there.
    keys: BTreeMap<(u8, Option<u8>), History>,
}

impl Naive {
    fn fail(&mut self, key: (u8, Option<u8>), max: usize, options: &BanOptions, now: u64) {
        let (failures, bans) = self.keys.entry(key).or_default();
        if bans.iter().any(|(_, end)| *end > now) {
            return;
        }
        if failures.first().is_some_and(|first| now - first >= options.window_ms) {
            failures.clear();
        }
        failures.push(now);
        if failures.len() < max {
            return;
        }
        let (mut in_a_row, mut next) = (0, now);
        for (begin, end) in bans.iter().rev() {
            if next >= end + options.time_max_ms {
                break;
            }
            (in_a_row, next) = (in_a_row + 1, *begin);
        }
        let length = (0..in_a_row).fold(options.time_ms, |length, _| options.time_max_ms.min(length * 2));
        bans.push((now, now + length));
        failures.clear();
    }

    fn until(&self, key: (u8, Option<u8>), now: u64) -> Option<u64> {
        let (_, bans) = self.keys.get(&key)?;
        bans.iter().map(|(_, end)| *end).filter(|end| *end > now).max()
    }
}

proptest! {
    #[test]
    fn it_bans_whom_a_list_of_everything_would_ban(
        steps in proptest::collection::vec((0u8..3, 0u8..3, 0u64..30, any::<bool>()), 1..400),
    ) {
        let options = BanOptions {
            failures_max: 3,
            address_failures_max: 5,
            window_ms: 50,
            time_ms: 40,
            time_max_ms: 200,
            ..BanOptions::default()
        };
        let (mut bans, mut naive, mut now) = (Bans::new(options.clone()), Naive::default(), START.0);
        for (host, user, later, fails) in steps {
            now += later;
            let from = IpAddr::from([10, 0, 0, host]);
            let name = user.to_string();
            if fails {
                bans.failed(from, Some(&name), || false, Time(now));
                naive.fail((host, Some(user)), 3, &options, now);
                naive.fail((host, None), 5, &options, now);
            }
            let of_address = naive.until((host, None), now);
            let of_client = naive.until((host, Some(user)), now).max(of_address);
            prop_assert_eq!(bans.address(from, Time(now)).map(|until| until.0), of_address);
            prop_assert_eq!(bans.client(Some(from), Some(&name), "c", Time(now)).map(|until| until.0), of_client);
            let listed = (0..3).flat_map(|host| [None, Some(0), Some(1), Some(2)].map(|user| (host, user)));
            let listed = listed.filter(|key| naive.until(*key, now).is_some()).count();
            prop_assert_eq!(bans.list(Time(now)).len(), listed);
        }
    }
}
