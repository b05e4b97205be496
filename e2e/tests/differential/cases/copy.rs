//! C: COPY.

use std::io;
use std::path::Path;

use rustix::fs::{XattrFlags, setxattr};

use crate::case::{Case, case};

/// `cap_net_raw+ep` (linux/capability.h, `vfs_cap_data`, version 2).
const NET_RAW: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn attribute(context: &Path, name: &str, value: &[u8]) -> io::Result<()> {
    Ok(setxattr(context.join("a.txt"), name, value, XattrFlags::empty())?)
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = places();
    cases.extend(links());
    cases.extend(owners());
    cases.extend(flags());
    cases.extend(newer_flags());
    cases.extend(ignores());
    cases
}

fn places() -> Vec<Case> {
    vec![
        case("contents-of-a-directory", "C1", "FROM alpine\nCOPY dir /d\n"),
        case("contents-with-a-slash", "C1", "FROM alpine\nCOPY dir/ /d/\n"),
        case("wildcard-over-directories", "C1", "FROM alpine\nCOPY d* /d/\n").prepare("mkdir d2; echo x > d2/file; rm dirlink dangling"),
        case("file-into-a-directory", "C2", "FROM alpine\nRUN mkdir /d\nCOPY a.txt /d\n"),
        case("file-to-a-new-name", "C2", "FROM alpine\nCOPY a.txt /new/name\n"),
        case("file-with-a-slash", "C2", "FROM alpine\nCOPY a.txt /new/dir/\n"),
        case("dot-is-the-working-directory", "C3", "FROM alpine\nWORKDIR /w\nCOPY a.txt .\nCOPY b.txt ./\n"),
        case("empty-destination-variable", "C3", "FROM alpine\nWORKDIR /w\nCOPY a.txt $NONE\n"),
        case("relative-destination", "C2", "FROM alpine\nWORKDIR /w/x\nCOPY a.txt ../y/z\nCOPY b.txt sub/\n"),
        case("several-files", "C2", "FROM alpine\nCOPY a.txt b.txt c.md /d/\n"),
        case("several-to-one-name", "C4", "FROM alpine\nCOPY a.txt b.txt /one\n"),
        case("wildcards", "C5", "FROM alpine\nCOPY *.txt /d/\n"),
        case("wildcard-without-match-beside-one", "C5", "FROM alpine\nCOPY a.txt *.none /d/\n"),
        case("classes-and-question-marks", "C6", "FROM alpine\nCOPY [ab].tx? /d/\n"),
        case("bracket-in-a-name", "C6", "FROM alpine\nCOPY x[[]1] /d/\n").prepare("echo x > 'x[1]'"),
        case("nested-wildcards", "C5", "FROM alpine\nCOPY tree/*/* /d/\n"),
        case("climbing-out-of-the-context", "C7", "FROM alpine\nCOPY ../../a.txt /x\nCOPY dir/../b.txt /y\n"),
        case("copy-to-root", "C1", "FROM scratch\nCOPY dir /\n"),
        case("copy-all", "C1", "FROM scratch\nCOPY . /all\n").prepare("rm -f dangling"),
        case("copy-a-directory-twice", "C13", "FROM alpine\nCOPY dir /d\nCOPY tree /d\nCOPY dir/sub /d/sub\n"),
        case("names-with-blanks", "C24", "FROM alpine\nCOPY [\"with space\", \"/a b/\"]\n"),
        case("unicode-names", "C23", "FROM alpine\nCOPY ünï /ü/\n"),
        case("empty-directory", "C1", "FROM alpine\nCOPY empty /e\n"),
        case("empty-file", "F6", "FROM alpine\nCOPY zero /z\n").prepare(": > zero"),
        case("nested-directory-takes-modes", "C13", "FROM alpine\nRUN mkdir -p /d/sub && chmod 700 /d/sub\nCOPY dir /d\n"),
        case("existing-destination-keeps-its-mode", "C12", "FROM alpine\nRUN mkdir -m 711 /d && chown 5:6 /d\nCOPY dir /d\n"),
        case("new-destination-is-plain", "C12", "FROM alpine\nCOPY private /d\n").prepare("mkdir -m 700 private; echo x > private/f"),
        case("times-of-files", "C12", "FROM alpine AS s\nRUN mkdir -p /s/sub && echo x > /s/sub/f && touch -d '2001-02-03 04:05:06' /s/sub/f /s/sub /s\nFROM scratch\nCOPY --from=s /s /d\n").with_times(),
        case("modes-of-files", "C19", "FROM scratch\nCOPY m /m\n").prepare("mkdir m; for i in 600 644 755 4755 2755 1777 000 777; do echo $i > m/f$i; chmod $i m/f$i; mkdir m/d$i; chmod $i m/d$i; done"),
        case("file-over-a-file", "C10", "FROM alpine\nCOPY a.txt /x\nCOPY b.txt /x\n"),
        case("tree-over-a-tree", "C10", "FROM alpine\nRUN mkdir -p /d/sub && echo old > /d/one && echo keep > /d/other && echo old > /d/sub/three\nCOPY dir /d/\n"),
        case("child-over-a-link", "C10", "FROM alpine\nRUN mkdir /d && echo t > /target && ln -s /target /d/one\nCOPY dir /d/\n"),
        case("two-copies-of-one-file", "C2", "FROM alpine\nCOPY a.txt /x\nCOPY a.txt /y\n"),
        case("working-directory-of-a-stage-does-not-count", "C33", "FROM alpine AS s\nWORKDIR /deep\nRUN echo x > /deep/x && echo r > /x\nFROM alpine\nCOPY --from=s x /got\n"),
        case("whole-stage", "C32", "FROM scratch AS s\nCOPY dir /d\nFROM scratch\nCOPY --from=s / /all/\n"),
        case("empty-stage", "C32", "FROM scratch AS s\nFROM alpine\nCOPY --from=s / /e/\n"),
        case("wildcard-from-a-stage", "C5", "FROM alpine AS s\nRUN mkdir /o && for i in 1 2 3; do echo $i > /o/f$i.out; done\nFROM alpine\nCOPY --from=s /o/*.out /got/\n"),
        case("fifo", "C21", "FROM alpine\nCOPY p /p/\n").prepare("mkdir p; mkfifo p/fifo"),
        case("fifo-from-a-stage", "C21", "FROM alpine AS s\nRUN mkfifo -m 640 /f && mknod /n c 1 3\nFROM alpine\nCOPY --from=s /f /n /got/\n"),
    ]
}

