//! RUN --mount: where it lands, what it reads, what it is in a key.

use common::plan::{CopyFrom, Mount, MountOwner, Sharing};

use crate::planning::{Planning, last, runs, variable};

/// The mounts of the last stage's only RUN.
fn mounts(text: &str) -> Vec<Mount> {
    runs(&last(text))[0].mounts.clone()
}

fn one(flags: &str) -> Mount {
    let mut found = mounts(&format!("FROM a\nWORKDIR /w\nRUN --mount={flags} x"));
    assert_eq!(found.len(), 1, "{flags}");
    found.remove(0)
}

fn key(text: &str) -> common::Digest {
    last(text).key
}

#[test]
fn a_bind_shows_the_context_read_only_at_a_target_below_the_working_directory() {
    let expected = Mount::Bind {
        target: "/w/in".into(),
        from: CopyFrom::Context,
        source: "/dir".into(),
        writable: false,
    };
    assert_eq!(one("source=dir,target=in"), expected);
    let Mount::Bind { writable, target, source, .. } = one("type=bind,dst=/x,rw") else { panic!() };
    assert_eq!((writable, target.as_str(), source.as_str()), (true, "/x", "/"));
}

#[test]
fn a_bind_from_a_stage_asks_that_stage_for_its_files() {
    let plan = Planning::new(
        "FROM a AS Tools\nRUN make\nFROM b\nRUN --mount=from=tools,source=/out,target=/t x",
    )
    .plan();
    assert_eq!(plan.stages.len(), 2);
    let demand = &plan.stages[0].demands[0];
    assert_eq!(demand.selector.patterns(), ["/out"]);
    assert_eq!(plan.stages[1].inputs().len(), 1);
    // An image that is no stage, and an index, which is none here (B10).
    for from in ["some/image", "0"] {
        let text = format!("FROM a AS one\nFROM b\nRUN --mount=from={from},target=/t x");
        let plan = Planning::new(&text).plan();
        assert_eq!(plan.stages.len(), 1, "{from}");
        assert_eq!(plan.images.len(), 2, "{from}");
    }
}

#[test]
fn a_cache_is_named_by_its_target_as_written() {
    let id = |flags: &str| match one(&format!("type=cache,{flags}")) {
        Mount::Cache { id, .. } => id,
        other => panic!("{other:?}"),
    };
    // E13
    assert_eq!(id("target=/root/.cache/"), "/root/.cache");
    assert_eq!(id("target=a/../b"), "b");
    assert_eq!(id("ro"), ".");
    assert_eq!(id("target=/x,id=mine"), "mine");
    let spaced = Planning::new("FROM a\nRUN --mount=type=cache,target=/x y")
        .build_arg("BUILDKIT_CACHE_MOUNT_NS", "team")
        .last();
    let Mount::Cache { id, sharing, owner, .. } = &runs(&spaced)[0].mounts[0] else { panic!() };
    assert_eq!((id.as_str(), *sharing, *owner), ("team//x", Sharing::Shared, None));
    let Mount::Cache { owner, .. } = one("type=cache,target=/x,uid=5") else { panic!() };
    assert_eq!(owner, Some(MountOwner { uid: 5, gid: 0, mode: 0o755 }));
}

#[test]
fn secrets_are_files_variables_or_both() {
    let secret = |flags: &str| match one(&format!("type=secret,{flags}")) {
        Mount::Secret { id, target, env, .. } => (id, target, env),
        other => panic!("{other:?}"),
    };
    let some = |text: &str| Some(text.to_owned());
    // E18
    assert_eq!(secret("id=a/b"), ("a/b".into(), some("/run/secrets/b"), None));
    assert_eq!(secret("src=a"), ("a".into(), some("/run/secrets/a"), None));
    assert_eq!(secret("target=/x/y"), ("y".into(), some("/x/y"), None));
    assert_eq!(secret("id=a,env=A"), ("a".into(), None, some("A")));
    assert_eq!(secret("id=a,env=A,target=/f"), ("a".into(), some("/f"), some("A")));
    // E19: not joined to the working directory.
    assert_eq!(secret("id=a,target=f"), ("a".into(), some("/f"), None));
    let Mount::Secret { owner, required, .. } = one("type=secret,id=a,required,mode=0440") else {
        panic!()
    };
    assert_eq!((owner.mode, required), (0o440, true));
}

#[test]
fn agents_are_numbered_and_the_first_one_is_the_one_to_use() {
    let stage = last("FROM a\nRUN --mount=type=ssh --mount=type=ssh,id=b,target=/s x");
    let run = runs(&stage)[0];
    let targets: Vec<&str> = run
        .mounts
        .iter()
        .map(|mount| match mount {
            Mount::Ssh { target, .. } => target.as_str(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(targets, ["/run/buildkit/ssh_agent.0", "/s"]);
    assert_eq!(variable(run, "SSH_AUTH_SOCK"), Some("/run/buildkit/ssh_agent.0"));
}

#[test]
fn variables_count_in_every_field_but_from() {
    // E11
    let text = "FROM a\nARG T=tmpfs\nENV D=/data\nRUN --mount=type=$T,target=$D,size=${S:-1k} x";
    let expected = Mount::Tmpfs { target: "/data".into(), size_bytes: Some(1024) };
    assert_eq!(mounts(text), [expected]);
    let failure = Planning::new("FROM a\nARG F=b\nRUN --mount=from=$F,target=/x y").failure();
    assert_eq!(failure, ("from-variable".into(), 3));
}

#[test]
fn mistakes_in_mounts_count_only_where_the_stage_is_needed() {
    // E28
    let text = "FROM a AS bad\nRUN --mount=type=foo,target=/x y\nFROM a AS good\nRUN z";
    assert_eq!(Planning::new(text).last().label, "good");
    assert_eq!(Planning::new(text).target("bad").failure(), ("bad-mount".into(), 2));
    assert_eq!(Planning::new("FROM a\nRUN --mount=target=/ y").failure().0, "bad-mount");
    assert_eq!(
        Planning::new("FROM a\nRUN --mount=src=nope,target=/x y").failure().0,
        "missing-source"
    );
}

#[test]
fn what_is_mounted_counts_in_the_key_as_far_as_it_can_change_the_result() {
    let run = |flags: &str| key(&format!("FROM s AS s\nRUN a\nFROM a\nRUN --mount={flags} x"));
    // The id and the sharing of a cache do not count (I9), its place does.
    let cache = run("type=cache,target=/c");
    assert_eq!(cache, run("type=cache,target=/c,id=other,sharing=locked"));
    assert_ne!(cache, run("type=cache,target=/d"));
    assert_ne!(cache, run("type=cache,target=/c,from=s"));
    // The file that a bind shows counts; others do not.
    let text = "FROM a\nRUN --mount=source=dir,target=/d x";
    let with = |files: &[(&str, &str)]| {
        Planning::new(text).context(crate::planning::tree(files)).last().key
    };
    assert_eq!(with(&[("dir/a", "1"), ("b", "1")]), with(&[("dir/a", "1"), ("b", "2")]));
    assert_ne!(with(&[("dir/a", "1")]), with(&[("dir/a", "2")]));
    // A secret's id counts.
    assert_ne!(run("type=secret,id=a,env=X"), run("type=secret,id=b,env=X"));
}
