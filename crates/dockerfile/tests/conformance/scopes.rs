//! Where variables are seen.

use std::sync::Arc;

use common::image::ContainerConfig;
use dockerfile::{NamedContext, RemoteKind};

use crate::planning::{Planning, history, last, runs, variable};

/// What the last command of the target sees under a name.
fn seen(planning: Planning, name: &str) -> Option<String> {
    let stage = planning.last();
    let runs = runs(&stage);
    variable(runs.last().unwrap(), name).map(str::to_owned)
}

#[test]
fn a_global_argument_is_seen_where_it_is_declared_again() {
    for (text, expected) in [
        ("ARG V=1\nFROM a\nRUN x", None),
        ("ARG V=1\nFROM a\nARG V\nRUN x", Some("1")),
        ("ARG V=1\nFROM a\nARG V=2\nRUN x", Some("2")),
        ("ARG V\nFROM a\nARG V\nRUN x", None),
        ("ARG V=1\nFROM a AS b\nARG V\nFROM a\nRUN x", None),
        ("ARG V=1\nFROM a AS b\nARG V\nFROM b\nRUN x", Some("1")),
        ("ARG V=1\nFROM a AS b\nARG V\nRUN y\nFROM a\nCOPY --from=b /x /x\nRUN x", None),
        ("FROM a\nARG V=\nRUN x", Some("")),
        ("FROM a\nARG V\nRUN x", None),
    ] {
        assert_eq!(seen(Planning::new(text), "V").as_deref(), expected, "{text}");
    }
}

#[test]
fn a_build_arg_beats_every_default() {
    for (text, expected) in [
        ("ARG V=1\nFROM a\nARG V\nRUN x", Some("9")),
        ("ARG V=1\nFROM a\nARG V=2\nRUN x", Some("9")),
        ("FROM a\nARG V\nRUN x", Some("9")),
        ("FROM a\nRUN x", None),
    ] {
        let planning = Planning::new(text).build_arg("V", "9");
        assert_eq!(seen(planning, "V").as_deref(), expected, "{text}");
    }
}

#[test]
fn the_later_of_argument_and_variable_wins() {
    for (text, expected) in [
        ("FROM a\nARG V=arg\nENV V=env\nRUN x", "env"),
        ("FROM a\nENV V=env\nARG V=arg\nRUN x", "arg"),
        ("FROM a\nENV V=env\nARG V\nRUN x", "env"),
        ("FROM a AS b\nENV V=env\nARG V=arg\nFROM b\nRUN x", "env"),
    ] {
        assert_eq!(seen(Planning::new(text), "V").as_deref(), Some(expected), "{text}");
    }
}

#[test]
fn one_line_of_env_sees_what_was_before_it() {
    let text = "FROM a\nENV A=old\nENV A=new B=$A\nARG C=1 D=$C-$A\nENV K$C=v\nRUN x";
    let stage = last(text);
    let run = runs(&stage)[0];
    for (name, value) in [("A", "new"), ("B", "old"), ("D", "1-new"), ("K1", "v")] {
        assert_eq!(variable(run, name), Some(value), "{name}");
    }
    assert_eq!(stage.config.env, ["PATH=/bin", "A=new", "B=old", "K1=v"]);
}

#[test]
fn values_keep_what_their_quotes_hold() {
    for (line, expected) in [
        ("ENV V=a\\ b", "a b"),
        ("ENV V=\"a  b\"", "a  b"),
        ("ENV V='$x'", "$x"),
        ("ENV V=a\"b\"'c'", "abc"),
        ("ENV V a  \"b  c\"", "a  b  c"),
        ("ENV V   x", "x"),
        ("ENV V=100%s", "100%s"),
        ("ENV V=", ""),
        ("ENV V=\\$x", "$x"),
        ("ENV V=a=b", "a=b"),
        ("ENV V=${none:-d}${none:+x}", "d"),
    ] {
        let text = format!("FROM a\n{line}\nRUN x");
        assert_eq!(seen(Planning::new(&text), "V").as_deref(), Some(expected), "{line}");
    }
    let text = "# escape=`\nFROM a\nENV V=C:\\dir` x\nRUN x";
    assert_eq!(seen(Planning::new(text), "V").as_deref(), Some("C:\\dir x"));
}

#[test]
fn platform_arguments_need_no_declaration_in_from_only() {
    let text = "FROM --platform=$BUILDPLATFORM img-$TARGETARCH\nARG TARGETOS TARGETARCH\nRUN x";
    let stage = last(text);
    let run = runs(&stage)[0];
    assert_eq!(variable(run, "TARGETOS"), Some("linux"));
    assert_eq!(variable(run, "TARGETARCH"), Some("amd64"));
    assert_eq!(variable(run, "TARGETPLATFORM"), None);
    let plan = Planning::new(text).build_arg("TARGETARCH", "mine").plan();
    assert_eq!(plan.images[0].reference, "img-mine");
}

