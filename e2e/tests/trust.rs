//! Builds of strangers' code: what they may use, and what they may not.
#![expect(clippy::unwrap_used, reason = "a wrong assumption of a test fails the test")]

use std::path::PathBuf;
use std::time::Duration;

use e2e::{Farm, FarmOptions, Ran};
use testkit::wait_for;

/// A farm of one worker that takes untrusted builds, or does not.
fn farm(accepts: bool) -> Farm {
    let mut farm = Farm::start(FarmOptions { workers: 1, ..FarmOptions::default() }).unwrap();
    if accepts {
        let path = farm.directory().join("worker-1.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("[worker]\n", "[worker]\naccept_untrusted = true\n"))
            .unwrap();
        farm.kill_worker("worker-1").unwrap();
        farm.restart_worker("worker-1").unwrap();
    }
    farm
}

fn context(farm: &Farm, text: &str) -> PathBuf {
    let directory = tempfile::tempdir_in(farm.directory()).unwrap().keep();
    std::fs::write(directory.join("Dockerfile"), text).unwrap();
    directory
}

/// Builds a Dockerfile with some flags.
fn build(farm: &Farm, text: &str, flags: &[&str]) -> Ran {
    let directory = context(farm, text);
    let arguments = ["build", "--progress", "plain", directory.to_str().unwrap()];
    farm.slipway(arguments.iter().copied().chain(flags.iter().copied())).unwrap()
}

/// Whether the command of a build ran, or came from the cache.
fn ran(farm: &Farm, text: &str, flags: &[&str]) -> bool {
    let done = build(farm, text, flags);
    assert_eq!(done.code, 0, "{}", done.stderr);
    // Layers are stored a moment after their steps have ended.
    let open =
        "select count(*) from stage where state in ('ready', 'running', 'parked', 'waiting')";
    wait_for("the layers", Duration::from_mins(1), || {
        (farm.query(open).ok()?.trim() == "0").then_some(())
    })
    .unwrap();
    !done.stderr.contains("CACHED")
}

#[test]
fn untrusted_builds_use_the_cache_of_trusted_ones_and_never_fill_it() {
    let farm = farm(true);
    let own = "FROM alpine\nRUN echo own\n";
    assert!(ran(&farm, own, &[]));
    assert!(!ran(&farm, own, &["--untrusted"]));
    let strange = "FROM alpine\nRUN echo strange\n";
    assert!(ran(&farm, strange, &["--untrusted"]));
    assert!(!ran(&farm, strange, &["--untrusted"]));
    assert!(ran(&farm, strange, &[]), "a trusted build used what a stranger's had made");

    // Nor do they meet in a cache mount.
    let writes = |who: &str| {
        format!("FROM alpine\nRUN --mount=type=cache,target=/c ls /c && touch /c/of-{who}\n")
    };
    assert!(ran(&farm, &writes("the-project"), &[]));
    let done = build(&farm, &writes("a-stranger"), &["--untrusted"]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(!done.stderr.contains("of-the-project\n"), "{}", done.stderr);
    let done = build(&farm, &writes("somebody-else"), &[]);
    assert!(done.stderr.contains("of-the-project\n"), "{}", done.stderr);
    assert!(!done.stderr.contains("of-a-stranger\n"), "{}", done.stderr);
}

#[test]
fn untrusted_builds_push_nothing_and_get_no_privileges() {
    let farm = farm(true);
    let text = "FROM alpine\nRUN true\n";
    let name = format!("{}/strange:1", farm.registry());
    let refused = build(&farm, text, &["--untrusted", "--push", "-t", &name]);
    assert_ne!(refused.code, 0);
    assert!(refused.stderr.contains("pushes nothing"), "{}", refused.stderr);
    let asks = ["--security=insecure", "--network=host"];
    for flag in asks {
        let refused = build(&farm, &format!("FROM alpine\nRUN {flag} true\n"), &["--untrusted"]);
        assert_ne!(refused.code, 0);
        let expected = format!("{flag} is not for untrusted builds");
        assert!(refused.stderr.contains(&expected), "{}", refused.stderr);
    }
    let refused = build(&farm, text, &["--untrusted", "--network=host"]);
    assert!(refused.stderr.contains("not for untrusted builds"), "{}", refused.stderr);
    let reserved = build(&farm, text, &["--require", "slipway/untrusted"]);
    assert!(reserved.stderr.contains("the farm's own"), "{}", reserved.stderr);
}

#[test]
fn workers_take_untrusted_builds_when_their_operator_says_so() {
    let farm = farm(false);
    let text = "FROM alpine\nRUN true\n";
    let ended = build(&farm, text, &["--untrusted", "--timeout", "4s"]);
    assert_ne!(ended.code, 0);
    let reason = farm
        .query("select unplaceable_reason from stage where unplaceable_reason is not null")
        .unwrap();
    assert!(reason.contains("worker.accept_untrusted"), "{reason}");
}
