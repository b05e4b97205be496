//! What files mean, as bake's reference and its documentation have it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;

fn read_all(
    files: &[(&str, &str)],
    wanted: &[&str],
    sets: &[&str],
    variables: &[(&str, &str)],
) -> Result<Vec<Target>, String> {
    let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let source =
        |(name, text): &(&str, &str)| Source { name: (*name).to_owned(), text: (*text).to_owned() };
    let sources: Vec<Source> = files.iter().map(source).collect();
    let variables: BTreeMap<&str, &str> = variables.iter().copied().collect();
    let lookup = |name: &str| variables.get(name).map(|value| (*value).to_owned());
    read(&sources, &owned(wanted), &owned(sets), &lookup)
}

/// All targets as one object.
fn values(made: &[Target]) -> Value {
    made.iter().map(|target| (target.name.clone(), Value::Object(target.values.clone()))).collect()
}

fn hcl(text: &str, wanted: &[&str]) -> Value {
    values(&read_all(&[("docker-bake.hcl", text)], wanted, &[], &[]).unwrap())
}

const JSON: &str = r#"{
    "group": {"default": {"targets": ["app", "all"]}, "all": {"targets": ["tool"]}},
    "target": {
        "common": {"args": {"A": "1", "B": "2"}, "platforms": ["linux/amd64"]},
        "app": {
            "inherits": ["common"], "context": "x", "dockerfile": "D", "args": {"B": "3", "C": null},
            "contexts": {"tool": "target:tool", "dir": "./d"}, "tags": ["a", "b"], "no-cache": true,
            "output": [{"type": "oci", "dest": "a,b"}], "secret": [{"id": "s", "env": "S"}],
            "ssh": [{"id": "default"}, {"id": "k", "paths": ["a", "b"]}]
        },
        "tool": {"target": "t", "tags": ["tool"]}
    }
}"#;

#[test]
fn targets_come_after_what_they_start_from() {
    let names = |wanted: &[&str]| {
        let targets = read_all(&[("x.json", JSON)], wanted, &[], &[]).unwrap();
        let name = |target: Target| format!("{}{}", target.name, u8::from(target.is_linked));
        targets.into_iter().map(name).collect::<Vec<_>>()
    };
    assert_eq!(names(&[]), ["tool0", "app0"]);
    assert_eq!(names(&["app"]), ["tool1", "app0"]);
    assert_eq!(names(&["all"]), ["tool0"]);
    assert_eq!(names(&["t*"]), ["tool0"]);
    let error = read_all(&[("x.json", JSON)], &["none"], &[], &[]).unwrap_err();
    assert!(error.contains("there is no target none"));
}

#[test]
fn values_become_flags() {
    let sets = ["app.args.A=9", "*.platform=linux/arm64", "app.tags+=c", "*.secrets=id=t,src=x"];
    let targets = read_all(&[("x.json", JSON)], &["app"], &sets, &[]).unwrap();
    let expected = [
        "--build-arg=A=9",
        "--build-arg=B=3",
        "--build-context=dir=./d",
        "--no-cache",
        "--output=\"dest=a,b\",type=oci",
        "--platform=linux/arm64",
        "--secret=id=t,src=x",
        "--ssh=default",
        "--ssh=k=a,b",
        "--tag=a",
        "--tag=b",
        "--tag=c",
        "--",
        "x",
    ];
    let mut made = flags(&targets[1]).unwrap();
    let tail = made.len() - 2;
    made[..tail].sort();
    assert_eq!(made, expected);
    assert_eq!(targets[1].links()["tool"], "tool");
    // Nothing is made of what is only started from.
    let tool = flags(&targets[0]).unwrap();
    assert_eq!(tool, ["--platform=linux/arm64", "--secret=id=t,src=x", "--target=t", "--", "."]);
}

