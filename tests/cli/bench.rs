//! `sundew bench` against a broker in this process: every scenario, and what it says of a broker that fails.

use serde_json::Value;

use super::*;

/// Runs a scenario for a moment, and reads what it says.
fn bench(port: &str, arguments: &[&str]) -> (i32, Value) {
    let moment = ["--warm-up", "0.1", "--duration", "0.3", "--json"];
    let (code, out, error) = sundew(&[&["bench", "-h", "127.0.0.1", "-p", port], arguments, &moment].concat());
    let report = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{arguments:?}: {out}{error}"));
    (code, report)
}

/// Everything came, once, in order.
fn assert_whole(report: &Value) {
    let delivery = &report["delivery"];
    let number = |name: &str| delivery[name].as_u64().unwrap();
    assert!(
        number("delivered") > 0 && number("delivered") == number("expected"),
        "{report}"
    );
    for name in ["lost", "duplicated", "reordered", "strays", "unacknowledged"] {
        assert_eq!(number(name), 0, "{name}: {report}");
    }
    assert_eq!(report["faults"], Value::Array(Vec::new()));
}

#[test]
fn traffic_of_every_scenario_arrives_whole_at_every_qos() {
    let (_server, port) = broker(|_| {});
    for scenario in ["pairs", "fan-in", "fan-out", "shared", "wildcard", "latency"] {
        for qos in ["0", "1", "2"] {
            let size = ["--filters", "300", "--subscribers", "6", "--publishers", "6", "-q", qos];
            let (code, report) = bench(&port, &[&[scenario], &size[..]].concat());
            assert_eq!(code, 0, "{scenario}, QoS {qos}: {report}");
            assert_whole(&report);
            assert!(report["traffic"]["delivered_per_second"].as_f64().unwrap() > 0.0);
            assert!(report["latency_us"]["p50"].as_f64().unwrap() > 0.0, "{report}");
        }
    }
}

#[test]
fn versions_threads_sizes_and_kept_sessions_change_nothing_about_that() {
    let (_server, port) = broker(|_| {});
    for arguments in [
        &["pairs", "-V", "5", "-q", "2", "--payload", "5000"][..],
        &[
            "fan-out",
            "-V",
            "31",
            "--subscribers",
            "20",
            "--threads",
            "3",
            "-q",
            "1",
            "--sub-qos",
            "0",
        ],
        &["shared", "--threads", "2", "-q", "1"],
        &["pairs", "-q", "1", "--churn", "2000", "--levels", "20"],
        &["pairs", "--keep-session", "-V", "5", "-q", "1"],
        &[
            "pairs",
            "--keep-session",
            "-V",
            "311",
            "-q",
            "1",
            "--in-flight",
            "1",
            "--publishers",
            "20",
        ],
        &[
            "fan-in",
            "--rate",
            "3000",
            "-q",
            "1",
            "--payload",
            "300000",
            "--rate",
            "300",
        ],
    ] {
        let (code, report) = bench(&port, arguments);
        assert_eq!(code, 0, "{arguments:?}: {report}");
        assert_whole(&report);
    }
}

#[test]
fn a_rate_is_kept_to() {
    let (_server, port) = broker(|_| {});
    let (_, report) = bench(&port, &["latency", "--rate", "1000", "--duration", "1"]);
    let rate = report["traffic"]["published_per_second"].as_f64().unwrap();
    // A machine that is busy may not let it; then it says so, and hurries no more than it was told.
    let was_reached = report["remarks"].as_array().unwrap().is_empty();
    assert!(rate < 1100.0 && (rate > 900.0 || !was_reached), "{report}");
    assert!(report["generator"]["late_max_us"].is_number());
}

