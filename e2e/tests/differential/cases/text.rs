//! A: text, words, variables, heredocs.

use crate::case::{Case, case};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = words();
    cases.extend(variables());
    cases.extend(heredocs());
    cases
}

fn words() -> Vec<Case> {
    vec![
        case("two-escapes-do-not-continue", "A1", "FROM alpine\nENV a=b\\\\\nENV c=d\n"),
        case(
            "comments-inside-a-continuation",
            "A2",
            "FROM alpine\nRUN echo a \\\n# comment\n  # another\n  && echo b > /x\n",
        ),
        case(
            "blank-lines-inside-a-continuation",
            "A2",
            "FROM alpine\nRUN echo a \\\n\n  && echo b > /x\n",
        ),
        case("bad-json-is-shell-form", "A3", "FROM alpine\nCMD ['a', 'b']\nENTRYPOINT [\"x\"] y\n")
            .newer(&["config.Entrypoint", "history 3 created_by"]),
        case(
            "directive-after-a-comment-is-none",
            "A4",
            "# a comment\n# escape=`\nFROM alpine\nENV a=b \\\n  c=d\n",
        ),
        case(
            "backtick-escape",
            "A6",
            "# escape=`\nFROM alpine\nENV a=C:\\x b=`$a\nRUN echo one `\n  two > /x\n",
        ),
        case(
            "escape-directive-with-blanks",
            "1.2",
            "#  EsCaPe  =  `\nFROM alpine\nENV a=1 `\n  b=2\n",
        ),
        case("byte-order-mark", "1.1", "\u{feff}FROM alpine\nENV a=1\n"),
        case(
            "carriage-returns",
            "1.1",
            "FROM alpine\r\nENV a=1 \\\r\n  b=2\r\nRUN echo x > /x\r\n",
        ),
        case(
            "keywords-in-any-case",
            "1.1",
            "from alpine as Base\nenv A=1\nFrOm base\nrUn echo x > /x\n",
        ),
        case("keyword-split-by-a-continuation", "1.1", "FROM alpine\nE\\\nNV a=1\n"),
        case("leading-blanks", "1.1", "  FROM alpine\n\t ENV a=1\n"),
        case(
            "hash-in-the-middle-is-text",
            "1.1",
            "FROM alpine\nENV a=b#c d=#e\nRUN echo '#x' > /x # not cut\n",
        ),
        case("flags-with-quotes", "A7", "FROM alpine\nCOPY --chown=\"1:2\" a.txt /x\n"),
        case("two-dashes-end-flags", "A7", "FROM alpine\nCOPY -- a.txt /x\n"),
        case("continuation-at-the-end-of-the-file", "1.1", "FROM alpine\nENV a=1 \\"),
        case("tabs-between-words", "1.1", "FROM\talpine\nENV\ta=1\t\tb=2\nEXPOSE\t80\t81\n")
            .newer(&["history 3 created_by: \"EXPOSE"]),
        case("escaped-blank-does-not-join", "1.1", "FROM alpine\nEXPOSE 80 81\nVOLUME /a\\ /b\n")
            .newer(&["history 2 created_by: \"EXPOSE"]),
        case(
            "json-words-are-expanded",
            "1.1",
            "FROM alpine\nARG D=/data\nVOLUME [\"$D\", \"/b\"]\nCOPY [\"with space\", \"$D/\"]\n",
        ),
    ]
}

