//! Options of the command line: contexts, secrets, hosts, limits.

use crate::case::{Case, case};

pub(crate) fn cases() -> Vec<Case> {
    [contexts(), elsewhere(), secrets(), surroundings()].concat()
}

fn contexts() -> Vec<Case> {
    let images = "FROM busybox\nRUN echo x > /x\n";
    vec![
        case("named-context", "1.7", "FROM alpine\nCOPY --from=src one sub/three /d/\n")
            .args(&["--build-context", "src={context}/dir"]),
        case(
            "named-context-for-a-stage",
            "B18",
            "FROM alpine AS s\nRUN false\nFROM alpine\nCOPY --from=s one /x\n",
        )
        .args(&["--build-context", "s={context}/dir"]),
        case("named-context-as-a-base", "B18", "FROM src\nCOPY a.txt /\n")
            .args(&["--build-context", "src={context}/dir"])
            .differs("history", "the engine names what has no entry after the exporter's steps"),
        case(
            "named-context-in-a-mount",
            "1.7",
            "FROM alpine\nRUN --mount=from=src,target=/m cat /m/one > /x\n",
        )
        .args(&["--build-context", "src={context}/dir"]),
        case("named-context-with-an-ignore-file", "1.7", "FROM scratch\nCOPY --from=src / /d/\n")
            .prepare("echo one > dir/.dockerignore")
            .args(&["--build-context", "src={context}/dir"]),
        case("image-for-an-image", "B19", images)
            .args(&["--build-context", "busybox=docker-image://alpine"]),
        case("image-for-an-image-with-a-tag", "B19", images)
            .args(&["--build-context", "busybox:latest=docker-image://alpine:latest"]),
        case("image-for-an-image-by-its-full-name", "B19", images)
            .args(&["--build-context", "docker.io/library/busybox=docker-image://nginx:latest"]),
        case("image-for-a-stage", "B19", "FROM alpine AS s\nRUN false\nFROM s\nRUN echo x > /x\n")
            .args(&["--build-context", "s=docker-image://nginx:latest"]),
        case("named-context-that-nobody-reads", "1.7", "FROM alpine\nRUN echo x > /x\n")
            .args(&["--build-context", "src={context}/dir"]),
    ]
}

fn elsewhere() -> Vec<Case> {
    let named = "FROM scratch\nCOPY --from=src / /d/\n";
    vec![
        case("elsewhere-repository", "H5", "").context("{git}/context.git"),
        case("elsewhere-directory-of-a-repository", "H5", "")
            .context("{git}/context.git#feature:sub"),
        case("elsewhere-archive", "H5", "").context("{server}/context.tar"),
        case("elsewhere-dockerfile", "H5", "").context("{server}/Dockerfile"),
        case("elsewhere-named-repository", "1.7", named)
            .args(&["--build-context", "src={git}/app.git#v1"])
            .newer(&["file d/.git"]),
        case("elsewhere-named-file", "1.7", named)
            .args(&["--build-context", "src={server}/text.txt"]),
        case("elsewhere-named-archive", "1.7", named)
            .args(&["--build-context", "src={server}/t.tar"]),
    ]
}

fn secrets() -> Vec<Case> {
    let secret = &["--secret", "id=tok,src={context}/a.txt"];
    let with = |name, rules, flags: &str, command: &str| {
        let dockerfile = format!("FROM alpine\nRUN --mount=type=secret,{flags} {command}\n");
        case(name, rules, &dockerfile).args(secret)
    };
    vec![
        with(
            "secret",
            "E18",
            "id=tok",
            "cat /run/secrets/tok > /x && stat -c %a:%u:%g /run/secrets/tok > /y",
        ),
        with(
            "secret-elsewhere",
            "E18",
            "id=tok,target=/etc/tok,mode=0440,uid=3,gid=4",
            "cat /etc/tok > /x && stat -c %a:%u:%g /etc/tok > /y",
        ),
        with("secret-that-is-required", "E18", "id=tok,required=true", "cat /run/secrets/tok > /x"),
        with("secret-by-its-source", "E18", "source=tok,dst=/s", "cat /s > /x"),
        with("secret-with-a-relative-target", "E19", "id=tok,target=s", "cat /s > /x"),
        with(
            "secret-leaves-nothing",
            "E26",
            "id=tok",
            "true\nRUN ls -d /run /run/secrets > /x 2>&1 || true",
        ),
        with(
            "secret-in-a-variable",
            "E18",
            "id=tok,env=TOK",
            "echo $TOK > /x; ls /run/secrets > /y 2>/dev/null || echo none > /y",
        )
        .ours("variables came with 1.10", &["x file 644 0:0 alpha", "y file 644 0:0 none"]),
        with("secret-as-both", "E18", "id=tok,env=TOK,target=/s", "echo $TOK > /x; cat /s > /y")
            .ours("variables came with 1.10", &["x file 644 0:0 alpha", "y file 644 0:0 alpha"]),
        case(
            "secret-from-a-variable",
            "E18",
            "FROM alpine\nRUN --mount=type=secret,id=tok cat /run/secrets/tok > /x\n",
        )
        .args(&["--secret", "id=tok,env=CARGO_PKG_NAME"]),
    ]
}

fn surroundings() -> Vec<Case> {
    vec![
        case("more-hosts", "E27", "FROM alpine\nRUN grep db.test /etc/hosts > /x\n")
            .args(&["--add-host", "db.test:10.1.2.3"]),
        case(
            "size-of-shared-memory",
            "E25",
            "FROM alpine\nRUN df -k /dev/shm | tail -1 | awk '{ print $2 }' > /x\n",
        )
        .args(&["--shm-size", "16m"]),
        case("limits", "E25", "FROM alpine\nRUN ulimit -Sn > /x && ulimit -Hn > /y\n")
            .args(&["--ulimit", "nofile=100:200"]),
        case("no-network-for-all", "E23", "FROM alpine\nRUN ls /sys/class/net > /x\n")
            .args(&["--network", "none"]),
        case("no-cache-at-all", "I8", "FROM alpine\nRUN echo x > /x\n").args(&["--no-cache"]),
        case(
            "no-cache-for-a-stage",
            "I8",
            "FROM alpine AS a\nRUN echo x > /x\nFROM alpine\nCOPY --from=a /x /y\n",
        )
        .args(&["--no-cache-filter", "a"]),
    ]
}
