//! SSH agents of clients: used by commands and by git, refused, gone.
#![expect(clippy::unwrap_used, reason = "a wrong assumption of a test fails the test")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::stage::{StageKind, StageState};
use e2e::{Farm, FarmOptions, GitServer, Ran, SshAgent, SshServer, copy_program};

/// A context with a Dockerfile, OpenSSH's client of agents, and a public key.
fn context(farm: &Farm, dockerfile: &str, public: &Path) -> PathBuf {
    let directory = tempfile::tempdir_in(farm.directory()).unwrap().keep();
    std::fs::write(directory.join("Dockerfile"), dockerfile).unwrap();
    copy_program("ssh-add", &directory.join("tools")).unwrap();
    std::fs::copy(public, directory.join("key.pub")).unwrap();
    directory
}

fn build(farm: &Farm, context: &Path, flags: &[&str], agent: Option<&SshAgent>) -> Ran {
    let mut command = farm.command().unwrap();
    command.args(["build", "--progress", "plain"]).args(flags).arg(context);
    command.env_remove("SSH_AUTH_SOCK");
    if let Some(agent) = agent {
        command.env("SSH_AUTH_SOCK", agent.socket());
    }
    ran(&command.output().unwrap())
}

fn ran(output: &Output) -> Ran {
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn has_run(farm: &Farm) -> bool {
    let view = farm.last_build().unwrap();
    let mut stages = view.stages.iter().filter(|stage| stage.kind == StageKind::Stage);
    stages.any(|stage| stage.state == StageState::Succeeded)
}

/// Builds into a directory and reads its files; panics where the build fails.
fn files(farm: &Farm, context: &Path, flags: &[&str], agent: Option<&SshAgent>) -> PathBuf {
    let out = tempfile::tempdir_in(farm.directory()).unwrap().keep();
    let output = format!("type=local,dest={}", out.display());
    let built = build(farm, context, &[&["-o", &output], flags].concat(), agent);
    assert_eq!(built.code, 0, "{}", built.stderr);
    out
}

fn text(root: &Path, name: &str) -> String {
    let path = root.join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn commands_use_the_agents_of_the_client() {
    let farm = Farm::start(FarmOptions::default()).unwrap();
    let mine = SshAgent::start(farm.directory(), "mine").unwrap();
    let other = SshAgent::start(farm.directory(), "other").unwrap();
    let dockerfile = "FROM alpine AS tools\nCOPY tools/ /\nCOPY key.pub /\n\
        FROM tools AS used\n\
        RUN --mount=type=ssh,required ssh-add -L > /listed && ssh-add -T /key.pub\n\
        RUN --mount=type=ssh ssh-add -T /key.pub & one=$!; ssh-add -T /key.pub & two=$!; \
            wait $one && wait $two\n\
        RUN --mount=type=ssh ! ssh-add -D && ! ssh-add -d /key.pub && ssh-add -L > /still\n\
        RUN --mount=type=ssh stat -c %a:%u:%g:%F $SSH_AUTH_SOCK > /plain && echo $SSH_AUTH_SOCK >> /plain\n\
        FROM tools AS moved\n\
        RUN --mount=type=ssh,id=b,target=/s/sock,mode=0660,uid=3,gid=4 --mount=type=ssh \
            stat -c %a:%u:%g:%F /s/sock > /moved && echo $SSH_AUTH_SOCK >> /moved && ssh-add -L > /b && \
            SSH_AUTH_SOCK=/run/buildkit/ssh_agent.1 ssh-add -L > /default\n\
        FROM scratch\n\
        COPY --from=used /listed /still /plain /\nCOPY --from=moved /moved /b /default /\n";
    let context = context(&farm, dockerfile, &mine.public());
    let keys = format!("b={}", other.key().display());
    let flags = ["--ssh", "default", "--ssh", keys.as_str()];
    let out = files(&farm, &context, &flags, Some(&mine));
    let listed = |agent: &SshAgent| agent.list().unwrap();
    assert_eq!(text(&out, "listed"), listed(&mine));
    assert_eq!(text(&out, "still"), listed(&mine));
    assert_eq!(text(&out, "default"), listed(&mine));
    // The file of the other agent's key stands for it.
    assert_eq!(text(&out, "b"), listed(&other));
    assert_eq!(text(&out, "plain"), "600:0:0:socket\n/run/buildkit/ssh_agent.0\n");
    assert_eq!(text(&out, "moved"), "660:3:4:socket\n/s/sock\n");
    assert_eq!(farm.query("select count(*) from agent_message").unwrap().trim(), "0");

    // What is cached needs no agent; nothing of the socket is in a layer.
    let tar = farm.directory().join("used.tar");
    let output = format!("type=tar,dest={}", tar.display());
    let ran = build(
        &farm,
        &context,
        &["--target", "used", "-o", &output, "--ssh", "default"],
        Some(&mine),
    );
    assert_eq!((ran.code, has_run(&farm)), (0, false), "{}", ran.stderr);
    let names = Command::new("tar").arg("-tf").arg(&tar).output().unwrap();
    let names = String::from_utf8_lossy(&names.stdout).into_owned();
    assert!(names.contains("listed") && !names.contains("agent"), "{names}");
    assert!(!names.contains("run/buildkit"), "{names}");
    drop((mine, other));
    assert_eq!(farm.stop_and_list_leftovers().unwrap(), Vec::<String>::new());
}

#[test]
fn an_agent_that_is_not_there_is_missed_or_not() {
    let farm = Farm::start(FarmOptions { workers: 1, ..FarmOptions::default() }).unwrap();
    let mine = SshAgent::start(farm.directory(), "mine").unwrap();
    let required = "FROM alpine\nRUN --mount=type=ssh,id=x,required true\n";
    let directory = context(&farm, required, &mine.public());
    for flags in [&[][..], &["--ssh", "default"]] {
        let ran = build(&farm, &directory, flags, Some(&mine));
        assert_eq!(ran.code, 1, "{}", ran.stderr);
        for part in ["no SSH agent \"x\" was given", "Dockerfile:2", "--ssh x=SOCKET"] {
            assert!(ran.stderr.contains(part), "{part}: {}", ran.stderr);
        }
    }
    assert_eq!(farm.query("select count(*) from stage").unwrap().trim(), "0");
    let optional =
        "FROM alpine\nRUN --mount=type=ssh ls /run/buildkit >/x 2>/dev/null || echo none > /x\n";
    let directory = context(&farm, optional, &mine.public());
    let out = files(&farm, &directory, &[], None);
    assert_eq!(text(&out, "x"), "none\n");
    // An agent that is named and not there is told before anything is sent.
    let ran = build(&farm, &directory, &["--ssh", "default"], None);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("SSH_AUTH_SOCK is not set"), "{}", ran.stderr);
    // A plan takes the flag and asks no agent.
    let path = directory.to_str().unwrap();
    let mut plan = farm.command().unwrap();
    let output = plan.env_remove("SSH_AUTH_SOCK").args(["plan", "--ssh", "default", path]).output();
    let planned = self::ran(&output.unwrap());
    assert_eq!(planned.code, 0, "{}", planned.stderr);
    // Only who may write the project's builds answers for their clients.
    assert_eq!(poll(&farm, None), "401");
    assert_eq!(poll(&farm, Some(&["--scope", "builds:read"])), "403");
    let other = ["--scope", "builds:write", "--project", "other"];
    assert_eq!(poll(&farm, Some(&other)), "404");
    assert_eq!(poll(&farm, Some(&["--scope", "workers"])), "403");
    assert_eq!(poll(&farm, Some(&["--scope", "builds:write"])), "200");
    drop(mine);
    assert_eq!(farm.stop_and_list_leftovers().unwrap(), Vec::<String>::new());
}

/// The status of a poll for the newest build's messages with a token that is made so.
fn poll(farm: &Farm, token: Option<&[&str]>) -> String {
    let url = format!("{}/v1/builds/{}/agent", farm.address(), farm.last_build().unwrap().id);
    let mut curl = Command::new("curl");
    curl.args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "-X", "POST", "-d", "{}"]);
    curl.args(["-H", "content-type: application/json", &url]);
    if let Some(arguments) = token {
        let mut command = Command::new(testkit::program("slipway-coordinator").unwrap());
        command.arg("token").args(arguments).arg("--config");
        let made = ran(&command.arg(farm.directory().join("coordinator.toml")).output().unwrap());
        assert_eq!(made.code, 0, "{}", made.stderr);
        curl.args(["-H", &format!("authorization: Bearer {}", made.stdout.trim())]);
    }
    ran(&curl.output().unwrap()).stdout
}

