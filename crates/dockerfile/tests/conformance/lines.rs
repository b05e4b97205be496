//! Lines, comments, continuations, heredocs, forms.

use common::plan::Chmod;
use dockerfile::parse;

use crate::planning::{Planning, copies, last, runs};

fn commands(text: &str) -> Vec<Vec<String>> {
    runs(&last(text)).into_iter().map(|run| run.argv.clone()).collect()
}

/// The texts that the shell gets.
fn scripts(text: &str) -> Vec<String> {
    commands(text).into_iter().map(|argv| argv.last().unwrap().clone()).collect()
}

#[test]
fn a_command_goes_on_behind_the_escape_character() {
    for (text, expected) in [
        ("FROM a\nRUN x \\\n  y", "x   y"),
        ("FROM a\nRUN x \\ \t\n y", "x  y"),
        ("FROM a\nRUN x \\\n# comment\n  # another\n y", "x  y"),
        ("FROM a\nRUN x \\\n\n \n y", "x  y"),
        ("FROM a\nRUN x\\\\\n", "x\\\\"),
        ("FROM a\nRUN x # no comment", "x # no comment"),
        ("FROM a\nRUN x \\", "x"),
        ("FROM a\r\nRUN x \\\r\n y\r\n", "x  y"),
        ("\u{feff}FROM a\n   RUN x", "x"),
        ("FROM a\nRU\\\nN x", "x"),
        ("FROM a\nrUn x", "x"),
        ("# escape=`\nFROM a\nRUN x `\n y\\", "x  y\\"),
        ("# Escape = `\nFROM a\nRUN x `\n y", "x  y"),
        ("# note\n# escape=`\nFROM a\nRUN x \\\n y", "x  y"),
        ("\n# escape=`\nFROM a\nRUN x \\\n y", "x  y"),
    ] {
        assert_eq!(scripts(text), [expected], "{text:?}");
    }
}