#[test]
fn connections_are_counted_and_the_broker_is_looked_at() {
    let (_server, port) = broker(|_| {});
    let pid = std::process::id().to_string();
    for scenario in ["connect", "idle"] {
        let (code, report) = bench(
            &port,
            &[scenario, "--connections", "100", "--pid", &pid, "--sources", "3"],
        );
        assert_eq!(code, 0, "{report}");
        assert_eq!(report["connections"]["opened"], 100, "{report}");
        assert_eq!(report["connections"]["failed"], 0, "{report}");
        assert_eq!(report["connections"]["connect_us"]["count"], 100);
        assert!(report["broker_process"]["resident"].as_u64().unwrap() > 0);
    }
}

#[test]
fn retained_messages_are_stored_replayed_and_removed() {
    let (_server, port) = broker(|_| {});
    let many = [
        "retained",
        "--messages",
        "1001",
        "--subscribers",
        "2",
        "--publishers",
        "3",
    ];
    let (code, report) = bench(&port, &many);
    assert_eq!(code, 0, "{report}");
    assert_whole(&report);
    assert_eq!(report["delivery"]["delivered"], 2002);
    assert_eq!(report["remarks"], Value::Array(Vec::new()));
    let left = ["sub", "-p", &port, "-t", "bench/#", "--retained-only", "-W", "1"];
    assert_eq!(sundew(&left).1, "", "nothing is left in the broker");
}

#[test]
fn tls_and_websocket_are_carried_too() {
    let folder = tempfile::tempdir().unwrap();
    let (ca, certificate) = certificates_in(folder.path());
    for (url, is_websocket) in [("mqtts", false), ("wss", true)] {
        let (_server, port) = broker(|listener| {
            listener.tls = Some(TlsOptions {
                certificates: vec![certificate.clone()],
                ..TlsOptions::default()
            });
            listener.websocket = is_websocket.then(WebSocketOptions::default);
        });
        let url = format!("{url}://localhost:{port}");
        let (code, report) = bench(&port, &["pairs", "-L", &url, "--cafile", &ca, "-q", "1"]);
        assert_eq!(code, 0, "{report}");
        assert_whole(&report);
    }
}

#[test]
fn brokers_are_compared_round_by_round() {
    let (_server, port) = broker(|_| {});
    let (_other, other) = broker(|_| {});
    let one = format!("one=mqtt://127.0.0.1:{port}");
    let two = format!("two=mqtt://127.0.0.1:{other},pid={}", std::process::id());
    let arguments = ["pairs", "--compare", &one, "--compare", &two, "--rounds", "2"];
    let (code, comparison) = bench(&port, &arguments);
    assert_eq!(code, 0, "{comparison}");
    let brokers = comparison["brokers"].as_array().unwrap();
    assert_eq!(
        (&brokers[0]["broker"], &brokers[1]["broker"]),
        (&"one".into(), &"two".into())
    );
    assert_eq!(brokers[1]["rounds"].as_array().unwrap().len(), 2);
    let ratio = &brokers[1]["figures"][0]["ratio"];
    assert!(
        ratio["min"].as_f64() <= ratio["max"].as_f64() && ratio["min"].is_number(),
        "{comparison}"
    );
}

#[test]
fn a_sweep_runs_at_every_size_and_is_drawn() {
    let (_server, port) = broker(|_| {});
    let folder = tempfile::tempdir().unwrap();
    let plot = folder.path().join("growth.svg");
    let (code, table, error) = sundew(&[
        "bench",
        "fan-out",
        "-h",
        "127.0.0.1",
        "-p",
        &port,
        "--sweep",
        "subscribers=1,30",
        "--warm-up",
        "0.1",
        "-d",
        "0.2",
        "--plot",
        plot.to_str().unwrap(),
    ]);
    assert_eq!(code, 0, "{error}");
    assert!(
        table.contains("1 → 30,") && table.contains("| subscribers | delivered/s |"),
        "{table}"
    );
    assert!(fs::read_to_string(plot).unwrap().ends_with("</svg>\n"));
}

#[test]
fn what_comes_and_goes_meanwhile_is_counted() {
    let (_server, port) = broker(|_| {});
    let (_, report) = bench(&port, &["latency", "--churn", "1000", "-d", "1"]);
    let churned = report["traffic"]["churned_per_second"].as_f64().unwrap();
    assert!((800.0..1200.0).contains(&churned), "{report}");
}

