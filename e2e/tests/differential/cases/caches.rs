//! Realistic files.

use crate::case::{Case, case};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case("tutorial", "real", "FROM alpine AS builder\nWORKDIR /src\nCOPY a.txt b.txt ./\nRUN cat a.txt b.txt > app\nFROM alpine\nWORKDIR /root/\nCOPY --from=builder /src/app .\nCMD [\"./app\"]\n").newer(&["config.WorkingDir", "history 2 created_by"]),
        case("dependencies-before-sources", "real", "FROM alpine AS deps\nWORKDIR /app\nCOPY c.md ./\nRUN --mount=type=cache,target=/root/.cache mkdir -p vendor && cp c.md vendor/\nFROM deps AS build\nCOPY . .\nRUN find . -name '*.txt' | sort > list\nFROM scratch\nCOPY --from=build /app/list /app/vendor/c.md /out/\n").prepare("rm dangling"),
        case("user-and-home", "real", "FROM alpine\nRUN echo 'app:x:1000:1000::/home/app:/bin/sh' >> /etc/passwd && mkdir -p /home/app && chown 1000:1000 /home/app\nWORKDIR /home/app\nCOPY --chown=app:1000 dir ./dir\nUSER app\nRUN touch mine && ls -ln > listing.txt && sed -i 's/[A-Z][a-z][a-z] .*[0-9] //' listing.txt\nCMD [\"sh\"]\n"),
        case("onbuild-image", "real", "FROM alpine AS onbuild\nWORKDIR /usr/src/app\nONBUILD COPY a.txt ./\nONBUILD RUN cat a.txt > built\nFROM onbuild\nCMD [\"cat\", \"built\"]\n"),
        case("configuration-by-heredoc", "real", "FROM alpine\nARG PORT=8080\nCOPY <<EOF /etc/app.conf\nport = ${PORT}\nhome = \\$HOME\nEOF\nRUN <<EOF\nset -e\nmkdir -p /var/app\ncp /etc/app.conf /var/app/\nEOF\nEXPOSE ${PORT}/tcp\n").newer(&["history 5 created_by: \"EXPOSE"]),
        case("many-small-layers", "real", "FROM alpine\nRUN echo 1 > /1\nRUN echo 2 > /2\nRUN echo 3 > /3\nRUN echo 4 > /4\nRUN echo 5 > /5\nRUN cat /1 /2 /3 /4 /5 > /all && rm /1 /3 /5\n"),
        case("tools-from-another-image", "real", "FROM golang:1.13 AS tools\nFROM alpine\nCOPY --from=tools /usr/lib/go-1.19/VERSION /go-version\nRUN --mount=from=tools,source=/go,target=/go ls /go > /list\n"),
    ]
}