#[test]
fn a_client_that_has_gone_is_missed_within_its_time() {
    let farm = Farm::start(FarmOptions { workers: 1, ..FarmOptions::default() }).unwrap();
    let mine = SshAgent::start(farm.directory(), "mine").unwrap();
    let dockerfile = "FROM alpine\nCOPY tools/ /\n\
        RUN --mount=type=ssh ssh-add -L && echo before; \
        while ssh-add -L > /dev/null; do sleep 0.2; done; echo gone; exit 7\n";
    let directory = context(&farm, dockerfile, &mine.public());
    let mut command = farm.command().unwrap();
    command.env("SSH_AUTH_SOCK", mine.socket()).args(["build", "--ssh", "default"]);
    let mut client = command.arg(&directory).spawn().unwrap();
    farm.wait_for_build("the first answer", |_| {
        farm.last_log().is_ok_and(|log| log.lines().any(|line| line.ends_with("before")))
    })
    .unwrap();
    client.kill().unwrap();
    client.wait().unwrap();
    // A client that has taken a message may take its time: somebody may have to touch a key.
    let ended = || farm.last_build().ok().filter(|view| view.state.is_terminal());
    let view = testkit::wait_for("its end", std::time::Duration::from_mins(4), ended).unwrap();
    assert_eq!(view.failure.unwrap().exit_code, Some(7));
    let log = farm.last_log().unwrap();
    assert!(log.contains("no client answers for agent default"), "{log}");
    assert!(log.lines().any(|line| line.ends_with("gone")), "{log}");
    testkit::wait_for("the end of the messages", std::time::Duration::from_secs(30), || {
        (farm.query("select count(*) from agent_message").ok()?.trim() == "0").then_some(())
    })
    .unwrap();
    drop(mine);
    assert_eq!(farm.stop_and_list_leftovers().unwrap(), Vec::<String>::new());
}

