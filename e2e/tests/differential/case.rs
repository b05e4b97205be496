//! What is built on both sides.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

/// One build.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    /// Its name: `[a-z0-9-]`.
    pub(crate) name: &'static str,
    /// The rules that it is about, as numbered in `docs/dockerfile-rules.md`, or a theme: 1.1 lines
    /// and words, 1.2 directives, 1.3 variables, 1.4 instructions, 1.6 heredocs, 1.7 contexts.
    pub(crate) rules: &'static str,
    pub(crate) dockerfile: String,
    /// Flags of the command line, the same for both; `{context}` is the context's directory.
    /// Words in braces stand for places as in the Dockerfile.
    pub(crate) arguments: Vec<String>,
    /// The main context, where it is elsewhere.
    pub(crate) context: Option<&'static str>,
    /// More files of the context, and changes to it: a shell script.
    pub(crate) prepare: &'static str,
    /// And what a script cannot do.
    pub(crate) finish: Option<fn(&Path) -> std::io::Result<()>>,
    pub(crate) expected: Expected,
    /// Beginnings of the lines that may differ, and why.
    pub(crate) differences: Vec<(&'static str, &'static str)>,
    /// Whether times of files are compared too.
    pub(crate) times: bool,
    /// Why the engine is not asked, where it is not.
    pub(crate) alone: Option<&'static str>,
}

/// What both sides come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    /// Equal images.
    Image,
    /// Both fail; Slipway names this line and says this.
    Failure { line: u32, says: &'static str },
    /// These files are in Slipway's image, each as [`crate::compare::listed`] writes it, and with a
    /// `!` before it a path is not.
    Ours(&'static [&'static str]),
}

pub(crate) fn case(name: &'static str, rules: &'static str, dockerfile: &str) -> Case {
    Case {
        name,
        rules,
        dockerfile: dockerfile.to_owned(),
        arguments: Vec::new(),
        context: None,
        prepare: "",
        finish: None,
        expected: Expected::Image,
        differences: Vec::new(),
        times: false,
        alone: None,
    }
}

impl Case {
    pub(crate) fn args(mut self, arguments: &[&str]) -> Self {
        self.arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        self
    }

    pub(crate) fn context(mut self, address: &'static str) -> Self {
        self.context = Some(address);
        self
    }

    pub(crate) fn prepare(mut self, script: &'static str) -> Self {
        self.prepare = script;
        self
    }

    pub(crate) fn finish(mut self, finish: fn(&Path) -> std::io::Result<()>) -> Self {
        self.finish = Some(finish);
        self
    }

    pub(crate) fn fails(mut self, line: u32, says: &'static str) -> Self {
        self.expected = Expected::Failure { line, says };
        self
    }

    pub(crate) fn ours(mut self, because: &'static str, files: &'static [&'static str]) -> Self {
        self.expected = Expected::Ours(files);
        self.alone(because)
    }

    pub(crate) fn alone(mut self, because: &'static str) -> Self {
        self.alone = Some(because);
        self
    }

    /// Lines that differ because this BuildKit (0.13) is older than the one that the rules were read
    /// from: there it is as here.
    pub(crate) fn newer(mut self, lines: &[&'static str]) -> Self {
        let reason = "this BuildKit is older than the reference";
        self.differences.extend(lines.iter().map(|line| (*line, reason)));
        self
    }

    pub(crate) fn differs(mut self, line: &'static str, reason: &'static str) -> Self {
        self.differences.push((line, reason));
        self
    }

    pub(crate) fn with_times(mut self) -> Self {
        self.times = true;
        self
    }

    /// Makes its context in an empty directory. `places` is what words in braces stand for
    /// in the Dockerfile.
    pub(crate) fn write(&self, directory: &Path, places: &[(&str, &str)]) -> anyhow::Result<()> {
        let at = |name: &str| directory.join(name);
        for name in ["dir/sub", "empty", "tree/x/y", "tree/z"] {
            std::fs::create_dir_all(at(name))?;
        }
        for (name, content) in [
            ("a.txt", "alpha\n"),
            ("b.txt", "beta\n"),
            ("c.md", "gamma\n"),
            ("dir/one", "1\n"),
            ("dir/two", "2\n"),
            ("dir/sub/three", "3\n"),
            ("tree/x/y/deep", "deep\n"),
            ("tree/z/flat", "flat\n"),
            ("with space", "space\n"),
            ("ünï", "unicode\n"),
            ("run.sh", "#!/bin/sh\necho run\n"),
        ] {
            std::fs::write(at(name), content)?;
        }
        std::fs::set_permissions(at("run.sh"), std::fs::Permissions::from_mode(0o755))?;
        symlink("a.txt", at("link"))?;
        symlink("dir", at("dirlink"))?;
        symlink("nowhere", at("dangling"))?;
        let script = format!("set -e; umask 022; {}", self.prepare);
        let status = Command::new("sh").args(["-c", &script]).current_dir(directory).status()?;
        anyhow::ensure!(status.success(), "{}: the context cannot be made", self.name);
        if let Some(finish) = self.finish {
            finish(directory)?;
        }
        // The same for both, and in the past. BuildKit takes a file of the same name, size and time
        // for the one that it has seen in another case.
        let hash = self
            .name
            .bytes()
            .fold(0_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte)));
        let time = format!("@{}", 1_500_000_000 + hash % 100_000_000);
        // Those of directories that it has seen it spoils when they differ.
        for (kind, time) in [("!", time.as_str()), ("", "@1400000000")] {
            let touched = Command::new("find")
                .arg(directory)
                .args(kind.split_inclusive('!').chain(["-type", "d"]))
                .args(["-exec", "touch", "-h", "-d", time, "{}", "+"])
                .status()?;
            anyhow::ensure!(touched.success(), "{}: times cannot be set", self.name);
        }
        let mut dockerfile = self.dockerfile.clone();
        for (word, place) in places {
            dockerfile = dockerfile.replace(word, place);
        }
        std::fs::write(at("Dockerfile"), dockerfile)?;
        Ok(())
    }
}
