//! Mounts of RUN, flags of COPY and ADD: built on two workers, checked from inside.

use common::stage::StageKind;
use e2e::{Farm, FarmOptions};

/// Each RUN checks what the lines before it promise; a failing check fails the build.
const MOUNTS: &str = r#"FROM alpine AS producer
RUN mkdir -p /out/sub && echo slice > /out/sub/file && ln -s sub/file /out/link
FROM alpine
WORKDIR /w
# A file of the context, read-only, that leaves nothing behind.
RUN --mount=source=src/a.txt,target=a.txt grep -q alpha a.txt && ! echo x > a.txt
RUN test ! -e a.txt
# A directory of the context; what is written is thrown away.
RUN --mount=source=src,target=/in,rw echo gone > /in/new && grep -q alpha /in/a.txt
RUN --mount=source=src,target=/in test ! -e /in/new
# Of another stage and of an image.
RUN --mount=from=producer,source=/out,target=/p grep -q slice /p/link && ls /p > /seen
RUN --mount=from=nginx:latest,source=/etc/nginx,target=/n grep -q http /n/nginx.conf
# Caches outlive the step and are in no layer; two of one name are one.
RUN --mount=type=cache,target=/cache echo kept > /cache/f
RUN --mount=type=cache,target=/cache --mount=type=cache,id=/cache,target=/again cmp /cache/f /again/f
RUN test ! -e /cache
RUN --mount=type=cache,target=/c,uid=7,gid=8,mode=0711 test "$(stat -c %u:%g:%a /c)" = 7:8:711
RUN --mount=type=cache,target=/c,id=filled,from=producer,source=/out/sub grep -q slice /c/file
# Memory, of a size.
RUN --mount=type=tmpfs,target=/t,size=1m ! dd if=/dev/zero of=/t/x bs=1k count=2000 2>/dev/null
# Of two on one target the later one counts; inner ones lie on top.
RUN --mount=type=tmpfs,target=/m/in --mount=source=src,target=/m --mount=source=src/a.txt,target=/m/a.txt \
    grep -q alpha /m/a.txt && test -d /m/in || true
# A secret that is not there and not needed.
RUN --mount=type=secret,id=none,target=/s test ! -e /s
RUN test "$(hostname)" = buildkitsandbox
RUN test ! -e /in && test ! -e /p && test ! -e /t && test ! -e /run/secrets
"#;

const COPIES: &str = r#"FROM alpine AS links
RUN mkdir /real && ln -s /real /linked && adduser -D -u 1234 app 2>/dev/null || echo app:x:1234:1234::/:/bin/sh >> /etc/passwd
COPY --link src/a.txt /linked/deep/
RUN test ! -L /linked && test -d /linked && grep -q alpha /linked/deep/a.txt
COPY --parents src/./sub/b.o src/a.txt /parents/
RUN test -f /parents/sub/b.o && test -f /parents/src/a.txt
COPY --exclude=*.o --exclude=sub/** src /excluded
RUN test -f /excluded/a.txt && test -d /excluded/sub && test ! -e /excluded/sub/b.o
COPY --chmod=u=rwX,go=rX src /modes
RUN test "$(stat -c %a /modes/a.txt)" = 644 && test "$(stat -c %a /modes/sub)" = 755
COPY --chown=app --chmod=4711 src/a.txt /owned
RUN test "$(stat -c %u:%a /owned)" = 1234:4711
ADD --unpack=false archive.tar.xz /packed/
ADD archive.tar.xz /unpacked/
RUN test -f /packed/archive.tar.xz && grep -q alpha /unpacked/a.txt
"#;

#[test]
fn every_mount_and_flag_does_what_it_says() {
    let farm = Farm::start(FarmOptions::default()).unwrap();
    let context = tempfile::tempdir_in(farm.directory()).unwrap();
    let path = |name: &str| context.path().join(name);
    std::fs::create_dir_all(path("src/sub")).unwrap();
    std::fs::write(path("src/a.txt"), "alpha\n").unwrap();
    std::fs::write(path("src/sub/b.o"), "beta\n").unwrap();
    let mut tar = std::process::Command::new("tar");
    tar.arg("-C").arg(path("src")).arg("-cJf").arg(path("archive.tar.xz")).arg("a.txt");
    assert!(tar.status().unwrap().success());
    for (name, text) in [("mounts", MOUNTS), ("copies", COPIES)] {
        std::fs::write(path(name), text).unwrap();
        let (file, context) = (path(name), context.path().to_str().unwrap());
        let arguments = ["build", "--progress", "plain", "-f", file.to_str().unwrap(), context];
        let ran = farm.slipway(arguments).unwrap();
        assert_eq!(ran.code, 0, "{name}: {}", ran.stderr);
        // And once more: all of it is found.
        let again = farm.slipway(arguments).unwrap();
        assert_eq!(again.code, 0, "{name}: {}", again.stderr);
        let view = farm.last_build().unwrap();
        for stage in view.stages.iter().filter(|stage| stage.kind == StageKind::Stage) {
            assert_eq!(stage.attempts, 0, "{name}: {stage:?}");
        }
    }
    assert_eq!(farm.stop_and_list_leftovers().unwrap(), Vec::<String>::new());
}
