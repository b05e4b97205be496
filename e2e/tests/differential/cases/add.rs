//! D: ADD.

use crate::case::{Case, case};

pub(crate) fn cases() -> Vec<Case> {
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
