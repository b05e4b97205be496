//! The doctor, on the machine of the tests.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use worker::Config;
use worker::doctor::{Level, Report, examine};

/// A coordinator that says what time it is, once.
fn coordinator(date: &str) -> (String, std::thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = format!("HTTP/1.1 200 OK\r\ndate: {date}\r\ncontent-length: 0\r\n\r\n");
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]).unwrap();
        stream.write_all(answer.as_bytes()).unwrap();
    });
    (url, thread)
}

fn level(report: &Report, check: &str) -> Option<Level> {
    report.findings.iter().filter(|finding| finding.check == check).map(|found| found.level).max()
}

#[test]
fn what_works_here_is_found_to_work() {
    let data = tempfile::tempdir().unwrap();
    let mut config = Config::for_looking(data.path().to_owned());
    let (url, thread) = coordinator("Sun, 06 Nov 1994 08:49:37 GMT");
    config.coordinator.url = url;
    let registry = TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = TcpListener::bind("127.0.0.1:0").unwrap();
    let names = [&registry, &gone].map(|listener| listener.local_addr().unwrap().to_string());
    drop(gone);
    for name in &names {
        config.registries.insert(name.clone(), registry::RegistryConfig::default());
    }
    let report = examine(&config, true);
    thread.join().unwrap();
    for check in ["kernel", "user", "cgroups", "overlay", "runtime", "seccomp", "limits", "network"]
    {
        assert_eq!(level(&report, check), Some(Level::Ok), "{check}: {report}");
    }
    // The date is some decades old, and one of the registries is gone.
    assert_eq!(level(&report, "time"), Some(Level::Warn), "{report}");
    let registries: Vec<_> =
        report.findings.iter().filter(|finding| finding.check == "registry").collect();
    assert_eq!(registries.len(), 2);
    assert_eq!(registries.iter().filter(|finding| finding.level == Level::Ok).count(), 1);
    assert!(report.is_usable());
    assert_eq!(std::fs::read_dir(data.path()).unwrap().count(), 0);
}

#[test]
fn what_cannot_work_fails_with_a_way_out() {
    let data = tempfile::tempdir().unwrap();
    let mut config = Config::for_looking(data.path().to_owned());
    config.runtime.path = Some("/bin/false".into());
    config.runtime.deny_networks = vec!["192.0.2.0/24".to_owned()];
    config.coordinator.url = "http://127.0.0.1:9".to_owned();
    config.runtime.min_free_bytes = u64::MAX;
    let report = examine(&config, false);
    assert!(!report.is_usable());
    for check in ["runtime", "coordinator", "disk"] {
        assert_eq!(level(&report, check), Some(Level::Fail), "{check}: {report}");
    }
    assert_eq!(level(&report, "namespaces"), Some(Level::Warn));
    let bad = report.findings.iter().filter(|finding| finding.level != Level::Ok);
    assert!(bad.clone().count() >= 4 && bad.into_iter().all(|finding| finding.fix.is_some()));
    config.runtime.deny_networks = vec!["the database".to_owned()];
    assert!(examine(&config, true).to_string().contains("\"the database\" is no network"));
}