#[test]
fn variables_functions_and_attributes_are_evaluated() {
    let text = r#"
        variable "TAG" { default = "latest" }
        variable "COUNT" { default = 2 }
        variable "DEBUG" { default = false }
        variable "NONE" { default = null }
        variable "BARE" {}
        variable "LIST" {
          type = list(number)
          default = [1]
        }
        registry = "example.org/${lower("TEAM")}"
        function "tag" {
          params = [name]
          variadic_params = more
          result = ["${registry}/${name}:${TAG}", "${name}${length(more) > 0 ? "-${join("-", more)}" : ""}"]
        }
        target "default" {
          tags = tag("app", "x", 1)
          args = {
            COUNT = COUNT + 1
            HALF = COUNT / 4
            DEBUG = DEBUG ? "yes" : "no"
            NONE = NONE
            BARE = "[${BARE}]"
            LIST = join(",", [for n in LIST : n * 2 if n > 1])
            MAP = join(",", keys({for k, v in {a = 1, b = 2} : upper(k) => v}))
            TEXT = "%{ for x in ["a", "b"] ~}  ${x}%{ endfor }%{ if DEBUG }d%{ else }n%{ endif }"
            LAST = "${join("", [{v = "p"}, {v = "q"}][*].v)}${[{v = "r"}][0].v}"
            TRY = try(nothing.at.all, "tried")
            ESCAPED = "$${TAG}\n"
            BAKE = BAKE_CMD_CONTEXT
            OTHER = target.other.args.X
          }
          dockerfile-inline = <<-EOT
            FROM alpine
              RUN echo ${TAG}
          EOT
        }
        target "other" { args = { X = "of ${TAG}" } }
    "#;
    let expected = json!({"default": {
        "tags": ["example.org/team/app:latest", "app-x-1"],
        "args": {
            "COUNT": 3, "HALF": 0.5, "DEBUG": "no", "BARE": "[]", "LIST": "", "MAP": "A,B",
            "TEXT": "abn", "LAST": "pqr", "TRY": "tried", "ESCAPED": "${TAG}\n", "BAKE": "cwd://",
            "OTHER": "of latest",
        },
        "dockerfile-inline": "FROM alpine\n  RUN echo latest\n",
    }});
    assert_eq!(hcl(text, &[]), expected);
    let given =
        [("TAG", "v1"), ("COUNT", "8"), ("DEBUG", "true"), ("NONE", "n"), ("LIST", "1,2,3")];
    let made = read_all(&[("docker-bake.hcl", text)], &[], &[], &given).unwrap();
    let args = &values(&made)["default"]["args"];
    assert_eq!(args["COUNT"], 9);
    assert_eq!((&args["DEBUG"], &args["NONE"]), (&json!("yes"), &json!("n")));
    assert_eq!((&args["LIST"], &args["OTHER"]), (&json!("4,6"), &json!("of v1")));
}

#[test]
fn a_matrix_makes_a_target_of_each_combination() {
    let text = r#"
        target "base" { args = { A = "base" } }
        target "app" {
          name = "app-${tgt}-${replace(version, ".", "-")}"
          inherits = ["base"]
          matrix = {
            tgt = ["foo", "bar"]
            version = ["1.0", "2.0"]
          }
          target = tgt
          args = { VERSION = version }
        }
        target "item" {
          name = "item-${item.n}"
          matrix = { item = [{ n = "a", d = "Da" }, { n = "b", d = "Db" }] }
          dockerfile = item.d
        }
    "#;
    let made = read_all(&[("x.hcl", text)], &["app"], &[], &[]).unwrap();
    let names: Vec<&str> = made.iter().map(|target| target.name.as_str()).collect();
    assert_eq!(names, ["app-foo-1-0", "app-foo-2-0", "app-bar-1-0", "app-bar-2-0"]);
    let last = json!({"target": "bar", "args": {"A": "base", "VERSION": "2.0"}});
    assert_eq!(values(&made)["app-bar-2-0"], last);
    let items = json!({"item-a": {"dockerfile": "Da"}, "item-b": {"dockerfile": "Db"}});
    assert_eq!(hcl(text, &["item"]), items);
    assert_eq!(hcl(text, &["item-*"]), items);
}

