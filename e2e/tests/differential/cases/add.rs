//! D: ADD.

use crate::case::{Case, case};

pub(crate) fn cases() -> Vec<Case> {
    [archives(), urls(), repositories()].concat()
}

fn urls() -> Vec<Case> {
    let text = "7a8ea1ddaa3ba6ca0ce5a7ae5ce09b1e3ea2f2c8f9b6f1ef1d8f9a7d1d7d2d9b";
    let with_sum =
        |sum: &str| format!("FROM alpine\nADD --checksum=sha256:{sum} {{server}}/text.txt /x\n");
    let sum = common::Digest::of(b"served\n").to_string();
    vec![
        case("add-a-url", "D6", "FROM scratch\nADD {server}/text.txt /x\n").with_times(),
        case("add-a-url-to-a-directory", "D6", "FROM scratch\nADD {server}/text.txt /d/\n"),
        case(
            "add-a-url-to-an-existing-directory",
            "D6",
            "FROM alpine\nRUN mkdir /d\nADD {server}/text.txt /d\n",
        ),
        case("add-a-url-without-a-name", "D6", "FROM scratch\nADD {server}/ /d/\n"),
        case("add-a-url-with-a-blank", "D6", "FROM scratch\nADD {server}/a%20b.txt /d/\n"),
        case("add-a-url-with-a-query", "D6", "FROM scratch\nADD {server}/text.txt?x=1 /d/\n"),
        case("archive-behind-a-url-stays", "D6", "FROM scratch\nADD {server}/t.tar /d/\n"),
        case(
            "archive-behind-a-url-unpacked",
            "D6",
            "FROM scratch\nADD --unpack=true {server}/t.tar /d/\n",
        )
        .ours("the flag came with 1.17", &["d/in/archive file 644 0:0 x", "!d/t.tar"]),
        case(
            "owner-and-mode-of-a-url",
            "D6",
            "FROM scratch\nADD --chown=3:4 --chmod=0755 {server}/text.txt /d/x\n",
        ),
        case("url-in-a-variable", "D6", "FROM scratch\nARG U={server}\nADD $U/text.txt /x\n"),
        case("url-and-files", "D6", "FROM scratch\nADD a.txt {server}/text.txt b.txt /d/\n"),
        case("checksum-of-a-url", "D8", &with_sum(sum.trim_start_matches("sha256:"))),
        case("wrong-checksum", "D8", &with_sum(text)).fails(2, "digest mismatch"),
        case("bad-checksum", "D8", &with_sum("12")).fails(2, "invalid checksum digest format"),
        case("checksum-of-a-file", "D8", "FROM scratch\nADD --checksum=sha256:00 a.txt /\n")
            .fails(2, "checksum requires HTTP(S) or Git sources"),
        case("url-that-is-not-there", "D6", "FROM scratch\nADD {server}/none /x\n").fails(2, "404"),
    ]
}

fn repositories() -> Vec<Case> {
    let query = |name, query: &str, files| {
        case(name, "D9", &format!("FROM scratch\nADD {{git}}/app.git?{query} /d/\n"))
            .ours("queries came with 1.16", files)
    };
    vec![
        case("add-a-repository", "D9", "FROM scratch\nADD {git}/app.git /d/\n"),
        case(
            "modes-of-a-repository",
            "D10",
            "FROM alpine\nADD {git}/app.git /d\nRUN ls -l /d/run | cut -c1-10 > /x\n",
        ),
        case("branch-of-a-repository", "D9", "FROM scratch\nADD {git}/app.git#next /d/\n"),
        case("tag-of-a-repository", "D9", "FROM scratch\nADD {git}/app.git#v1 /d/\n"),
        case("commit-of-a-repository", "D9", "FROM scratch\nADD {git}/app.git#{commit} /d/\n"),
        case("directory-of-a-repository", "D9", "FROM scratch\nADD {git}/app.git#main:dir /d/\n"),
        case("owner-of-a-repository", "D9", "FROM scratch\nADD --chown=3:4 {git}/app.git#v1 /d/\n"),
        case(
            "repository-into-an-existing-directory",
            "D9",
            "FROM alpine\nRUN mkdir /d && echo old > /d/top\nADD {git}/app.git#v1 /d\n",
        ),
        case(
            "repository-with-git-directory",
            "D9",
            "FROM scratch\nADD --keep-git-dir=true {git}/app.git#v1 /d/\n",
        )
        .ours(
            "no two checkouts have the same .git",
            &["d/.git directory 755 0:0", "d/top file 644 0:0 top"],
        ),
        case("submodules-of-a-repository", "D9", "FROM scratch\nADD {git}/parent.git /d/\n")
            .differs("file d/lib/.git", "a link to a directory that is not there"),
        case(
            "repository-without-submodules",
            "D9",
            "FROM scratch\nADD {git}/parent.git?submodules=0 /d/\n",
        )
        .ours("queries came with 1.16", &["d/parent.txt file 644 0:0 parent", "!d/lib/lib.txt"]),
        query("branch-in-a-query", "branch=next", &["d/next file 644 0:0 next", "!d/.git"]),
        query("directory-in-a-query", "tag=v1&subdir=dir", &["d/file file 644 0:0 one", "!d/top"]),
        query("git-directory-in-a-query", "tag=v1&keep-git-dir=1", &["d/.git directory 755 0:0"]),
        case(
            "checksum-of-a-repository",
            "D9",
            "FROM scratch\nADD --checksum={commit} {git}/app.git#main /d/\n",
        )
        .ours("the flag came to repositories later", &["d/top file 644 0:0 top"]),
        case(
            "other-checksum-of-a-repository",
            "D9",
            "FROM scratch\nADD --checksum=abcdef {git}/app.git#main /d/\n",
        )
        .fails(2, "expected checksum to match abcdef"),
        case("reference-that-is-not-there", "D9", "FROM scratch\nADD {git}/app.git#none /d/\n")
            .fails(2, "does not contain ref none"),
        case("repository-that-is-not-there", "D9", "FROM scratch\nADD {git}/none.git /d/\n")
            .fails(2, "none.git"),
        case(
            "directory-that-is-not-there",
            "D9",
            "FROM scratch\nADD {git}/app.git#main:none /d/\n",
        )
        .fails(2, "none"),
        case("git-directory-of-a-file", "D9", "FROM scratch\nADD --keep-git-dir=true a.txt /d/\n"),
    ]
}

