//! E: RUN, its environment and mounts.

use crate::case::{Case, case};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = environment();
    cases.extend(users());
    cases.extend(mounts());
    cases.extend(caches_and_others());
    cases.extend(agents());
    cases
}

fn environment() -> Vec<Case> {
    vec![
        case(
            "nothing-of-the-mounts-stays",
            "E1",
            "FROM alpine\nRUN cat /etc/hosts /etc/resolv.conf > /dev/null\n",
        ),
        case(
            "stubs-in-scratch",
            "E2",
            "FROM alpine AS a\nFROM scratch\nCOPY --from=a /bin/busybox /busybox\nRUN [\"/busybox\", \"true\"]\n",
        ),
        case(
            "hosts-of-the-image-stay",
            "E1",
            "FROM alpine\nRUN mv /etc/passwd /etc/p2 && mv /etc/p2 /etc/passwd\nCOPY a.txt /etc/hosts.extra\n",
        ),
        case("host-name", "E3", "FROM alpine\nRUN hostname > /h\n"),
        case(
            "environment-of-a-command",
            "E4",
            "FROM alpine\nENV A=1\nARG B=2\nRUN env | sort | grep -v -E '^(PWD|SHLVL|OLDPWD)=' > /env\n",
        ),
        case(
            "exec-form",
            "1.4",
            "FROM alpine\nRUN [\"/bin/sh\", \"-c\", \"echo $0 $1 > /x\", \"a\", \"b c\"]\n",
        ),
        case(
            "exec-form-expands-nothing",
            "A18",
            "FROM alpine\nENV X=1\nRUN [\"touch\", \"/$X\"]\n",
        ),
        case("working-directory", "E5", "FROM alpine\nWORKDIR /w/x\nRUN pwd > p\n"),
        case(
            "working-directory-of-a-user",
            "G9",
            "FROM alpine\nUSER 5:6\nWORKDIR /w/x\nRUN touch f\n",
        ),
        case(
            "working-directory-that-exists",
            "G9",
            "FROM alpine\nRUN mkdir -m 700 /w && chown 3:4 /w\nWORKDIR /w\nRUN pwd > /tmp/p\n",
        ),
        case("working-directory-is-root", "G9", "FROM alpine\nWORKDIR /\nRUN pwd > /p\n"),
        case(
            "relative-working-directories",
            "G10",
            "FROM alpine\nWORKDIR a\nWORKDIR b/../c\nWORKDIR ./d/\nRUN pwd > p\n",
        ),
    ]
}

fn users() -> Vec<Case> {
    vec![
        case("user-by-number", "E6", "FROM alpine\nUSER 1234\nRUN id > /tmp/id\n"),
        case("user-and-group-by-number", "E6", "FROM alpine\nUSER 1234:5678\nRUN id > /tmp/id\n"),
        case(
            "user-by-name",
            "E6",
            "FROM alpine\nRUN echo 'app:x:100:200::/home/app:/bin/sh' >> /etc/passwd && printf 'app:x:200:\\nmore:x:300:app\\n' >> /etc/group\nUSER app\nRUN id > /tmp/id; echo $HOME > /tmp/home\n",
        ),
        case(
            "user-with-group",
            "E6",
            "FROM alpine\nRUN echo 'app:x:100:200::/:/bin/sh' >> /etc/passwd && printf 'app:x:200:\\nmore:x:300:app\\n' >> /etc/group\nUSER app:more\nRUN id > /tmp/id\n",
        ),
        case(
            "entrypoint-does-not-wrap",
            "E7",
            "FROM alpine\nENTRYPOINT [\"/bin/false\"]\nRUN echo x > /x\n",
        ),
        case(
            "another-shell",
            "E8",
            "FROM alpine\nSHELL [\"/bin/sh\", \"-xc\"]\nRUN echo x > /x\nCMD echo cmd\nENTRYPOINT echo entry\nHEALTHCHECK CMD echo health\n",
        ).newer(&["history 6 created_by: \"HEALTHCHECK"]),
        case("standard-input-is-empty", "E9", "FROM alpine\nRUN wc -c > /n\n"),
        case(
            "no-terminal",
            "E9",
            "FROM alpine\nRUN if [ -t 0 ] || [ -t 1 ]; then echo tty; else echo none; fi > /x\n",
        ),
        case(
            "umask-and-modes",
            "F1",
            "FROM alpine\nRUN umask 027; mkdir /d; touch /d/f; umask > /d/u\n",
        ),
        case(
            "capabilities",
            "E24",
            "FROM alpine\nRUN grep -E '^Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/self/status > /caps\n",
        ),
        case(
            "devices",
            "E24",
            "FROM alpine\nRUN ls /dev | grep -v -E '^(shm|mqueue|pts|core|fd|std.*|ptmx|console)$' | sort > /devs\n",
        ),
        case(
            "shared-memory",
            "E25",
            "FROM alpine\nRUN df -k /dev/shm | tail -1 | awk '{print $2}' > /shm\n",
        ),
        case(
            "system-calls",
            "E24",
            // unshare, mount, keyctl, add_key, bpf, clone3, io_uring_setup, userfaultfd,
            // open_by_handle_at, clone with a new user namespace, fsopen, setns, sockets of several
            // families, personalities, ptrace, and two that are newer than most profiles.
            "FROM alpine\nCOPY p /\nRUN perl -e 'for my $c ([272, 0x10000000], [165, 0, 0, 0, 0, 0], \
             [250, 0, 0], [248, 0, 0, 0, 0, 0], [321, 0, 0, 0], [435, 0, 0], [425, 1, 0], [323, 0], \
             [304, 0, 0, 0], [56, 0x10000011, 0, 0, 0, 0], [430, 0, 0], [308, 0, 0], [41, 1, 1, 0], \
             [41, 40, 1, 0], [41, 16, 3, 0], [135, 0xffffffff], [135, 8], [135, 0], [101, 99, 0, 0, 0], \
             [452, -1, 0, 0, 0], [451, -1, 0, 0, 0]) { my $r = syscall($c->[0], @$c[1..$#$c]); \
             print \"@$c: \", ($r == -1 ? $!+0 : 0), \"\\n\" }' > /calls\n",
        )
        .prepare(
            "mkdir -p p/usr/bin; cp /usr/bin/perl p/usr/bin; for l in $(ldd /usr/bin/perl | grep -o '/[^ ]*'); \
             do mkdir -p p$(dirname $l); cp $l p$l; done",
        ),
        case("network-none", "E23", "FROM alpine\nRUN --network=none ls /sys/class/net > /net\n"),
    ]
}

