//! B: stages, names, scopes of arguments.

use crate::case::{Case, case};

pub(crate) fn cases() -> Vec<Case> {
    [scopes(), names(), triggers_and_targets()].concat()
}

fn scopes() -> Vec<Case> {
    vec![
        case(
            "global-args-have-to-be-declared-again",
            "B1",
            "ARG G=global\nFROM alpine\nRUN echo \"[$G]\" > /before\nARG G\nRUN echo \"[$G]\" > /after\n",
        ).newer(&["history 3 created_by: \"ARG"]),
        case(
            "stage-default-wins-over-global-default",
            "B1",
            "ARG G=global\nFROM alpine\nARG G=stage\nENV R=$G\n",
        ),
        case(
            "build-arg-wins-over-both",
            "B1",
            "ARG G=global\nFROM alpine\nARG G=stage\nENV R=$G\n",
        )
        .args(&["--build-arg", "G=given"]).newer(&["history 2 created_by: \"ARG"]),
        case(
            "args-of-a-parent-stage",
            "B2",
            "FROM alpine AS a\nARG X=1\nENV Y=2\nFROM a\nRUN echo $X $Y > /x\n",
        ).newer(&["history 4 created_by: \"RUN |1 X=1"]),
        case(
            "args-are-not-copied",
            "B2",
            "FROM alpine AS a\nARG X=1\nRUN echo a > /a\nFROM alpine\nCOPY --from=a /a /\nRUN echo \"[$X]\" > /x\n",
        ),
        case(
            "env-and-arg-of-one-name",
            "B3",
            "FROM alpine\nARG V=arg\nENV V=env\nRUN echo $V > /one\nARG V=later\nRUN echo $V > /two\n",
        ).newer(&["history 6 created_by: \"RUN |1 V=later"]),
        case("bare-arg-keeps-env", "B4", "FROM alpine\nENV V=env\nARG V\nRUN echo $V > /x\n"),
        case(
            "platform-args",
            "B5",
            "FROM --platform=$TARGETPLATFORM alpine\nARG TARGETPLATFORM\nARG TARGETOS TARGETARCH BUILDPLATFORM\nRUN echo $TARGETPLATFORM $TARGETOS $TARGETARCH $BUILDPLATFORM > /x\n",
        ).newer(&["history 2 created_by: \"ARG", "history 3 created_by: \"ARG"]),
        case("platform-args-undeclared", "B5", "FROM alpine\nRUN echo \"[$TARGETOS]\" > /x\n"),
        case("quotes-in-global-args", "B7", "ARG IMAGE=\"alpine\"\nFROM $IMAGE\nENV a=1\n"),
        case(
            "global-args-see-each-other",
            "B1",
            "ARG A=alp\nARG B=${A}ine\nFROM ${B}:latest\nENV a=1\n",
        ),
        case(
            "proxies-reach-commands",
            "B8",
            "FROM alpine\nRUN echo $http_proxy $HTTP_PROXY > /x\n",
        )
        .args(&["--build-arg", "http_proxy=http://p.test"]),
        case(
            "proxies-that-are-declared",
            "B8",
            "FROM alpine\nARG http_proxy\nRUN echo $http_proxy > /x\n",
        )
        .args(&["--build-arg", "http_proxy=http://p.test"]).newer(&["history 2 created_by: \"ARG"]),
    ]
}