#[test]
fn later_files_are_laid_over_earlier_ones() {
    let files = [
        (
            "docker-bake.hcl",
            r#"
            variable "V" { default = "one" }
            group "default" { targets = ["a", "b"] }
            target "a" {
              tags = ["a:${V}"]
              cache-from = ["x"]
              labels = { l = "1", m = "1" }
            }
            target "b" {}
        "#,
        ),
        (
            "docker-bake.override.json",
            r#"{
            "variable": {"V": {"default": "two"}},
            "group": {"default": {"targets": ["a"]}},
            "target": {"a": {"cache-from": ["y"], "labels": {"m": "${V}${1 + 1}", "n": "$${V}"}}}
        }"#,
        ),
    ];
    let made = read_all(&files, &[], &[], &[]).unwrap();
    let expected = json!({"a": {
        "tags": ["a:two"], "cache-from": ["x", "y"],
        "labels": {"l": "1", "m": "two2", "n": "${V}"},
    }});
    assert_eq!(values(&made), expected);
}

#[test]
fn services_of_compose_files_are_targets() {
    let files = [
        (
            "compose.yaml",
            r#"
x-common: &common
  args:
    SHARED: ${SHARED:-default}
services:
  web.app:
    image: example.org/web:$TAG
    environment:
      - FROM_SERVICE=s
    ports: ["80:80"]
    build:
      <<: *common
      context: ./web
      dockerfile: D
      target: final
      additional_contexts:
        db: service:db
      secrets: [token, {source: key}]
      ssh: [default, k=./key]
      extra_hosts: ["h:10.0.0.1"]
      ulimits: {nofile: {soft: 1, hard: 2}, nproc: 3}
      shm_size: 64m
      labels: [a=b]
      platforms: [linux/amd64]
      x-bake:
        tags: one two
        platforms: [linux/arm64]
        output: type=cacheonly
  db:
    build:
      context: db
      args: [FROM_SERVICE, TAG, "X=1"]
  none:
    image: alpine
secrets:
  token: {environment: TOKEN}
  key: {file: ./key.txt}
"#,
        ),
        ("override.yml", "services:\n  db:\n    build:\n      args: {X: 2}\n      tags: [db]\n"),
    ];
    let made = read_all(&files, &[], &["db.args.Y=3"], &[("TAG", "7")]).unwrap();
    let expected = json!({
        "web_app": {
            "args": {"SHARED": "default"}, "context": "./web", "dockerfile": "D", "target": "final",
            "contexts": {"db": "target:db"}, "ssh": ["default", "k=./key"],
            "secret": [{"id": "token", "env": "TOKEN"}, {"id": "key", "src": "./key.txt"}],
            "extra-hosts": {"h": "10.0.0.1"}, "ulimits": ["nofile=1:2", "nproc=3"],
            "shm-size": "64m", "labels": {"a": "b"}, "platforms": ["linux/amd64", "linux/arm64"],
            "tags": ["one", "two"], "output": ["type=cacheonly"],
        },
        "db": {"context": "db", "args": {"TAG": "7", "X": "2", "Y": "3"}, "tags": ["db"]},
    });
    assert_eq!(values(&made), expected);
    for target in &made {
        flags(target).unwrap();
    }
}