fn mounts() -> Vec<Case> {
    vec![
        case(
            "bind-of-the-context",
            "E10",
            "FROM alpine\nRUN --mount=target=/in cat /in/a.txt > /x\n",
        ),
        case(
            "bind-of-a-file",
            "E10",
            "FROM alpine\nRUN --mount=source=a.txt,target=/in/file cat /in/file > /x\n",
        ),
        case(
            "bind-is-read-only",
            "E10",
            "FROM alpine\nRUN --mount=source=dir,target=/in touch /in/x 2>/dev/null && echo writable > /r || echo read-only > /r\n",
        ),
        case(
            "bind-that-may-be-written",
            "E10",
            "FROM alpine\nRUN --mount=source=dir,target=/in,rw touch /in/x && ls /in > /r\nRUN --mount=source=dir,target=/in,rw ls /in > /s\n",
        ),
        case(
            "bind-from-a-stage",
            "E10",
            "FROM alpine AS s\nRUN mkdir /o && echo x > /o/f\nFROM alpine\nRUN --mount=from=s,source=/o,target=/in cat /in/f > /x\n",
        ),
        case(
            "bind-a-whole-stage",
            "E10",
            "FROM alpine AS s\nRUN echo x > /f\nFROM alpine\nRUN --mount=from=s,target=/in cat /in/f > /x\n",
        ),
        case(
            "bind-from-an-image",
            "E10",
            "FROM alpine\nRUN --mount=from=nginx:latest,target=/in head -c 10 /in/etc/nginx/nginx.conf > /x\n",
        ),
        case(
            "relative-target",
            "1.4",
            "FROM alpine\nWORKDIR /w\nRUN --mount=source=dir,target=in cat in/one > /x\n",
        ),
        case(
            "targets-are-not-left",
            "E2",
            "FROM alpine\nRUN --mount=source=dir,target=/deep/in/side cat /deep/in/side/one\nRUN ls / > /ls\n",
        ),
        case(
            "target-that-exists-stays",
            "E2",
            "FROM alpine\nRUN mkdir -m 700 /in && echo hidden > /in/own\nRUN --mount=source=dir,target=/in ls /in > /x\n",
        ),
        case(
            "variables-in-mounts",
            "E11",
            "FROM alpine\nARG T=/in\nENV S=dir\nRUN --mount=source=$S,target=$T ls $T > /x\n",
        ),
        case(
            "two-mounts-on-one-target",
            "E12",
            "FROM alpine\nRUN --mount=source=dir,target=/in --mount=source=tree,target=/in ls /in > /x\n",
        ),
        case(
            "nested-mounts",
            "E12",
            "FROM alpine\nRUN --mount=source=dir,target=/in/sub --mount=type=tmpfs,target=/in ls /in /in/sub > /x\n",
        ),
    ]
}