fn links() -> Vec<Case> {
    vec![
        case("link-to-a-file-is-followed", "C8", "FROM alpine\nCOPY link /x\n"),
        case("link-to-a-directory-is-followed", "C8", "FROM alpine\nCOPY dirlink /x\n"),
        case("link-on-the-way", "C8", "FROM alpine\nCOPY dirlink/sub/three /x\n"),
        case("links-inside-are-kept", "C8", "FROM alpine\nCOPY l /l\n").prepare("mkdir l; ln -s ../a.txt l/up; ln -s nowhere l/dangling; ln -s /etc/passwd l/absolute; ln -s . l/self"),
        case("absolute-link-in-the-context", "C8", "FROM alpine\nCOPY abs /x\n").prepare("ln -s /a.txt abs"),
        case("links-over-links", "C8", "FROM alpine\nCOPY l3 /x\n").prepare("ln -s l2 l3; ln -s link l2"),
        case("link-from-a-stage", "C8", "FROM alpine AS s\nRUN mkdir /real && echo x > /real/f && ln -s /real /l && ln -s real/f /lf\nFROM alpine\nCOPY --from=s /l /d\nCOPY --from=s /lf /f\nCOPY --from=s /l/f /g\n"),
        case("link-at-the-destination", "C9", "FROM alpine\nRUN mkdir /real && ln -s /real /d\nCOPY a.txt /d/\nCOPY dir /d/\n"),
        case("link-of-a-file-at-the-destination", "C9", "FROM alpine\nRUN echo old > /target && ln -s /target /x\nCOPY a.txt /x\n"),
        case("dangling-link-at-the-destination", "C9", "FROM alpine\nRUN ln -s /made /x\nCOPY a.txt /x\n"),
        case("relative-link-at-the-destination", "C9", "FROM alpine\nRUN mkdir -p /a/real && ln -s a/real /d\nCOPY a.txt /d/f\n"),
        case("hard-links-of-a-tree", "C20", "FROM alpine\nCOPY h /h\n").prepare("mkdir h; echo x > h/one; ln h/one h/two; mkdir h/s; ln h/one h/s/three"),
        case("hard-links-of-two-sources", "C20", "FROM alpine\nCOPY one two /h/\n").prepare("echo x > one; ln one two"),
        case("hard-links-of-a-stage", "C20", "FROM alpine AS s\nRUN mkdir /h && echo x > /h/a && ln /h/a /h/b\nFROM alpine\nCOPY --from=s /h /h\n"),
        case("attributes-of-context-files", "C22", "FROM scratch\nCOPY a.txt /x\n").finish(|context| attribute(context, "user.note", b"kept")),
        case("capabilities-of-context-files", "C22", "FROM scratch\nCOPY a.txt /x\n").finish(|context| attribute(context, "security.capability", &NET_RAW)).differs("file x: attributes", "the engine's transfer of contexts drops them"),
        case("owners-of-the-client", "H6", "FROM scratch\nCOPY dir /d\n").prepare("chown -R 12:34 dir"),
        case("expanded-sources-and-destination", "C25", "FROM scratch\nARG N=a D=out\nCOPY ${N}.txt b.${UNSET:-txt} /$D/\n"),
        case("sockets-in-the-context", "C21", "FROM scratch\nCOPY sock a.txt /d/\n").finish(|context| std::os::unix::net::UnixListener::bind(context.join("sock")).map(drop)),
        case("parent-link-in-a-context-tree", "C8", "FROM alpine\nCOPY l/up/a.txt /x\n").prepare("mkdir l; ln -s .. l/up").ours("the engine's checksum does not follow the link", &["x file 644 0:0 alpha"]),
    ]
}