fn names() -> Vec<Case> {
    vec![
        case(
            "stage-names-know-no-case",
            "B9",
            "FROM alpine AS Build\nRUN echo x > /x\nFROM alpine\nCOPY --from=BUILD /x /\n",
        ),
        case(
            "target-names-know-no-case",
            "B9",
            "FROM alpine AS Build\nRUN echo x > /x\nFROM alpine\nRUN echo y > /y\n",
        )
        .args(&["--target", "bUILD"]),
        case(
            "copy-by-index",
            "B10",
            "FROM alpine\nRUN echo x > /x\nFROM alpine\nCOPY --from=0 /x /\n",
        ),
        case(
            "one-name-twice",
            "B12",
            "FROM alpine AS s\nRUN echo 1 > /x\nFROM alpine AS s\nRUN echo 2 > /x\nFROM alpine\nCOPY --from=s /x /\n",
        ),
        case(
            "copy-from-an-image",
            "B11",
            "FROM alpine\nCOPY --from=nginx:latest /etc/nginx/nginx.conf /n/\n",
        ),
        case(
            "unneeded-stages-are-not-run",
            "B15",
            "FROM no-such-image:1 AS never\nRUN false\nFROM alpine\nRUN echo x > /x\n",
        ),
        case("stage-without-instructions", "B17", "FROM alpine AS base\nFROM base\n"),
        case("scratch-alone", "B17", "FROM scratch\nENV a=1\n")
            .ours("the engine cannot export an image without files", &[]),
        case("scratch-with-a-file", "G11", "FROM scratch\nCOPY a.txt /\n"),
        case(
            "chain-of-stages",
            "B2",
            "FROM alpine AS a\nRUN echo a > /a\nFROM a AS b\nRUN echo b > /b\nFROM b AS c\nRUN echo c > /c\nFROM c\nRUN cat /a /b /c > /all\n",
        ),
        case(
            "diamond",
            "B15",
            "FROM alpine AS base\nRUN echo base > /base\nFROM base AS l\nRUN echo l > /l\nFROM base AS r\nRUN echo r > /r\nFROM base\nCOPY --from=l /l /\nCOPY --from=r /r /\n",
        ),
    ]
}

fn triggers_and_targets() -> Vec<Case> {
    vec![
        case(
            "onbuild-fires-first",
            "B20",
            "FROM alpine AS base\nONBUILD ENV A=trigger\nONBUILD RUN echo $A > /t\nFROM base\nENV B=$A\nRUN echo $B > /b\n",
        ),
        case(
            "onbuild-is-not-inherited",
            "B20",
            "FROM alpine AS base\nONBUILD RUN echo x >> /x\nFROM base AS mid\nFROM mid\n",
        ),
        case("onbuild-is-stored", "G1", "FROM alpine\nONBUILD RUN echo x\nONBUILD COPY . /y\n"),
        case(
            "onbuild-copies-from-a-stage",
            "B21",
            "FROM alpine AS files\nRUN echo f > /f\nFROM alpine AS base\nONBUILD COPY --from=files /f /g\nFROM base\n",
        ).ours("names in ONBUILD came with 1.11", &["g file 644 0:0 f"]),
        case(
            "target-in-the-middle",
            "1.7",
            "FROM alpine AS a\nRUN echo a > /a\nFROM alpine AS b\nRUN false\n",
        )
        .args(&["--target", "a"]),
        case(
            "target-stage-argument",
            "B6",
            "FROM alpine AS one\nARG TARGETSTAGE\nENV S=$TARGETSTAGE\nFROM alpine AS two\n",
        )
        .args(&["--target", "one"]).newer(&["config.Env", "history 2 created_by", "history 3 created_by"]),
        case(
            "config-is-not-copied",
            "G8",
            "FROM alpine AS s\nLABEL a=b\nENV X=1\nRUN echo x > /x\nFROM alpine\nCOPY --from=s /x /\n",
        ),
        case("copy-from-scratch", "C32", "FROM alpine\nCOPY --from=scratch / /x/\nCOPY --from=scratch *.none /y/\n"),
        case(
            "same-base-twice",
            "G16",
            "FROM alpine AS a\nENV A=1\nLABEL a=1\nFROM alpine\nENV B=1\nLABEL b=1\n",
        ),
        case("platform-of-a-stage-counts-for-nothing", "B14", "FROM alpine AS a\nRUN echo a > /a\nFROM --platform=linux/arm64 a\nRUN echo b > /b\n"),
        case("from-with-digest-and-tag", "1.4", "FROM alpine:latest\nENV a=1\n"),
        case("from-of-the-full-name", "1.4", "FROM docker.io/library/alpine:latest\nENV a=1\n"),
    ]
}