fn variables() -> Vec<Case> {
    vec![
        case(
            "one-line-sees-the-line-before",
            "A9",
            "FROM alpine\nENV abc=hello\nENV abc=bye def=$abc\nENV ghi=$abc\n",
        ),
        case("several-args-on-a-line", "A9", "FROM alpine\nARG a=1 b=$a c=${b}x\nENV r=$c\n").newer(&["config.Env", "history 2 created_by", "history 3 created_by"]),
        case("keys-are-expanded", "A10", "FROM alpine\nARG K=key\nLABEL $K=value\nENV ${K}2=v\n"),
        case("old-form-of-env", "A11", "FROM alpine\nENV a b  'c d' \"e\"\nLABEL l one two\n"),
        case("percent-signs", "A12", "FROM alpine\nENV a=%s b=100%d\nLABEL p=%v\n"),
        case(
            "arg-without-value",
            "A13",
            "FROM alpine\nARG FOO\nARG BAR=\nRUN env | grep -c -E '^(FOO|BAR)=' > /n; env | grep '^BAR=' > /b\n",
        ),
        case(
            "quotes",
            "A14",
            "FROM alpine\nENV v=val\nENV a='$v' b=\"$v\" c=x'y'\"z\" d=\\$v e=\"a\\\"b\" f='a\"b' g=a\\ b\n",
        ),
        case(
            "defaults-and-alternatives",
            "1.3",
            "FROM alpine\nENV set=x empty=\nENV a=${set:-d} b=${empty:-d} c=${unset:-d} d=${empty-d} e=${unset-d} f=${set:+y} g=${empty:+y} h=${set+y} i=${empty+y} j=${unset+y}\n",
        ),
        case(
            "nested-defaults",
            "1.3",
            "FROM alpine\nENV a=${x:-${y:-${z:-deep}}}\nENV b=${x:-$a}\n",
        ),
        case(
            "prefixes-and-suffixes",
            "A16",
            "FROM alpine\nENV p=/usr/local/lib/libx.so.1\nENV a=${p#*/} b=${p##*/} c=${p%.*} d=${p%%.*} e=${p#/usr} f=${p%?}\n",
        ),
        case(
            "replacements",
            "A16",
            "FROM alpine\nENV p=a-b-c\nENV a=${p/-/_} b=${p//-/_} d=${p//[bc]/x} e=${p/\\//x}\n",
        ),
        case("special-variables-are-empty", "1.3", "FROM alpine\nENV a=x$1y b=x$@y c=x$?y\n"),
        case(
            "the-shell-expands-commands",
            "A18",
            "FROM alpine\nENV A=1\nRUN B=2; echo $A $B ${A:-x} > /x\nCMD echo $A\nENTRYPOINT [\"echo\", \"$A\"]\n",
        ),
        case(
            "variables-in-every-instruction",
            "1.3",
            "FROM alpine\nARG P=80 U=1000 S=SIGINT W=/w V=/v\nEXPOSE $P\nUSER $U\nSTOPSIGNAL $S\nWORKDIR $W\nVOLUME $V\n",
        ).newer(&["history 3 created_by: \"EXPOSE"]),
        case("expose-splits-unquoted-variables", "A15", "FROM alpine\nARG P='80 81'\nEXPOSE $P\n").newer(&["history 3 created_by: \"EXPOSE"]),
        case(
            "variables-of-the-base",
            "1.3",
            "FROM alpine AS b\nENV X=base\nFROM b\nENV Y=$X-child\nCOPY a.txt /$X/\n",
        ),
        case("dollar-at-the-end", "1.3", "FROM alpine\nENV a=x$ b=\"y$\"\n"),
        case(
            "escaped-variables-in-copy",
            "1.3",
            "FROM alpine\nENV v=a.txt\nCOPY $v /one\nCOPY \"${v}\" /two\n",
        ),
        case("build-args-win", "B1", "FROM alpine\nARG A=default\nENV R=$A\n")
            .args(&["--build-arg", "A=given"]).newer(&["history 2 created_by: \"ARG"]),
        case(
            "undeclared-build-args",
            "B22",
            "FROM alpine\nRUN env | sort | grep -v -E '^(PWD|SHLVL|HOME|PATH)=' > /x || true\n",
        )
        .args(&["--build-arg", "NOBODY=asked"]),
    ]
}

fn heredocs() -> Vec<Case> {
    vec![
        case(
            "lone-heredoc-is-the-script",
            "A20",
            "FROM alpine\nRUN <<EOF\necho one > /x\necho two >> /x\nEOF\n",
        ),
        case(
            "heredoc-with-a-shebang",
            "A20",
            "FROM alpine\nRUN <<EOF\n#!/bin/sh -e\necho $0 > /x\nEOF\n",
        ),
        case(
            "heredoc-with-text-around-it",
            "A20",
            "FROM alpine\nRUN cat <<EOF > /x\nA $HOME\nEOF\n",
        ),
        case(
            "quoted-heredoc-in-a-command",
            "A20",
            "FROM alpine\nRUN cat <<'EOF' > /x\nA $HOME\nEOF\n",
        ),
        case(
            "two-heredocs-in-a-command",
            "A22",
            "FROM alpine\nRUN cat <<A > /a && cat <<B > /b\nfirst\nA\nsecond\nB\n",
        ),
        case(
            "copied-heredocs",
            "A19",
            "FROM alpine\nARG V=value\nCOPY <<one <<\"two\" /d/\nx $V 'q' \"d\" \\$V\none\ny $V\ntwo\n",
        ),
        case(
            "copied-heredoc-as-a-file",
            "A19",
            "FROM alpine\nCOPY <<EOF /etc/thing.conf\nhello\nEOF\n",
        ),
        case("heredoc-beside-a-path", "C31", "FROM alpine\nCOPY a.txt <<EOF /d/\ninline\nEOF\n"),
        case(
            "heredoc-with-mode-and-owner",
            "1.6",
            "FROM alpine\nCOPY --chmod=750 --chown=3:4 <<EOF /x\n#!/bin/sh\nEOF\n",
        ),
        case(
            "tabs-are-taken-off",
            "A21",
            "FROM alpine\nCOPY <<-EOF /x\n\tone\n\t\ttwo\n\t  three\n\tEOF\n",
        ),
        case(
            "heredoc-with-a-descriptor",
            "A22",
            "FROM alpine\nRUN 3<<EOF cat /dev/fd/3 > /x\nbody\nEOF\n",
        ),
        case("json-is-no-heredoc", "A22", "FROM alpine\nCMD [\"<<EOF\"]\nENV a=1\n"),
        case(
            "heredoc-behind-onbuild",
            "A23",
            "FROM alpine AS base\nONBUILD RUN <<EOF\necho fired > /x\nEOF\nFROM base\n",
        ),
        case("empty-heredoc", "1.6", "FROM alpine\nCOPY <<EOF /empty\nEOF\n"),
        case("heredoc-of-add", "1.6", "FROM alpine\nADD <<EOF /x\nadded\nEOF\n"),
        case(
            "shell-of-a-heredoc",
            "E8",
            "FROM alpine\nSHELL [\"/bin/sh\", \"-ec\"]\nRUN <<EOF\necho x > /x\nEOF\n",
        ),
    ]
}