#[test]
fn repositories_are_fetched_over_ssh_with_the_default_agent() {
    let options = FarmOptions { workers: 1, fetch_private: true, ..FarmOptions::default() };
    let farm = Farm::start(options).unwrap();
    let mine = SshAgent::start(farm.directory(), "mine").unwrap();
    let stranger = SshAgent::start(farm.directory(), "stranger").unwrap();
    let repositories = GitServer::start(farm.directory()).unwrap();
    let server = SshServer::start(farm.directory(), &mine.public()).unwrap();
    let base = server.address(&farm.directory().join("git"));
    // The coordinator asks for the commit of a branch and of a tag, the worker fetches.
    let dockerfile = format!(
        "FROM scratch\nADD {base}/app.git#next:. /next/\nADD {base}/app.git?tag=v1 /tag/\n\
         ADD {base}/app.git#{}:dir /dir/\nADD {base}/parent.git /parent/\n",
        repositories.commit()
    );
    let directory = context(&farm, &dockerfile, &mine.public());
    let out = files(&farm, &directory, &["--ssh", "default"], Some(&mine));
    assert_eq!(text(&out, "next/next"), "next\n");
    assert_eq!(text(&out, "tag/top"), "top\n");
    assert_eq!(text(&out, "dir/two"), "two\n");
    // The submodule's address is relative: it is over ssh too.
    assert_eq!(text(&out, "parent/lib/lib.txt"), "library\n");
    files(&farm, &directory, &["--ssh", "default"], Some(&mine));
    assert!(!has_run(&farm), "the commits are the same");
    // A plan has no build that an agent could be lent to: the client asks itself.
    let plan = |flags: &[&str]| {
        let mut command = farm.command().unwrap();
        command.env("SSH_AUTH_SOCK", mine.socket()).arg("plan").args(flags).arg(&directory);
        ran(&command.output().unwrap())
    };
    let by_key = format!("default={}", mine.key().display());
    for agent in ["default", &by_key] {
        let planned = plan(&["--ssh", agent]);
        let all = format!("{}{}", planned.stdout, planned.stderr);
        assert!(planned.stdout.contains("nothing would run"), "{all}");
    }
    let aged = format!(
        "ARG SOURCE_DATE_EPOCH=source\nFROM scratch AS source\nADD {base}/app.git#next /\n\
         FROM scratch\nCOPY --from=source /next /\n"
    );
    std::fs::write(directory.join("aged"), aged).unwrap();
    let file = directory.join("aged");
    let planned = plan(&["--ssh", &by_key, "-f", file.to_str().unwrap()]);
    assert_eq!(planned.code, 0, "{}", planned.stderr);
    assert!(planned.stdout.contains("ADD "), "{}", planned.stdout);
    let planned = plan(&[]);
    assert!(planned.code == 1 && planned.stderr.contains("no SSH agent was given"));

    let one = format!("FROM scratch\nADD {base}/app.git /\n");
    let directory = context(&farm, &one, &mine.public());
    let ran = build(&farm, &directory, &[], None);
    assert_eq!(ran.code, 1);
    for part in ["no SSH agent was given", "Dockerfile:2", "--ssh default"] {
        assert!(ran.stderr.contains(part), "{part}: {}", ran.stderr);
    }
    let ran = build(&farm, &directory, &["--ssh", "default"], Some(&stranger));
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("Permission denied (publickey"), "{}", ran.stderr);
    // With the commit in full nobody asks before the worker does.
    let commit = repositories.commit();
    let full = format!("FROM scratch\nADD {base}/parent.git#{commit} /\n");
    let directory = context(&farm, &full, &mine.public());
    let ran = build(&farm, &directory, &["--ssh", "default"], Some(&stranger));
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("Permission denied (publickey"), "{}", ran.stderr);
    let ran = build(&farm, &directory, &[], None);
    assert!(ran.stderr.contains("no SSH agent was given"), "{}", ran.stderr);
    drop((server, repositories, mine, stranger));
    assert_eq!(farm.stop_and_list_leftovers().unwrap(), Vec::<String>::new());
}

#[test]
fn private_networks_are_not_reached_over_ssh() {
    let farm = Farm::start(FarmOptions { workers: 1, ..FarmOptions::default() }).unwrap();
    let mine = SshAgent::start(farm.directory(), "mine").unwrap();
    let commit = "0123456789abcdef0123456789abcdef01234567";
    // By the coordinator, and by a worker that nobody has asked before.
    for address in
        ["ssh://root@127.0.0.1/x.git".to_owned(), format!("git@localhost:x.git#{commit}")]
    {
        let dockerfile = format!("FROM scratch\nADD {address} /\n");
        let directory = context(&farm, &dockerfile, &mine.public());
        let ran = build(&farm, &directory, &["--ssh", "default"], Some(&mine));
        assert_eq!(ran.code, 1, "{}", ran.stderr);
        assert!(ran.stderr.contains("it leads to a private network"), "{}", ran.stderr);
    }
    drop(mine);
    assert_eq!(farm.stop_and_list_leftovers().unwrap(), Vec::<String>::new());
}