fn owners() -> Vec<Case> {
    let users = "FROM alpine\nRUN echo 'app:x:100:200::/:/bin/sh' >> /etc/passwd && echo 'grp:x:300:' >> /etc/group\n";
    let with = |name, rules, lines: &str| case(name, rules, &format!("{users}{lines}"));
    vec![
        case("owner-of-context-files", "C14", "FROM alpine\nCOPY dir /d\n")
            .prepare("chown -R 12:34 dir"),
        case(
            "owner-of-a-stage-is-kept",
            "C14",
            "FROM alpine AS s\nRUN mkdir /o && echo x > /o/f && chown 7:8 /o/f /o\nFROM alpine\nCOPY --from=s /o /o\nCOPY --from=s /o/f /f\n",
        ),
        with("named-owner", "C15", "COPY --chown=app a.txt /x\n"),
        with("named-owner-and-group", "C15", "COPY --chown=app:grp dir /d\n"),
        with("number-and-named-group", "C15", "COPY --chown=5:grp a.txt /x\n"),
        with("number-alone", "C15", "COPY --chown=100 a.txt /x\n"),
        with("unknown-owner-is-root", "C16", "COPY --chown=nobodyknows a.txt /x\n"),
        case("numeric-owner-of-nothing", "C17", "FROM scratch\nCOPY --chown=5:6 dir /d\n"),
        case("owner-from-a-variable", "C17", "FROM alpine\nARG O=3:4\nCOPY --chown=$O a.txt /x\n"),
        case(
            "owner-of-made-directories",
            "C11",
            "FROM alpine\nCOPY --chown=3:4 a.txt /new/deep/x\n",
        ),
        case(
            "owner-of-existing-directories",
            "C11",
            "FROM alpine\nRUN mkdir /old\nCOPY --chown=3:4 a.txt /old/new/x\n",
        ),
        case("chown-and-setuid", "C19", "FROM scratch\nCOPY --chown=3:4 s /s\n")
            .prepare("echo x > s; chmod 4755 s"),
        case("chmod-octal", "C18", "FROM alpine\nCOPY --chmod=640 a.txt /x\n"),
        case("chmod-of-a-tree", "C18", "FROM alpine\nCOPY --chmod=750 dir /d\n")
            .newer(&["file d: mode"]),
        case(
            "chmod-of-made-directories",
            "C11",
            "FROM alpine\nCOPY --chmod=700 a.txt /new/deep/x\n",
        )
        .newer(&["file new: mode", "file new/deep: mode"]),
        case(
            "chmod-with-special-bits",
            "C18",
            "FROM alpine\nCOPY --chmod=4755 a.txt /x\nCOPY --chmod=1777 empty /t\n",
        )
        .newer(&["file t: mode"]),
        case("chmod-from-a-variable", "C18", "FROM alpine\nARG M=600\nCOPY --chmod=$M a.txt /x\n")
            .newer(&["history 3 created_by", "file x: mode"]),
        case("chmod-and-chown", "C18", "FROM alpine\nCOPY --chmod=4711 --chown=3:4 a.txt /x\n"),
        case("user-does-not-count-for-copies", "C14", "FROM alpine\nUSER 5:6\nCOPY a.txt /x\n"),
    ]
}

