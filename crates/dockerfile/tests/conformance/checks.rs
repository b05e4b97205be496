//! Build checks, with the texts of BuildKit's linter.

use std::sync::Arc;

use common::Platform;
use common::ignore::IgnoreFile;
use dockerfile::{Finding, ImageFacts, Options, Planned, Rule};

use crate::planning::{Planning, image};

fn checked_with(text: &str, options: &Options) -> Planned {
    let planning = Planning { options: options.clone(), ..Planning::new(text) };
    let file = dockerfile::parse("Dockerfile", text.as_bytes()).unwrap();
    file.check(options, &planning.images_of(&file).unwrap()).unwrap()
}

fn findings(text: &str) -> Vec<String> {
    let planned = checked_with(text, &Options::new(Platform::host()));
    planned.findings.iter().map(ToString::to_string).collect()
}

#[test]
fn every_rule_finds_what_it_is_for() {
    let token = "Do not use ARG or ENV instructions for sensitive data";
    for (text, expected) in [
        ("FROM alpine AS Big\n", vec!["StageNameCasing: Stage name 'Big' should be lowercase (line 1)".to_owned()]),
        ("FROM alpine as small\n", vec!["FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)".to_owned()]),
        ("FROM alpine\nRUN a \\\n\n  b\n", vec!["NoEmptyContinuation: Empty continuation line (line 4)".to_owned()]),
        ("FROM alpine\nRUN a\nrun b\n", vec!["ConsistentInstructionCasing: Command 'run' should match the case of the command majority (uppercase) (line 3)".to_owned()]),
        ("FROM alpine AS a\nFROM alpine AS a\n", vec!["DuplicateStageName: Duplicate stage name \"a\", stage names should be unique (line 2)".to_owned()]),
        ("FROM alpine AS scratch\n", vec!["ReservedStageName: Stage name should not use the same name as reserved stage \"scratch\" (line 1)".to_owned()]),
        ("FROM alpine\nCMD echo\n", vec!["JSONArgsRecommended: JSON arguments recommended for CMD to prevent unintended behavior related to OS signals (line 2)".to_owned()]),
        ("FROM alpine\nMAINTAINER me\n", vec!["MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label (line 2)".to_owned()]),
        ("ARG VERSION=3\nFROM alpine${VERSOIN}\n", vec!["UndefinedArgInFrom: FROM argument 'VERSOIN' is not declared (did you mean VERSION?) (line 2)".to_owned()]),
        ("FROM alpine\nWORKDIR app\nWORKDIR more\n", vec!["WorkdirRelativePath: Relative workdir \"app\" can have unexpected results if the base image changes (line 2)".to_owned()]),
        ("FROM alpine\nENV NAME=1\nCOPY $NMAE /\n", vec!["UndefinedVar: Usage of undefined variable '$NMAE' (did you mean $NAME?) (line 3)".to_owned()]),
        ("FROM alpine\nENTRYPOINT [\"a\"]\nENTRYPOINT [\"b\"]\n", vec!["MultipleInstructionsDisallowed: Multiple ENTRYPOINT instructions should not be used in the same stage because only the last one will be used (line 2)".to_owned()]),
        ("FROM alpine\nENV a b\n", vec!["LegacyKeyValueFormat: \"ENV key=value\" should be used instead of legacy \"ENV key value\" format (line 2)".to_owned()]),
        ("FROM alpine\nENV NAME=$NAME\n", vec!["UndefinedVar: Usage of undefined variable '$NAME' (line 2)".to_owned()]),
        ("FROM alpine\nLABEL \"a b\"=c d\\ e=f\n", vec![]),
        ("FROM --platform=$TARGETPLATFORM alpine\n", vec!["RedundantTargetPlatform: Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior (line 1)".to_owned()]),
        ("FROM alpine\nARG TOKEN\nENV API_KEY=x PUBLIC_KEY=y\n", vec![
            format!("SecretsUsedInArgOrEnv: {token} (ARG \"TOKEN\") (line 2)"),
            format!("SecretsUsedInArgOrEnv: {token} (ENV \"API_KEY\") (line 3)"),
        ]),
        ("FROM --platform=linux/amd64 alpine AS tools\n", vec!["FromPlatformFlagConstDisallowed: FROM --platform flag should not use constant value \"linux/amd64\" (line 1)".to_owned()]),
        ("FROM alpine\nEXPOSE 80/TCP\n", vec!["ExposeProtoCasing: Defined protocol '80/TCP' in EXPOSE instruction should be lowercase (line 2)".to_owned()]),
        ("FROM alpine\nEXPOSE 127.0.0.1:80:80\n", vec!["ExposeInvalidFormat: EXPOSE instruction should not define an IP address or host-port mapping, found '127.0.0.1:80:80' (line 2)".to_owned()]),
        ("# check=experimental=all\n\n# something\nFROM alpine AS a\n", vec!["InvalidDefinitionDescription: Comment for FROM should follow the format: `# a <description>` (line 4)".to_owned()]),
    ] {
        assert_eq!(findings(text), expected, "{text}");
    }
}