fn caches_and_others() -> Vec<Case> {
    vec![
        case(
            "cache-is-in-no-layer",
            "1.4",
            "FROM alpine\nRUN --mount=type=cache,target=/c echo x > /c/f && ls /c > /x\nRUN ls -d /c > /y 2>/dev/null || echo none > /y\n",
        ),
        case(
            "cache-outlives-the-step",
            "1.4",
            "FROM alpine\nRUN --mount=type=cache,target=/c echo x > /c/f\nRUN --mount=type=cache,target=/c cat /c/f > /x\n",
        ),
        case(
            "cache-of-an-owner",
            "E14",
            "FROM alpine\nRUN --mount=type=cache,target=/c,id=owned,uid=5,gid=6,mode=0711 stat -c '%u:%g:%a' /c > /x\n",
        ),
        case(
            "cache-without-owner",
            "1.4",
            "FROM alpine\nRUN --mount=type=cache,target=/c,id=plain stat -c '%u:%g:%a' /c > /x\n",
        ),
        case(
            "cache-from-a-stage",
            "E14",
            "FROM alpine AS s\nRUN mkdir -p /o/d && echo x > /o/d/f && chown 7:8 /o/d/f\nFROM alpine\nRUN --mount=type=cache,target=/c,id=from,from=s,source=/o stat -c '%u:%g:%a' /c/d/f > /x\n",
        ),
        case(
            "one-cache-twice",
            "E15",
            "FROM alpine\nRUN --mount=type=cache,target=/a,id=twice --mount=type=cache,target=/b,id=twice echo x > /a/f && cat /b/f > /x\n",
        ),
        case(
            "read-only-cache",
            "1.4",
            "FROM alpine\nRUN --mount=type=cache,target=/c,id=ro,ro touch /c/f 2>/dev/null && echo writable > /x || echo read-only > /x\n",
        ),
        case(
            "memory",
            "E22",
            "FROM alpine\nRUN --mount=type=tmpfs,target=/t echo x > /t/f && ls /t > /x\nRUN ls -d /t > /y 2>/dev/null || echo none > /y\n",
        ),
        case(
            "memory-over-files",
            "E22",
            "FROM alpine\nRUN mkdir /t && echo own > /t/own\nRUN --mount=type=tmpfs,target=/t ls /t > /x\n",
        ),
        case(
            "default-name-of-a-cache",
            "E13",
            "FROM alpine\nRUN --mount=type=cache,target=/a/../named-by-target echo x > /named-by-target/f\nRUN --mount=type=cache,id=/named-by-target,target=/c cat /c/f > /x\n",
        ),
        case(
            "link-in-a-cache",
            "E17",
            "FROM alpine\nRUN --mount=type=cache,id=trap,target=/c ln -sfn /etc /c/out\nRUN --mount=type=cache,id=trap,source=/out,target=/c ls /c > /x 2>&1 || true\n",
        )
        .ours("the engine fails, which is as good", &["x file 644 0:0"]),
        case(
            "secret-that-is-missing",
            "E18",
            "FROM alpine\nRUN --mount=type=secret,id=none ls /run/secrets > /x 2>/dev/null || echo none > /x\n",
        ),
        case(
            "agent-that-is-missing",
            "E21",
            "FROM alpine\nRUN --mount=type=ssh ls /run/buildkit > /x 2>/dev/null || echo none > /x\n",
        ),
        case(
            "variable-of-an-agent-that-is-missing",
            "E21",
            "FROM alpine\nRUN --mount=type=ssh echo \"[$SSH_AUTH_SOCK]\" > /x\n",
        ),
        case(
            "agent-that-is-missing-and-required",
            "E21",
            "FROM alpine\nRUN --mount=type=ssh,required true\n",
        )
        .fails(2, "no SSH agent was given"),
    ]
}

/// The agent is one of a key file, so that none has to run.
fn agents() -> Vec<Case> {
    let with = |name, rules, flags: &str, command: &str| {
        let dockerfile = format!("FROM alpine\nRUN --mount=type=ssh{flags} {command}\n");
        let agents = ["--ssh", "default={context}/key", "--ssh", "b={context}/key"];
        let made = case(name, rules, &dockerfile).args(&agents);
        made.prepare("ssh-keygen -q -t ed25519 -N '' -C key -f key")
    };
    vec![
        with(
            "agent",
            "E21",
            "",
            "stat -c '%a:%u:%g %F' $SSH_AUTH_SOCK > /x && echo $SSH_AUTH_SOCK >> /x",
        ),
        with(
            "agent-elsewhere",
            "E19",
            ",id=b,required,target=s/sock,mode=0640,uid=3,gid=4",
            // The variable is s/sock there, which leads nowhere from another directory.
            "stat -c '%a:%u:%g %F' /s/sock > /x",
        ),
        with(
            "two-agents",
            "E21",
            " --mount=type=ssh,id=b",
            "ls /run/buildkit > /x && echo $SSH_AUTH_SOCK >> /x",
        ),
        with(
            "agent-leaves-nothing",
            "E26",
            "",
            "true\nRUN ls -d /run /run/buildkit > /x 2>&1 || true",
        ),
        with(
            "agent-with-a-variable-of-ones-own",
            "E21",
            "",
            "true\nENV SSH_AUTH_SOCK=/mine\nRUN --mount=type=ssh echo $SSH_AUTH_SOCK > /x",
        ),
    ]
}