fn flags() -> Vec<Case> {
    vec![
        case("link-flag", "C26", "FROM alpine\nCOPY --link a.txt /d/\n"),
        case("link-flag-with-a-tree", "C26", "FROM alpine\nCOPY --link dir /new/d\n"),
        case("link-flag-and-dot", "C26", "FROM alpine\nWORKDIR /w\nCOPY --link a.txt .\n"),
        case(
            "link-flag-over-a-link",
            "C26",
            "FROM alpine\nRUN mkdir /real && ln -s /real /l\nCOPY --link a.txt /l/x\n",
        ).differs("file l", "this engine keeps layers in a way that cannot merge them: the flag is ignored").differs("file real/x", "this engine keeps layers in a way that cannot merge them: the flag is ignored"),
        case(
            "link-flag-with-numeric-owner",
            "C26",
            "FROM alpine\nCOPY --link --chown=3:4 dir /d\n",
        ),
        case(
            "link-flag-with-chmod",
            "C26",
            "FROM alpine\nRUN mkdir /real && ln -s /real /l\nCOPY --link --chmod=600 a.txt /l/x\n",
        ),
        case(
            "link-flag-from-a-stage",
            "C26",
            "FROM alpine AS s\nRUN mkdir /o && echo x > /o/f\nFROM alpine\nCOPY --link --from=s /o /o\nRUN cat /o/f > /g\n",
        ),
        case(
            "link-flag-over-existing-files",
            "C26",
            "FROM alpine\nRUN mkdir -m 700 /d && echo old > /d/one && echo keep > /d/keep\nCOPY --link dir /d/\n",
        ).differs("file d: mode", "this engine keeps layers in a way that cannot merge them: the flag is ignored"),
    ]
}

/// What this BuildKit does not know: the expectations are those of the reference.
fn newer_flags() -> Vec<Case> {
    let case = |name, rules, lines: &str, files| {
        let dockerfile = format!("FROM scratch\n{lines}");
        case(name, rules, &dockerfile).ours("the flag is newer than this BuildKit", files)
    };
    vec![
        case(
            "parents",
            "C27",
            "COPY --parents dir/sub/three tree/x /d/\n",
            &[
                "d/dir/sub/three file 644 0:0 3",
                "d/tree/x/y/deep file 644 0:0 deep",
                "!d/tree/z",
                "!d/dir/one",
            ],
        ),
        case(
            "parents-from-a-pivot",
            "C27",
            "COPY --parents tree/./x/y/deep dir/./sub /d/\n",
            &["d/x/y/deep file 644 0:0 deep", "d/sub/three file 644 0:0 3", "!d/tree", "!d/dir"],
        ),
        case(
            "parents-with-wildcards",
            "C27",
            "COPY --parents **/three t*/z/* /d/\n",
            &["d/dir/sub/three file 644 0:0 3", "d/tree/z/flat file 644 0:0 flat", "!d/tree/x"],
        ),
        case(
            "parents-keep-modes",
            "C27",
            "COPY --parents dir/sub/three /d/\n",
            &["d/dir directory 700 0:0", "d/dir/sub directory 755 0:0"],
        )
        .prepare("chmod 700 dir"),
        case(
            "parents-with-owner",
            "C27",
            "COPY --parents --chown=3:4 dir/sub/three /d/\n",
            &["d/dir directory 755 3:4", "d/dir/sub/three file 644 3:4 3"],
        ),
        case("parents-of-nothing", "C27", "COPY --parents no/such /d/\n", &[])
            .fails(2, "not found"),
        case(
            "exclude",
            "C28",
            "COPY --exclude=*.txt --exclude=tree . /d/\n",
            &["d/c.md file 644 0:0 gamma", "d/dir/one file 644 0:0 1", "!d/a.txt", "!d/tree"],
        ),
        case(
            "exclude-relative-to-the-source",
            "C28",
            "COPY --exclude=sub dir /d/\n",
            &["d/one file 644 0:0 1", "!d/sub"],
        ),
        case(
            "exclude-what-is-below",
            "C28",
            "COPY --exclude=sub/** dir /d/\n",
            &["d/sub directory 755 0:0", "!d/sub/three"],
        ),
        case(
            "exclude-and-take-back",
            "C28",
            "COPY --exclude=* --exclude=!two dir /d/\n",
            &["d/two file 644 0:0 2", "!d/one"],
        ),
        case(
            "exclude-is-not-expanded",
            "C28",
            "ARG E=one\nCOPY --exclude=$E dir /d/\n",
            &["d/one file 644 0:0 1"],
        ),
        case(
            "exclude-of-add",
            "C28",
            "ADD --exclude=one dir /d/\n",
            &["d/two file 644 0:0 2", "!d/one"],
        ),
        case(
            "symbolic-chmod",
            "C18",
            "COPY --chmod=u=rwX,go=rX . /d/\n",
            &[
                "d/a.txt file 644 0:0 alpha",
                "d/run.sh file 755 0:0 #!/bin/sh\necho run",
                "d/dir directory 755 0:0",
            ],
        )
        .prepare("chmod 600 a.txt; chmod 700 dir run.sh"),
        case(
            "symbolic-chmod-adds",
            "C18",
            "COPY --chmod=g+w,o-r a.txt /x\n",
            &["x file 660 0:0 alpha"],
        ),
        case("unpack-nothing", "1.4", "ADD --unpack=false t.tar /d/\n", &["!d/a.txt"])
            .prepare("tar -cf t.tar a.txt"),
    ]
}

