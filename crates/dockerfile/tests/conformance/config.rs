//! The image's configuration and history.

use common::image::ContainerConfig;
use dockerfile::parse;

use crate::planning::{Planning, copies, history, last, runs};

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|item| (*item).to_owned()).collect()
}

#[test]
fn an_entrypoint_drops_the_command_that_it_found() {
    let base = || ContainerConfig { cmd: Some(strings(&["base"])), ..ContainerConfig::default() };
    for (text, cmd) in [
        ("FROM i\nENTRYPOINT e", None),
        ("FROM i\nRUN x", Some("base")),
        ("FROM i\nCMD [\"c\"]\nENTRYPOINT e", Some("c")),
        ("FROM i\nENTRYPOINT e\nCMD [\"c\"]", Some("c")),
        ("FROM i AS p\nCMD [\"c\"]\nFROM p\nENTRYPOINT e", None),
        ("FROM i\nCMD []", None),
        ("FROM i\nENTRYPOINT []", None),
    ] {
        let stage = Planning::new(text).image("i", base()).last();
        let found = stage.config.cmd.as_ref().map(|argv| argv[0].as_str());
        assert_eq!(found, cmd, "{text}");
    }
    assert_eq!(last("FROM a\nENTRYPOINT []").config.entrypoint, None);
}

#[test]
fn shell_forms_take_the_shell_of_their_place() {
    let stage =
        last("FROM a\nRUN x\nSHELL [\"/bin/bash\", \"-ec\"]\nRUN y\nCMD z\nHEALTHCHECK CMD h");
    assert_eq!(runs(&stage)[0].argv, ["/bin/sh", "-c", "x"]);
    assert_eq!(runs(&stage)[1].argv, ["/bin/bash", "-ec", "y"]);
    assert_eq!(stage.config.cmd, Some(strings(&["/bin/bash", "-ec", "z"])));
    assert_eq!(stage.config.shell, Some(strings(&["/bin/bash", "-ec"])));
    assert_eq!(stage.config.healthcheck.unwrap().test, ["CMD-SHELL", "h"]);
}

#[test]
fn ports_are_a_set_with_protocols() {
    let text = "FROM a\nARG P=\"81 82/UDP\"\nEXPOSE 80 $P 127.0.0.1:9000:90 100-102/tcp 80";
    let ports = last(text).config.exposed_ports.unwrap();
    let ports: Vec<&str> = ports.keys().map(String::as_str).collect();
    assert_eq!(ports, ["100/tcp", "101/tcp", "102/tcp", "80/tcp", "81/tcp", "82/udp", "90/tcp"]);
    for bad in ["x", "99999", "1/foo", "5-4", ""] {
        let text = format!("FROM a\nEXPOSE {bad}");
        let code = Planning::new(&text).failure().0;
        assert!(["bad-port", "missing-argument"].contains(&code.as_str()), "{bad}: {code}");
    }
}

#[test]
fn labels_of_the_command_line_beat_the_files() {
    let mut planning =
        Planning::new("FROM a AS p\nLABEL a=1 b='x y' c=\"$PATH\"\nFROM p\nLABEL a=2");
    planning.options.labels.insert("b".into(), "option".into());
    let labels = planning.last().config.labels.unwrap();
    let labels: Vec<_> =
        labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(labels, [("a", "2"), ("b", "option"), ("c", "/bin")]);
}

#[test]
fn a_copy_brings_no_configuration() {
    let text = "FROM a AS p\nLABEL from=p\nENV E=1\nFROM b\nCOPY --from=p /x /x";
    let stage = last(text);
    assert_eq!((stage.config.labels, stage.config.env), (None, strings(&["PATH=/bin"])));
}

#[test]
fn health_checks_are_kept_in_nanoseconds() {
    let text = "FROM a\nHEALTHCHECK --interval=1m30s --timeout=2s --start-period=100ms --retries=3 CMD [\"h\", \"x\"]";
    let health = last(text).config.healthcheck.unwrap();
    assert_eq!(health.test, ["CMD", "h", "x"]);
    assert_eq!((health.interval, health.timeout), (90_000_000_000, 2_000_000_000));
    assert_eq!((health.start_period, health.start_interval, health.retries), (100_000_000, 0, 3));
    assert_eq!(last("FROM a\nHEALTHCHECK NONE").config.healthcheck.unwrap().test, ["NONE"]);
    for bad in
        ["FOO", "NONE x", "CMD", "--interval=1us CMD x", "--retries=-1 CMD x", "--foo=1 CMD x"]
    {
        let text = format!("FROM a\nHEALTHCHECK {bad}");
        let code = parse("f", text.as_bytes()).unwrap_err().remove(0).code;
        assert!(["bad-healthcheck", "unknown-flag"].contains(&code.as_str()), "{bad}: {code}");
    }
}