fn archives() -> Vec<Case> {
    vec![
        case("add-a-file", "1.4", "FROM alpine\nADD a.txt /x\n"),
        case("add-a-directory", "1.4", "FROM alpine\nADD dir /d/\n"),
        case("add-a-tar", "D1", "FROM alpine\nADD t.tar /d/\n").prepare("tar -cf t.tar a.txt dir"),
        case("add-a-gzipped-tar", "D1", "FROM alpine\nADD t.tgz /d\n").prepare("tar -czf t.tgz a.txt dir"),
        case("add-a-bzipped-tar", "D1", "FROM alpine\nADD t /d\n").prepare("tar -cjf t a.txt dir"),
        case("add-an-xz-tar", "D1", "FROM alpine\nADD t /d/\n").prepare("tar -cJf t a.txt dir"),
        case("add-what-only-looks-like-one", "D1", "FROM alpine\nADD x.tar.gz /d/\nADD y.tar /d/\n").prepare("gzip -c a.txt > x.tar.gz; echo none > y.tar"),
        case("copy-does-not-unpack", "D1", "FROM alpine\nCOPY t.tar /d/\n").prepare("tar -cf t.tar a.txt"),
        case("add-several-archives", "D2", "FROM alpine\nADD *.tar /d/\n").prepare("tar -cf 1.tar a.txt; tar -cf 2.tar b.txt"),
        case("archive-without-directories", "D3", "FROM alpine\nADD t.tar /d/\n").prepare("tar -cf t.tar dir/sub/three tree/x/y/deep"),
        case("archive-with-links", "D4", "FROM alpine\nADD t.tar /d/\n").prepare("ln a.txt hard; tar -cf t.tar link dangling a.txt hard dirlink"),
        case("archive-through-an-absolute-link", "D4", "FROM alpine\nRUN mkdir /real\nADD t.tar /d/\n").prepare("mkdir w; ln -s /real w/l; tar -C w -cf t.tar l; rm w/l; mkdir w/l; echo x > w/l/f; tar -C w -rf t.tar l/f").ours("the engine loses itself in the link", &["d/l symlink 777 0:0 /real", "d/real/f file 644 0:0 x"]),
        case("archive-with-owner", "D5", "FROM alpine\nADD --chown=3:4 t.tar /d/\n").prepare("tar --owner=7 --group=8 -cf t.tar a.txt dir").newer(&["file d/"]),
        case("archive-keeps-owners", "D5", "FROM alpine\nADD t.tar /d/\n").prepare("tar --owner=7 --group=8 -cf t.tar a.txt dir"),
        case("archive-keeps-modes", "D5", "FROM alpine\nADD t.tar /d/\n").prepare("chmod 4711 a.txt; chmod 1700 dir; tar -cf t.tar a.txt dir"),
        case("archive-and-chmod", "D5", "FROM alpine\nADD --chmod=600 t.tar /d/\n").prepare("tar -cf t.tar a.txt dir"),
        case("archive-over-files", "D4", "FROM alpine\nRUN mkdir -p /d/dir && echo old > /d/a.txt && echo keep > /d/dir/keep\nADD t.tar /d/\n").prepare("tar -cf t.tar a.txt dir"),
        case("archive-with-dots", "D4", "FROM alpine\nADD t.tar /d/\n").prepare("tar -cf t.tar ./a.txt ./dir"),
        case("archive-times", "D1", "FROM scratch\nADD t.tar /\n").prepare("touch -d 2019-05-06T07:08:09Z a.txt; tar -cf t.tar a.txt").with_times(),
        case("archive-and-a-file", "D2", "FROM alpine\nADD t.tar b.txt /d/\n").prepare("tar -cf t.tar a.txt"),
        case("add-with-owner-and-mode", "1.4", "FROM alpine\nADD --chown=3:4 --chmod=640 a.txt /x\n"),
        case("add-with-link-flag", "C26", "FROM alpine\nADD --link a.txt /x/\n"),
        case("long-names-in-an-archive", "D1", "FROM alpine\nADD t.tar /d/\n").prepare("n=$(printf 'n%.0s' $(seq 1 200)); mkdir -p $n/$n; echo x > $n/$n/$n; tar -cf t.tar $n; rm -r $n"),
    ]
}
