//! G: configuration and history.

use crate::case::{Case, case};

pub(crate) fn cases() -> Vec<Case> {
    [histories(), settings()].concat()
}

fn histories() -> Vec<Case> {
    vec![
        case(
            "history-of-everything",
            "G1",
            "FROM alpine\nARG A=3\nENV B=4\nLABEL l=1\nRUN echo $A > /x\nCOPY a.txt /b\nADD b.txt /c\nWORKDIR /w\nUSER 5\nEXPOSE 80\nVOLUME /v\nSTOPSIGNAL SIGINT\nSHELL [\"/bin/sh\", \"-c\"]\nCMD [\"a\"]\nENTRYPOINT [\"b\"]\nHEALTHCHECK NONE\nONBUILD RUN x\nMAINTAINER me\n",
        ).newer(&["history 10 created_by: \"EXPOSE", "history 16 created_by: \"HEALTHCHECK"]),
        case(
            "history-of-args",
            "G2",
            "FROM alpine\nARG A=1\nARG B=2\nARG A=3\nRUN echo $A $B > /x\n",
        ).newer(&["history 5 created_by: \"RUN |2"]),
        case("history-of-arg-without-value", "G2", "FROM alpine\nARG A\nRUN echo x > /x\n"),
        case(
            "history-of-copy-flags",
            "G3",
            "FROM alpine AS s\nRUN echo x > /x\nFROM alpine\nCOPY --from=s --chown=1:2 --chmod=600 --link /x /y\nCOPY --link a.txt /z\n",
        ),
        case(
            "history-of-exec-form",
            "G1",
            "FROM alpine\nRUN [\"echo\", \"a b\", \"c\"]\nCMD [\"a b\", \"c\\\"d\"]\n",
        ),
        case(
            "history-of-long-commands",
            "G1",
            "FROM alpine\nRUN echo one && \\\n    echo two \\\n    && echo three > /x\n",
        ),
        case(
            "entrypoint-resets-an-inherited-cmd",
            "G4",
            "FROM alpine AS b\nCMD [\"base\"]\nFROM b\nENTRYPOINT [\"e\"]\n",
        ),
        case(
            "entrypoint-keeps-its-own-cmd",
            "G4",
            "FROM alpine\nCMD [\"mine\"]\nENTRYPOINT [\"e\"]\n",
        ),
        case("cmd-after-entrypoint", "G4", "FROM alpine\nENTRYPOINT [\"e\"]\nCMD [\"c\"]\n"),
        case(
            "empty-cmd-and-entrypoint",
            "G5",
            "FROM alpine AS b\nCMD [\"x\"]\nENTRYPOINT [\"y\"]\nFROM b\nENTRYPOINT []\nCMD []\n",
        ),
        case("shell-form-of-cmd", "G5", "FROM alpine\nCMD echo $HOME && true\n"),
        case("last-cmd-wins", "1.4", "FROM alpine\nCMD one\nCMD [\"two\"]\n"),
    ]
}

fn settings() -> Vec<Case> {
    vec![
        case(
            "expose-forms",
            "G6",
            "FROM alpine\nEXPOSE 80 443/tcp 53/udp 9000-9003\nEXPOSE 80/TCP 132/sctp\n",
        ).newer(&["history 2 created_by", "history 3 created_by"]),
        case(
            "volumes",
            "G7",
            "FROM alpine\nVOLUME /a /b\nVOLUME [\"/c\", \"/a\"]\nRUN mkdir -p /a && echo kept > /a/x\n",
        ),
        case("labels", "G8", "FROM alpine\nLABEL a=1 b=\"two words\" c='x'\nLABEL a=2 d.e/f=g\n"),
        case("label-flags", "G8", "FROM alpine\nLABEL a=file b=file\n")
            .args(&["--label", "a=flag", "--label", "c=flag"]),
        case(
            "labels-of-the-base",
            "G8",
            "FROM alpine AS b\nLABEL a=base b=base\nFROM b\nLABEL a=child\n",
        ),
        case(
            "env-overrides-in-place",
            "G8",
            "FROM alpine\nENV A=1 B=2\nENV A=3\nENV PATH=/x:$PATH\n",
        ),
        case("empty-env", "1.4", "FROM alpine\nENV A= B=\"\"\n"),
        case("stop-signals", "G17", "FROM alpine\nSTOPSIGNAL 9\n"),
        case("stop-signal-names", "G17", "FROM alpine\nSTOPSIGNAL SIGRTMIN+3\n"),
        case(
            "healthcheck",
            "G18",
            "FROM alpine\nHEALTHCHECK --interval=30s --timeout=1m30s --start-period=5s --retries=3 CMD curl -f http://x || exit 1\n",
        ).newer(&["history 2 created_by: \"HEALTHCHECK"]),
        case("healthcheck-exec", "G18", "FROM alpine\nHEALTHCHECK CMD [\"curl\", \"x\"]\n").newer(&["history 2 created_by: \"HEALTHCHECK"]),
        case("healthcheck-none", "G17", "FROM alpine\nHEALTHCHECK NONE\n").newer(&["history 2 created_by: \"HEALTHCHECK"]),
        case(
            "healthcheck-start-interval",
            "1.4",
            "FROM alpine\nHEALTHCHECK --start-interval=2s CMD x\n",
        ).newer(&["history 2 created_by: \"HEALTHCHECK"]),
        case("shell-is-stored", "1.4", "FROM alpine\nSHELL [\"/bin/sh\", \"-ec\"]\n"),
        case("maintainer", "1.4", "FROM alpine\nMAINTAINER Some One <a@b.c>\n"),
        case("user-is-stored-as-written", "1.4", "FROM alpine\nUSER nobody:nogroup\n"),
        case("working-directory-is-cleaned", "G10", "FROM alpine\nWORKDIR /a//b/../c/\n").newer(&["config.WorkingDir", "history 2 created_by"]),
        case("scratch-config", "G11", "FROM scratch\nCOPY a.txt /\nENV A=1\n"),
        case("config-of-the-base", "G8", "FROM nginx:latest\nENV A=1\n"),
        case("volume-of-one-word-with-brackets", "1.4", "FROM alpine\nVOLUME [/a]\n"),
        case("cmd-with-a-variable", "A18", "FROM alpine\nENV X=1\nCMD [\"$X\"]\nENTRYPOINT $X\n"),
        case("user-with-a-variable", "1.3", "FROM alpine\nARG U=7\nUSER ${U}:8\n"),
    ]
}