#[test]
fn what_is_well_written_is_let_alone() {
    for text in [
        "FROM alpine AS a\nFROM a\nRUN x\n",
        "from alpine as a\nrun x\n",
        "FROM alpine\nSHELL [\"/bin/sh\", \"-c\"]\nCMD echo\n",
        "FROM alpine\nWORKDIR /a\nWORKDIR b\n",
        "FROM alpine AS a\nWORKDIR /a\nFROM a\nWORKDIR b\n",
        "FROM alpine\nARG X\nENV A=$X B=${PATH}\n",
        "FROM alpine\nRUN echo $NOTHING && cat <<EOF\n$MORE\nEOF\n",
        "FROM alpine\nENV TOKEN_FILE=x KEYBOARD=us\n",
        "FROM --platform=linux/amd64 alpine AS build-amd64\n",
        "FROM --platform=$BUILDPLATFORM alpine\n",
        "FROM alpine\nEXPOSE 80 443/udp\n",
        // The rule has to be asked for.
        "# something\nFROM alpine AS a\n",
        "# check=experimental=all\n\n# a is it\nFROM alpine AS a\n# V is it\nARG V\n",
    ] {
        assert_eq!(findings(text), Vec::<String>::new(), "{text}");
    }
}

#[test]
fn directive_argument_and_comment_say_what_counts() {
    let two = "FROM alpine AS A\nCMD echo\n";
    let rules = |text: &str, check: Option<&str>| {
        let mut options = Options::new(Platform::host());
        options
            .build_args
            .extend(check.map(|text| ("BUILDKIT_DOCKERFILE_CHECK".to_owned(), text.to_owned())));
        let planned = checked_with(text, &options);
        let violation = planned.violation.map(|failure| failure.message);
        (planned.findings.iter().map(|found| found.rule).collect::<Vec<_>>(), violation)
    };
    let both = vec![Rule::StageNameCasing, Rule::JSONArgsRecommended];
    assert_eq!(rules(two, None), (both.clone(), None));
    assert_eq!(rules(&format!("# check=skip=all\n{two}"), None).0, []);
    let one = format!("# check=skip=StageNameCasing;error=true\n\n{two}");
    let message = "lint violation found for rules: JSONArgsRecommended".to_owned();
    assert_eq!(rules(&one, None), (vec![Rule::JSONArgsRecommended], Some(message)));
    // A build argument replaces the directive.
    assert_eq!(rules(&one, Some("skip=JSONArgsRecommended")), (vec![Rule::StageNameCasing], None));
    let above = "FROM alpine AS A\n# check=skip=JSONArgsRecommended since it is meant\nCMD echo\n";
    assert_eq!(rules(above, None).0, [Rule::StageNameCasing]);
    let file = dockerfile::parse("Dockerfile", b"# check=nonsense\nFROM alpine\n").unwrap();
    let failures = file.check(&Options::new(Platform::host()), &ImageFacts::new()).unwrap_err();
    assert!(failures[0].message.contains("invalid check option \"nonsense\""), "{failures:?}");
}

