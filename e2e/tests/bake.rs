//! Several targets in one submission: one graph, each with its own result.
#![expect(clippy::unwrap_used, reason = "a wrong assumption of a test fails the test")]

use std::path::Path;

use api::public::v1::BuildView;
use e2e::{Farm, FarmOptions, Image};
use serde_json::{Value, json};

const DOCKERFILE: &str = "FROM alpine AS deps\nRUN cat /proc/sys/kernel/random/uuid > /id\nCOPY a.txt /\n\
     FROM deps AS app\nARG WHO=nobody\nRUN echo app $WHO > /name\nCMD [\"app\"]\n\
     FROM deps AS tool\nCOPY b.txt /name\n\
     FROM scratch AS docs\nCOPY --from=deps /id /shared\n";

fn write(directory: &Path, name: &str, text: &str) {
    std::fs::create_dir_all(directory).unwrap();
    std::fs::write(directory.join(name), text).unwrap();
}

fn read(directory: &Path, name: &str) -> String {
    std::fs::read_to_string(directory.join(name)).unwrap()
}

fn bake(farm: &Farm, file: &Value, flags: &[&str]) -> (i32, String) {
    let path = farm.directory().join("docker-bake.json");
    std::fs::write(&path, file.to_string()).unwrap();
    let all = ["bake", "--progress", "plain", "-f", path.to_str().unwrap()].into_iter();
    let ran = farm.slipway(all.chain(flags.iter().copied())).unwrap();
    (ran.code, format!("{}{}", ran.stdout, ran.stderr))
}

fn stages<'a>(view: &'a BuildView, label: &str) -> Vec<&'a api::public::v1::StageView> {
    view.stages.iter().filter(|stage| stage.label == label).collect()
}

#[test]
fn targets_of_one_file_share_their_stages() {
    let farm = Farm::start(FarmOptions { workers: 2, ..FarmOptions::default() }).unwrap();
    let context = farm.directory().join("context");
    write(&context, "Dockerfile", DOCKERFILE);
    write(&context, "a.txt", "a\n");
    write(&context, "b.txt", "tool\n");
    let out = |name: &str| farm.directory().join("out").join(name);
    let to = |name: &str| format!("type=local,dest={}", out(name).display());
    let image = format!("{}/app:1", farm.registry());
    let push = format!("type=image,name={image},push=true");
    let file = json!({
        "group": {"default": {"targets": ["app", "tool", "docs"]}},
        "target": {
            "app": {"context": context, "target": "app", "args": {"WHO": "me"}, "output": [push, to("app")]},
            "tool": {"context": context, "target": "tool", "output": [to("tool")]},
            "docs": {"context": context, "target": "docs", "output": [to("docs")]},
        },
    });
    let metadata = farm.directory().join("metadata.json");
    let (code, said) = bake(&farm, &file, &["--metadata-file", metadata.to_str().unwrap()]);
    assert_eq!(code, 0, "{said}");
    let view = farm.last_build().unwrap();
    assert_eq!(farm.query("select count(*) from build").unwrap().trim(), "1");
    let shared = stages(&view, "deps");
    assert_eq!((shared.len(), shared[0].attempts), (1, 1));
    let id = read(&out("app"), "id");
    assert_eq!((read(&out("tool"), "id"), read(&out("docs"), "shared")), (id.clone(), id));
    assert_eq!(read(&out("app"), "name"), "app me\n");
    assert_eq!(read(&out("tool"), "name"), "tool\n");
    assert!(!out("docs").join("name").exists());
    let pushed = Image::inspect(&image).unwrap();
    let told: Value = serde_json::from_str(&read(farm.directory(), "metadata.json")).unwrap();
    assert_eq!(told["app"]["image.name"], image);
    assert_eq!(told["app"]["containerimage.digest"], pushed.digest);
    assert!(told["tool"]["containerimage.config.digest"].is_string());
    differing_targets(&farm, &context);
    other_forms(&farm, &context);
    // Alone it is the same work: nothing runs again.
    let plan = farm.slipway(["plan", "--target", "tool", context.to_str().unwrap()]).unwrap();
    assert!(plan.stdout.contains("nothing would run"), "{}{}", plan.stdout, plan.stderr);
    // What one target does wrong is told with its place, and nothing is built.
    let wrong = json!({"target": {
        "default": {"context": context, "target": "app"},
        "other": {"context": context, "target": "tol"},
    }});
    let (code, said) = bake(&farm, &wrong, &["default", "other"]);
    assert!(code != 0 && said.contains("did you mean tool"), "{said}");
    assert_eq!(farm.stop_and_list_leftovers().unwrap(), Vec::<String>::new());
}