#[test]
fn the_target_stage_has_a_name() {
    for (text, target, expected) in [
        ("FROM a\nARG TARGETSTAGE\nRUN x", None, "default"),
        ("FROM a AS last\nARG TARGETSTAGE\nRUN x", None, "last"),
        ("FROM a AS one\nARG TARGETSTAGE\nRUN x\nFROM a AS two", Some("one"), "one"),
    ] {
        let mut planning = Planning::new(text);
        planning.options.target = target.map(str::to_owned);
        assert_eq!(seen(planning, "TARGETSTAGE").as_deref(), Some(expected));
    }
}

#[test]
fn quotes_of_a_global_argument_vanish_before_from() {
    let plan =
        Planning::new("ARG A=\"b:1\"\nARG B='c' D=$A\nFROM $A\nCOPY --from=$B /x /x").failure();
    assert_eq!(plan, ("from-variable".to_owned(), 4));
    let plan = Planning::new("ARG A=\"b\"\nARG D=${A}:1\nFROM ${D}").plan();
    assert_eq!(plan.images[0].reference, "b:1");
}

#[test]
fn declared_proxies_are_ordinary_arguments() {
    let plain = Planning::new("FROM a\nRUN x");
    let proxied = Planning::new("FROM a\nRUN x").build_arg("https_proxy", "p");
    let stage = proxied.last();
    assert_eq!(stage.key, plain.last().key);
    let names: Vec<_> = runs(&stage)[0].unkeyed_env.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["https_proxy", "HTTPS_PROXY"]);
    assert!(stage.config.env.iter().all(|variable| !variable.contains("proxy")));
    assert_eq!(history(&stage), ["RUN /bin/sh -c x # buildkit"]);
    let declared = Planning::new("FROM a\nARG https_proxy\nRUN x").build_arg("https_proxy", "p");
    assert_eq!(variable(runs(&declared.last())[0], "https_proxy"), Some("p"));
    assert_ne!(declared.last().key, plain.last().key);
}

#[test]
fn a_build_arg_that_nothing_declares_is_a_warning() {
    let planned = Planning::new("FROM a\nRUN x").build_arg("TYPO", "1").run().unwrap();
    assert!(planned.warnings.iter().any(|warning| warning.contains("TYPO")));
    let planned = Planning::new("FROM a\nARG TYPO\nRUN x").build_arg("TYPO", "1").run().unwrap();
    assert!(planned.warnings.is_empty());
}

#[test]
fn the_bases_environment_comes_first() {
    let env = vec!["PATH=/p".to_owned(), "V=base".to_owned(), "ODD".to_owned()];
    let config =
        ContainerConfig { env, user: "u".into(), working_dir: "/w".into(), ..Default::default() };
    let stage = Planning::new("FROM img\nENV W=$V\nRUN x").image("img", config).last();
    let run = runs(&stage)[0];
    assert_eq!((variable(run, "W"), variable(run, "ODD")), (Some("base"), Some("")));
    assert_eq!((run.user.as_str(), run.working_dir.as_str()), ("u", "/w"));
    assert_eq!(stage.config.env.last().map(String::as_str), Some("W=base"));
}

#[test]
fn the_age_of_images_is_an_argument() {
    // G15
    let epoch = |text: &str, given: Option<&str>| {
        let mut planning = Planning::new(text);
        if let Some(given) = given {
            planning = planning.build_arg("SOURCE_DATE_EPOCH", given);
        }
        planning.run().unwrap().epoch
    };
    let file = "ARG SOURCE_DATE_EPOCH=100\nFROM a\n";
    assert_eq!(epoch("FROM a\n", None), None);
    assert_eq!(epoch("FROM a\n", Some("5")), Some(5));
    assert_eq!(epoch(file, None), Some(100));
    assert_eq!(epoch(file, Some("5")), Some(5));
    assert_eq!(epoch(file, Some("")), None);
}

#[test]
fn the_age_of_images_may_be_that_of_a_context() {
    // G15
    let mut planning = Planning::new("FROM a\nARG SOURCE_DATE_EPOCH\nRUN x\n")
        .build_arg("SOURCE_DATE_EPOCH", "context");
    // A directory has no age.
    assert_eq!(planning.run().unwrap().epoch, None);
    assert_eq!(variable(runs(&planning.last())[0], "SOURCE_DATE_EPOCH"), Some(""));
    planning.options.context_times.insert("context".into(), 1_700_000_101);
    assert_eq!(planning.run().unwrap().epoch, Some(1_700_000_101));
    assert_eq!(variable(runs(&planning.last())[0], "SOURCE_DATE_EPOCH"), Some("1700000101"));

    let mut planning = Planning::new("ARG SOURCE_DATE_EPOCH=Src\nFROM a\n");
    assert_eq!(planning.failure(), ("bad-epoch".to_owned(), 1));
    let files = NamedContext::Local(Arc::new(planning.context.clone()));
    planning.options.contexts.insert("src".into(), files);
    assert_eq!(planning.run().unwrap().epoch, None);
    planning.options.context_times.insert("src".into(), 7);
    assert_eq!(planning.run().unwrap().epoch, Some(7));
}