#[test]
fn copies_of_what_the_ignore_file_leaves_out_are_noticed() {
    let rules = |ignore: &str, text: &str| {
        let ignore = IgnoreFile::parse(ignore.as_bytes()).unwrap();
        let options = Options { ignore: Some(Arc::new(ignore)), ..Options::new(Platform::host()) };
        let findings = checked_with(text, &options).findings;
        findings.iter().map(|found| found.message.clone()).collect::<Vec<_>>()
    };
    let copy = "FROM alpine\nCOPY secret /\nADD dir/x /\nCOPY . /\n";
    let message = |verb: &str, path: &str| {
        format!("Attempting to {verb} file \"{path}\" that is excluded by .dockerignore")
    };
    assert_eq!(rules("secret\ndir\n", copy), [message("Copy", "secret"), message("Add", "dir/x")]);
    assert_eq!(rules("*\n", "FROM alpine\nCOPY . /\n"), [message("Copy", ".")]);
    // With a line that takes back it cannot be told.
    assert_eq!(rules("secret\n!secret/x\n", copy), Vec::<String>::new());
}

#[test]
fn defaults_that_make_no_image_are_noticed() {
    let text = "ARG TAG\nFROM alpine:${TAG}\n";
    let mut options = Options::new(Platform::host());
    options.build_args.insert("TAG".into(), "3".into());
    let found = checked_with(text, &options).findings;
    assert_eq!(
        found.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "InvalidDefaultArgInFrom: Default value for ARG alpine:${TAG} results in empty or invalid base image name (line 2)"
        ]
    );
}

#[test]
fn a_base_image_for_something_else_is_noticed() {
    let text = "FROM alpine\nRUN x\n";
    let options = Options::new(Platform::host());
    let file = dockerfile::parse("Dockerfile", text.as_bytes()).unwrap();
    let mut image = image("alpine", None, &Platform::host());
    image.document.architecture = "riscv64".to_owned();
    let images = ImageFacts::from([(("alpine".to_owned(), Platform::host()), image)]);
    let found: Vec<Finding> = file.check(&options, &images).unwrap().findings;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].rule, Rule::InvalidBaseImagePlatform);
    assert!(found[0].message.contains("linux/riscv64"), "{}", found[0].message);
}

#[test]
fn a_file_that_cannot_be_parsed_is_checked_as_far_as_it_can_be_read() {
    // A25
    let text = "FROM alpine AS A\nFOO bar\nMAINTAINER x\n";
    assert!(dockerfile::parse("Dockerfile", text.as_bytes()).is_err());
    let found = dockerfile::text_findings("Dockerfile", text.as_bytes());
    let rules: Vec<Rule> = found.iter().map(|found| found.rule).collect();
    assert_eq!(rules, [Rule::StageNameCasing, Rule::MaintainerDeprecated]);
}

#[test]
fn a_file_says_what_it_offers() {
    let text = "# VERSION of the app\nARG VERSION=1\n\n# build makes it\nFROM alpine AS build\n\
                # FLAGS for the compiler\nARG FLAGS=-O2\nARG VERSION\nARG TARGETOS\n\
                RUN --mount=type=secret,id=tok,required --mount=type=cache,target=/c x\n\
                # no description\nFROM alpine\nARG UNUSED\nCOPY --from=build /x /\n\
                RUN --mount=type=ssh --mount=type=secret,id=tok y\n";
    let planned = checked_with(text, &Options::new(Platform::host()));
    let outline = planned.outline;
    let args: Vec<(&str, Option<&str>, Option<&str>)> = outline
        .args
        .iter()
        .map(|arg| (arg.name.as_str(), arg.value.as_deref(), arg.description.as_deref()))
        .collect();
    assert_eq!(
        args,
        [
            ("FLAGS", Some("-O2"), Some("for the compiler")),
            ("UNUSED", None, None),
            ("VERSION", Some("1"), Some("of the app")),
        ]
    );
    assert_eq!(outline.secrets.len(), 1);
    assert!(outline.secrets[0].required && outline.secrets[0].lines.start == 10);
    assert_eq!((outline.ssh.len(), outline.caches[0].name.as_str()), (1, "/c"));
    let file = dockerfile::parse("Dockerfile", text.as_bytes()).unwrap();
    let targets = file.targets();
    assert_eq!(targets[0].description.as_deref(), Some("makes it"));
    assert!(!targets[0].is_default && targets[1].is_default && targets[1].name.is_none());
}