/// Targets of one build differ in networks, limits, cache and labels, and share what does not.
fn differing_targets(farm: &Farm, context: &Path) {
    let text = "FROM alpine AS base\nRUN --network=none cat /proc/sys/kernel/random/uuid > /id\n\
         FROM base AS app\nRUN ls /sys/class/net | wc -l > /links\nRUN ulimit -n > /files\n\
         FROM base AS other\nRUN --network=none cat /proc/sys/kernel/random/uuid > /mine\n";
    write(context, "Differ", text);
    let out = |name: &str| farm.directory().join("differ").join(name);
    let to = |name: &str| format!("type=local,dest={}", out(name).display());
    let target = |name: &str, stage: &str, more: Value| {
        let output = [to(name)];
        let mut target =
            json!({"context": context, "dockerfile": "Differ", "target": stage, "output": output});
        target.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        target
    };
    let file = json!({
        "group": {"default": {"targets": ["named", "plain", "alone", "small", "fresh", "kept"]}},
        "target": {
            "named": target("named", "base", json!({"labels": {"who": "named"}})),
            "plain": target("plain", "app", json!({})),
            "alone": target("alone", "app", json!({"network": "none"})),
            "small": target("small", "app", json!({"ulimits": ["nofile=77:77"]})),
            "fresh": target("fresh", "other", json!({"no-cache-filter": ["other"]})),
            "kept": target("kept", "app", json!({"no-cache-filter": ["other"]})),
        },
    });
    let shared = || {
        let ids = ["named", "plain", "alone", "fresh", "kept"].map(|name| read(&out(name), "id"));
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        ids[0].clone()
    };
    let (code, said) = bake(farm, &file, &[]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(read(&out("small"), "files"), "77\n");
    assert_ne!(read(&out("plain"), "files"), "77\n");
    assert_ne!(read(&out("plain"), "links"), read(&out("alone"), "links"));
    let before = (shared(), read(&out("fresh"), "mine"));
    let (code, said) = bake(farm, &file, &[]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(shared(), before.0);
    assert_ne!(read(&out("fresh"), "mine"), before.1);
    // What concerns the whole plan is told with target, file and line.
    write(context, "Wants", "FROM alpine\nRUN --mount=type=secret,id=gone,required true\n");
    let file = json!({"target": {
        "default": {"context": context, "dockerfile": "Differ", "target": "app"},
        "wants": {"context": context, "dockerfile": "Wants"},
    }});
    let (code, said) = bake(farm, &file, &["default", "wants"]);
    assert!(code != 0 && said.contains("target wants: secret gone: not found"), "{said}");
    assert!(said.contains("Wants:2"), "{said}");
}

/// HCL with a matrix, a function and variables over a compose file.
fn other_forms(farm: &Farm, context: &Path) {
    let text = "FROM scratch AS made\nARG WHO\nARG VERSION\nCOPY a.txt /$WHO-$VERSION\n";
    write(context, "Small", text);
    let out = farm.directory().join("forms");
    let compose = format!(
        "services:\n  web.app:\n    build:\n      context: {}\n      dockerfile: Small\n      \
         args: {{WHO: web, VERSION: '${{VERSION:-0}}'}}\n",
        context.display()
    );
    let bake_file = format!(
        "variable \"VERSION\" {{ default = 1 }}\n\
         function \"to\" {{\n  params = [name]\n  result = [\"type=local,dest={}/${{name}}\"]\n}}\n\
         target \"web_app\" {{ output = to(\"web\") }}\n\
         target \"tool\" {{\n  name = \"tool-${{who}}\"\n  inherits = [\"web_app\"]\n  \
         matrix = {{ who = [\"x\", \"y\"] }}\n  args = {{ WHO = who, VERSION = VERSION + 1 }}\n  \
         output = to(who)\n}}\n\
         group \"default\" {{ targets = [\"web_app\", \"tool\"] }}\n",
        out.display()
    );
    write(farm.directory(), "compose.yaml", &compose);
    write(farm.directory(), "docker-bake.hcl", &bake_file);
    let [compose, hcl] = ["compose.yaml", "docker-bake.hcl"]
        .map(|name| farm.directory().join(name).display().to_string());
    let arguments =
        ["bake", "--progress", "plain", "-f", &compose, "-f", &hcl, "--var", "VERSION=7"];
    let ran = farm.slipway(arguments).unwrap();
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    for (name, file) in [("web", "web-7"), ("x", "x-8"), ("y", "y-8")] {
        assert_eq!(read(&out.join(name), file), "a\n");
    }
    let printed = farm.slipway(arguments.iter().chain(&["--print", "tool"])).unwrap();
    let again = farm.directory().join("printed.json");
    std::fs::write(&again, &printed.stdout).unwrap();
    let same = farm.slipway(["bake", "--print", "-f", again.to_str().unwrap()]).unwrap();
    assert_eq!(same.stdout, printed.stdout);
    assert!(same.stdout.contains("tool-y"), "{}{}", same.stdout, same.stderr);
}

#[test]
fn a_target_starts_from_what_another_one_makes() {
    let farm = Farm::start(FarmOptions { workers: 2, ..FarmOptions::default() }).unwrap();
    let (base, user, tree) = ("base", "user", "tree");
    let place = |name: &str| farm.directory().join(name);
    write(
        &place(base),
        "Dockerfile",
        "FROM alpine\nENV FROM=base\nRUN cat /proc/sys/kernel/random/uuid > /id\nCOPY f /base\n",
    );
    write(&place(base), "f", "of base\n");
    write(
        &place(user),
        "Other",
        "FROM common AS all\nCOPY f /user\nRUN echo $FROM > /env\n\
        RUN --mount=type=bind,from=common,source=/base,target=/m cat /m > /mounted\n\
        FROM scratch\nCOPY --from=all /id /base /user /env /mounted /\nCOPY --from=common /id /copied\nCOPY --from=extra f /extra\n",
    );
    write(&place(user), "f", "of user\n");
    write(&place(tree), "f", "of tree\n");
    let out = |name: &str| farm.directory().join("out").join(name);
    let to = |name: &str| format!("type=local,dest={}", out(name).display());
    let file = |text: &str| {
        json!({"target": {
            "default": {
                "context": place(user), "dockerfile": "Other", "output": [to("user")],
                "contexts": {"common": "target:base", "extra": place(tree)},
            },
            "base": {"context": place(base), "output": [to("base")]},
            "inline": {"context": place(tree), "dockerfile-inline": text, "output": [to("inline")]},
        }})
    };
    let inline = "FROM scratch\nCOPY f /\n";
    let (code, said) = bake(&farm, &file(inline), &["default", "base", "inline"]);
    assert_eq!(code, 0, "{said}");
    let id = read(&out("base"), "id");
    let user = out("user");
    assert_eq!((read(&user, "id"), read(&user, "copied")), (id.clone(), id));
    for (name, content) in [
        ("base", "of base\n"),
        ("user", "of user\n"),
        ("env", "base\n"),
        ("mounted", "of base\n"),
        ("extra", "of tree\n"),
    ] {
        assert_eq!(read(&user, name), content, "{name}");
    }
    assert_eq!(read(&out("inline"), "f"), "of tree\n");
    // All of it is in the cache, and what changes in the producer reaches its consumer.
    let (code, said) = bake(&farm, &file(inline), &["default", "inline"]);
    assert_eq!(code, 0, "{said}");
    let view = farm.last_build().unwrap();
    let ran: Vec<&str> = view
        .stages
        .iter()
        .filter(|stage| stage.attempts > 0 && stage.kind == common::stage::StageKind::Stage)
        .map(|stage| stage.label.as_str())
        .collect();
    assert_eq!(ran, Vec::<&str>::new());
    write(&place("base"), "f", "changed\n");
    let (code, said) = bake(&farm, &file(inline), &[]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(read(&user, "mounted"), "changed\n");
    // Nothing was made of the target that was not asked for.
    assert_eq!(read(&out("base"), "base"), "of base\n");
    // Several targets are planned and refused like one.
    let (code, said) = bake(&farm, &file(inline), &["--set", "*.platform=linux/arm64", "--print"]);
    assert!(code == 0 && said.contains("\"linux/arm64\""), "{said}");
    assert_eq!(farm.stop_and_list_leftovers().unwrap(), Vec::<String>::new());
}