#[test]
fn the_age_of_images_may_be_that_of_a_stage() {
    // G15
    let url = "https://h.test/src.tar";
    let text = "ARG V=src\nARG SOURCE_DATE_EPOCH=Mine\nFROM scratch AS mine\nARG V\n\
         ADD https://h.test/$V.tar /\nFROM a\nARG SOURCE_DATE_EPOCH\nRUN x\n";
    let mut planning = Planning::new(text);
    let planned = planning.run().unwrap();
    let asked: Vec<_> =
        planned.remotes.iter().map(|need| (&need.kind, need.url.as_str())).collect();
    assert_eq!(asked, [(&RemoteKind::FileTime, url)]);
    let place = (RemoteKind::FileTime, url.to_owned());
    planning.options.remotes.insert(place.clone(), "9".into());
    let planned = planning.run().unwrap();
    assert_eq!((planned.epoch, planned.remotes.len()), (Some(9), 0));
    assert_eq!(variable(runs(&planning.last())[0], "SOURCE_DATE_EPOCH"), Some("9"));
    // Nobody knows.
    planning.options.remotes.insert(place, String::new());
    assert_eq!(planning.run().unwrap().epoch, None);
    // What is given wins, and nobody is asked.
    let planned = Planning::new(text).build_arg("SOURCE_DATE_EPOCH", "5").run().unwrap();
    assert_eq!((planned.epoch, planned.remotes.len()), (Some(5), 0));

    let asked = |add: &str| {
        let text = format!("FROM scratch AS s\n{add}\nFROM a\n");
        Planning::new(&text).build_arg("SOURCE_DATE_EPOCH", "s").run().unwrap().remotes[0].clone()
    };
    let need = asked("ADD https://h.test/a.git?tag=v1 /");
    assert_eq!(need.kind, RemoteKind::CommitTime(Some("refs/tags/v1".into())));
    assert_eq!(need.url, "https://h.test/a.git");
    for (stage, says) in [
        ("FROM a AS s\nADD https://h.test/x /", "must use FROM scratch"),
        ("FROM scratch AS s\nCOPY file /", "does not meet source-only requirements"),
        ("FROM scratch AS s\nADD file /", "source must be a single HTTP(S) or Git ADD"),
        ("FROM scratch AS s\nADD https://h.test/x /\nUSER 1", "source-only requirements"),
        ("FROM scratch AS s", "must contain exactly one remote ADD"),
        (
            "FROM scratch AS s\nADD https://h.test/x /\nADD https://h.test/y /",
            "must contain exactly one remote ADD",
        ),
        (
            "FROM scratch AS s\nADD https://h.test/x https://h.test/y /d/",
            "must contain exactly one remote ADD source",
        ),
    ] {
        let text = format!("{stage}\nFROM a\n");
        let planning = Planning::new(&text).build_arg("SOURCE_DATE_EPOCH", "s");
        let failures = planning.failures();
        assert!(failures[0].message.contains(says), "{stage}: {failures:?}");
        assert!(failures[0].message.starts_with("SOURCE_DATE_EPOCH stage "), "{failures:?}");
    }
}

#[test]
fn a_build_argument_is_the_host_name_of_commands_and_part_of_their_keys() {
    // E25
    let planning = Planning::new("FROM a\nRUN x\n");
    let plain = planning.last();
    let named = planning.build_arg("BUILDKIT_SANDBOX_HOSTNAME", "builder").last();
    assert_eq!(runs(&plain)[0].options.hostname, None);
    assert_eq!(runs(&named)[0].options.hostname.as_deref(), Some("builder"));
    assert_ne!(plain.steps[0].key, named.steps[0].key);
}

#[test]
fn a_named_context_may_be_for_one_platform() {
    let mut planning = Planning::new("FROM base\n");
    for (name, reference) in [("base:latest::linux/amd64", "own"), ("base", "any")] {
        let context = NamedContext::Image(reference.to_owned());
        planning.options.contexts.insert(dockerfile::context_name(name), context);
    }
    let reference = |planning: &Planning| planning.plan().images[0].reference.clone();
    assert_eq!(reference(&planning), "own");
    planning.options.platform = "linux/arm64".parse().unwrap();
    assert_eq!(reference(&planning), "any");
}

#[test]
fn a_build_argument_names_the_frontend_too() {
    let planning = |name: &str| Planning::new("FROM a\n").build_arg("BUILDKIT_SYNTAX", name);
    assert!(planning("docker/dockerfile:1.7").run().is_ok());
    assert_eq!(planning("other/frontend").failure().0, "other-frontend");
}