fn ignores() -> Vec<Case> {
    vec![
        case("ignore-file", "H2", "FROM scratch\nCOPY . /\n")
            .prepare("printf '*.md\\ndir/sub\\ndangling\\n' > .dockerignore"),
        case("ignore-and-take-back", "H2", "FROM scratch\nCOPY . /\n")
            .prepare("printf '*\\n!dir/sub/three\\n!a.txt\\n' > .dockerignore"),
        case("ignore-order", "H2", "FROM scratch\nCOPY . /\n")
            .prepare("printf '*.txt\\n!a.txt\\na.*\\n!b.txt\\ndangling\\n' > .dockerignore"),
        case("ignore-double-stars", "1.7", "FROM scratch\nCOPY . /\n").prepare(
            "printf '**/three\\n**/*.md\\ntree/**\\n!tree/z\\ndangling\\n' > .dockerignore",
        ),
        case("ignore-comments-and-blanks", "1.7", "FROM scratch\nCOPY . /\n").prepare(
            "printf '# a.txt\\n\\n  b.txt  \\n/c.md\\n./run.sh\\ndangling\\n' > .dockerignore",
        ),
        case("ignore-the-dockerfile", "H4", "FROM scratch\nCOPY . /\n")
            .prepare("printf 'Dockerfile\\n.dockerignore\\ndangling\\n' > .dockerignore"),
        case("ignore-with-classes", "1.7", "FROM scratch\nCOPY . /\n")
            .prepare("printf '[ab].txt\\n?.md\\ndangling\\n' > .dockerignore"),
        case("ignore-a-directory-with-a-slash", "1.7", "FROM scratch\nCOPY . /\n")
            .prepare("printf 'dir/\\ntree/x/\\ndangling\\n' > .dockerignore"),
        case("ignore-parents-of-included", "H2", "FROM scratch\nCOPY . /\n")
            .prepare("printf 'tree\\n!tree/x/y/deep\\ndangling\\n' > .dockerignore"),
        case("ignore-file-of-the-dockerfile", "H1", "FROM scratch\nCOPY . /\n").prepare(
            "echo b.txt > .dockerignore; printf 'a.txt\\ndangling\\n' > Dockerfile.dockerignore",
        ),
        case("ignore-everything-but", "H2", "FROM scratch\nCOPY dir /d\n")
            .prepare("printf '**\\n!dir/**\\n' > .dockerignore"),
    ]
}
