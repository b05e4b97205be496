//! What is kept: bytes go when nobody needs them, and builds work before, meanwhile and after.
#![expect(clippy::unwrap_used, reason = "a wrong assumption of a test fails the test")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use common::build::BuildState;
use e2e::{Farm, FarmOptions};
use testkit::wait_for;

const DOCKERFILE: &str = "FROM alpine AS one\nCOPY source /\nRUN cat /source > /made\n\
                          FROM alpine\nRUN cat /proc/sys/kernel/random/uuid > /id\n\
                          COPY --from=one /made /\n";

fn farm(retention: &str) -> Farm {
    let mut farm = Farm::start(FarmOptions { workers: 1, ..FarmOptions::default() }).unwrap();
    farm.configure_coordinator(&format!("[retention]\ninterval_secs = 1\n{retention}")).unwrap();
    farm
}

fn context(farm: &Farm) -> tempfile::TempDir {
    let directory = tempfile::tempdir_in(farm.directory()).unwrap();
    for (name, text) in [("Dockerfile", DOCKERFILE), ("source", "text\n")] {
        std::fs::write(directory.path().join(name), text).unwrap();
        let mode = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(directory.path().join(name), mode).unwrap();
    }
    directory
}

/// Builds, and returns what only a run of the second stage makes.
fn build(farm: &Farm, directory: &Path) -> String {
    let out = directory.join("out");
    let arguments = ["build", directory.to_str().unwrap(), "-o", out.to_str().unwrap()];
    let ran = farm.slipway(arguments).unwrap();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let id = std::fs::read_to_string(out.join("id")).unwrap();
    assert_eq!(std::fs::read_to_string(out.join("made")).unwrap(), "text\n");
    std::fs::remove_dir_all(out).unwrap();
    id
}

/// What the store has: the descriptions that stand beside the bytes, with the objects' names.
fn stored(farm: &Farm) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![farm.object_directory()];
    while let Some(directory) = open.pop() {
        // What is deleted meanwhile is not there.
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "json") {
                found.extend(std::fs::read_to_string(path));
            }
        }
    }
    found
}

#[test]
fn what_is_old_goes_from_the_store_and_a_build_makes_it_again() {
    // Nothing is kept longer than addresses of it may be about.
    let short = "cache_secs = 1\nunused_secs = 1\nexports_secs = 1\ngrace_secs = 1\n\
                 address_secs = 4\nlogs_secs = 1\nbuilds_secs = 1\n";
    let farm = farm(short);
    let directory = context(&farm);
    let first = build(&farm, directory.path());
    assert!(!stored(&farm).is_empty());
    wait_for("an empty store", Duration::from_mins(1), || stored(&farm).is_empty().then_some(()))
        .unwrap();
    wait_for("no builds", Duration::from_secs(30), || {
        let rows = "select (select count(*) from build) + (select count(*) from object)";
        (farm.query(rows).unwrap().trim() == "0").then_some(())
    })
    .unwrap();
    assert_ne!(build(&farm, directory.path()), first, "it was run again");
}

#[test]
fn builds_from_the_cache_never_miss_anything_while_things_go() {
    // What is in the cache stays there for 6 s after its last use; the rest goes at once.
    let short = "cache_secs = 6\nunused_secs = 1\nexports_secs = 1\ngrace_secs = 1\n\
                 address_secs = 2\n";
    let farm = farm(short);
    let directory = context(&farm);
    let first = build(&farm, directory.path());
    for _ in 0..12 {
        assert_eq!(build(&farm, directory.path()), first, "it was in the cache");
    }
    let view = farm.last_build().unwrap();
    assert_eq!(view.state, BuildState::Succeeded);
    assert!(stored(&farm).iter().any(|name| name.contains("/exports/")));
    // Contexts and archives of those builds went meanwhile.
    wait_for("the last archive to go", Duration::from_secs(30), || {
        stored(&farm).iter().all(|name| !name.contains("/exports/")).then_some(())
    })
    .unwrap();
}

#[test]
fn a_purged_build_is_gone_for_good_and_later_ones_run_anew() {
    let farm = farm("address_secs = 2\ngrace_secs = 1\n");
    let directory = context(&farm);
    let first = build(&farm, directory.path());
    assert_eq!(build(&farm, directory.path()), first);
    assert!(stored(&farm).iter().any(|name| name.contains("/blobs/")));
    for id in farm.builds().unwrap() {
        let purged = farm.slipway(["purge", &id.id.to_string()]).unwrap();
        assert_eq!(purged.code, 0, "{}", purged.stderr);
        assert!(purged.stdout.contains("the cache has forgotten"), "{}", purged.stdout);
    }
    let gone = || stored(&farm).is_empty().then_some(());
    let waited = wait_for("the bytes to go", Duration::from_secs(30), gone);
    assert!(waited.is_ok(), "{:?}\n{}", stored(&farm), farm.query("select * from object").unwrap());
    let logs = farm.slipway(["logs", "last"]).unwrap();
    assert_eq!((logs.code, logs.stdout.as_str()), (0, ""), "{}", logs.stderr);
    assert_ne!(build(&farm, directory.path()), first, "it was run again");
}

#[test]
fn projects_have_settings_that_an_administrator_sets() {
    let farm = farm("");
    let directory = context(&farm);
    build(&farm, directory.path());
    let set = ["projects", "set", "default", "--weight", "300", "--cache-bytes", "1000000"];
    let refused = farm.slipway(set).unwrap();
    assert_ne!(refused.code, 0, "only an administrator may");
    let token = farm.make_token("admin").unwrap();
    let set: Vec<&str> = set.into_iter().chain(["--token", &token]).collect();
    let ran = farm.slipway(set).unwrap();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let listed = wait_for("the count", Duration::from_secs(30), || {
        let listed = farm.slipway(["projects"]).unwrap().stdout;
        (!listed.contains(" 0 objects")).then_some(listed)
    })
    .unwrap();
    assert!(listed.contains("weight   300"), "{listed}");
    assert_eq!(farm.query("select weight from project").unwrap().trim(), "300");
}
