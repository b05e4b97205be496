//! F: layers.

use crate::case::{Case, case};

pub(crate) fn cases() -> Vec<Case> {
    [changes(), kinds_of_files()].concat()
}

fn changes() -> Vec<Case> {
    vec![
        case(
            "removed-file",
            "F2",
            "FROM alpine\nRUN mkdir /d && echo a > /d/a && echo b > /d/b\nRUN rm /d/a\n",
        ),
        case(
            "removed-tree",
            "F2",
            "FROM alpine\nRUN mkdir -p /d/e/f && echo a > /d/e/f/a\nRUN rm -r /d/e\n",
        ),
        case(
            "replaced-directory",
            "F1",
            "FROM alpine\nRUN mkdir /d && echo a > /d/a && echo b > /d/b\nRUN rm -r /d && mkdir /d && echo c > /d/c\n",
        ),
        case(
            "directory-becomes-a-file",
            "F6",
            "FROM alpine\nRUN mkdir /d && echo a > /d/a\nRUN rm -r /d && echo x > /d\n",
        ),
        case(
            "file-becomes-a-directory",
            "F6",
            "FROM alpine\nRUN echo x > /d\nRUN rm /d && mkdir /d && echo a > /d/a\n",
        ),
        case(
            "renamed-directory",
            "F6",
            "FROM alpine\nRUN mkdir -p /d/e && echo a > /d/e/a\nRUN mv /d /n\n",
        ),
        case(
            "only-a-mode",
            "F4",
            "FROM alpine\nRUN mkdir /d && echo a > /d/a\nRUN chmod 600 /d/a\n",
        ),
        case(
            "only-a-mode-of-a-directory",
            "F4",
            "FROM alpine\nRUN mkdir /d && echo a > /d/a\nRUN chmod 700 /d\n",
        ),
        case(
            "only-an-owner",
            "F4",
            "FROM alpine\nRUN mkdir /d && echo a > /d/a\nRUN chown -R 5:6 /d\n",
        ),
        case("nothing-changes", "F11", "FROM alpine\nRUN true\nRUN mkdir /x && rmdir /x\n"),
        case(
            "layers-that-are-alike",
            "F11",
            "FROM alpine AS one\nRUN true\nFROM one AS two\nRUN mkdir /x && rmdir /x\n\
             FROM two\nRUN true\nRUN echo changed > /changed\n",
        ),
    ]
}

fn kinds_of_files() -> Vec<Case> {
    vec![
        case(
            "links-in-layers",
            "F6",
            "FROM alpine\nRUN echo a > /a && ln /a /b && ln -s a /c && mkdir /d && ln /a /d/e\n",
        ),
        case("hard-link-to-a-lower-file", "F6", "FROM alpine\nRUN echo a > /a\nRUN ln /a /b\n"),
        case(
            "devices-and-fifos",
            "F6",
            "FROM alpine\nRUN mknod /n c 1 3 && mknod /b b 7 0 && mkfifo /f && chmod 640 /f\n",
        ),
        case(
            "special-modes",
            "F4",
            "FROM alpine\nRUN touch /s && chmod 6755 /s && mkdir /t && chmod 1777 /t\n",
        ),
        case("capabilities-of-files", "F7", "FROM alpine\nRUN touch /plain\n"),
        case(
            "long-paths",
            "F12",
            "FROM alpine\nRUN n=$(printf 'n%.0s' $(seq 1 120)); mkdir -p /$n/$n && echo x > /$n/$n/$n && ln -s $n/$n /l\n",
        ),
        case(
            "many-files",
            "F12",
            "FROM alpine\nRUN mkdir /m && for i in $(seq 1 300); do echo $i > /m/f$i; done\nRUN rm /m/f1*\n",
        ),
        case(
            "overwritten-by-copy",
            "F6",
            "FROM alpine\nRUN mkdir /d && echo old > /d/one\nCOPY dir /d\nRUN rm -r /d/sub\n",
        ),
        case(
            "removed-and-made-again",
            "F6",
            "FROM alpine\nRUN echo a > /a\nRUN rm /a\nRUN echo b > /a\n",
        ),
        case(
            "unicode-in-layers",
            "F12",
            "FROM alpine\nRUN echo x > /ünï && mkdir '/a b' && echo y > '/a b/c d'\n",
        ),
        case(
            "sparse-file",
            "F6",
            "FROM alpine\nRUN dd if=/dev/zero of=/s bs=1 count=1 seek=1048575 2>/dev/null\n",
        ),
        case("attributes-of-made-files", "F7", "FROM alpine\nRUN touch /x && setfattr -n user.note -v kept /x 2>/dev/null || true\n"),
        case("times-in-layers", "F8", "FROM alpine\nRUN touch -d '2001-02-03 04:05:06' /x && mkdir /d && touch -d '2001-02-03 04:05:06' /d\n").with_times().newer(&["file etc: time"]),
        case("whiteout-of-a-base-file", "F2", "FROM alpine\nRUN rm /etc/os-release\n"),
        case("empty-directories", "F3", "FROM alpine\nRUN mkdir -p /a/b/c\nRUN rmdir /a/b/c\n"),
    ]
}