#[test]
fn what_cannot_be_done_is_refused() {
    let deep = format!("target \"default\" {{ tags = {}1{} }}", "[".repeat(80), "]".repeat(80));
    for (name, text, says) in [
        ("x.json", "target \"a\" {}", "x.json: expected"),
        ("x.json", r#"{"variable": {"X": {"defult": 1}}}"#, "variable X: defult is not supported"),
        (
            "x.json",
            r#"{"target": {"default": {"contexts": {"x": "target:default"}}}}"#,
            "needs itself",
        ),
        ("x.json", r#"{"target": {"default": {"inherits": ["default"]}}}"#, "inherits from itself"),
        ("x.json", r#"{"group": {"default": {"targets": ["default"]}}}"#, "has itself in it"),
        ("x.json", r#"{"target": {"default": {"tags": "a"}}}"#, "tags: a list is expected"),
        ("x.json", r#"{"target": {"default": 1}}"#, "is no object"),
        ("x.json", r#"{"target": {"a.b": {}}}"#, "is no name of a target"),
        ("x.hcl", "target \"default\" {", "x.hcl:"),
        ("x.hcl", "target {}", "one name in quotes"),
        ("x.hcl", "job \"a\" {}", "there is no block job"),
        ("x.hcl", "target \"default\" {\n args {\n A = 1\n }\n}", "a map is args = {…}"),
        ("x.hcl", "target \"default\" { policy = [] }", "policy is not supported"),
        ("x.hcl", "target \"default\" { tags = [TAG] }", "tags: there is no variable TAG"),
        ("x.hcl", "a = b\nb = a", "is made of itself"),
        ("x.hcl", "target \"default\" { name = \"x\" }", "with a matrix"),
        ("x.hcl", "target \"default\" { matrix = { a = [1] } }", "has a name"),
        ("x.hcl", "target \"default\" { target = nope(1) }", "there is no such function"),
        ("x.hcl", "target \"default\" { target = bcrypt(\"x\") }", "bcrypt is not supported"),
        ("x.hcl", "function \"f\" {\n params = [x]\n result = f(x)\n}\na = f(1)", "too deep"),
        (
            "x.hcl",
            "variable \"V\" {\n default = 1\n validation {\n condition = V > 1\n error_message = \"too small\"\n }\n}",
            "V: too small",
        ),
        ("x.hcl", "a = [for x in range(10000) : [for y in range(10000) : y]]", "too much work"),
        (
            "compose.yaml",
            "services:\n  a:\n    build: .\n    extends: {service: b}\n",
            "extends is not supported",
        ),
        (
            "compose.yaml",
            "services:\n  a:\n    build: {isolation: x}\n",
            "isolation is not supported",
        ),
        (
            "compose.yaml",
            "services:\n  a:\n    build: {secrets: [x]}\n",
            "secret x: it has no file",
        ),
        ("compose.yaml", "include: [x]\n", "include is not supported"),
        ("compose.yaml", "services: [\n", "compose.yaml:"),
        (
            "compose.yaml",
            "services:\n  a:\n    build: {context: \"${X:?not there}\"}\n",
            "not there",
        ),
        ("x.hcl", &deep, "tags"),
    ] {
        let made = read_all(&[(name, text)], &[], &[], &[])
            .and_then(|targets| targets.iter().map(flags).collect::<Result<Vec<_>, _>>());
        let error = made.expect_err(text);
        assert!(error.contains(says), "{text}: {error}");
    }
    for (set, says) in [
        ("app", "is expected"),
        ("none.tags=x", "there is no target none"),
        ("app.nothing=x", "nothing is not supported"),
        ("app.args=x", "is expected"),
        ("app.inherits=x", "inherits is not supported"),
    ] {
        let error = read_all(&[("x.json", JSON)], &[], &[set], &[]).unwrap_err();
        assert!(error.contains(says), "{set}: {error}");
    }
}

#[test]
fn aliases_that_mean_ever_more_are_refused() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..12 {
        let list = vec![format!("*a{}", n - 1); 9].join(", ");
        text.push_str(&format!("a{n}: &a{n} [{list}]\n"));
    }
    text.push_str("services: {}\n");
    assert!(read_all(&[("compose.yaml", &text)], &[], &[], &[]).is_err());
}