#[test]
fn an_array_that_is_no_json_is_a_shell_command() {
    for (text, expected) in [
        (r#"RUN ["a", "b c"]"#, vec!["a", "b c"]),
        (r#"RUN  [ "a" ] "#, vec!["a"]),
        ("RUN ['a']", vec!["/bin/sh", "-c", "['a']"]),
        (r#"RUN ["a",]"#, vec!["/bin/sh", "-c", r#"["a",]"#]),
        (r#"RUN ["a"] && b"#, vec!["/bin/sh", "-c", r#"["a"] && b"#]),
        ("RUN [ -e /x ]", vec!["/bin/sh", "-c", "[ -e /x ]"]),
        (r#"RUN ["a\u0041\n"]"#, vec!["aA\n"]),
    ] {
        assert_eq!(commands(&format!("FROM a\n{text}")), [expected], "{text}");
    }
    for text in [r#"RUN ["a", 1]"#, "CMD [null]", r#"ENTRYPOINT [["a"]]"#, "VOLUME [1]"] {
        assert_eq!(
            parse("f", format!("FROM a\n{text}").as_bytes()).unwrap_err()[0].code,
            "bad-json"
        );
    }
}

#[test]
fn the_builder_expands_no_command() {
    let text = "FROM a\nENV A=1\nRUN echo $A ${A:?}\nRUN [\"echo\", \"$A\"]\nCMD echo $A\nENTRYPOINT [\"$A\"]";
    assert_eq!(commands(text), [vec!["/bin/sh", "-c", "echo $A ${A:?}"], vec!["echo", "$A"],]);
    let stage = last(text);
    assert_eq!(stage.config.cmd.unwrap()[2], "echo $A");
    assert_eq!(stage.config.entrypoint.unwrap(), ["$A"]);
}

#[test]
fn a_lone_heredoc_is_the_script() {
    assert_eq!(scripts("FROM a\nRUN <<EOF\necho $x\n  y\nEOF\nRUN z"), ["echo $x\n  y\n", "z"]);
    assert_eq!(scripts("FROM a\nRUN <<-EOF\n\techo\n\t\t  y\n\tEOF"), ["echo\n  y\n"]);
    assert_eq!(scripts("FROM a\nRUN <<'EOF'\n# kept\n\\\nEOF"), ["# kept\n\\\n"]);
    assert_eq!(scripts("FROM a\nRUN --network=none <<EOF\nx\nEOF"), ["x\n"]);
    assert_eq!(scripts("FROM a\nRUN <<EOF\nEOF"), [""]);
}

#[test]
fn a_heredoc_with_text_around_it_is_the_shells() {
    assert_eq!(
        scripts("FROM a\nRUN cat <<A && cat <<\"B\" > x\n1\nA\n2\nB\nRUN y"),
        ["cat <<A && cat <<\"B\" > x\n1\nA\n2\nB", "y"]
    );
    assert_eq!(scripts("FROM a\nRUN <<EOF sh\nx\nEOF"), ["<<EOF sh\nx\nEOF"]);
}

#[test]
fn a_heredoc_with_an_interpreter_is_a_file() {
    let stage =
        last("FROM a\nSHELL [\"/bin/bash\", \"-c\"]\nRUN <<-EOT\n\t#!/usr/bin/python\n\tx\nEOT");
    let run = runs(&stage)[0];
    assert_eq!(run.argv, ["/bin/bash", "-c", "/dev/pipes/EOT"]);
    let script = run.script.clone().unwrap();
    assert_eq!(script.name, "/dev/pipes/EOT");
    assert_eq!(script.content, "#!/usr/bin/python\nx\n");
}

#[test]
fn what_only_looks_like_a_heredoc_is_text() {
    for text in
        ["cat <<<x", "echo '<<EOF'", "echo \"<<EOF\"", "echo $((1<<2))", "echo a<<", "echo \\<<EOF"]
    {
        assert_eq!(scripts(&format!("FROM a\nRUN {text}")), [text]);
    }
    let stage = last("FROM a\nENV A=<<EOF\nLABEL b=<<EOF\nRUN x");
    assert_eq!(stage.config.env[1], "A=<<EOF");
}

#[test]
fn heredocs_of_a_copy_are_files_behind_its_sources() {
    let stage = last(
        "FROM a\nARG V=1\nCOPY file <<one <<'two' <<-three /to/\n$V \"q\" 'r'\none\n$V\ntwo\n\tx\n\tthree\n",
    );
    let copy = copies(&stage)[0];
    assert_eq!(
        (copy.sources.as_slice(), copy.destination.as_str()),
        (["/file".to_owned()].as_slice(), "/to/")
    );
    let inline: Vec<_> =
        copy.inline.iter().map(|file| (file.name.as_str(), file.content.as_str())).collect();
    assert_eq!(inline, [("one", "1 \"q\" 'r'\n"), ("two", "$V\n"), ("three", "x\n")]);
    assert_eq!(parse("f", b"FROM a\nCOPY x <<E\nE").unwrap_err()[0].code, "bad-destination");
}

#[test]
fn a_trigger_keeps_its_heredoc() {
    let text = "FROM a AS base\nONBUILD RUN <<-EOF\n\techo one\n\tEOF\nFROM base\nRUN two";
    assert_eq!(scripts(text), ["echo one\n", "two"]);
}

#[test]
fn a_failure_covers_the_whole_instruction() {
    let text = "FROM a\n\nCOPY --from=9 \\\n # note\n  x \\\n  <<EOF /y\nbody\nEOF\nRUN x";
    let failure = Planning::new(text).failures().remove(0);
    let lines = failure.lines.unwrap();
    assert_eq!((lines.start, lines.end), (3, 8));
    assert!(failure.excerpt.unwrap().starts_with("COPY --from=9 \\\n # note"));
    assert_eq!(failure.file.as_deref(), Some("Dockerfile"));
}

#[test]
fn files_that_are_none_are_refused() {
    for (text, code) in [
        ("", "empty-file"),
        ("\n \n# x\n", "no-instructions"),
        ("ARG a=1\n", "no-stage"),
        ("RUN x\nFROM a", "no-stage"),
        ("# escape=\\\n# escape=`\nFROM a", "duplicate-directive"),
        (
            "# syntax=docker/dockerfile:1\n# syntax=docker/dockerfile:1\nFROM a",
            "duplicate-directive",
        ),
        ("# escape=xx\nFROM a", "bad-directive"),
        ("FROM a\nRUN <<A <<B\nx\nA\n", "unterminated-heredoc"),
    ] {
        assert_eq!(parse("f", text.as_bytes()).unwrap_err()[0].code, code, "{text:?}");
    }
    let long = format!("FROM a\nENV a={}", "x".repeat(65_536));
    assert_eq!(parse("f", long.as_bytes()).unwrap_err()[0].code, "line-too-long");
    let fits = format!("FROM a\nENV a={}", "x".repeat(65_529));
    assert!(parse("f", fits.as_bytes()).is_ok());
}

#[test]
fn other_frontends_are_refused_by_name() {
    for own in ["1", "1.7", "1.7.1", "latest", "1@sha256:00"] {
        let text = format!("# syntax=docker/dockerfile:{own}\nFROM a");
        assert!(parse("f", text.as_bytes()).is_ok(), "{own}");
    }
    for other in ["docker/dockerfile:2", "docker/dockerfile-upstream:master", "acme/buildpacks"] {
        let failure =
            parse("f", format!("# syntax={other}\nFROM a").as_bytes()).unwrap_err().remove(0);
        assert_eq!(failure.code, "other-frontend");
        assert!(failure.message.contains(other) && failure.hint.is_some());
    }
}

#[test]
fn flags_may_be_quoted_and_end_at_two_dashes() {
    let stage = last("FROM a\nCOPY --chown=\"1:2\" --chmod=0'755' -- file /x");
    let copy = copies(&stage)[0];
    assert_eq!((copy.chown.as_deref(), &copy.chmod), (Some("1:2"), &Some(Chmod::Octal(0o755))));
    assert_eq!(copy.sources, ["/file"]);
    for (text, code) in [
        ("COPY --chown a b", "bad-flag"),
        ("COPY --chown=1 --chown=2 a b", "duplicate-flag"),
        ("WORKDIR --x /y", "unknown-flag"),
        ("ENV --x=1 a=b", "unknown-flag"),
    ] {
        assert_eq!(parse("f", format!("FROM a\n{text}").as_bytes()).unwrap_err()[0].code, code);
    }
}