#[test]
fn files_say_the_same_as_flags_and_every_published_one_is_sound() {
    let (_server, port) = broker(|_| {});
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mine.toml");
    fs::write(&file, "scenario = \"fan-in\"\npublishers = 3\nqos = 1\n").unwrap();
    let (code, report) = bench(&port, &[file.to_str().unwrap(), "--payload", "100"]);
    assert_eq!(
        (code, &report["name"], &report["publishers"]),
        (0, &"mine".into(), &3.into())
    );
    assert_eq!((&report["qos"], &report["payload"]), (&1.into(), &100.into()));
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            // It is read, and there is no broker.
            let (code, _, error) = sundew(&["bench", path.to_str().unwrap(), "-p", "1"]);
            assert!(code == 1 && error.contains("is a broker running"), "{path:?}: {error}");
        }
    }
}

/// A broker that lets everybody in, grants everything and delivers nothing.
fn deaf_broker() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut first = [0; 5];
                while stream.read_exact(&mut first[..2]).is_ok() {
                    let mut body = vec![0; usize::from(first[1])];
                    stream.read_exact(&mut body).unwrap();
                    let answer: &[u8] = match first[0] >> 4 {
                        1 => &[0x20, 2, 0, 0],
                        3 => {
                            let id = 2 + usize::from(body[1]);
                            &[0x40, 2, body[id], body[id + 1]]
                        }
                        8 => &[0x90, 3, body[0], body[1], 1],
                        _ => &[],
                    };
                    stream.write_all(answer).unwrap();
                }
            });
        }
    });
    port.to_string()
}

#[test]
fn a_broker_that_loses_messages_is_found_out() {
    let port = deaf_broker();
    let few = [
        "pairs",
        "--publishers",
        "1",
        "-q",
        "1",
        "--in-flight",
        "10",
        "--patience",
        "0.2",
    ];
    let (code, report) = bench(&port, &few);
    assert_eq!(code, 1, "{report}");
    let delivery = &report["delivery"];
    assert!(
        delivery["lost"].as_u64() > Some(0) && delivery["lost"] == delivery["expected"],
        "{report}"
    );
    assert!(
        report["faults"][0].as_str().unwrap().contains("lost at QoS 1"),
        "{report}"
    );
}

#[test]
fn mistakes_are_answered_with_what_to_do() {
    for (arguments, said) in [
        (&["bench", "pears"][..], "--list"),
        (&["bench", "pairs", "-p", "1"], "is a broker running"),
        (&["bench", "pairs", "--payload", "3"], "24"),
        (&["bench", "pairs", "--compare", "x"], "write it like"),
        (&["bench", "pairs", "--pid", "4294967295"], "--pid"),
    ] {
        let (code, _, error) = sundew(arguments);
        assert!(code == 1 && error.contains(said), "{arguments:?}: {error}");
    }
    let (code, list, _) = sundew(&["bench", "--list"]);
    assert!(code == 0 && list.contains("fan-out"), "{list}");
}

/// A program that is ended with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_ceiling_carries_what_a_broker_carries_and_refuses_what_it_does_not() {
    let mut ceiling = Ended(command(SUNDEW, &["bench", "--ceiling", "0"]).spawn().unwrap());
    let mut said = String::new();
    BufReader::new(ceiling.0.stdout.take().unwrap())
        .read_line(&mut said)
        .unwrap();
    let port = said.trim_end().rsplit(':').next().unwrap().to_owned();
    for scenario in ["pairs", "fan-in", "fan-out", "shared", "latency"] {
        for (qos, version) in [("0", "311"), ("1", "5"), ("2", "311"), ("2", "5")] {
            let size = ["--publishers", "5", "--subscribers", "5", "-q", qos, "-V", version];
            let (code, report) = bench(&port, &[&[scenario], &size[..]].concat());
            assert_eq!(code, 0, "{scenario}, QoS {qos}: {report}");
            assert_whole(&report);
        }
    }
    // Larger than what is read at once, and more connections than one round has events.
    let (code, report) = bench(&port, &["pairs", "--payload", "600000", "--in-flight", "4", "-q", "1"]);
    assert_eq!(code, 0, "{report}");
    assert_whole(&report);
    let (code, report) = bench(&port, &["connect", "--connections", "1500"]);
    assert_eq!((code, &report["connections"]["opened"]), (0, &1500.into()), "{report}");
    let wildcard = ["bench", "wildcard", "--filters", "30", "-h", "127.0.0.1", "-p", &port];
    let (code, _, error) = sundew(&wildcard);
    assert!(code == 1 && error.contains("refused a subscription"), "{error}");
}