#[test]
fn working_directories_join_and_only_the_root_makes_no_layer() {
    let stage = last("FROM a\nWORKDIR /a\nWORKDIR b/../c\nWORKDIR /\nWORKDIR $PATH/x\nCOPY file .");
    assert_eq!(stage.config.working_dir, "/bin/x");
    assert_eq!(stage.steps.len(), 4);
    assert_eq!(copies(&stage)[0].destination, "/bin/x/");
    let history = history(&stage);
    assert_eq!(history[..4], ["WORKDIR /a", "WORKDIR /a/c", "WORKDIR /", "WORKDIR /bin/x"]);
    assert!(stage.history[2].empty_layer && !stage.history[1].empty_layer);
}

#[test]
fn the_rest_of_the_configuration_is_kept_as_written() {
    let stage = last(
        "FROM a\nMAINTAINER me <me@x.test>\nUSER $PATH:g\nVOLUME [\"/v 1\", \"/w\"]\nVOLUME /x /y\nSTOPSIGNAL SIGQUIT",
    );
    assert_eq!(stage.author.as_deref(), Some("me <me@x.test>"));
    assert_eq!(stage.config.user, "/bin:g");
    let volumes = stage.config.volumes.unwrap();
    assert_eq!(volumes.keys().map(String::as_str).collect::<Vec<_>>(), ["/v 1", "/w", "/x", "/y"]);
    assert_eq!(stage.config.stop_signal.as_deref(), Some("SIGQUIT"));
}

#[test]
fn history_is_written_as_buildkit_writes_it() {
    let stage = last(
        "FROM a\nARG A B=2\nENV C=3 D=\"x y\"\nLABEL l=v\nRUN [\"ls\"]\nEXPOSE 81 80/udp\nVOLUME /v\n\
         USER u\nCMD [\"a\\\"b\", \"c\"]\nENTRYPOINT e f\nSHELL [\"/s\", \"-c\"]\nSTOPSIGNAL 9\nONBUILD RUN x",
    );
    assert_eq!(history(&stage)[..3], ["ARG A B=2", "ENV C=3 D=x y", "LABEL l=v"]);
    assert_eq!(
        history(&stage)[4..],
        [
            "EXPOSE [80/udp 81/tcp]",
            "VOLUME [/v]",
            "USER u",
            "CMD [\"a\\\"b\" \"c\"]",
            "ENTRYPOINT [\"/bin/sh\" \"-c\" \"e f\"]",
            "SHELL [/s -c]",
            "STOPSIGNAL 9",
        ]
    );
    assert!(
        stage
            .history
            .iter()
            .all(|entry| entry.comment.as_deref() == Some("buildkit.dockerfile.v0"))
    );
}

#[test]
fn each_argument_stands_once_before_a_command() {
    let stage = last("FROM a\nARG A=1\nARG B=2\nRUN x\nARG A=3\nRUN y");
    let history = history(&stage);
    assert_eq!(history[2], "RUN |2 A=1 B=2 /bin/sh -c x # buildkit");
    assert_eq!(history[4], "RUN |2 A=3 B=2 /bin/sh -c y # buildkit");
}

#[test]
fn signals_are_names_that_are_known_or_any_number_but_zero() {
    for good in ["TERM", "sigterm", "SIGRTMIN", "RTMIN+15", "SIGRTMAX-14", "9", "77", "-1", "+2"] {
        let stage = last(&format!("FROM a\nSTOPSIGNAL {good}"));
        assert_eq!(stage.config.stop_signal.as_deref(), Some(good));
    }
    for bad in ["0", "FOO", "SIG9", "RTMIN+16", "RTMIN+01", "RTMAX-15", "RTMAX+1", "$NONE", "1.5"] {
        let failure = Planning::new(&format!("FROM a\nSTOPSIGNAL {bad}")).failure();
        assert_eq!(failure, ("bad-signal".into(), 2), "{bad}");
    }
}