#[test]
fn filters_of_each_kind_bring_every_message_once() {
    let (_server, port) = broker(|_| {});
    for kind in ["mixed", "exact", "plus", "hash"] {
        let pid = std::process::id().to_string();
        let arguments = ["wildcard", "--filters", "1000", "--filter-kind", kind, "--pid", &pid];
        let (code, report) = bench(&port, &arguments);
        assert_eq!(code, 0, "{kind}: {report}");
        assert_whole(&report);
        assert!(
            report["broker_process"]["resident_text"].as_f64() > Some(20.0),
            "{report}"
        );
    }
}

#[test]
fn acknowledgements_are_timed_where_there_are_any() {
    let (_server, port) = broker(|_| {});
    for (qos, is_timed) in [("0", false), ("1", true), ("2", true)] {
        let (_, report) = bench(&port, &["latency", "-q", qos]);
        let acknowledged = &report["acknowledged_us"];
        assert_eq!(
            acknowledged["p50"].as_f64().is_some_and(|time| time > 0.0),
            is_timed,
            "{report}"
        );
    }
}

#[test]
fn one_command_starts_brokers_measures_them_in_turn_and_draws() {
    if !is_installed("python3") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench/run");
    let out = folder.path().join("out");
    let run = |words: &[&str]| {
        let common = [
            script.to_str().unwrap(),
            "--out",
            out.to_str().unwrap(),
            "--sundew",
            SUNDEW,
        ];
        ended(command("python3", &[&common, words].concat()).output().unwrap())
    };
    let sizes = ["--rounds", "2", "--seconds", "0.2"];
    let brokers = ["--brokers", "ceiling,sundew"];
    let few = ["peers", "churn", "--only", "pairs-q1,latency-5k-q0,churn=1000"];
    let (code, table, error) = run(&[&few, &sizes[..], &brokers].concat());
    assert_eq!(code, 0, "{error}");
    assert!(
        table.contains("| pairs-q1: 8 pairs, QoS 1, 64 bytes |") && table.contains("cpu ") && table.contains("rate "),
        "{table}{error}"
    );
    assert!(!table.contains("! sundew"), "{table}{error}");
    // The first line says what it was, then there is one for each run.
    let lines = fs::read_to_string(out.join("results.jsonl")).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines[0]["about"]["versions"]["sundew"].is_string());
    assert_eq!(lines.len(), 1 + 2 * 2 * (2 + 2), "{error}");
    for plot in ["peers.svg", "churn-churn.svg", "table.md"] {
        assert!(out.join(plot).exists(), "{plot}");
    }
    let left: Vec<_> = fs::read_dir(&out)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert!(
        !left.iter().any(|name| name.to_string_lossy().starts_with("run-")),
        "{left:?}"
    );
    let again = ended(
        command("python3", &[script.to_str().unwrap(), "--again", out.to_str().unwrap()])
            .output()
            .unwrap(),
    );
    assert_eq!((again.0, again.1), (0, table));
    let (code, list, _) = run(&["--list"]);
    assert!(code == 0 && list.contains("growth: "), "{list}");
    assert_eq!(run(&["pears"]).0, 2);
}
